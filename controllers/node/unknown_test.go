package node

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

func prefixes(texts ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

func TestWhichRangesAreClosed(t *testing.T) {
	named, given := prefixes("10.1.0.0/24", "fd00::/64"), prefixes("10.9.0.0/26")
	for _, c := range []struct {
		name  string
		state closing
		named []netip.Prefix
		want  []netip.Prefix
	}{
		{"they are not to be", closing{}, named, nil},
		{"those of the Node", closing{UnknownPods: UnknownPods{Drop: true}}, named, named},
		{"the Node has none", closing{UnknownPods: UnknownPods{Drop: true}}, nil, nil},
		{"the Node is gone, and had some", closing{UnknownPods: UnknownPods{Drop: true}, known: named}, nil, named},
		{"the Node has others now", closing{UnknownPods: UnknownPods{Drop: true}, known: given}, named, named},
		{"a flag gives them", closing{UnknownPods: UnknownPods{Drop: true, Ranges: given}}, named, given},
		{"the kernel cannot", closing{UnknownPods: UnknownPods{Drop: true, Unable: "no module", Ranges: given}}, named, nil},
	} {
		same := cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
		if diff := cmp.Diff(c.want, c.state.ranges(c.named), same); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
		c.state.Drop, c.state.Unable = true, ""
		if diff := cmp.Diff(c.state.ranges(c.named), c.state.own(c.named), same); diff != "" {
			t.Errorf("%s: its own ranges are those that would be closed (-closed +own):\n%s", c.name, diff)
		}
	}
}

func TestWhatIsSaidOfUnknownPods(t *testing.T) {
	one := policy.Some{Count: 1, First: netip.MustParseAddr("10.1.0.9")}
	for _, c := range []struct {
		name   string
		pods   UnknownPods
		ranges []netip.Prefix
		found  policy.Concerns
		want   string // status and reason
	}{
		{"they are allowed", UnknownPods{}, nil, policy.Concerns{}, ""},
		{"they are dropped", UnknownPods{Drop: true}, prefixes("10.1.0.0/24"), policy.Concerns{}, "True Dropped"},
		{"no range is known", UnknownPods{Drop: true}, nil, policy.Concerns{}, "False NoPodRange"},
		{"the kernel cannot", UnknownPods{Drop: true, Unable: "no module"}, nil, policy.Concerns{}, "False KernelLacks"},
		{"pods lie outside", UnknownPods{Drop: true}, prefixes("10.2.0.0/24"), policy.Concerns{Outside: one}, "False PodsOutside"},
		{"pods of others lie within", UnknownPods{Drop: true}, prefixes("10.1.0.0/24"), policy.Concerns{Strange: one, Outside: one}, "False PodsOfOthers"},
	} {
		state, got := closing{UnknownPods: c.pods}, ""
		if condition := state.condition(c.ranges, c.found); condition != nil {
			got = string(condition.Status) + " " + condition.Reason
			if condition.Message == "" {
				t.Errorf("%s: it says nothing more than %s", c.name, got)
			}
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
