package iptables

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// A set is found as the entries say that were read, and stands in the memory of the known one where it has all that this has.
func TestWhatIsFoundIsWhatWasRead(t *testing.T) {
	entries := func(addrs ...string) []Entry {
		var all []Entry
		for _, a := range addrs {
			all = append(all, Entry{Prefix: policy.AddrOf(netip.MustParseAddr(a)).Whole()})
		}
		return all
	}
	before := entries("10.0.0.1", "10.0.0.2", "fd00::1")
	for name, tt := range map[string]struct {
		after        []Entry
		shared4, all bool
	}{
		"nothing changed":          {entries("10.0.0.1", "10.0.0.2", "fd00::1"), true, true},
		"the other family changed": {entries("10.0.0.1", "10.0.0.2", "fd00::2"), true, false},
		"one more":                 {entries("10.0.0.1", "10.0.0.2", "10.0.0.3"), false, false},
		"one fewer":                {entries("10.0.0.1"), false, false},
		"another one":              {entries("10.0.0.1", "10.0.0.3"), false, false},
		"none":                     {nil, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			for _, f := range Families {
				for _, kind := range []SetType{HashIP, HashNet} {
					own := func(all []Entry) []Entry {
						return slices.DeleteFunc(slices.Clone(all), func(e Entry) bool { return FamilyOf(e.Prefix.Addr()) != f })
					}
					empty := Set{Name: "s", Type: kind, Family: f}
					have := empty.Holding(own(before))
					want, got := empty.Holding(own(tt.after)), have.Now(empty, own(tt.after))
					if diff := cmp.Diff(want.String(), got.String()); diff != "" {
						t.Errorf("%s %s (-want +with what there was):\n%s", kind, f, diff)
					}
					shared := got.Len() > 0 && got.isOne(have)
					if should := f == IPv4 && tt.shared4 || f == IPv6 && tt.all; shared != should {
						t.Errorf("%s %s: shared: %v, want %v", kind, f, shared, should)
					}
				}
			}
		})
	}
}
