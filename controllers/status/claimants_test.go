package status

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ringfence-io/ringfence/enforcer/compile"
)

// TestClaimants: of each pod it is known whether another contests an address of it, and who is to be told when that changes.
func TestClaimants(t *testing.T) {
	pod := func(name, on string, addrs ...string) *compile.Pod {
		p := visible("shop", on, addrs...)
		p.Name, p.UID = name, name
		return p
	}
	going := func(p *compile.Pod) *compile.Pod {
		q := *p
		q.Terminating = true
		return &q
	}
	finished := func(p *compile.Pod) *compile.Pod {
		q := *p
		q.Finished = true
		return &q
	}
	mine, thief, more := pod("mine", "n1", "10.0.0.1", "fd00::1"), pod("thief", "n2", "fd00::1"), pod("more", "n3", "10.0.0.1", "fe80::1")
	twin, link := pod("twin", "n1", "10.0.0.1"), pod("link", "n1", "fe80::1")
	c := newClaimants()
	for _, tt := range []struct {
		name          string
		before, after *compile.Pod
		told          []string
		contested     []string
	}{
		{"the first", nil, mine, nil, nil},
		{"a link-local address", nil, link, nil, nil},
		{"another with one of its addresses", nil, thief, []string{"mine"}, []string{"mine", "thief"}},
		{"a third", nil, more, []string{"mine"}, []string{"mine", "more", "thief"}},
		{"the thief ends", thief, finished(thief), []string{"mine"}, []string{"mine", "more"}},
		{"the thief goes", finished(thief), nil, nil, []string{"mine", "more"}},
		{"the third goes", more, nil, []string{"mine"}, nil},
		{"another of the node", nil, twin, []string{"mine"}, []string{"mine", "twin"}},
		{"which goes", twin, going(twin), []string{"mine"}, nil},
		{"and is gone", going(twin), nil, nil, nil},
		{"it has another address", mine, pod("mine", "n1", "10.0.0.9"), nil, nil},
		{"nobody has the old one", nil, more, nil, nil},
	} {
		var told []string
		for _, p := range c.change(tt.before, tt.after) {
			told = append(told, p.Name)
		}
		if diff := cmp.Diff(tt.told, told); diff != "" {
			t.Errorf("%s: told (-want +got):\n%s", tt.name, diff)
		}
		var contested []string
		for _, a := range []string{"10.0.0.1", "10.0.0.9", "fd00::1", "fe80::1"} {
			for _, p := range c.at(netip.MustParseAddr(a)) {
				if _, ok := c.contests(p); ok && !slices.Contains(contested, p.Name) {
					contested = append(contested, p.Name)
				}
			}
		}
		slices.Sort(contested)
		if diff := cmp.Diff(tt.contested, contested); diff != "" {
			t.Errorf("%s: contested (-want +got):\n%s", tt.name, diff)
		}
	}
}
