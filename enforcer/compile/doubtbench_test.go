package compile

import (
	"fmt"
	"net/netip"
	"testing"
)

// BenchmarkInDoubt is a compile of a node with 1,000 policies that name pods of 2,000 namespaces, of which half are not known, and with 100,000 pods that are: for
// each pod elsewhere that changes, where all is known and where it is not; and when that begins and ends.
func BenchmarkInDoubt(b *testing.B) {
	const namespaces, pods, policies = 2000, 100_000, 1000
	s := Snapshot{Node: "here", Elsewhere: Elsewhere{Partial: true}}
	for i := range namespaces {
		name := fmt.Sprintf("ns-%04d", i)
		s.Namespaces = s.Namespaces.With(&Namespace{Name: name, Labels: NewLabels(map[string]string{"name": name, "tenant": fmt.Sprint(i % 50)})})
		if i%2 == 1 {
			s.Elsewhere.Unknown = append(s.Elsewhere.Unknown, name)
		}
	}
	var all []*Pod
	for i := range pods {
		addr := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		all = append(all, &Pod{Namespace: fmt.Sprintf("ns-%04d", i%namespaces/2*2), Name: fmt.Sprint(i), UID: fmt.Sprint(i), Node: "there", Addrs: []netip.Addr{addr}})
	}
	s = s.WithPods(append(all, &Pod{Namespace: "ns-0000", Name: "web", UID: "web", Node: "here", Addrs: []netip.Addr{netip.MustParseAddr("10.200.0.1")}})...)
	for i := range policies {
		o := networkPolicy(fmt.Sprintf(`{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {tenant: "%d"}}}], ports: [{port: %d}]}]}`, i%50, i+1))
		o.NetworkPolicy.Namespace, o.NetworkPolicy.Name = "ns-0000", fmt.Sprint(i)
		s = s.with(o)
	}
	sure := s
	sure.Elsewhere.Unknown = nil
	for name, one := range map[string]Snapshot{"known": sure, "doubt": s} {
		b.Run(name+"/change", func(b *testing.B) {
			var k Compiler
			k.Compile(one)
			for i := range b.N {
				p := *all[i%len(all)]
				p.Labels = NewLabels(map[string]string{"i": fmt.Sprint(i)})
				one.Remote = one.Remote.With(&p)
				k.Compile(one)
			}
		})
	}
	b.Run("begins and ends", func(b *testing.B) {
		var k Compiler
		k.Compile(sure)
		for range b.N {
			k.Compile(s)
			k.Compile(sure)
		}
	})
}
