package iptables

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

func TestRenderLikeIsRender(t *testing.T) {
	members := func(addrs ...string) []policy.Member {
		var all []policy.Member
		for _, a := range addrs {
			all = append(all, policy.Member{Addr: policy.AddrOf(netip.MustParseAddr(a))})
		}
		return all
	}
	before := members("10.0.0.1", "10.0.0.2", "fd00::1")
	for name, tt := range map[string]struct {
		after        []policy.Member
		shared4, all bool
	}{
		"nothing changed":          {members("10.0.0.1", "10.0.0.2", "fd00::1"), true, true},
		"the other family changed": {members("10.0.0.1", "10.0.0.2", "fd00::2"), true, false},
		"one more":                 {members("10.0.0.1", "10.0.0.2", "10.0.0.3"), false, false},
		"one fewer":                {members("10.0.0.1"), false, false},
		"another one":              {members("10.0.0.1", "10.0.0.3"), false, false},
		"none":                     {nil, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			for _, f := range Families {
				entries := func(m []policy.Member, like []Entry) []Entry { return ownEntries(ofFamily(f, m), like) }
				have := entries(before, nil)
				want, got := entries(tt.after, nil), entries(tt.after, have)
				if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
					t.Errorf("%s (-without +with what there was):\n%s", f, diff)
				}
				shared := len(got) > 0 && &got[0] == &have[0]
				if should := f == IPv4 && tt.shared4 || f == IPv6 && tt.all; shared != should {
					t.Errorf("%s: shared: %v, want %v", f, shared, should)
				}
			}
		})
	}
}
