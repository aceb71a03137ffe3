package bench

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/dataplane"
	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/lab/topology"
	"github.com/ringfence-io/ringfence/lab/twin"
	"github.com/ringfence-io/ringfence/test/kit"
)

// A cluster with tiers: namespaces of which five are one tenant and some fifty one team, all isolated by one NamespaceIsolation, and policies of
// both tiers in turn. One policy in ten has all pods for its subject, the others have one of the teams.
const (
	wideNamespaces   = 500
	namespacesTenant = 5
	wideTeams        = 9
	widePolicies     = 100
	wideRules        = 25 // of a policy, about half for either direction
	podsElsewhere    = 9  // of each namespace
	podsHere         = 110

	somePorts = 10 // that rules with a set each are for, in one variant

	tierVisits = 3
	fromZero   = 3  // applies to an empty kernel
	tierChange = 10 // of each kind
)

// tierOptions say what is in the cluster.
type tierOptions struct {
	policies bool
	// sets has every rule look into a set. Without it all rules but the last are for other ports than the measured connection's, which
	// is seen before any set is looked into.
	sets bool
	// ports has rules with sets be for so many ports in turns, and not for the measured connection's alone.
	ports int
}

// tiered is the cluster to a node with 110 pods of as many namespaces. The client and the server are the last two, of the same tenant. What the
// policies say of their connection is in the last rule of the last one.
func tiered(o tierOptions) compile.Snapshot {
	s := compile.Snapshot{Node: "here"}
	var all []*compile.Pod
	for i := range wideNamespaces {
		ns := fmt.Sprintf("ns-%d", i)
		s.Namespaces = s.Namespaces.With(&compile.Namespace{Name: ns, Labels: compile.NewLabels(map[string]string{
			"kubernetes.io/metadata.name": ns, "tenant": fmt.Sprintf("tenant-%d", i/namespacesTenant), "team": fmt.Sprintf("team-%d", i/namespacesTenant%wideTeams)})})
		if i < podsHere {
			all = append(all, widePod("here", ns, "local", localAddr(i-podsHere)))
		}
		for k := range podsElsewhere {
			n := i*podsElsewhere + k
			all = append(all, widePod("elsewhere", ns, fmt.Sprintf("pod-%d", k), netip.AddrFrom4([4]byte{10, 200, byte(n >> 8), byte(n)})))
		}
	}
	var shared compile.Interner
	for _, p := range all {
		shared.Pod(p)
	}
	s = s.WithPods(all...)
	s.Isolations = []*v1alpha1.NamespaceIsolation{fenceOfTenants()}
	if o.policies {
		for i := range widePolicies {
			s.ClusterPolicies = append(s.ClusterPolicies, widePolicy(i, o))
		}
	}
	return s
}

// widePod is of both families.
func widePod(node, ns, name string, a netip.Addr) *compile.Pod {
	return &compile.Pod{
		Namespace: ns, Name: name, UID: ns + "/" + name, Node: node, Addrs: []netip.Addr{a, twin.Of(a)},
		Labels: compile.NewLabels(map[string]string{"app": name}),
	}
}

func fenceOfTenants() *v1alpha1.NamespaceIsolation {
	n := &v1alpha1.NamespaceIsolation{}
	n.Name, n.Spec.Tier, n.Spec.TenantLabel = "tenants", v1alpha1.BaselineTier, "tenant"
	return n
}

// widePolicy is the i-th policy. Those of a tier are asked in the order of i.
func widePolicy(i int, o tierOptions) *v1alpha1.ClusterNetworkPolicy {
	p := &v1alpha1.ClusterNetworkPolicy{}
	p.Name, p.Spec.Priority = fmt.Sprintf("policy-%d", i), int32(i)
	p.Spec.Tier = []v1alpha1.Tier{v1alpha1.AdminTier, v1alpha1.BaselineTier}[i%2]
	p.Spec.Subject.Namespaces = teamSelector(i / 2 % 10)
	if i/2%10 == 9 {
		p.Spec.Subject.Namespaces = &v1alpha1.LabelSelector{}
	}
	for k := range wideRules {
		action := []v1alpha1.Action{v1alpha1.Accept, v1alpha1.Deny, v1alpha1.Pass}[k%3]
		peers, protocols := widePeers(i, k, o.sets), udpTo(int32(20_000+i*wideRules+k))
		if o.sets {
			protocols = udpTo(int32(serverPort + (i*wideRules+k)/2%max(1, o.ports)))
		}
		if i == widePolicies-1 && k >= wideRules-2 { // the last rule of either direction
			action, peers, protocols = v1alpha1.Accept, []v1alpha1.Peer{{Namespaces: &v1alpha1.LabelSelector{}}}, udpTo(serverPort)
		}
		if k%2 == 0 {
			p.Spec.Ingress = append(p.Spec.Ingress, v1alpha1.IngressRule{Action: action, From: peers, Protocols: protocols})
		} else {
			p.Spec.Egress = append(p.Spec.Egress, v1alpha1.EgressRule{Action: action, To: peers, Protocols: protocols})
		}
	}
	return p
}

// widePeers are those of the k-th rule of the i-th policy: a team, or, where the measured pods must not be among them, an application of one of the tenants
// that have no pods here, another one in each rule that the same pod is subject to.
func widePeers(i, k int, sets bool) []v1alpha1.Peer {
	if !sets {
		return []v1alpha1.Peer{{Namespaces: teamSelector((i + k) % wideTeams)}}
	}
	const firstElsewhere = podsHere / namespacesTenant
	const tenantsElsewhere = wideNamespaces/namespacesTenant - firstElsewhere
	n := i/20*2*wideRules + k // of the policies for one team; of those for all pods, which have 9, the others
	if i/2%10 == 9 {
		n += wideRules
	}
	tenant, app := fmt.Sprintf("tenant-%d", firstElsewhere+n%tenantsElsewhere), fmt.Sprintf("pod-%d", n/tenantsElsewhere)
	return []v1alpha1.Peer{{Pods: &v1alpha1.NamespacedPod{
		NamespaceSelector: v1alpha1.LabelSelector{MatchLabels: map[string]v1alpha1.LabelValue{"tenant": v1alpha1.LabelValue(tenant)}},
		PodSelector:       v1alpha1.LabelSelector{MatchLabels: map[string]v1alpha1.LabelValue{"app": v1alpha1.LabelValue(app)}},
	}}}
}

func teamSelector(i int) *v1alpha1.LabelSelector {
	return &v1alpha1.LabelSelector{MatchLabels: map[string]v1alpha1.LabelValue{"team": fmt.Sprintf("team-%d", i)}}
}

func udpTo(port int32) []v1alpha1.Protocol {
	return []v1alpha1.Protocol{{UDP: &v1alpha1.PortMatch{DestinationPort: &v1alpha1.Port{Number: port}}}}
}

// tierVariants are the clusters that are measured.
func tierVariants() []variant {
	return []variant{
		{name: "isolation alone", enforced: true, snapshot: tiered(tierOptions{})},
		{name: "rules for other ports", enforced: true, snapshot: tiered(tierOptions{policies: true})},
		{name: "each rule with a set", enforced: true, snapshot: tiered(tierOptions{policies: true, sets: true})},
		{name: "each rule with a set, ten ports", enforced: true, snapshot: tiered(tierOptions{policies: true, sets: true, ports: somePorts})},
	}
}

// addedGoals are what 500 rules may add to a first packet, in ns.
var addedGoals = map[string]float64{"rules for other ports": 2000, "each rule with a set": 10_000, "each rule with a set, ten ports": 10_000}

// BenchmarkTierRules counts what a node holds, and takes the time to get there.
func BenchmarkTierRules(b *testing.B) {
	kit.NeedNetfilter(b)
	title := fmt.Sprintf("%d ClusterNetworkPolicies of %d rules, %d isolated namespaces, %d pods here and %d elsewhere, dual stack",
		widePolicies, wideRules, wideNamespaces, podsHere, wideNamespaces*podsElsewhere)
	held := tableOf(title+": what the node holds",
		"cluster", "chains", "rules", "sets", "entries", "input of iptables-restore in KB", "of ip6tables-restore")
	took := tableOf(title+": median (quartiles) in ms",
		"back end", "cluster", "compile", "render", "apply from nothing")
	for _, v := range tierVariants() {
		for i, backend := range []string{dataplane.Legacy, dataplane.NFT} {
			var compiles, renders, applies sample
			for range fromZero {
				n := newChurned(b, backend, v.snapshot)
				applies = append(applies, milliseconds(n.spent))
				compiles, renders = timedRender(compiles, renders, v.snapshot)
				if i == 0 && len(applies) == 1 {
					held.add(append([]string{v.name}, sizes(n)...)...)
				}
			}
			report(b, backend+"/"+v.name, map[string]float64{
				"compile-ms": compiles.median(), "render-ms": renders.median(), "apply-ms": applies.median()})
			took.add(backend, v.name, compiles.text("%.1f"), renders.text("%.1f"), applies.text("%.0f"))
		}
	}
}

// timedRender adds what compiling and rendering take.
func timedRender(compiles, renders sample, s compile.Snapshot) (sample, sample) {
	start := time.Now()
	node, _ := compile.Compile(s)
	compiled := time.Now()
	iptables.Render(node, everything)
	return append(compiles, milliseconds(compiled.Sub(start))), append(renders, milliseconds(time.Since(compiled)))
}

var everything = iptables.Options{Families: iptables.Families[:], Table: "security", SelfMatch: true}

// sizes are how much a node has been given at its first sync.
func sizes(n *churned) []string {
	var cells []string
	for _, count := range []int{n.first.Counts.Chains, n.first.Counts.Rules, n.first.Counts.Sets, n.first.Counts.Entries} {
		cells = append(cells, fmt.Sprint(count))
	}
	for _, f := range iptables.Families {
		cells = append(cells, fmt.Sprintf("%.0f", float64(n.firstRestored[f])/1024))
	}
	return cells
}

// tierChanges are changes that are made and taken back. They leave everything else as it is.
var tierChanges = []struct {
	name string
	make func(*compile.Snapshot)
}{
	{"a pod elsewhere comes", func(s *compile.Snapshot) {
		s.Remote = s.Remote.With(widePod("elsewhere", "ns-0", "joining", netip.MustParseAddr("10.199.0.1")))
	}},
	{"a namespace changes its tenant", func(s *compile.Snapshot) {
		s.Namespaces = s.Namespaces.With(&compile.Namespace{Name: "ns-0", Labels: compile.NewLabels(map[string]string{
			"kubernetes.io/metadata.name": "ns-0", "tenant": "tenant-1", "team": "team-0"})})
	}},
	{"a rule of a team's policy changes", func(s *compile.Snapshot) { changeRule(s, 0) }},
	{"a rule of a policy for all pods changes", func(s *compile.Snapshot) { changeRule(s, 18) }},
}

// changeRule gives the first rule of a policy another port.
func changeRule(s *compile.Snapshot, i int) {
	changed := slices.Clone(s.ClusterPolicies)
	changed[i] = changed[i].DeepCopy()
	changed[i].Spec.Ingress[0].Protocols = udpTo(7)
	s.ClusterPolicies = changed
}

// BenchmarkTierChange measures a sync after one change.
func BenchmarkTierChange(b *testing.B) {
	kit.NeedNetfilter(b)
	title := fmt.Sprintf("One change among %d ClusterNetworkPolicies and %d isolated namespaces: median (quartiles) of a sync in ms",
		widePolicies, wideNamespaces)
	t := tableOf(title, "back end", "change", "sync", "of it in the kernel", "input of iptables-restore in KB", "netlink messages", "iptables runs")
	for _, backend := range []string{dataplane.Legacy, dataplane.NFT} {
		n := newChurned(b, backend, tiered(tierOptions{policies: true}))
		for _, c := range tierChanges {
			changed := n.snapshot
			c.make(&changed)
			n.took, n.inKernel = nil, nil
			for range tierChange {
				kit.Must(b, n.changeAndBack(b.Context(), changed))
			}
			report(b, backend+"/"+c.name, map[string]float64{"sync-ms": n.took.median(), "kernel-ms": n.inKernel.median()})
			t.add(backend, c.name, n.took.text("%.1f"), n.inKernel.text("%.1f"), fmt.Sprintf("%.1f", float64(n.restored)/1024),
				fmt.Sprint(n.messages), fmt.Sprint(n.runs))
		}
	}
}

// BenchmarkTierConnection measures the first packet of a connection between two pods that are isolated and subject to policies of both
// tiers. No rule but the last of the last list matches it. The same lists are measured as they are, without being cut down.
func BenchmarkTierConnection(b *testing.B) {
	kit.NeedNetfilter(b)
	variants := append([]variant{{name: "without"}}, tierVariants()...)
	for _, v := range variants[2:] {
		v.uncut = true
		variants = append(variants, v)
	}
	t := tableOf(fmt.Sprintf("Added to the first packet of a connection by %d isolated namespaces and %d ClusterNetworkPolicies, in ns: median (quartiles)",
		wideNamespaces, widePolicies), "back end/node", "cluster", "rules", "added", "of it by the rules", "goal")
	for _, o := range setups() {
		if o.kind != topology.Routed {
			continue // the kind of network makes no difference to the rules
		}
		took, err := measure(b.Context(), o, tierVisits, variants, (*road).sendNew)
		kit.Must(b, err)
		for i, v := range variants[1:] {
			added, byRules := took[i+1].minus(took[0]), took[i+1].minus(took[1])
			goal := ""
			if at, ok := addedGoals[v.name]; ok && !v.uncut {
				goal = fmt.Sprintf("%.0f: %s", at, verdict(byRules.median(), at))
			}
			name := v.name
			if v.uncut {
				name += ", not cut down"
			}
			report(b, fmt.Sprintf("%s/%s", o, name), map[string]float64{"added-ns/connection": added.median()})
			t.add(o.String(), name, fmt.Sprint(asked(v.snapshot)), added.text("%.0f"), byRules.text("%.0f"), goal)
		}
	}
}

// asked is how many rules of ClusterNetworkPolicies the measured connection is compared with: all that are for the client's egress and for the
// server's ingress.
func asked(s compile.Snapshot) int {
	node, _ := compile.Compile(s)
	count := 0
	for d, a := range map[policy.Direction]netip.Addr{policy.Egress: localAddr(-2), policy.Ingress: localAddr(-1)} {
		i := slices.IndexFunc(node.Endpoints, func(e policy.Endpoint) bool { return slices.Contains(e.Addrs, a) })
		for _, stage := range []policy.Stage{policy.AdminRules, policy.BaselineRules} {
			for _, p := range node.Endpoints[i].Applies[d][stage] {
				count += len(node.Policies[p].Rules[d])
			}
		}
	}
	return count
}
