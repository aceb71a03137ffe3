package compile

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

func TestWhichAddressesAreKnown(t *testing.T) {
	addrs := func(texts ...string) (all []netip.Addr) {
		for _, text := range texts {
			all = append(all, netip.MustParseAddr(text))
		}
		return all
	}
	pod := func(name, node string, addrs []netip.Addr, change ...func(*Pod)) *Pod {
		p := &Pod{Name: name, UID: name, Node: node, Created: 10, Addrs: addrs}
		for _, f := range change {
			f(p)
		}
		return p
	}
	s := Snapshot{Node: "n1"}.WithPods(
		pod("web", "n1", addrs("10.1.0.1", "fd00::1")),
		pod("terminating", "n1", addrs("10.1.0.2"), func(p *Pod) { p.Terminating = true }),
		pod("finished", "n1", addrs("10.1.0.3"), func(p *Pod) { p.Finished = true }),
		pod("host", "n1", addrs("10.1.0.4"), func(p *Pod) { p.HostNetwork = true }),
		pod("outside", "n1", addrs("10.9.0.5", "10.1.0.5")),
		pod("elsewhere", "n2", addrs("10.1.0.6", "10.2.0.6")),
		pod("robbed", "n1", addrs("10.1.0.7")),
		pod("robber", "n2", addrs("10.1.0.7"), func(p *Pod) { p.Created = 20 }), // another node's pod takes no address from one of this node
	)
	for _, text := range []string{"10.1.0.0/16", "fd00::/64", "10.1.0.0/24"} {
		s.Closed = append(s.Closed, netip.MustParsePrefix(text))
	}
	node, _ := Compile(s)
	same := cmp.Options{
		cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	}
	var known []netip.Addr
	for m := range node.Sets.Get(node.Closed.Known).Members.All() {
		known = append(known, m.Addr.IP())
	}
	if diff := cmp.Diff(addrs("10.1.0.1", "10.1.0.2", "10.1.0.5", "10.1.0.7", "fd00::1"), known, same); diff != "" {
		t.Errorf("known (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]netip.Prefix{s.Closed[0], s.Closed[1]}, node.Closed.Ranges, same); diff != "" {
		t.Errorf("ranges (-want +got):\n%s", diff)
	}
	want := policy.Concerns{Outside: policy.Some{Count: 1, First: addrs("10.9.0.5")[0]}, Strange: policy.Some{Count: 1, First: addrs("10.1.0.6")[0]}}
	if c := node.Concerns.Contested; c.Here != 1 || c.Elsewhere != 0 || len(c.First) != 1 || c.First[0].Holder.Ref.Name != "robbed" {
		t.Errorf("contested are %+v", c)
	}
	node.Concerns.Contested = policy.Contests{}
	if diff := cmp.Diff(want, node.Concerns, same); diff != "" {
		t.Errorf("concerns (-want +got):\n%s", diff)
	}

	s.Closed = s.Closed[:1]
	other, _ := Compile(s)
	if other.Closed.Known == node.Closed.Known {
		t.Error("other ranges have the same set: it would lack addresses at the moment at which rules begin to ask it")
	}
	s.Closed = nil
	if open, _ := Compile(s); open.Sets.Len() > 0 || len(open.Closed.Ranges) > 0 || open.Concerns.Strange.Count > 0 {
		t.Errorf("nothing is to be closed, and there is %+v", open)
	}
}
