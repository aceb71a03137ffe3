package bench

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/vishvananda/netlink"

	"github.com/ringfence-io/ringfence/enforcer"
	"github.com/ringfence-io/ringfence/enforcer/attachment"
	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/dataplane"
	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/lab/host"
	"github.com/ringfence-io/ringfence/lab/topology"
	"github.com/ringfence-io/ringfence/test/kit"
)

// network is a road's node as it would be known if each local pod of a snapshot had a link. The client and the server have; the others get one that leads
// nowhere.
func (r *road) network(s compile.Snapshot) (compile.Network, error) {
	n := compile.Network{SourceCheck: compile.SourceCheckEnforce, Tunnels: []policy.Tunnel{{Protocol: policy.UDP, Port: 8472}}}
	bridged := r.kind == topology.Bridged
	err := r.node.Do(func() error {
		for i, p := range s.Local {
			l := compile.Link{Name: fmt.Sprintf("idle%d", i), Bridged: bridged, Held: p.Addrs}
			for _, real := range []*topology.Pod{r.client, r.server} {
				if real.Addr != p.Addrs[0] {
					continue
				}
				mac, err := real.HardwareAddr()
				if err != nil {
					return err
				}
				l.Name, l.MAC = real.Link(), string(mac)
			}
			link, err := netlink.LinkByName(l.Name)
			if errors.As(err, new(netlink.LinkNotFoundError)) {
				err = netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: l.Name}, PeerName: l.Name + "-"})
				if err == nil {
					link, err = netlink.LinkByName(l.Name)
				}
			}
			if err != nil {
				return fmt.Errorf("giving pod %s a link: %w", p.Name, err)
			}
			l.Index = link.Attrs().Index
			n.Links = append(n.Links, l)
		}
		return nil
	})
	return n, err
}

// guardedSizes are of nodes whose pods are held to their addresses.
var guardedSizes = []int{110, 250}

// BenchmarkGuards measures what holding pods to their addresses adds to a packet: to the first of a connection, and to one of an established flow.
func BenchmarkGuards(b *testing.B) {
	kit.NeedNetfilter(b)
	var variants []variant
	for _, n := range guardedSizes {
		s := localPods(n)
		variants = append(variants, variant{name: fmt.Sprintf("pods=%d", n), enforced: true, snapshot: s},
			variant{name: fmt.Sprintf("pods=%d/guards", n), enforced: true, snapshot: s, guarded: true})
	}
	for _, what := range []struct {
		title, unit string
		visits      int
		send        func(*road) (float64, error)
	}{
		{"The first packet of a connection", "ns/connection", newVisits, (*road).sendNew},
		{"A packet of an established connection", "ns/packet", establishedVisits, (*road).sendEstablished},
	} {
		t := tableOf(what.title+", and what guards add to it, in ns: median (quartiles)",
			"back end/node", "110 isolated pods", "guards add", "per cent", "250 isolated pods", "guards add", "per cent")
		for _, o := range setups() {
			took, err := measure(b.Context(), o, what.visits, variants, what.send)
			kit.Must(b, err)
			row := []string{o.String()}
			for i := range guardedSizes {
				without, added := took[2*i], took[2*i+1].minus(took[2*i])
				row = append(row, without.text("%.0f"), added.text("%.0f"), fmt.Sprintf("%.1f", 100*added.median()/without.median()))
				report(b, fmt.Sprintf("%s/%s", o, variants[2*i+1].name), map[string]float64{"added-" + what.unit: added.median()})
			}
			t.add(row...)
		}
	}
}

// BenchmarkLinks measures, on a node with real pods, how long it takes to find out which link is whose, and what the first sync of an enforcer takes with guards
// and without, and the next, which has nothing to do.
func BenchmarkLinks(b *testing.B) {
	kit.NeedNetfilter(b)
	t := tableOf("Links and syncs, in ms: median (quartiles)", "back end/node", "pods", "links are read", "first sync", "with guards", "next sync", "with guards")
	for _, o := range setups() {
		for _, n := range guardedSizes {
			top, err := topology.New(topology.Options{
				Prefix: fmt.Sprintf("%slinks%d-", host.RunPrefix(hostPrefix), len(t.rows)), Kind: o.kind, Nodes: 1, Backend: o.backend,
			})
			kit.Must(b, err)
			b.Cleanup(func() { kit.Must(b, top.Close()) })
			s := localPods(n)
			for i, p := range s.Local {
				_, err := top.AddPodAt(top.Nodes[0], fmt.Sprintf("%slinks%d-%d", host.RunPrefix(hostPrefix), len(t.rows), i), p.Addrs[0])
				kit.Must(b, err)
			}
			var took linkTimes
			kit.Must(b, top.Nodes[0].Do(func() (err error) {
				took, err = timeLinks(b, o.backend, s)
				return err
			}))
			t.add(o.String(), fmt.Sprint(n), took.links.text("%.1f"), took.first[0].text("%.0f"), took.first[1].text("%.0f"), took.next[0].text("%.0f"),
				took.next[1].text("%.0f"))
			report(b, fmt.Sprintf("%s/pods=%d", o, n), map[string]float64{
				"ms/links": took.links.median(), "ms/first-sync": took.first[1].median(), "ms/first-sync-unguarded": took.first[0].median(),
			})
			kit.Must(b, top.Close())
		}
	}
}

// linkTimes are in milliseconds, of syncs without guards and with them.
type linkTimes struct {
	links       sample
	first, next [2]sample
}

// timeLinks does everything a few times, each time as a new process on a node that has nothing of ours.
func timeLinks(b *testing.B, backend string, s compile.Snapshot) (took linkTimes, err error) {
	for range 5 {
		for i, check := range []compile.SourceCheck{compile.SourceCheckOff, compile.SourceCheckEnforce} {
			plane, err := dataplane.New(b.Context(), dataplane.Options{Backend: backend})
			if err != nil {
				return took, err
			}
			c := plane.Capabilities()
			e := enforcer.New(plane, iptables.Options{
				Families: c.Families, Table: c.Table, SelfMatch: c.SelfMatch, HoldCut: c.HoldCut, Guards: c.Guards, HopLimit: c.HopLimit,
			})
			table := &attachment.Table{Kernel: plane, Check: check, Log: logr.Discard()}
			into := elapsed(func() { err = table.Into(&s) })
			if err != nil {
				return took, err
			}
			if check == compile.SourceCheckEnforce {
				took.links = append(took.links, into)
			}
			for _, times := range []*[2]sample{&took.first, &took.next} {
				times[i] = append(times[i], elapsed(func() { _, err = e.Sync(b.Context(), s, false) }))
				if err != nil {
					return took, err
				}
			}
			if err := plane.Cleanup(b.Context()); err != nil {
				return took, err
			}
		}
	}
	return took, nil
}

// elapsed is how many milliseconds something takes.
func elapsed(f func()) float64 {
	began := time.Now()
	f()
	return milliseconds(time.Since(began))
}
