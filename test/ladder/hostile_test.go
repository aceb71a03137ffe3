package ladder

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/lab/oracle"
	"github.com/ringfence-io/ringfence/test/gen"
)

// The budgets of a namespace on one node, with what comes beside them: trees, denials, and the sets of what others have here. Those of entries and sets
// are of either family.
const (
	maxHostileSets    = 2*4096 + 100
	maxHostileRules   = 2 * 3 * 8192 // pods that do not share a chain have a few times the rules of their policies
	maxHostileEntries = 1<<19 + 2*100*4096
	maxHostileText    = 700 * maxHostileRules
)

// hostileShop is the small shop with a tenant of a hundred pods on node1, each with a label and names of ports.
func hostileShop() gen.Case {
	c, _ := smallShop()
	c.Cluster.Namespaces = append(c.Cluster.Namespaces, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: gen.HostileNamespace}})
	for i := range 100 {
		c.Cluster.Pods = append(c.Cluster.Pods, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: gen.HostileNamespace, Name: fmt.Sprint(i), UID: types.UID(fmt.Sprint("h", i)),
				Labels: map[string]string{"app": "hostile", "n": fmt.Sprint(i)}},
			Spec:   corev1.PodSpec{NodeName: "node1", Containers: []corev1.Container{{Ports: gen.HostilePorts(20)}}},
			Status: corev1.PodStatus{PodIPs: []corev1.PodIP{{IP: fmt.Sprintf("10.9.0.%d", i+1)}, {IP: fmt.Sprintf("fd00:9::%x", i+1)}}},
		})
	}
	return c
}

// checkBudgets compares what a node holds with what one namespace may ask of it.
func checkBudgets(r iptables.Ruleset) error {
	rules, entries := 0, 0
	for _, t := range r.Tables {
		for _, chain := range t.Chains.All() {
			rules += len(chain)
		}
	}
	for _, s := range r.Sets.All() {
		entries += s.Len()
	}
	text := 0
	for _, restore := range iptables.Diff(r, iptables.Ruleset{}).Restore {
		text += len(restore)
	}
	for _, one := range []struct {
		what        string
		is, allowed int
	}{{"sets", r.Sets.Len(), maxHostileSets}, {"rules", rules, maxHostileRules}, {"entries", entries, maxHostileEntries}, {"bytes", text, maxHostileText}} {
		if one.is > one.allowed {
			return fmt.Errorf("%d %s, where %d are allowed", one.is, one.what, one.allowed)
		}
	}
	return nil
}

// TestATenantsObjectsStayWithinBudgets: what a tenant may write costs a node no more than its budget, changes nothing for others, opens nothing, and what is
// over a budget is said with its field.
func TestATenantsObjectsStayWithinBudgets(t *testing.T) {
	for _, a := range gen.Attacks() {
		t.Run(a.Name, func(t *testing.T) {
			c := hostileShop()
			before, _ := compile.Compile(Snapshot(c.Cluster, "node1"))
			c.Cluster.Policies = append(slices.Clone(c.Cluster.Policies), a.Policies...)
			j, err := NewJudges(c.Cluster, c.Nodes[0])
			if err != nil {
				t.Fatal(err)
			}
			if err := checkBudgets(j.Rendered); err != nil {
				t.Error(err)
			}
			for _, p := range before.Policies {
				if !slices.ContainsFunc(j.Compiled.Policies, func(q policy.Policy) bool { return cmp.Equal(p, q, comparers) }) {
					t.Errorf("%s is not what it was", p.Ref)
				}
			}
			_, problems := compile.Compile(Snapshot(c.Cluster, "node1"))
			refused := map[policy.Ref]bool{}
			for _, p := range problems {
				if p.TooLarge {
					refused[p.Ref] = true
					if p.Field == "" || !strings.ContainsAny(p.Detail, "0123456789") {
						t.Errorf("%s says neither where nor how much", p)
					}
				}
			}
			c.Cluster.Policies = slices.Clone(c.Cluster.Policies)
			for i, p := range c.Cluster.Policies { // the oracle has no budgets
				if refused[policy.Ref{Kind: "NetworkPolicy", Namespace: p.Namespace, Name: p.Name}] {
					c.Cluster.Policies[i] = withoutRules(p)
				}
			}
			for i, f := range hostileFlows() {
				got := j.Compiled.Allows(PolicyFlow(f, "node1"))
				traced, _, hits, err := j.Trace(f)
				if err != nil || traced != got.Allowed {
					t.Fatalf("%s: Allows says %v (%s), the tracer %v (%v, %v)", f, got.Allowed, got.Reason, traced, hits, err)
				}
				if len(a.Policies) > 1 || i%7 != i/7 { // the oracle takes seconds for a thousand policies
					continue
				}
				if want, why := c.Cluster.AllowedAt("node1", f); got.Allowed && !want {
					t.Errorf("flow %d, %s, is open: %s, and %s", i, f, got.Reason, why)
				}
			}
		})
	}
}

// withoutRules is a policy that isolates the same pods and allows nothing.
func withoutRules(p *networkingv1.NetworkPolicy) *networkingv1.NetworkPolicy {
	closed := *p
	closed.Spec.Ingress, closed.Spec.Egress = nil, nil
	if len(p.Spec.PolicyTypes) == 0 && len(p.Spec.Egress) > 0 {
		closed.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress}
	}
	return &closed
}

// hostileFlows are some to and from the hostile tenant's pods.
func hostileFlows() []oracle.Flow {
	var flows []oracle.Flow
	for _, pair := range [][2]string{{"10.9.0.1", "10.9.0.2"}, {"10.0.0.1", "10.9.0.50"}, {"10.9.0.50", "10.0.0.1"}, {"fd00:9::1", "fd00:9::20"},
		{"8.8.8.8", "10.9.0.3"}, {"10.9.0.4", "8.8.8.8"}} {
		for _, port := range []uint16{1, 2, 80, 1000, 1003, 30_000, 65_535} {
			flows = append(flows, oracle.Flow{Src: netip.MustParseAddr(pair[0]), Dst: netip.MustParseAddr(pair[1]), Protocol: oracle.TCP, DstPort: port})
		}
	}
	return flows
}

// TestControllerAndNodesRefuseTheSame: what depends on the text of an object alone is said in the same words by both.
func TestControllerAndNodesRefuseTheSame(t *testing.T) {
	said := 0
	for _, a := range gen.Attacks() {
		if len(a.Policies) > 1 {
			continue
		}
		c := hostileShop()
		c.Cluster.Policies = append(slices.Clone(c.Cluster.Policies), a.Policies...)
		s := Snapshot(c.Cluster, "node2") // which has none of the tenant's pods
		_, problems := compile.Compile(s)
		var want, got []string
		for _, p := range problems {
			want = append(want, fmt.Sprint(p.TooLarge, p.Field, p.Detail))
		}
		for _, r := range compile.Understand(compile.Object{NetworkPolicy: a.Policies[0]}).Review(view(s, nil)) {
			if r.Reason == v1alpha1.TooLargeReason || r.Reason == v1alpha1.NotUnderstoodReason {
				got = append(got, fmt.Sprint(r.Reason == v1alpha1.TooLargeReason, r.Field, r.Detail))
			}
		}
		slices.Sort(want)
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-node +controller):\n%s", a.Name, diff)
		}
		said += len(want)
	}
	if said == 0 {
		t.Error("nothing is refused")
	}
}

// crowd adds pods elsewhere to a snapshot of the hostile shop, and for each of the tenants a pod here.
func crowd(pods int, tenants ...string) compile.Snapshot {
	s := Snapshot(hostileShop().Cluster, "node1")
	var shared compile.Interner
	var all []*compile.Pod
	for i := range pods {
		all = append(all, &compile.Pod{Namespace: "shop", Name: fmt.Sprint("crowd-", i), UID: fmt.Sprint("crowd-", i), Node: "elsewhere",
			Labels: shared.Labels(compile.NewLabels(map[string]string{"app": "crowd"})), Addrs: []netip.Addr{netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)})}})
	}
	for i, name := range tenants {
		s.Namespaces = s.Namespaces.With(&compile.Namespace{Name: name})
		all = append(all, &compile.Pod{Namespace: name, Name: "pod", UID: name, Node: "node1", Addrs: []netip.Addr{netip.AddrFrom4([4]byte{12, 0, 0, byte(i)})}})
	}
	return s.WithPods(all...)
}

// wide is a policy of a tenant that lets in all pods, by peers that nobody else has.
func wide(namespace, name string, age, peers int) *networkingv1.NetworkPolicy {
	p := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID(namespace + name),
		CreationTimestamp: metav1.Unix(int64(1_000_000-age), 0)}}
	for i := range peers {
		p.Spec.Ingress = append(p.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{From: []networkingv1.NetworkPolicyPeer{{
			NamespaceSelector: &metav1.LabelSelector{}, PodSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
				{Key: fmt.Sprintf("%s-%s-%d", namespace, name, i), Operator: metav1.LabelSelectorOpDoesNotExist}}}}}})
	}
	return p
}

// refusals are the policies that a node refuses.
func refusals(t *testing.T, s compile.Snapshot) []string {
	t.Helper()
	_, problems := compile.Compile(s)
	var names []string
	for _, p := range problems {
		if !p.TooLarge {
			t.Errorf("a problem beside those expected: %s", p)
		}
		names = append(names, p.Ref.Namespace+"/"+p.Ref.Name)
	}
	return names
}

// TestTheNewestOfANamespaceAreRefused: whoever comes too late gets nothing, in whatever order the API tells of them; other namespaces are not asked.
func TestTheNewestOfANamespaceAreRefused(t *testing.T) {
	s := crowd(50_000, "a", "b")
	policies := []*networkingv1.NetworkPolicy{
		wide("a", "new", 1, 4), wide("a", "old", 3, 5), wide("a", "middle", 2, 5), wide("b", "newest", 0, 5), wide("b", "same-set", 5, 0),
	}
	random := rand.New(rand.NewPCG(1, 1))
	for range 5 {
		s.Policies = compile.ObjectsOf(shuffle(policies, random)...)
		if diff := cmp.Diff([]string{"a/new"}, refusals(t, s)); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	}
	// What is refused isolates: nothing reaches the pod by it.
	s.Policies = s.Policies.Without("a", "old").Without("a", "middle").With(wide("a", "large", 9, 11))
	if diff := cmp.Diff([]string{"a/large"}, refusals(t, s)); diff != "" {
		t.Fatalf("one that is too large for a namespace (-want +got):\n%s", diff)
	}
}

// TestTheLargestNamespaceGivesWay: a node that is asked for too much by several namespaces refuses the newest of the one that asks for most.
func TestTheLargestNamespaceGivesWay(t *testing.T) {
	s := crowd(50_000, "a", "b", "c", "d", "e")
	for i, ns := range []string{"a", "b", "c", "d", "e"} {
		s.Policies = s.Policies.With(wide(ns, "old", 9, 5)).With(wide(ns, "new", i, 3+i/4*2)) // 400,000 entries each, and 500,000
	}
	s.Policies = s.Policies.With(wide("e", "small", 20, 0))
	if diff := cmp.Diff([]string{"e/new"}, refusals(t, s)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// cpuTime is what this process has used of its processors.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// calibrated is the time in which this machine hashes a megabyte sixteen times over: some 10 to 100 ms.
func calibrated() time.Duration {
	data := make([]byte, 1<<20)
	start := cpuTime()
	for range 16 {
		sum := sha256.Sum256(data)
		copy(data, sum[:])
	}
	return max(cpuTime()-start, 5*time.Millisecond)
}

// hostileUnits is how many calibrated loops a node may take for a hostile object that it sees for the first time, and for each sync with it from then on.
const hostileFirst, hostileAgain = 150, 50

// FuzzHostile: objects as large as etcd takes them, which ask for as much as they can, stay within the budgets, in time too.
func FuzzHostile(f *testing.F) {
	for i := range 12 {
		random := rand.New(rand.NewPCG(uint64(i), 1))
		data := make([]byte, 64)
		for k := range data {
			data[k] = byte(random.UintN(256))
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) { checkHostile(t, gen.Bytes(data), 1+len(data)%3) })
}

// checkHostile draws objects, and holds a node and the controller to their budgets.
func checkHostile(t *testing.T, s *gen.Source, objects int) {
	t.Helper()
	c := hostileShop()
	for range objects {
		c.Cluster.Policies = append(c.Cluster.Policies, gen.Hostile(s))
	}
	snapshot := Snapshot(c.Cluster, "node1")
	unit := calibrated()
	var k compile.Compiler
	var renderer iptables.Renderer
	var held iptables.Ruleset
	for i, limit := range []time.Duration{hostileFirst, hostileAgain} {
		start := cpuTime()
		node, _ := k.Compile(snapshot)
		want := renderer.Render(node, Options, held)
		_ = iptables.Diff(want, held)
		held = want
		if took := cpuTime() - start; took > limit*unit {
			t.Errorf("sync %d took %s, %d times what hashing 16 MB takes: %d times are allowed", i+1, took, took/unit, limit)
		}
		if err := checkBudgets(want); err != nil {
			t.Error(err)
		}
	}
	for _, np := range c.Cluster.Policies {
		start := cpuTime()
		u := compile.Understand(compile.Object{NetworkPolicy: np})
		u.Review(view(snapshot, nil))
		if took := cpuTime() - start; took > hostileFirst*unit {
			t.Errorf("the controller took %s, %d times what hashing 16 MB takes", took, took/unit)
		}
	}
}
