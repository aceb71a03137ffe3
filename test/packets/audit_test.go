package packets

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer"
	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/lab/oracle"
	"github.com/ringfence-io/ringfence/lab/probe"
	"github.com/ringfence-io/ringfence/test/kit"
	"github.com/ringfence-io/ringfence/test/ladder"
	"github.com/ringfence-io/ringfence/test/scenario"
)

const (
	auditProbes = 1000
	auditRate   = 2000 // probes per second
)

// The objects of every kind and tier, and the ways in which a NetworkPolicy is audited: by its own annotation, and by its namespace's. None has
// a mode of its own here.
var audited = map[string]string{
	"cnp admin": `{tier: Admin, priority: 1, subject: {namespaces: {matchLabels: {team: red}}}, ingress: [
  {action: Accept, from: [{pods: {podSelector: {matchLabels: {app: client}}}}],
   protocols: [{tcp: {destinationPort: {number: 80}}}, {destinationNamedPort: dual}]},
  {action: Pass, from: [{networks: [10.0.2.0/24]}]},
  {action: Deny, from: [{namespaces: {matchLabels: {team: blue}}}, {networks: [10.0.0.0/16]}]}],
  egress: [{action: Deny, to: [{nodes: {matchLabels: {zone: b}}}, {namespaces: {matchLabels: {team: blue}}}],
    protocols: [{udp: {}}, {tcp: {destinationPort: {range: {start: 81, end: 82}}}}]}]}`,
	"cnp second": `{tier: Admin, priority: 2, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}], protocols: [{sctp: {}}]}]}`,
	"cnp base": `{tier: Baseline, priority: 1, subject: {namespaces: {}},
  ingress: [{action: Accept, from: [{namespaces: {matchLabels: {team: red}}}]}, {action: Deny, from: [{namespaces: {}}, {networks: [10.9.0.0/16]}]}]}`,
	"isolation admin": `{tier: Admin, namespaceSelector: {matchLabels: {team: red}},
  allow: {ingress: [{from: [{pods: {podSelector: {matchLabels: {app: remote}}}}]}], egress: [{to: [{networks: [10.9.0.0/16]}], protocols: [{tcp: {}}]}]}}`,
	"isolation base": `{tier: Baseline, namespaceSelector: {}, directions: [Ingress], allow: {ingress: [{from: [{nodes: {}}]}]}}`,
	"red/own": `{podSelector: {matchExpressions: [{key: app, operator: In, values: [web, far]}]}, policyTypes: [Ingress, Egress],
  ingress: [{from: [{podSelector: {}}], ports: [{port: 80}, {port: 81, protocol: UDP}]}],
  egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.2.0/24]}}]}]}`,
	"blue/namespaces": `{podSelector: {matchLabels: {app: client}}, policyTypes: [Ingress, Egress], egress: [{to: [{podSelector: {}}]}]}`,
}

// TestAuditIsExact sends the same packets without any object, with objects that are audited, and with the same objects enforced. An audit changes no
// verdict and counts, for each object and direction, exactly the packets that the API texts say it would deny; and an object that was
// audited alone denies, once it is enforced, exactly the flows that it had counted.
func TestAuditIsExact(t *testing.T) {
	kit.NeedNetfilter(t)
	for _, c := range combinations() {
		t.Run(c.String(), func(t *testing.T) {
			t.Parallel()
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			a := newAudit(t, c, seed)
			all := slices.Sorted(maps.Keys(audited))

			a.apply(t, a.cluster(), "without objects")
			a.auditThenEnforce(t, "all objects", all)
			for _, object := range all {
				a.auditThenEnforce(t, object, []string{object})
			}
		})
	}
}

// audit is a world in which audited objects count, and the flows that are probed in it.
type audit struct {
	*world
	flows []auditFlow
}

// auditFlow is a flow as it is sent, and as policy sees it: a Service's address has become a pod's.
type auditFlow struct {
	probe.Watched
	seen oracle.Flow
}

func newAudit(t *testing.T, c combination, seed uint64) *audit {
	t.Helper()
	a := &audit{world: newWorld(t, c)}
	for _, n := range a.nodes {
		n.enforcer = enforcer.New(n.plane, a.options(n))
	}
	rng := rand.New(rand.NewPCG(seed, 0))
	for _, from := range slices.Sorted(maps.Keys(a.places)) {
		for _, to := range slices.Sorted(maps.Keys(a.places)) {
			a.addFlows(t, from, to)
		}
	}
	rng.Shuffle(len(a.flows), func(i, k int) { a.flows[i], a.flows[k] = a.flows[k], a.flows[i] })
	if len(a.flows) < auditProbes {
		t.Fatalf("%d flows, want %d", len(a.flows), auditProbes)
	}
	a.flows = a.flows[:auditProbes]
	return a
}

func (*audit) options(n *node) iptables.Options {
	c := n.plane.Capabilities()
	return iptables.Options{Families: c.Families, Table: c.Table, SelfMatch: c.SelfMatch, HoldCut: c.HoldCut, NFLogGroup: 4210}
}

// addFlows adds those from one place to another, if one of them is a pod and neither a second name.
func (a *audit) addFlows(t *testing.T, from, to string) {
	t.Helper()
	podFrom, podTo := a.places[from].Role == scenario.Pod, a.places[to].Role == scenario.Pod
	for _, name := range []string{from, to} {
		if name == "host" || name == "gateway" || name == "lower half" || name == "upper half" {
			return
		}
	}
	service := a.places[to].Role == scenario.Virtual
	if a.places[from].Role == scenario.Virtual || from == to || !podFrom && !podTo || service && !podFrom {
		return
	}
	on := "tcp/53 icmp other"
	for _, port := range listening {
		on += fmt.Sprintf(" tcp/%d udp/%d sctp/%d", port, port, port)
	}
	if service {
		on = fmt.Sprintf("tcp/%d udp/%d sctp/%d", scenario.ServicePort, scenario.ServicePort, scenario.ServicePort)
	}
	c := a.cluster()
	lines, err := c.ParseLines([]string{fmt.Sprintf("%s reaches %s on %s", from, to, on)})
	kit.Must(t, err)
	l := lines[0]
	for i, e := range a.expected(t, l) {
		// Connection tracking knows packets of a protocol without ports by their addresses alone: one that is allowed makes the
		// other direction its reply.
		if e.flow.Protocol == probe.Experimental && !e.flow.Src.Less(e.flow.Dst) {
			continue
		}
		a.flows = append(a.flows, auditFlow{probe.Watched{Host: e.from, Flow: e.flow, Allowed: true}, c.Flow(l, l.Services[i])})
	}
}

// auditThenEnforce audits objects, enforces them, and compares both with what the API texts say.
func (a *audit) auditThenEnforce(t *testing.T, what string, objects []string) {
	t.Helper()
	dry := a.with(t, objects, v1alpha1.Audit)
	a.apply(t, dry, what+" audited")
	enforced := a.with(t, objects, v1alpha1.Enforce)
	a.apply(t, enforced, what+" enforced")
	if len(objects) > 1 {
		return
	}
	// What the object denies now, as packets have shown, must be what its audit had listed.
	denied := 0
	for _, f := range a.flows {
		listed := len(notes(dry, f.seen, "n1"))+len(notes(dry, f.seen, "n2")) > 0
		allowed, reason := enforced.Allowed(f.seen)
		if listed == allowed {
			t.Errorf("%s: %s: its audit listed it: %v, enforced allows it: %v (%s)", what, f.Flow, listed, allowed, reason)
		}
		if listed {
			denied++
		}
	}
	if denied == 0 {
		t.Errorf("%s denies nothing: this shows nothing", what)
	}
}

// with is the standard cluster with some of the objects in a mode.
func (a *audit) with(t *testing.T, objects []string, mode v1alpha1.Mode) *scenario.Cluster {
	t.Helper()
	c := a.cluster()
	for _, o := range objects {
		kit.Must(t, c.Apply(o+": "+audited[o]))
	}
	for _, p := range c.ClusterPolicies {
		p.Spec.Mode = mode
	}
	for _, i := range c.Isolations {
		i.Spec.Mode = mode
	}
	annotation := map[string]string{v1alpha1.ModeAnnotation: string(mode)}
	for _, p := range c.Policies {
		if p.Namespace == "red" {
			p.Annotations = annotation
		}
	}
	c.Namespace("blue").Annotations = annotation
	return c
}

// notes are what audited objects would deny of a flow at a node, as comments have it.
func notes(c *scenario.Cluster, f oracle.Flow, node string) []string {
	var all []string
	for _, d := range c.AuditedAt(node, f) {
		all = append(all, policy.Ref{Kind: d.Kind, Namespace: d.Namespace, Name: d.Name}.String()+" "+d.Direction)
	}
	return all
}

// apply enforces the cluster, sends a packet of every flow, and compares verdicts and counters with what the API texts say.
func (a *audit) apply(t *testing.T, c *scenario.Cluster, when string) {
	t.Helper()
	if problems := a.world.apply(t, c); len(problems) > 0 {
		t.Fatalf("%s: %v", when, problems)
	}
	before := a.counted(t, c)
	a.probe(t, c, when)
	got, want := a.counted(t, c), map[string]int{}
	counted := 0
	for key := range got {
		got[key] -= before[key]
		counted += got[key]
	}
	t.Logf("%s: %d packets sent, %d counted", when, len(a.flows), counted)
	for _, n := range a.nodes {
		for _, f := range a.flows {
			for _, note := range notes(c, f.seen, n.name) {
				want[n.name+": "+note]++
			}
		}
	}
	maps.DeleteFunc(got, func(_ string, count int) bool { return count == 0 })
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s: counted packets, -want +got:\n%s", when, d)
	}
}

// probe sends a packet of every flow: first of those that are denied, so that their answers, if there are any, come before the last
// answer that is waited for.
func (a *audit) probe(t *testing.T, c *scenario.Cluster, when string) {
	t.Helper()
	var denied, allowed []probe.Watched
	for _, f := range a.flows {
		var reason string
		if f.Allowed, reason = c.Allowed(f.seen); f.Allowed {
			allowed = append(allowed, f.Watched)
			continue
		}
		denied = append(denied, f.Watched)
		if !strings.HasSuffix(when, "enforced") {
			t.Errorf("%s: %s is denied: %s", when, f.Flow, reason)
		}
	}
	report, err := probe.Once(append(denied, allowed...), auditRate, 20*time.Second)
	kit.Must(t, err)
	if len(report.Wrong) > 0 || report.Probes != auditProbes {
		t.Errorf("%s: %s", when, report)
	}
}

// counted are the packets that counting rules have counted, by node, object and direction.
func (a *audit) counted(t *testing.T, c *scenario.Cluster) map[string]int {
	t.Helper()
	all := map[string]int{}
	for _, n := range a.nodes {
		compiled, _ := compile.Compile(ladder.Snapshot(c.Cluster, n.name))
		points := iptables.Render(compiled, a.options(n)).Points
		out, err := n.Command(t.Context(), programOf(a.family, a.backend)+"-save", "-c", "-t", "security").Output()
		kit.Must(t, err)
		for line := range strings.Lines(string(out)) {
			var packets, bytes int
			var chain string
			if _, err := fmt.Sscanf(line, "[%d:%d] -A %s", &packets, &bytes, &chain); err != nil || !strings.Contains(line, `--comment "would deny: `) {
				continue
			}
			p, ok := points.Lookup(chain[len(chain)-16:])
			if !ok {
				t.Fatalf("%s: no point is known of %s", n.name, line)
			}
			name := p.Ref.String() + " " + p.Direction.String()
			if !strings.Contains(line, fmt.Sprintf("--comment %q", "would deny: "+name)) {
				t.Errorf("%s: the rule of %s has another comment: %s", n.name, name, line)
			}
			all[n.name+": "+name] = packets
		}
	}
	return all
}
