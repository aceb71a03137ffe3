package connections

import (
	"maps"
	"slices"
	"sync"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
)

// index knows which nodes speak of a namespace.
type index struct {
	mu    sync.Mutex
	nodes map[string]map[string]bool // by namespace
}

// put takes in what a node says in the place of what it said, and returns the namespaces that either speaks of. Either may be nil.
func (x *index) put(node string, before, after *v1alpha1.NodeConnections) []string {
	was, is := spokenOf(before), spokenOf(after)
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.nodes == nil {
		x.nodes = map[string]map[string]bool{}
	}
	for namespace := range was {
		if delete(x.nodes[namespace], node); len(x.nodes[namespace]) == 0 {
			delete(x.nodes, namespace)
		}
	}
	for namespace := range is {
		if x.nodes[namespace] == nil {
			x.nodes[namespace] = map[string]bool{}
		}
		x.nodes[namespace][node] = true
	}
	maps.Copy(was, is)
	return slices.Sorted(maps.Keys(was))
}

// of are the nodes that speak of a namespace.
func (x *index) of(namespace string) []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return slices.Sorted(maps.Keys(x.nodes[namespace]))
}

// spokenOf are the namespaces that a node speaks of.
func spokenOf(c *v1alpha1.NodeConnections) map[string]bool {
	all := map[string]bool{}
	if c == nil {
		return all
	}
	for _, o := range c.Status.Connections {
		all[o.From.Namespace], all[o.To.Namespace] = true, true
	}
	for _, one := range c.Status.Counts {
		all[one.Namespace] = true
	}
	for _, r := range c.Status.Rests {
		all[r.Namespace] = true
	}
	delete(all, "")
	return all
}
