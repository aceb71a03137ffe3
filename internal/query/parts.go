package query

import (
	"cmp"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/ringfence-io/ringfence/enforcer/compile"
)

// parts are objects with what snapshots of different nodes have in common, and by what they are looked up. Of several objects of one name, the first is found.
type parts struct {
	Objects
	pods           []*compile.Pod // of each of Pods
	byNode         map[string][]*compile.Pod
	byNamespace    map[string][]int     // indexes of pods
	byAddr         map[netip.Addr][]int // likewise
	all            compile.Objects[*compile.Pod]
	namespaces     compile.Objects[*compile.Namespace]
	namespaceNamed map[string]*corev1.Namespace
	nodes          []*compile.Node // by name
	nodeNamed      map[string]*compile.Node
	policiesIn     map[string][]*networkingv1.NetworkPolicy
}

func newParts(o Objects) *parts {
	p := &parts{
		Objects: o, byNode: map[string][]*compile.Pod{}, byNamespace: map[string][]int{}, byAddr: make(map[netip.Addr][]int, len(o.Pods)),
		namespaceNamed: map[string]*corev1.Namespace{}, nodeNamed: map[string]*compile.Node{},
	}
	var shared compile.Interner
	for i, pod := range o.Pods {
		small := shared.Pod(compile.NewPod(pod))
		p.pods, p.byNode[small.Node] = append(p.pods, small), append(p.byNode[small.Node], small)
		p.byNamespace[pod.Namespace] = append(p.byNamespace[pod.Namespace], i)
		for _, a := range small.Addrs {
			p.byAddr[a] = append(p.byAddr[a], i)
		}
	}
	p.all = compile.ObjectsOf(p.pods...)
	namespaces := make([]*compile.Namespace, 0, len(o.Namespaces))
	for _, n := range o.Namespaces {
		namespaces = append(namespaces, compile.NewNamespace(n))
		if p.namespaceNamed[n.Name] == nil {
			p.namespaceNamed[n.Name] = n
		}
	}
	p.namespaces = compile.ObjectsOf(namespaces...)
	for _, n := range o.Nodes {
		p.nodes = append(p.nodes, compile.NewNode(n))
	}
	slices.SortFunc(p.nodes, func(a, b *compile.Node) int { return cmp.Compare(a.Name, b.Name) })
	for _, n := range p.nodes {
		if p.nodeNamed[n.Name] == nil {
			p.nodeNamed[n.Name] = n
		}
	}
	p.listPolicies()
	return p
}

func (p *parts) listPolicies() {
	p.policiesIn = make(map[string][]*networkingv1.NetworkPolicy, len(p.namespaceNamed))
	for _, np := range p.Policies {
		p.policiesIn[np.Namespace] = append(p.policiesIn[np.Namespace], np)
	}
}

// with are the objects after a change of policies alone.
func (p *parts) with(o Objects) *parts {
	q := *p
	q.Objects = o
	q.listPolicies()
	return &q
}

// snapshot is that of a node. It has the policies of its pods' namespaces alone: no other applies to any of them.
func (p *parts) snapshot(node string) compile.Snapshot {
	s := p.snapshotOf(p.byNode[node])
	s.Node, s.Remote = node, p.all
	for _, pod := range s.Local {
		s.Remote = s.Remote.Without(pod.Namespace, pod.Name)
	}
	return s
}

// snapshotOf is that of a node without a name which runs some pods, and of which none runs elsewhere.
func (p *parts) snapshotOf(local []*compile.Pod) compile.Snapshot {
	var policies []*networkingv1.NetworkPolicy
	seen := map[string]bool{}
	for _, pod := range local {
		if !seen[pod.Namespace] {
			seen[pod.Namespace] = true
			policies = append(policies, p.policiesIn[pod.Namespace]...)
		}
	}
	return compile.Snapshot{
		Local: local, Namespaces: p.namespaces, Nodes: p.nodes, Policies: compile.ObjectsOf(policies...), ClusterPolicies: p.ClusterPolicies,
		Isolations: p.Isolations, DNS: p.DNS,
	}
}

// holder is the index of the pod that holds an address, as a node sees it; -1 if none does.
func (p *parts) holder(node string, a netip.Addr) int {
	var claim []*compile.Pod
	for _, i := range p.byAddr[a] {
		claim = append(claim, p.pods[i])
	}
	holder := compile.Holder(compile.Snapshot{Node: node, Nodes: p.nodes}.WithPods(claim...), a)
	for _, i := range p.byAddr[a] {
		if p.pods[i] == holder {
			return i
		}
	}
	return -1
}
