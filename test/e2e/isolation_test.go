package e2e

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/lab"
	"github.com/ringfence-io/ringfence/lab/cni"
	"github.com/ringfence-io/ringfence/lab/probe"
	"github.com/ringfence-io/ringfence/test/kit"
)

const (
	moves      = 55   // of a namespace to another tenant, for each kind of node
	rebirths   = 5    // of a namespace, likewise
	churnRate  = 1500 // probes per second
	churnGrace = 10 * time.Second
)

// fences isolate the namespaces that have a tenant, and make a clock: see fenced.sync.
const fences = `
apiVersion: policy.ringfence.io/v1alpha1
kind: NamespaceIsolation
metadata: {name: tenants}
spec:
  namespaceSelector: {matchExpressions: [{key: tenant, operator: Exists}]}
  tenantLabel: tenant
---
apiVersion: policy.ringfence.io/v1alpha1
kind: ClusterNetworkPolicy
metadata: {name: clock}
spec:
  tier: Admin
  priority: 0
  subject: {namespaces: {matchLabels: {kubernetes.io/metadata.name: clock}}}
  ingress:
  - {action: Deny, from: [{namespaces: {matchLabels: {tick: "0"}}}], protocols: [{sctp: {destinationPort: {number: 100}}}]}
  - {action: Deny, from: [{namespaces: {matchLabels: {tick: "1"}}}], protocols: [{sctp: {destinationPort: {number: 101}}}]}
  - {action: Deny, from: [{pods: {podSelector: {matchLabels: {tick: "0"}}}}], protocols: [{sctp: {destinationPort: {number: 102}}}]}
  - {action: Deny, from: [{pods: {podSelector: {matchLabels: {tick: "1"}}}}], protocols: [{sctp: {destinationPort: {number: 103}}}]}
`

// TestFencesHoldWhileNamespacesChange has namespaces join tenants, move between them, leave them, end and begin, while packets go between all of their
// pods. While a change is on its way, a verdict is wrong if neither the tenants before nor those after it make it right; once the nodes
// have synced the change, if those after it do not.
func TestFencesHoldWhileNamespacesChange(t *testing.T) {
	var all []time.Duration
	for _, setup := range []struct {
		kind    cni.Kind
		backend string
	}{{cni.Bridge, "legacy"}, {cni.PTP, "nft"}} {
		t.Run(fmt.Sprintf("%s/%s", setup.kind, setup.backend), func(t *testing.T) {
			f := newFenced(t, lab.Options{CNI: setup.kind, Backend: setup.backend})
			for i := range moves {
				f.move(t)
				if i%(moves/rebirths) == 0 {
					f.rebirth(t)
				}
			}
			t.Logf("%d moves, %d rebirths, %d probes answered, %d silent; from a label's write to the last packet of what it forbids: %s",
				moves, rebirths, f.answered, f.silent, percentiles(f.took))
			if f.answered < 1000 || f.silent < 1000 {
				t.Error("too few probes to say anything")
			}
			all = append(all, f.took...)
		})
	}
	t.Logf("of %d changes: %s", len(all), percentiles(all))
}

func percentiles(d []time.Duration) string {
	if len(d) == 0 {
		return "none"
	}
	sorted := slices.Sorted(slices.Values(d))
	at := func(q float64) time.Duration {
		return sorted[int(q*float64(len(sorted)-1))].Round(100 * time.Microsecond)
	}
	return fmt.Sprintf("p50 %s, p99 %s, at most %s", at(0.5), at(0.99), at(1))
}

// fenced is a lab with a pod in each of some namespaces, and the tenant that each namespace belongs to.
type fenced struct {
	lab     *lab.Lab
	rng     *rand.Rand
	tenants map[string]string   // by namespace, empty: none
	pods    map[string]*lab.Pod // by namespace

	tick  int      // of the clock
	hand  *lab.Pod // of the clock, which asks its dials, one on each node
	dials []*lab.Pod

	took             []time.Duration
	answered, silent int
}

func newFenced(t *testing.T, o lab.Options) *fenced {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	l := start(t, o)
	f := &fenced{
		lab: l, rng: rand.New(rand.NewPCG(seed, 0)), pods: map[string]*lab.Pod{},
		tenants: map[string]string{"a": "red", "b": "red", "c": "blue", "d": "blue", "e": "", "f": ""},
	}
	kit.Must(t, l.ApplyDir(kit.Context(t, patience), os.DirFS("../../config/crd"), "bases"))
	kit.Must(t, lab.Poll(kit.Context(t, patience), func(ctx context.Context) error { return l.Apply(ctx, []byte(fences)) })) // once the kinds are known
	f.namespace(t, "clock", map[string]string{"tick": "0"})
	f.hand = f.run(t, "clock", "hand", "n1", map[string]string{"tick": "0"})
	for _, n := range l.Nodes {
		f.dials = append(f.dials, f.run(t, "clock", "dial-"+n.Name, n.Name, nil, port(corev1.ProtocolSCTP, 100),
			port(corev1.ProtocolSCTP, 101), port(corev1.ProtocolSCTP, 102), port(corev1.ProtocolSCTP, 103)))
	}
	for _, ns := range slices.Sorted(maps.Keys(f.tenants)) {
		f.begin(t, ns)
	}
	f.sync(t)
	f.settled(t, "at the start")
	return f
}

// begin creates a namespace with its tenant's label, and its pod, whose address is in the API when it returns.
func (f *fenced) begin(t *testing.T, ns string) {
	t.Helper()
	labels := map[string]string{}
	if f.tenants[ns] != "" {
		labels["tenant"] = f.tenants[ns]
	}
	f.namespace(t, ns, labels)
	node := f.lab.Nodes[int(ns[0]/2)%len(f.lab.Nodes)].Name // so that tenants begin with pods on both nodes
	f.pods[ns] = f.run(t, ns, "pod", node, nil, port(corev1.ProtocolTCP, 80), port(corev1.ProtocolUDP, 80))
}

func (f *fenced) namespace(t *testing.T, name string, labels map[string]string) {
	t.Helper()
	object := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
	_, err := f.lab.Client.CoreV1().Namespaces().Create(kit.Context(t, patience), object, metav1.CreateOptions{})
	kit.Must(t, err)
}

func (f *fenced) run(t *testing.T, ns, name, node string, labels map[string]string, ports ...corev1.ContainerPort) *lab.Pod {
	t.Helper()
	p, err := f.lab.RunPod(kit.Context(t, patience), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name, Labels: labels},
		Spec:       corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "main", Image: "none", Ports: ports}}},
	})
	kit.Must(t, err)
	return p
}

func port(protocol corev1.Protocol, number int32) corev1.ContainerPort {
	return corev1.ContainerPort{Protocol: protocol, ContainerPort: number}
}

// flows are those between all pods, over UDP and IPv4, and over TCP and IPv6, with what tenants make of them.
func (f *fenced) flows(tenants map[string]string) []probe.Watched {
	var all []probe.Watched
	namespaces := slices.Sorted(maps.Keys(f.pods))
	for _, from := range namespaces {
		for _, to := range namespaces {
			if from == to {
				continue
			}
			for family, protocol := range map[iptables.Family]policy.Protocol{iptables.IPv4: policy.UDP, iptables.IPv6: policy.TCP} {
				flow := probe.Flow{Protocol: protocol, Src: f.pods[from].Address(family), Dst: f.pods[to].Address(family), Port: 80}
				// Namespaces of a tenant reach each other, and those of none do: equal labels, or no labels.
				all = append(all, probe.Watched{Host: f.pods[from].Host, Flow: flow, Allowed: tenants[from] == tenants[to]})
			}
		}
	}
	return all
}

// move gives a namespace another tenant, or none.
func (f *fenced) move(t *testing.T) {
	t.Helper()
	after := maps.Clone(f.tenants)
	var ns string
	for closing := 0; closing == 0; {
		after = maps.Clone(f.tenants)
		ns = slices.Sorted(maps.Keys(f.tenants))[f.rng.IntN(len(f.tenants))]
		after[ns] = []string{"red", "blue", ""}[f.rng.IntN(3)]
		closing = len(closes(f.flows(f.tenants), f.flows(after)))
	}
	what := fmt.Sprintf("namespace %s from tenant %q to %q", ns, f.tenants[ns], after[ns])
	closing := closes(f.flows(f.tenants), f.flows(after))
	w := f.watch(t, steady(f.flows(f.tenants), f.flows(after), closing))

	wrote := time.Now()
	value := "null"
	if after[ns] != "" {
		value = fmt.Sprintf("%q", after[ns])
	}
	f.label(t, ns, "tenant", value)
	f.sync(t)
	synced := time.Now()

	last := wrote
	for _, wrong := range f.stop(t, w) {
		if closing[wrong.Flow] && wrong.Sent.Before(synced) {
			last = later(last, wrong.Sent)
			continue
		}
		t.Errorf("%s, written %s, synced after %s: %s", what, wrote.Format(time.StampMicro), synced.Sub(wrote), wrong)
	}
	f.took = append(f.took, last.Sub(wrote))
	f.tenants = after
	f.settled(t, "after "+what)
}

// closes are the flows that are allowed before a change and not after it.
func closes(before, after []probe.Watched) map[probe.Flow]bool {
	open, closing := map[probe.Flow]bool{}, map[probe.Flow]bool{}
	for _, w := range before {
		open[w.Flow] = w.Allowed
	}
	for _, w := range after {
		if open[w.Flow] && !w.Allowed {
			closing[w.Flow] = true
		}
	}
	return closing
}

// steady are the flows after a change whose verdict it leaves as it was, and those that it closes.
func steady(before, after []probe.Watched, closing map[probe.Flow]bool) []probe.Watched {
	was := map[probe.Flow]bool{}
	for _, w := range before {
		was[w.Flow] = w.Allowed
	}
	return slices.DeleteFunc(after, func(w probe.Watched) bool { return was[w.Flow] != w.Allowed && !closing[w.Flow] })
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// rebirth ends a namespace and begins it anew as some tenant's. Its pod is never without its fence once the nodes have synced; the others'
// verdicts never change.
func (f *fenced) rebirth(t *testing.T) {
	t.Helper()
	ns := slices.Sorted(maps.Keys(f.tenants))[f.rng.IntN(len(f.tenants))]
	delete(f.pods, ns)
	others := f.watch(t, f.flows(f.tenants))
	kit.Must(t, f.lab.DeleteNamespace(kit.Context(t, patience), ns))
	f.tenants[ns] = []string{"red", "blue"}[f.rng.IntN(2)]
	f.begin(t, ns)
	own := f.pods[ns].Addresses
	newborn := f.watch(t, slices.DeleteFunc(f.flows(f.tenants), func(w probe.Watched) bool {
		return w.Allowed || !slices.Contains(own, w.Flow.Src) && !slices.Contains(own, w.Flow.Dst)
	}))
	f.sync(t)
	synced := time.Now()

	for _, wrong := range f.stop(t, others) {
		t.Errorf("while namespace %s was born again: %s", ns, wrong)
	}
	for _, wrong := range f.stop(t, newborn) {
		if wrong.Sent.After(synced) {
			t.Errorf("the pod of namespace %s, new in tenant %q, of which nodes knew at %s: %s", ns, f.tenants[ns], synced.Format(time.StampMicro), wrong)
		}
	}
	f.settled(t, "after the birth of namespace "+ns)
}

func (*fenced) watch(t *testing.T, flows []probe.Watched) *probe.Watcher {
	t.Helper()
	w, err := probe.Watch(flows, churnRate)
	kit.Must(t, err)
	return w
}

func (f *fenced) stop(t *testing.T, w *probe.Watcher) []probe.Wrong {
	t.Helper()
	report, err := w.Stop(churnGrace)
	kit.Must(t, err)
	f.answered, f.silent = f.answered+report.Answered, f.silent+report.Silent
	return report.Wrong
}

// settled probes all flows once; nothing is on its way. Those that are denied come first, so that an answer to them would come before the
// last one that is waited for.
func (f *fenced) settled(t *testing.T, when string) {
	t.Helper()
	flows := f.flows(f.tenants)
	slices.SortStableFunc(flows, func(a, b probe.Watched) int {
		switch {
		case a.Allowed == b.Allowed:
			return 0
		case b.Allowed:
			return -1
		}
		return 1
	})
	report, err := probe.Once(flows, churnRate, churnGrace)
	kit.Must(t, err)
	if len(report.Wrong) > 0 {
		t.Errorf("%s: %s", when, report)
	}
}

// sync waits until every node has enforced what the API has been told before.
//
// It sets the clock on by one, in the label of a namespace and in that of a pod, since a node hears of both kinds in their own order. What the
// label before denied is denied no more: an address leaves a set, which is the last step of a sync, and a flow opens. Whatever was written
// before is part of that sync or of an earlier one.
func (f *fenced) sync(t *testing.T) {
	t.Helper()
	before := f.tick
	f.tick = 1 - f.tick
	f.label(t, "clock", "tick", fmt.Sprintf(`"%d"`, f.tick))
	patch := fmt.Sprintf(`{"metadata": {"labels": {"tick": "%d"}}}`, f.tick)
	_, err := f.lab.Client.CoreV1().Pods("clock").Patch(kit.Context(t, patience), f.hand.Name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	kit.Must(t, err)
	ctx := kit.Context(t, patience)
	for _, dial := range f.dials {
		for _, number := range []int{100, 102} {
			// Over SCTP each attempt has a source port that none before had: none is taken for a part of a connection.
			flow := probe.Flow{Protocol: policy.SCTP, Src: f.hand.Address(iptables.IPv4), Dst: dial.Address(iptables.IPv4), Port: uint16(number + before)}
			for got := (probe.Result{}); got.Outcome != probe.Reached; {
				got = probe.Dial(f.hand.Host, flow, probe.Patience{Timeout: 100 * time.Millisecond, Retry: 5 * time.Millisecond})
				if ctx.Err() != nil {
					t.Fatalf("%s has not synced: %s: %s", dial.Node.Name, flow, got)
				}
			}
		}
	}
}

// label writes a label of a namespace; value is JSON.
func (f *fenced) label(t *testing.T, ns, key, value string) {
	t.Helper()
	patch := fmt.Sprintf(`{"metadata": {"labels": {%q: %s}}}`, key, value)
	_, err := f.lab.Client.CoreV1().Namespaces().Patch(kit.Context(t, patience), ns, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	kit.Must(t, err)
}
