package query

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// Cluster answers questions about one state of a cluster. What it has found out it keeps, so that it is not safe for concurrent use.
type Cluster struct {
	objects Objects
	parts   *parts
	nodes   map[string]*compiledNode
}

// compiledNode is what a node enforces.
type compiledNode struct {
	policy.Node
	problems  []compile.Problem
	endpoints map[netip.Addr]*policy.Endpoint
	members   map[policy.SetID]map[policy.Addr][]policy.Member // of sets that were asked about
}

// New is the state that some objects are.
func New(o Objects) *Cluster {
	return &Cluster{objects: o, parts: newParts(o), nodes: map[string]*compiledNode{}}
}

// node is what a node enforces; that of the empty name has all pods that no node runs.
func (c *Cluster) node(name string) *compiledNode {
	if n := c.nodes[name]; n != nil {
		return n
	}
	n := &compiledNode{members: map[policy.SetID]map[policy.Addr][]policy.Member{}}
	n.Node, n.problems = compile.Compile(c.parts.snapshot(name))
	n.endpoints = map[netip.Addr]*policy.Endpoint{}
	for i := range n.Endpoints {
		for _, a := range n.Endpoints[i].Addrs {
			n.endpoints[a] = &n.Endpoints[i]
		}
	}
	c.nodes[name] = n
	return n
}

// namespace is one of the cluster's; nil if there is none of the name.
func (c *Cluster) namespace(name string) *corev1.Namespace {
	i := slices.IndexFunc(c.objects.Namespaces, func(n *corev1.Namespace) bool { return n.Name == name })
	if i < 0 {
		return nil
	}
	return c.objects.Namespaces[i]
}

// owns reports whether a node has an address itself.
func (c *Cluster) owns(node string, a netip.Addr) bool {
	i := slices.IndexFunc(c.parts.nodes, func(n *compile.Node) bool { return n.Name == node })
	return i >= 0 && slices.Contains(c.parts.nodes[i].Addrs, a)
}
