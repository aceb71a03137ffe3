// Package gen draws random clusters, policies and flows for the suites that compare one judge with another.
//
// What it draws is small and dense on purpose: few labels, so that selectors collide; few addresses that lie next
// to each other, so that blocks, exceptions and tree nodes have edges in between; few ports. Every feature of
// networking.k8s.io/v1 turns up, with its edge values, and on demand those of cluster policies and isolations, and objects that
// the API server would refuse.
//
// Invariants:
//   - the same [Source] draws the same things: a case is named by its seed, or by the bytes of a fuzz target;
//   - every loop is bounded by a number drawn before it, so that any bytes end;
//   - a packet's source and destination are of one family, and its protocol belongs to it.
package gen

import (
	"fmt"
	"math/rand/v2"
	"net/netip"

	corev1 "k8s.io/api/core/v1"

	"github.com/ringfence-io/ringfence/lab/oracle"
)

// Source decides. It draws from a seeded generator, or from bytes that a fuzzer varies.
type Source struct {
	intN func(n int) int
}

// Seed is the source of a seed.
func Seed(seed uint64) *Source {
	r := rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15))
	return &Source{intN: r.IntN}
}

// Bytes is a source that takes each decision from the next byte, or two where one is too few, and the first
// choice when they are used up.
func Bytes(data []byte) *Source {
	next := func() int {
		if len(data) == 0 {
			return 0
		}
		b := data[0]
		data = data[1:]
		return int(b)
	}
	return &Source{intN: func(n int) int {
		v := next()
		if n > 256 {
			v = v<<8 | next()
		}
		return v % n
	}}
}

// oneIn is true once in n draws.
func (s *Source) oneIn(n int) bool { return s.intN(n) == n-1 }

// between draws from low to high, both included.
func (s *Source) between(low, high int) int { return low + s.intN(high-low+1) }

// pick draws one of the choices.
func pick[T any](s *Source, choices []T) T { return choices[s.intN(len(choices))] }

// pointer is the address of a copy.
func pointer[T any](v T) *T { return &v }

// Options says what may turn up.
type Options struct {
	// Invalid admits objects that the API server's validation refuses.
	Invalid bool
	// Tiers adds what stands in front of and behind NetworkPolicies: nodes as objects, DNS, cluster policies, isolations, and modes. A
	// seed's pods, namespaces and policies are otherwise the same with it and without.
	Tiers bool
	// Closed has most nodes drop what no known pod holds. Pods, namespaces and policies are otherwise the same with it and without.
	Closed bool
	// Claims has pods and nodes say that they have addresses of others, or such as nobody can have, and nodes name ranges for their pods. All is otherwise the
	// same with it and without.
	Claims bool
	// Long adds, with Tiers, cluster policies of many rules. All is otherwise the same with it and without.
	Long bool
}

// Node is a node of a case: its name, its own addresses, and the ranges that its pods' addresses are of.
type Node struct {
	Name  string
	Addrs []netip.Addr
	Pods  []netip.Prefix
}

// Case is a cluster with its nodes.
type Case struct {
	Nodes   []Node
	Others  []netip.Addr // addresses of neither nodes nor pods that traffic comes from or goes to
	Cluster oracle.Cluster
}

// New draws a cluster with policies.
func New(s *Source, o Options) Case {
	c := Case{Nodes: nodes(s), Others: outsiders}
	c.Cluster.Namespaces = namespaces(s)
	c.Cluster.Pods = pods(s, c)
	c.Cluster.Policies = Policies(s, c, o)
	if o.Tiers {
		addTiers(s, &c, o)
	}
	if o.Closed {
		addGateways(&c)
		addClosed(s, &c)
	}
	if o.Claims {
		addClaims(s, &c)
	}
	if o.Tiers && o.Long {
		addLongLists(s, &c, o)
	}
	return c
}

// Redraw gives the pods of a case that has real ones new namespaces, labels and ports, and the case new policies and new objects of the
// tiers. Names, nodes and addresses stay. A pod in twelve is over, as far as its status says.
func Redraw(s *Source, c Case, o Options) Case {
	redrawn := Case{Nodes: c.Nodes, Others: c.Others}
	redrawn.Cluster.Namespaces = namespaces(s)
	for _, p := range c.Cluster.Pods {
		p = p.DeepCopy()
		p.Namespace = pick(s, redrawn.Cluster.Namespaces).Name
		p.Labels = labels(s)
		p.Spec.Containers = containers(s, 2)
		p.Status.Phase = corev1.PodRunning
		if s.oneIn(12) {
			p.Status.Phase = corev1.PodSucceeded
		}
		redrawn.Cluster.Pods = append(redrawn.Cluster.Pods, p)
	}
	redrawn.Cluster.Policies = Policies(s, redrawn, o)
	if o.Tiers {
		addTiers(s, &redrawn, o)
	}
	if o.Closed {
		addClosed(s, &redrawn)
	}
	if o.Tiers && o.Long {
		addLongLists(s, &redrawn, o)
	}
	return redrawn
}

// nodes are two or three, with addresses outside of the pods'.
func nodes(s *Source) []Node {
	var out []Node
	for i := range s.between(2, 3) {
		out = append(out, Node{
			Name: fmt.Sprintf("node%d", i+1),
			Addrs: []netip.Addr{
				netip.AddrFrom4([4]byte{192, 168, 0, byte(i + 1)}),
				netip.MustParseAddr(fmt.Sprintf("fd00:168::%d", i+1)),
			},
			Pods: podRanges(i),
		})
	}
	return out
}
