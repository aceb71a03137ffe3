package dataplane

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/test/kit"
)

// linkNode is a node with two pods that are tied to their links, one of them shut.
func linkNode(links ...policy.Link) iptables.Ruleset {
	return iptables.Render(policy.Node{Links: links}, iptables.Options{Families: iptables.Families[:], Table: securityTable, Guards: true, NFLogGroup: 5})
}

func TestGuardsReadBackAsTheyWereWritten(t *testing.T) {
	onEach(t, func(t *testing.T, s subject) {
		_, fake := s.(*Fake)
		if !fake {
			run(t, "ip", "link", "add", "pod1", "type", "veth", "peer", "name", "peer1")
			run(t, "ip", "link", "add", "pod2", "type", "veth", "peer", "name", "peer2")
		}
		first := policy.Link{Name: "pod1", Index: 2, Namespace: "ns", Pod: "a", Addrs: kit.Addrs("10.0.0.1", "fd00::1"), Bridged: true, Isolated: true}
		second := policy.Link{Name: "pod2", Index: 4, Namespace: "ns", Pod: "b"}
		more := first
		more.Addrs = kit.Addrs("10.0.0.1", "169.254.172.2", "fd00::1")
		for _, links := range [][]policy.Link{{first}, {first, second}, {more, second}, {second}, {}} {
			want := linkNode(links...)
			have, err := s.Observe(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Apply(t.Context(), iptables.Diff(want, have)); err != nil {
				t.Fatal(err)
			}
			if have, err = s.Observe(t.Context()); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff("", iptables.Diff(want, have).String()); diff != "" {
				t.Errorf("after %d links the kernel holds something else (-want +got):\n%s", len(links), diff)
			}
		}
	})
}

// What somebody else does to guards is seen, whatever it is, and made good.
func TestGuardsAreRepaired(t *testing.T) {
	link := policy.Link{Name: "pod1", Index: 2, Namespace: "ns", Pod: "a", Addrs: kit.Addrs("10.0.0.1", "fd00::1"), Bridged: true, Isolated: true}
	want := linkNode(link)
	for name, breakIt := range map[string][]string{
		"a rule in front":         {"insert", "rule", "netdev", iptables.GuardTable, "in-pod1", "accept"},
		"a rule behind":           {"add", "rule", "netdev", iptables.GuardTable, "no-pod1", "accept"},
		"a chain flushed":         {"flush", "chain", "netdev", iptables.GuardTable, "nd-pod1"},
		"a shared chain flushed":  {"flush", "chain", "netdev", iptables.GuardTable, "first"},
		"the table gone":          {"delete", "table", "netdev", iptables.GuardTable},
		"the table flushed":       {"flush", "table", "netdev", iptables.GuardTable},
		"all of nftables flushed": {"flush", "ruleset"},
		"an address more":         {"add", "element", "bridge", iptables.GuardTable, "to4", `{ 10.0.0.9 . "pod1" }`},
		"a port less":             {"delete", "element", "bridge", iptables.GuardTable, "ports", `{ "pod1" }`},
		"a rule in the bridge":    {"insert", "rule", "bridge", iptables.GuardTable, "forward", "accept"},
		"the bridge's table gone": {"delete", "table", "bridge", iptables.GuardTable},
	} {
		t.Run(name, func(t *testing.T) {
			enterNamespace(t)
			d := newDataplane(t, Legacy)
			run(t, "ip", "link", "add", "pod1", "type", "veth", "peer", "name", "peer1")
			none, err := d.Observe(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := d.Apply(t.Context(), iptables.Diff(want, none)); err != nil {
				t.Fatal(err)
			}
			run(t, append([]string{"nft"}, breakIt...)...)
			broken, err := d.Observe(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			repair := iptables.Diff(want, broken)
			if repair.Empty() {
				t.Fatal("nobody has noticed")
			}
			if err := d.Apply(t.Context(), repair); err != nil {
				t.Fatal(err)
			}
			after, err := d.Observe(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff("", iptables.Diff(want, after).String()); diff != "" {
				t.Errorf("it was not made good (-want +got):\n%s", diff)
			}
		})
	}
}
