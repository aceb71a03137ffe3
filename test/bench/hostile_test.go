package bench

import (
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/dataplane"
	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/lab/topology"
	"github.com/ringfence-io/ringfence/test/gen"
	"github.com/ringfence-io/ringfence/test/kit"
)

// hostilePods is how many pods of this node a hostile tenant has.
const hostilePods = 100

// hostileChanges is how often another tenant's pod comes while the hostile objects are there.
const hostileChanges = 25

// withTenant adds a hostile tenant's pods to a cluster. Its objects are not there yet.
func withTenant(s compile.Snapshot) compile.Snapshot {
	s.Namespaces = s.Namespaces.With(&compile.Namespace{Name: gen.HostileNamespace, Labels: compile.NewLabels(map[string]string{"tenant": "hostile"})})
	ports := make([]compile.NamedPort, 200)
	for i := range ports {
		ports[i] = compile.NamedPort{Name: fmt.Sprintf("p%d", i), Protocol: policy.TCP, Port: uint16(1000 + i)}
	}
	for i := range hostilePods {
		s = s.WithPods(&compile.Pod{
			Namespace: gen.HostileNamespace, Name: fmt.Sprint(i), UID: fmt.Sprint("hostile-", i), Node: "here", Ports: ports,
			Labels: compile.NewLabels(map[string]string{"app": "hostile", "n": fmt.Sprint(i)}),
			Addrs:  []netip.Addr{netip.AddrFrom4([4]byte{10, 198, 0, byte(i)})},
		})
	}
	return s
}

// planner is an enforcer without a kernel: what it finds wanted is in force.
type planner struct {
	compiler compile.Compiler
	renderer iptables.Renderer
	held     iptables.Ruleset
	problems []compile.Problem
}

// sync returns what the kernel would have been told, and how long it took to find that out.
func (p *planner) sync(s compile.Snapshot) (iptables.Plan, time.Duration) {
	start := time.Now()
	node, problems := p.compiler.Compile(s)
	want := p.renderer.Render(node, everything, p.held)
	plan := iptables.Diff(want, p.held)
	p.held, p.problems = want, problems
	return plan, time.Since(start)
}

// cost is what a snapshot asks of a node.
type cost struct {
	first, change float64 // ms of a sync: of the one that finds it, and of one in which another tenant's pod has come or gone
	heap          float64 // MB that stay
	sets, rules   int
	entries       int
	text          int // KB of input of iptables-restore, both families
	refused       int
}

func costOf(s compile.Snapshot) cost {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	p := &planner{}
	plan, took := p.sync(s)
	c := cost{first: milliseconds(took)}
	for _, text := range plan.Restore {
		c.text += len(text) / 1000
	}
	plan = iptables.Plan{}
	runtime.GC() // what the first sync has left is no cost of the next
	var changes sample
	with := s
	with.Remote = s.Remote.With(joining("elsewhere"))
	for range hostileChanges {
		_, came := p.sync(with)
		_, went := p.sync(s)
		changes = append(changes, milliseconds(came), milliseconds(went))
	}
	c.change = changes.median()
	runtime.GC()
	runtime.ReadMemStats(&after)
	c.heap = (float64(after.HeapAlloc) - float64(before.HeapAlloc)) / 1e6
	c.sets = p.held.Sets.Len()
	for _, t := range p.held.Tables {
		for _, rules := range t.Chains.All() {
			c.rules += len(rules)
		}
	}
	for _, set := range p.held.Sets.All() {
		c.entries += set.Len()
	}
	refused := map[policy.Ref]bool{}
	for _, problem := range p.problems {
		if problem.TooLarge {
			refused[problem.Ref] = true
		}
	}
	c.refused = len(refused)
	return c
}

// BenchmarkHostile plays each attack of a tenant with 100 pods on a node against a cluster of 15,000 pods, of 60,000 for two of them, and prints what it
// costs the node in user space, beside what the cluster costs without it.
func BenchmarkHostile(b *testing.B) {
	for _, pods := range []int{15_000, 60_000} {
		base := withTenant(cluster(pods, 1000))
		t := tableOf(fmt.Sprintf("A hostile tenant's objects, %d pods, 1,000 policies of others, 100 pods of the tenant here: with them (without, in turns)", pods),
			"objects", "first sync ms", "sync when another's pod comes ms", "heap MB", "sets", "rules", "entries", "restore KB", "refused")
		for i, a := range gen.Attacks() {
			if pods > 15_000 && i != 4 && i != 10 {
				continue
			}
			s := base
			for _, p := range a.Policies {
				s.Policies = s.Policies.With(p)
			}
			costs := sync.OnceValues(func() (cost, cost) { return costOf(s), costOf(base) }) // whatever b.N
			b.Run(fmt.Sprintf("pods=%d/%s", pods, a.Name), func(b *testing.B) {
				with, without := costs()
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(with.change, "sync-ms")
				b.ReportMetric(with.change/without.change, "of-without")
			})
			with, without := costs()
			t.add(a.Name, pair("%.0f", with.first, without.first), pair("%.2f", with.change, without.change), pair("%.1f", with.heap, without.heap),
				pair("%.0f", float64(with.sets), float64(without.sets)), pair("%.0f", float64(with.rules), float64(without.rules)),
				pair("%.0f", float64(with.entries), float64(without.entries)), pair("%.0f", float64(with.text), float64(without.text)),
				fmt.Sprintf("%d of %d", with.refused, len(a.Policies)))
		}
	}
}

func pair(format string, with, without float64) string {
	return fmt.Sprintf(format+" ("+format+")", with, without)
}

// nobodys are peers that no pod is.
func nobodys(n, first int) []networkingv1.NetworkPolicyPeer {
	var all []networkingv1.NetworkPolicyPeer
	for i := range n {
		all = append(all, networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": fmt.Sprintf("nobody-%d", first+i)}}})
	}
	return all
}

// inTheWay is a node on which a policy of the measured pods stands before the one that lets their connection pass, with so many rules of so many peers, none of
// which matches: what the first packet pays is what one pays that is denied. One that is too large is refused, and in nobody's way.
func inTheWay(rules, peers int) compile.Snapshot {
	s := localPods(110)
	p := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: "a-hostile"}}
	for i := range rules {
		p.Spec.Ingress = append(p.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{From: nobodys(peers, i*peers)})
	}
	s.Policies = s.Policies.With(p)
	return s
}

// BenchmarkHostilePacket measures the first packet of a connection to a pod whose policies are as long as they may be.
func BenchmarkHostilePacket(b *testing.B) {
	kit.NeedNetfilter(b)
	variants := []variant{
		{name: "without"},
		{name: "no hostile policy", enforced: true, snapshot: localPods(110)},
		{name: "1,000 peers in one rule", enforced: true, snapshot: inTheWay(1, 1000)},
		{name: "2,900 peers in one rule (128 KB)", enforced: true, snapshot: inTheWay(1, 2900)},
		{name: "500 rules of a peer each", enforced: true, snapshot: inTheWay(500, 1)},
		{name: "2,000 rules of a peer each (128 KB)", enforced: true, snapshot: inTheWay(2000, 1)},
	}
	header := []string{"back end/node"}
	for _, v := range variants[1:] {
		header = append(header, v.name)
	}
	t := tableOf("Added to the first packet of a connection by policies of its own pod, in ns: median (quartiles)", header...)
	for _, o := range []roadOptions{{backend: dataplane.Legacy, kind: topology.Bridged}, {backend: dataplane.NFT, kind: topology.Bridged}} {
		took, err := measure(b.Context(), o, 2, variants, (*road).sendNew)
		kit.Must(b, err)
		row := []string{o.String()}
		for i, v := range variants[1:] {
			added := took[i+1].minus(took[0])
			row = append(row, added.text("%.0f"))
			report(b, o.String()+"/"+v.name, map[string]float64{"added-ns/connection": added.median()})
		}
		t.add(row...)
	}
}
