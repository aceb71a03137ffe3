package policy_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// says is what is affected, as "any -> 10.0.0.1; 10.0.9.1 -> any, urgent".
func says(a policy.Affected) string {
	text := func(e policy.End) string {
		if e.Any {
			return "any"
		}
		return strings.Trim(fmt.Sprint(e.Addrs), "[]")
	}
	var all []string
	for _, b := range a.Between {
		all = append(all, text(b.Sources)+" -> "+text(b.Destinations))
	}
	if a.All {
		all = append(all, "all")
	}
	slices.Sort(all)
	said := strings.Join(all, "; ")
	if a.Urgent {
		said += ", urgent"
	}
	return said
}

func setOf(addrs ...netip.Addr) (s policy.Set) {
	s.Kind = policy.Addresses
	for _, a := range addrs {
		s.Members = s.Members.Edited(nil, []policy.Member{{Addr: policy.AddrOf(a)}})
	}
	return s
}

// changed is a copy of twoPods that act has changed, without memory in common.
func changed(act func(n *policy.Node)) *policy.Node {
	n := twoPods()
	act(n)
	return n
}

// TestWhatAChangeAffects: web is reached on a port from the set "peer", and db opens connections to it.
func TestWhatAChangeAffects(t *testing.T) {
	withAction := func(a policy.Action, members ...netip.Addr) func(n *policy.Node) {
		return func(n *policy.Node) {
			n.Policies[0].Stage, n.Policies[0].Rules[policy.Ingress][0].Action = policy.AdminRules, a
			n.Endpoints[1].Applies[policy.Ingress] = [len(policy.Stages)][]int{policy.AdminRules: {0}}
			n.Endpoints = n.Endpoints[1:]
			n.Sets = n.Sets.With("peer", setOf(members...))
		}
	}
	namedPort := func(d policy.Direction, members ...netip.Addr) func(n *policy.Node) {
		return func(n *policy.Node) {
			p := &n.Policies[d].Rules[d][0]
			p.Peer, p.Ports = policy.Peer{Kind: policy.AnyPeer}, policy.Ports{Kind: policy.InPorts, Set: "ports", Protocol: policy.TCP}
			s := policy.Set{Kind: policy.AddressPorts}
			for _, a := range members {
				s.Members = s.Members.Edited(nil, []policy.Member{{Addr: policy.AddrOf(a), Protocol: policy.TCP, Port: 80}})
			}
			n.Sets = n.Sets.With("ports", s)
		}
	}
	peers := func(addrs ...netip.Addr) func(*policy.Node) {
		return func(n *policy.Node) { n.Sets = n.Sets.With("peer", setOf(addrs...)) }
	}
	closed := func(known ...netip.Addr) func(*policy.Node) {
		return func(n *policy.Node) {
			n.Closed = policy.Closed{Ranges: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}, Known: "known"}
			n.Sets = n.Sets.With("known", setOf(known...))
		}
	}
	shut := func(addrs ...netip.Addr) func(*policy.Node) {
		return func(n *policy.Node) { n.Shut, n.Sets = "shut", n.Sets.With("shut", setOf(addrs...)) }
	}
	inDoubt := func(held ...netip.Addr) func(*policy.Node) {
		return func(n *policy.Node) {
			n.Policies[0].Rules[policy.Ingress] = slices.Clone(n.Policies[0].Rules[policy.Ingress])
			n.Policies[0].Rules[policy.Ingress][0].InDoubt, n.Held = true, setOf(held...).Members
		}
	}
	same := func(*policy.Node) {}
	for _, c := range []struct {
		name          string
		before, after func(*policy.Node)
		want          string
	}{
		{"nothing", same, same, ""},
		{"a peer goes", peers(peer, other), peers(peer), "10.0.0.2 -> 10.0.9.2; 10.0.9.2 -> 10.0.0.1"},
		{"a peer goes in both families", same, peers(), "10.0.0.2 -> 10.0.9.1; 10.0.9.1 -> 10.0.0.1; fd00:9::1 -> fd00::1"},
		{"a peer goes that another set has", peers(peer, other), func(n *policy.Node) { peers(peer)(n); n.Sets = n.Sets.With("another", setOf(other)) },
			"10.0.0.2 -> 10.0.9.2; 10.0.9.2 -> 10.0.0.1, urgent"},
		{"a peer goes that is a pod of this node", peers(db), peers(), "10.0.0.2 -> 10.0.0.1 10.0.0.2, urgent"},
		{"a peer comes", peers(peer), peers(peer, other), ""},
		{"one goes for another", peers(peer), peers(other), "10.0.0.2 -> 10.0.9.1; 10.0.9.1 -> 10.0.0.1"},

		{"one that is denied comes", withAction(policy.Deny), withAction(policy.Deny, other), "10.0.9.2 -> 10.0.0.1, urgent"},
		{"one that is denied goes", withAction(policy.Deny, other), withAction(policy.Deny), ""},
		{"one that passes comes", withAction(policy.Pass), withAction(policy.Pass, other), "10.0.9.2 -> 10.0.0.1, urgent"},
		{"one that passes goes", withAction(policy.Pass, other), withAction(policy.Pass), "10.0.9.2 -> 10.0.0.1"},
		{"one goes that an audited policy accepts", func(n *policy.Node) { n.Policies[0].Audit, n.Policies[1].Audit = true, true },
			func(n *policy.Node) { n.Policies[0].Audit, n.Policies[1].Audit = true, true; peers()(n) }, ""},
		{"one goes of a policy that applies to nobody", func(n *policy.Node) { n.Endpoints = nil }, func(n *policy.Node) { n.Endpoints = nil; peers()(n) }, ""},

		{"a named port of the endpoint goes", namedPort(policy.Ingress, web), namedPort(policy.Ingress), "any -> 10.0.0.1, urgent"},
		{"a named port of another pod goes", namedPort(policy.Ingress, web, db), namedPort(policy.Ingress, web), ""},
		{"a named port at the other end goes", namedPort(policy.Egress, peer), namedPort(policy.Egress), "10.0.0.2 -> 10.0.9.1, urgent"},

		{"a rule goes", same, func(n *policy.Node) { n.Policies[0].Rules[policy.Ingress] = nil }, "any -> 10.0.0.1 fd00::1, urgent"},
		{"a rule goes in the other direction", same, func(n *policy.Node) { n.Policies[1].Rules[policy.Egress] = nil }, "10.0.0.2 -> any, urgent"},
		{"a rule comes", func(n *policy.Node) { n.Policies[0].Rules[policy.Ingress] = nil }, same, ""},
		{"a policy is enforced that was audited", func(n *policy.Node) { n.Policies[1].Audit = true }, same, "10.0.0.2 -> any, urgent"},
		{"an endpoint comes", func(n *policy.Node) { n.Endpoints = n.Endpoints[1:] }, same, "10.0.0.2 -> any, urgent"},
		{"an endpoint goes", same, func(n *policy.Node) { n.Endpoints = n.Endpoints[1:] }, ""},
		{"an endpoint has an address more", func(n *policy.Node) { n.Endpoints[1].Addrs = n.Endpoints[1].Addrs[:1] }, same, "any -> fd00::1, urgent"},
		{"rules that are asked in their order change it", func(n *policy.Node) {
			withAction(policy.Deny, peer)(n)
			r := n.Policies[0].Rules[policy.Ingress][0]
			r.Action = policy.Accept
			n.Policies[0].Rules[policy.Ingress] = append(n.Policies[0].Rules[policy.Ingress], r)
		}, func(n *policy.Node) {
			withAction(policy.Deny, peer)(n)
			r := n.Policies[0].Rules[policy.Ingress][0]
			r.Action = policy.Accept
			n.Policies[0].Rules[policy.Ingress] = append([]policy.Rule{r}, n.Policies[0].Rules[policy.Ingress]...)
		}, "any -> 10.0.0.1 fd00::1, urgent"},

		{"a known address goes", closed(web, db), closed(web), "10.0.0.2 -> any; any -> 10.0.0.2, urgent"},
		{"a known address comes", closed(web), closed(web, db), ""},
		{"a range is closed", same, closed(web, db), "all, urgent"},
		{"a range is open again", closed(web, db), same, ""},
		{"an address is shut", shut(web), shut(web, db), "10.0.0.2 -> any; any -> 10.0.0.2, urgent"},
		{"the first address is shut", same, shut(db), "10.0.0.2 -> any; any -> 10.0.0.2, urgent"},
		{"an address is shut no more", shut(web, db), shut(web), ""},
		{"addresses of one link are held", same, func(n *policy.Node) { n.LinkLocalHeld = true }, "all, urgent"},
		{"a rule is in doubt no more", inDoubt(db, web), same, "any -> 10.0.0.1 fd00::1, urgent"},
		{"a pod comes to be known while a rule is in doubt", inDoubt(db, web), inDoubt(db, web, other), "10.0.9.2 -> any; any -> 10.0.9.2, urgent"},
		{"a pod goes while a rule is in doubt", inDoubt(db, web, other), inDoubt(db, web), ""},
		{"addresses of one link are held no more", func(n *policy.Node) { n.LinkLocalHeld = true }, same, ""},
	} {
		if got := says(policy.AffectedBy(changed(c.before), changed(c.after))); got != c.want {
			t.Errorf("%s: %q is affected, want %q", c.name, got, c.want)
		}
	}
	if got := says(policy.AffectedBy(nil, twoPods())); got != "all, urgent" {
		t.Errorf("from nobody knows what: %q is affected", got)
	}
}

// TestWhoIsStillThereIsUrgent: an address that leaves a set is gone unless somebody knows it.
func TestWhoIsStillThereIsUrgent(t *testing.T) {
	before, after := changed(func(n *policy.Node) { n.Sets = n.Sets.With("peer", setOf(peer, other)) }), changed(func(n *policy.Node) { n.Sets = n.Sets.With("peer", setOf(peer)) })
	for _, held := range []bool{true, false} {
		got := new(policy.Namers).AffectedBy(policy.Step{Before: before, After: after, Held: func(a netip.Addr) bool { return held && a == other }})
		if got.Urgent != held {
			t.Errorf("an address that leaves a set, and is known all the same: %t: %q", held, says(got))
		}
	}
}

// TestManyLostAddressesAreUrgent: nobody looks through all sets for each of very many.
func TestManyLostAddressesAreUrgent(t *testing.T) {
	for n, want := range map[int]bool{1: false, 16: false, 17: true} {
		var many []netip.Addr
		for i := range n {
			many = append(many, netip.AddrFrom4([4]byte{10, 0, 9, byte(10 + i)}))
		}
		got := policy.AffectedBy(changed(func(n *policy.Node) { n.Sets = n.Sets.With("peer", setOf(many...)) }), changed(func(n *policy.Node) { n.Sets = n.Sets.With("peer", setOf()) }))
		if got.Urgent != want || len(got.Between) != 2 || len(got.Between[0].Sources.Addrs) != n {
			t.Errorf("%d addresses leave a set: %q", n, says(got))
		}
	}
}

// TestAffectedConnectionsAddUp: what several changes affect is united as far as it has an end in common, and becomes all if it is too much to tell apart.
func TestAffectedConnectionsAddUp(t *testing.T) {
	gone := func(addrs ...netip.Addr) policy.Affected {
		return policy.AffectedBy(changed(func(n *policy.Node) { n.Sets = n.Sets.With("peer", setOf(append([]netip.Addr{peer}, addrs...)...)) }),
			changed(func(n *policy.Node) { n.Sets = n.Sets.With("peer", setOf(peer)) }))
	}
	first, second := netip.MustParseAddr("10.0.9.10"), netip.MustParseAddr("10.0.9.11")
	both := gone(first).With(gone(second))
	if got, want := says(both), "10.0.0.2 -> 10.0.9.10 10.0.9.11; 10.0.9.10 10.0.9.11 -> 10.0.0.1"; got != want {
		t.Errorf("two pods that go, one after the other: %q, want %q", got, want)
	}
	urgent := policy.AffectedBy(twoPods(), changed(func(n *policy.Node) { n.Policies[1].Rules[policy.Egress] = nil }))
	if got := both.With(urgent); !got.Urgent || !got.Has(db, other) || !got.Has(second, web) || got.Has(other, web) {
		t.Errorf("and a rule that goes: %q", says(got))
	}
	if got := says((policy.Affected{}).With(both)); got != says(both) {
		t.Errorf("behind none: %q", got)
	}
	var all policy.Affected
	for i := range 65 {
		from, to := netip.AddrFrom4([4]byte{10, 1, 0, byte(i)}), netip.AddrFrom4([4]byte{10, 2, 0, byte(i)})
		one := policy.Affected{Between: []policy.Between{{Sources: policy.End{Addrs: []netip.Addr{from}}, Destinations: policy.End{Addrs: []netip.Addr{to}}}}}
		if all = all.With(one); all.All != (i == 64) || all.Urgent || !all.Has(from, to) {
			t.Fatalf("%d: %q", i, says(all))
		}
	}
}
