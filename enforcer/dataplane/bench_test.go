package dataplane

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/vishvananda/netns"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/test/kit"
)

// What one pod costs that comes and goes, in a set that has many, and what a resync costs that reads everything.
func BenchmarkDataplane(b *testing.B) {
	kit.NeedRoot(b)
	for _, backend := range []string{NFT, Legacy} {
		for _, n := range []int{10, 100, 1000, 10000} {
			b.Run(fmt.Sprintf("%s/add and delete an entry/%d", backend, n), func(b *testing.B) {
				d, many := filled(b, backend, n)
				one := many
				one.Entries = many.Entries[:1]
				for b.Loop() {
					plan := iptables.Plan{AddEntries: []iptables.SetEntries{one}}
					if err := d.Apply(b.Context(), plan); err != nil {
						b.Fatal(err)
					}
					plan = iptables.Plan{DelEntries: []iptables.SetEntries{one}}
					if err := d.Apply(b.Context(), plan); err != nil {
						b.Fatal(err)
					}
				}
			})
			b.Run(fmt.Sprintf("%s/observe/%d", backend, n), func(b *testing.B) {
				d, _ := filled(b, backend, n)
				for b.Loop() {
					if _, err := d.Observe(b.Context()); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// filled is a Dataplane in a network namespace of its own that holds one set of n entries and n rules.
func filled(b *testing.B, backend string, n int) (*Dataplane, iptables.SetEntries) {
	b.Helper()
	runtime.LockOSThread()
	ns, err := netns.New()
	if err != nil {
		b.Fatal(err)
	}
	if err := ns.Close(); err != nil {
		b.Fatal(err)
	}
	b.Setenv("XTABLES_LOCKFILE", filepath.Join(b.TempDir(), "xtables.lock"))
	d, err := New(b.Context(), Options{Backend: backend})
	if err != nil {
		b.Fatal(err)
	}
	s := iptables.Set{Name: "RF-v1-4A-many", Type: iptables.HashIP, Family: iptables.IPv4}
	many := iptables.SetEntries{Set: s.Name, Type: s.Type, Family: s.Family}
	rules := map[string][]iptables.Rule{}
	a := netip.MustParseAddr("10.0.0.0")
	for i := range n {
		a = a.Next()
		e := iptables.Entry{Prefix: policy.PrefixOf(netip.PrefixFrom(a, 32))}
		many.Entries = append(many.Entries, e)
		chain := fmt.Sprintf("RF-%d", i/10)
		rules[chain] = append(rules[chain], iptables.Rule("-s "+e.Prefix.String()+` -p tcp -m tcp --dport 80 -m comment --comment "a rule" -j RETURN`))
	}
	err = d.Apply(b.Context(), iptables.Plan{
		CreateSets: []iptables.Set{s.Holding(many.Entries)},
		Restore:    map[iptables.Family]string{iptables.IPv4: chains(securityTable, rules)},
	})
	if err != nil {
		b.Fatal(err)
	}
	return d, many
}
