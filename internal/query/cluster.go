package query

import (
	"net/netip"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// Cluster answers questions about one state of a cluster. What it has found out it keeps, so that it is not safe for concurrent use.
//
// Few pods are asked about by what their own nodes enforce. Where many are, most nodes would be compiled, for the same policies and sets each time: then what
// all of them enforce is compiled once, if no node enforces anything else ([compile.Together]).
type Cluster struct {
	parts     *parts
	nodes     map[string]*compiledNode
	compilers map[string]*compile.Compiler // of nodes that were compiled before a change
	every     *compiledNode                // what all nodes enforce; nil unless many pods are asked about, and no node enforces anything else
	expected  bool                         // whether that has been found out
	listed    []*workload                  // nil before anybody has asked
}

// compiledNode is what a node enforces.
type compiledNode struct {
	policy.Node
	problems  []compile.Problem
	endpoints map[netip.Addr]*policy.Endpoint
	members   map[policy.SetID]map[policy.Addr][]policy.Member // of sets that were asked about
	compiler  *compile.Compiler
}

// New is the state that some objects are.
func New(o Objects) *Cluster {
	return &Cluster{parts: newParts(o), nodes: map[string]*compiledNode{}}
}

// with is the state with one more policy. It compiles anew what that changes, and nothing else: so c has no compilers any more.
func (c *Cluster) with(o metav1.Object) *Cluster {
	after := &Cluster{parts: c.parts.with(c.parts.With(o)), nodes: map[string]*compiledNode{}, compilers: map[string]*compile.Compiler{}}
	for name, n := range c.nodes {
		after.compilers[name], n.compiler = n.compiler, nil
	}
	return after
}

// node is what a node enforces; that of the empty name has all pods that no node runs.
func (c *Cluster) node(name string) *compiledNode {
	if n := c.nodes[name]; n != nil {
		return n
	}
	k := c.compilers[name]
	if k == nil {
		k = new(compile.Compiler)
	}
	node, problems := k.Compile(c.parts.snapshot(name))
	n := newCompiledNode(node)
	n.problems, n.compiler = problems, k
	c.nodes[name] = n
	return n
}

func newCompiledNode(node policy.Node) *compiledNode {
	n := &compiledNode{Node: node, endpoints: map[netip.Addr]*policy.Endpoint{}, members: map[policy.SetID]map[policy.Addr][]policy.Member{}}
	for i := range n.Endpoints {
		for _, a := range n.Endpoints[i].Addrs {
			n.endpoints[a] = &n.Endpoints[i]
		}
	}
	return n
}

// expectMany says that many pods are going to be asked about.
func (c *Cluster) expectMany() {
	if c.expected {
		return
	}
	c.expected = true
	if node, ok := compile.Together(c.parts.snapshotOf(c.parts.pods)); ok {
		c.every = newCompiledNode(node)
	}
}

// at is what decides about an end, which is a pod.
func (c *Cluster) at(e End) *compiledNode {
	if c.every != nil {
		return c.every
	}
	return c.node(e.Node)
}

// owns reports whether a node has an address itself.
func (c *Cluster) owns(node string, a netip.Addr) bool {
	n := c.parts.nodeNamed[node]
	return n != nil && slices.Contains(n.Addrs, a)
}
