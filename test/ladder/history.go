package ladder

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/lab/oracle"
	"github.com/ringfence-io/ringfence/test/gen"
)

// History is a cluster to which one thing after the other happens. As with informers, an object that has not changed is the same one in the next snapshot, and
// lists have no order.
type History struct {
	random  *rand.Rand
	source  *gen.Source
	options gen.Options
	c       oracle.Cluster
	nodes   []gen.Node
	node    string // whose snapshots these are
	network compile.Network
	gone    []*networkingv1.NetworkPolicy // that may come again
	born    int                           // pods so far

	shared     compile.Interner
	pods       map[*corev1.Pod]*compile.Pod
	namespaces map[*corev1.Namespace]*compile.Namespace
	nodesOf    map[*corev1.Node]*compile.Node
}

// NewHistory begins with the case of a seed.
func NewHistory(seed uint64) *History {
	h := &History{
		random: rand.New(rand.NewPCG(seed, 6)), source: gen.Seed(seed),
		options: gen.Options{Invalid: seed%3 == 0, Tiers: seed%4 != 0, Closed: seed%5 < 2, Claims: seed%7 < 3},
		pods:    map[*corev1.Pod]*compile.Pod{}, namespaces: map[*corev1.Namespace]*compile.Namespace{}, nodesOf: map[*corev1.Node]*compile.Node{},
	}
	c := gen.New(h.source, h.options)
	h.c, h.nodes, h.node = c.Cluster, c.Nodes, "node1"
	return h
}

// happening is what can happen, with how often it does.
type happening struct {
	name   string
	weight int
	do     func(*History)
}

var happenings = []happening{
	{"nothing", 1, func(*History) {}},
	{"a pod is relabelled", 5, onPod(func(h *History, p *corev1.Pod) { p.Labels = h.otherPod().Labels })},
	{"a pod has other ports", 3, onPod(func(h *History, p *corev1.Pod) { p.Spec.Containers = h.otherPod().Spec.Containers })},
	{"a pod has other addresses", 4, onPod(func(h *History, p *corev1.Pod) { p.Status.PodIP, p.Status.PodIPs = addressesOf(h.otherPod()) })},
	{"a pod claims the addresses of another", 4, onPod(func(h *History, p *corev1.Pod) {
		p.Status.PodIP, p.Status.PodIPs = addressesOf(pickFrom(h, h.c.Pods))
	})},
	{"a pod has an address more", 2, onPod(func(h *History, p *corev1.Pod) {
		p.Status.PodIPs = append(p.Status.PodIPs, pickFrom(h, h.c.Pods).Status.PodIPs...)
	})},
	{"a pod has an address of a node", 1, onPod(func(h *History, p *corev1.Pod) {
		a := pickFrom(h, pickFrom(h, h.nodes).Addrs).String()
		p.Status.PodIP, p.Status.PodIPs = a, []corev1.PodIP{{IP: a}}
	})},
	{"a pod is announced", 3, onPod(func(_ *History, p *corev1.Pod) { announce(p) })},
	{"a pod moves to another node", 2, onPod(func(h *History, p *corev1.Pod) { p.Spec.NodeName = pickFrom(h, h.nodes).Name })},
	{"a pod is in another namespace", 2, onPod(func(h *History, p *corev1.Pod) { p.Namespace = h.otherPod().Namespace })},
	{"a pod finishes or runs", 2, onPod(func(h *History, p *corev1.Pod) {
		p.Status.Phase = pickFrom(h, []corev1.PodPhase{corev1.PodSucceeded, corev1.PodFailed, corev1.PodRunning})
	})},
	{"a pod is being deleted", 2, onPod(func(_ *History, p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: time.Unix(1800000000, 0)} })},
	{"a pod is on the host network or off it", 1, onPod(func(_ *History, p *corev1.Pod) { p.Spec.HostNetwork = !p.Spec.HostNetwork })},
	{"a pod changes in what policy does not see", 1, onPod(func(*History, *corev1.Pod) {})},
	{"a pod comes", 5, func(h *History) {
		p := h.otherPod().DeepCopy()
		h.born++
		p.Name, p.UID = fmt.Sprint("come-", h.born), types.UID(fmt.Sprint("uid-come-", h.born))
		h.c.Pods = append(slices.Clone(h.c.Pods), p)
	}},
	{"a pod goes", 4, func(h *History) { h.c.Pods = less(h, h.c.Pods, 3) }},
	{"all pods are others", 1, func(h *History) { h.c.Pods = h.other().Pods }},
	{"a namespace is relabelled", 4, onNamespace(func(h *History, n *corev1.Namespace) { n.Labels = pickFrom(h, h.other().Namespaces).Labels })},
	{"a namespace has another mode", 3, onNamespace(func(h *History, n *corev1.Namespace) {
		n.Annotations = map[string]string{v1alpha1.ModeAnnotation: pickFrom(h, []string{"Audit", "Enforce", "nonsense", ""})}
	})},
	{"a namespace checks no sources", 1, onNamespace(func(_ *History, n *corev1.Namespace) {
		n.Annotations = map[string]string{v1alpha1.SourceCheckAnnotation: v1alpha1.SourceCheckOff}
	})},
	{"a namespace changes in what policy does not see", 1, onNamespace(func(*History, *corev1.Namespace) {})},
	{"a namespace is not known", 1, func(h *History) { h.c.Namespaces = less(h, h.c.Namespaces, 1) }},
	{"namespaces are known", 1, func(h *History) {
		for _, n := range h.other().Namespaces {
			if !slices.ContainsFunc(h.c.Namespaces, func(o *corev1.Namespace) bool { return o.Name == n.Name }) {
				h.c.Namespaces = append(slices.Clone(h.c.Namespaces), n)
			}
		}
	}},
	{"a node is relabelled", 2, onNode(func(h *History, n *corev1.Node) { n.Labels = h.otherPod().Labels })},
	{"a node has other addresses", 2, onNode(func(h *History, n *corev1.Node) {
		address := corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: pickFrom(h, h.c.Pods).Status.PodIP}
		n.Status.Addresses = append(slices.Clone(n.Status.Addresses), address)
	})},
	{"a node has other ranges", 1, onNode(func(h *History, n *corev1.Node) {
		n.Spec.PodCIDRs = nil
		for _, r := range pickFrom(h, h.nodes).Pods {
			n.Spec.PodCIDRs = append(n.Spec.PodCIDRs, r.String())
		}
	})},
	{"nodes are others", 1, func(h *History) { h.c.Nodes = h.other().Nodes }},
	{"a policy comes", 3, func(h *History) {
		h.born++
		h.c.Policies = append(slices.Clone(h.c.Policies), gen.Policy(h.source, h.caseOf(), h.options, fmt.Sprint("come-", h.born)))
	}},
	{"a policy goes", 3, func(h *History) {
		before := h.c.Policies
		h.c.Policies = less(h, before, 0)
		for _, p := range before {
			if !slices.Contains(h.c.Policies, p) {
				h.gone = append(h.gone, p)
			}
		}
	}},
	{"a policy comes again", 2, func(h *History) {
		if len(h.gone) > 0 {
			h.c.Policies, h.gone = append(slices.Clone(h.c.Policies), h.gone[0]), h.gone[1:]
		}
	}},
	{"a policy has another mode", 2, onPolicy(func(h *History, p *networkingv1.NetworkPolicy) {
		p.Annotations = map[string]string{v1alpha1.ModeAnnotation: pickFrom(h, []string{"Audit", "Enforce"})}
	})},
	{"all policies are others", 1, func(h *History) { h.c.Policies, h.gone = gen.Policies(h.source, h.caseOf(), h.options), nil }},
	{"cluster policies are others", 1, func(h *History) { h.c.ClusterPolicies = gen.ClusterPolicies(h.source, h.caseOf(), h.options) }},
	{"a cluster policy goes", 1, func(h *History) { h.c.ClusterPolicies = less(h, h.c.ClusterPolicies, 0) }},
	{"isolations are others", 1, func(h *History) { h.c.Isolations = gen.Isolations(h.source, h.caseOf(), h.options) }},
	{"an isolation goes", 1, func(h *History) { h.c.Isolations = less(h, h.c.Isolations, 0) }},
	{"the DNS is another", 1, func(h *History) { h.c.DNSServices, h.c.DNSAddresses = h.other().DNSServices, h.other().DNSAddresses }},
	{"a Service of the DNS goes", 1, func(h *History) { h.c.DNSServices = less(h, h.c.DNSServices, 0) }},
	{"another node is asked for", 1, func(h *History) { h.node = pickFrom(h, h.nodes).Name }},
	{"other ranges are closed", 1, func(h *History) { h.c.Closed = h.other().Closed }},
	{"links are others", 2, (*History).rewire},
	{"the node has other addresses", 1, func(h *History) {
		h.network.Own = nil
		for range h.random.IntN(3) {
			if a, err := netip.ParseAddr(pickFrom(h, h.c.Pods).Status.PodIP); err == nil {
				h.network.Own = append(h.network.Own, a)
			}
		}
	}},
}

// Next lets something happen, and says what, with the snapshot after it.
func (h *History) Next() (name string, s compile.Snapshot) {
	total := 0
	for _, one := range happenings {
		total += one.weight
	}
	at := h.random.IntN(total)
	for _, one := range happenings {
		if at -= one.weight; at < 0 {
			one.do(h)
			return one.name, h.snapshot()
		}
	}
	return "", h.snapshot()
}

func (h *History) snapshot() compile.Snapshot {
	c := h.c
	s := compile.Snapshot{
		Node: h.node, Policies: mixed(h, c.Policies), ClusterPolicies: mixed(h, c.ClusterPolicies), Isolations: mixed(h, c.Isolations),
		DNS: compile.DNS{Services: mixed(h, c.DNSServices), Addresses: c.DNSAddresses}, Closed: c.Closed[h.node], Network: h.network,
	}
	s.Pods, h.pods = converted(mixed(h, c.Pods), h.pods, func(p *corev1.Pod) *compile.Pod { return h.shared.Pod(compile.NewPod(p)) })
	s.Namespaces, h.namespaces = converted(mixed(h, c.Namespaces), h.namespaces, compile.NewNamespace)
	s.Nodes, h.nodesOf = converted(mixed(h, c.Nodes), h.nodesOf, compile.NewNode)
	return s
}

// converted are objects as policy sees them, which are the same as before if the objects are.
func converted[O comparable, P any](objects []O, before map[O]P, convert func(O) P) ([]P, map[O]P) {
	var all []P
	now := map[O]P{}
	for _, o := range objects {
		p, known := before[o]
		if !known {
			p = convert(o)
		}
		now[o] = p
		all = append(all, p)
	}
	return all, now
}

// mixed is a list in another order.
func mixed[T any](h *History, list []T) []T {
	list = slices.Clone(list)
	h.random.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list
}

func (h *History) caseOf() gen.Case { return gen.Case{Nodes: h.nodes, Cluster: h.c} }

// other is another cluster, to take objects from.
func (h *History) other() oracle.Cluster { return gen.New(h.source, h.options).Cluster }

func (h *History) otherPod() *corev1.Pod { return pickFrom(h, h.other().Pods) }

func pickFrom[T any](h *History, list []T) T { return list[h.random.IntN(len(list))] }

// less is a list without one of its items, if more than some are left.
func less[T any](h *History, list []T, left int) []T {
	if len(list) <= left {
		return list
	}
	i := h.random.IntN(len(list))
	return slices.Delete(slices.Clone(list), i, i+1)
}

// with is a list with one of its items changed.
func with[T any](h *History, list []T, change func(T) T) []T {
	if len(list) == 0 {
		return list
	}
	list = slices.Clone(list)
	i := h.random.IntN(len(list))
	list[i] = change(list[i])
	return list
}

// on changes one of some objects of the cluster.
func on[T interface{ DeepCopy() T }](of func(*oracle.Cluster) *[]T, change func(*History, T)) func(*History) {
	return func(h *History) {
		list := of(&h.c)
		*list = with(h, *list, func(o T) T {
			o = o.DeepCopy()
			change(h, o)
			return o
		})
	}
}

func onPod(change func(*History, *corev1.Pod)) func(*History) {
	return on(func(c *oracle.Cluster) *[]*corev1.Pod { return &c.Pods }, change)
}

func onNamespace(change func(*History, *corev1.Namespace)) func(*History) {
	return on(func(c *oracle.Cluster) *[]*corev1.Namespace { return &c.Namespaces }, change)
}

func onNode(change func(*History, *corev1.Node)) func(*History) {
	return on(func(c *oracle.Cluster) *[]*corev1.Node { return &c.Nodes }, change)
}

func onPolicy(change func(*History, *networkingv1.NetworkPolicy)) func(*History) {
	return on(func(c *oracle.Cluster) *[]*networkingv1.NetworkPolicy { return &c.Policies }, change)
}

func addressesOf(p *corev1.Pod) (string, []corev1.PodIP) {
	return p.Status.PodIP, slices.Clone(p.Status.PodIPs)
}

// announce has the pod's enforcer say which addresses it has, and nobody else.
func announce(p *corev1.Pod) {
	a, err := netip.ParseAddr(p.Status.PodIP)
	if err != nil {
		return
	}
	p.Status = corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{
		{Type: v1alpha1.AddressesCondition, Status: corev1.ConditionTrue, Message: compile.Announcement([]netip.Addr{a.Unmap()})}}}
}

// rewire draws links, of which some are said to be a pod's, and to give it an address more.
func (h *History) rewire() {
	h.network.SourceCheck = pickFrom(h, []compile.SourceCheck{compile.SourceCheckOff, compile.SourceCheckAudit, compile.SourceCheckEnforce})
	h.network.Links = nil
	for i, p := range h.c.Pods {
		a, err := netip.ParseAddr(p.Status.PodIP)
		if err != nil || h.random.IntN(2) == 0 {
			continue
		}
		l := compile.Link{Name: fmt.Sprint("veth", i), Index: i, Bridged: h.random.IntN(2) == 0, Guarded: h.random.IntN(3) == 0, Held: []netip.Addr{a}}
		if h.random.IntN(2) == 0 {
			more := netip.AddrFrom4([4]byte{10, 245, 0, byte(h.random.IntN(4))})
			l.Given = &compile.Given{UID: string(p.UID), Namespace: p.Namespace, Name: p.Name, Addrs: []netip.Addr{a, more}}
		}
		h.network.Links = append(h.network.Links, l)
	}
}

// Happenings are the names of all that can happen.
func Happenings() []string {
	names := map[string]bool{}
	for _, one := range happenings {
		names[one.name] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// WalkHistory compiles each of the snapshots of a history by a compiler that has seen those before, and compares with what a new one makes. It says how often
// what has happened.
func WalkHistory(seed uint64, steps int) (map[string]int, error) {
	return WalkHistoryBy(func() *compile.Compiler { return new(compile.Compiler) }, seed, steps)
}

// WalkHistoryBy is [WalkHistory] with compilers that are made otherwise.
func WalkHistoryBy(newCompiler func() *compile.Compiler, seed uint64, steps int) (map[string]int, error) {
	h := NewHistory(seed)
	happened := map[string]int{}
	kept := newCompiler()
	var last, lastWanted policy.Node
	for i := range steps {
		name, s := h.Next()
		happened[name]++
		want, wantProblems := newCompiler().Compile(s)
		got, gotProblems := kept.Compile(s)
		switch {
		case !reflect.DeepEqual(want, got):
			return happened, fmt.Errorf("step %d, %s (-anew +with what is kept):\n%s", i, name, cmp.Diff(want, got, values))
		case !reflect.DeepEqual(wantProblems, gotProblems):
			return happened, fmt.Errorf("step %d, %s: problems (-anew +with what is kept):\n%s", i, name, cmp.Diff(wantProblems, gotProblems))
		case !reflect.DeepEqual(lastWanted, last):
			return happened, fmt.Errorf("step %d, %s: it changes what was made before (-as it was +as it is):\n%s", i, name, cmp.Diff(lastWanted, last, values))
		}
		last, lastWanted = got, want
	}
	return happened, nil
}

// values compares addresses and prefixes as values.
var values = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}
