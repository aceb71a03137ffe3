package compile

import (
	"slices"
	"sync"
)

// changes are what is new to policy since the snapshot before: pods, by their namespace, and nodes.
type changes struct {
	in map[string]*change
	// ofNodes reports whether the addresses of nodes may have changed, or whose those are. It is found out for whoever asks first.
	ofNodes func() bool
}

// change is that of one namespace. A pod that has changed has gone as it was, and come as it is. If the namespace itself has changed, so have all its pods.
type change struct {
	name          string
	before, after *Namespace // nil if it is not known
	gone, come    []*Pod
}

// previous is the list that was compared last.
type previous[T comparable] struct {
	lists int
	items map[T]int // the number of the list that had it last
}

// compare says what of the previous list is not in this one, and what of this one was not in that, in whatever order both stand.
func (r *previous[T]) compare(list []T) (gone, come []T) {
	if r.items == nil {
		r.items = make(map[T]int, len(list))
	}
	r.lists++
	for _, item := range list {
		if _, had := r.items[item]; !had {
			come = append(come, item)
		}
		r.items[item] = r.lists
	}
	if len(r.items) > len(list) {
		for item, last := range r.items {
			if last != r.lists {
				gone = append(gone, item)
				delete(r.items, item)
			}
		}
	}
	return gone, come
}

// copies are the copies of pods with other addresses than they are shown with. One that would be as in the snapshot before is the same again, so that a pod
// that has not changed has the address that it had.
type copies struct{ before, now map[*Pod]*Pod }

// of is a copy of p, or the one before it if that has the same addresses.
func (c *copies) of(p, copied *Pod) *Pod {
	if old := c.before[p]; old != nil && slices.Equal(old.Addrs, copied.Addrs) {
		copied = old
	}
	if c.now == nil {
		c.now = map[*Pod]*Pod{}
	}
	c.now[p] = copied
	return copied
}

// next begins another snapshot.
func (c *copies) next() { c.before, c.now = c.now, nil }

// changesTo are those since the last snapshot; nil if they are too many to be followed. A set is asked about each pod that has changed, but about the pods of
// the cluster by their groups, of which there are some ten times fewer.
func (k *Compiler) changesTo(c *cluster) *changes {
	gone, come := k.held.compare(c.held)
	last := k.last
	k.last = &cluster{node: c.node, namespaces: c.namespaces, nodes: c.nodes, own: c.own}
	if last == nil || last.node != c.node {
		return nil
	}
	all := &changes{in: map[string]*change{}}
	at := func(name string) *change {
		if all.in[name] == nil {
			all.in[name] = &change{name: name, before: last.namespaces[name], after: c.namespaces[name]}
		}
		return all.in[name]
	}
	for _, p := range gone {
		at(p.Namespace).gone = append(at(p.Namespace).gone, p)
	}
	for _, p := range come {
		at(p.Namespace).come = append(at(p.Namespace).come, p)
	}
	for _, name := range changedNamespaces(last.namespaces, c.namespaces) {
		one := at(name)
		stayed := slices.DeleteFunc(slices.Clone(c.byNamespace[name]), func(p *Pod) bool { return slices.Contains(one.come, p) })
		one.gone, one.come = append(one.gone, stayed...), c.byNamespace[name]
	}
	moved := 0
	for _, one := range all.in {
		moved += len(one.gone) + len(one.come)
	}
	if moved > fewPods+len(c.held)/16 {
		return nil
	}
	all.ofNodes = sync.OnceValue(func() bool { return haveNodesChanged(last, c, all) })
	return all
}

// fewPods is how many may change in any cluster.
const fewPods = 16

// changedNamespaces are the names of those that came, went, or are not what they were.
func changedNamespaces(before, after map[string]*Namespace) []string {
	var names []string
	for name, ns := range after {
		if !ns.equal(before[name]) {
			names = append(names, name)
		}
	}
	for name := range before {
		if after[name] == nil {
			names = append(names, name)
		}
	}
	return names
}

// equal reports whether two states of a namespace are the same for policy. None is equal to none.
func (n *Namespace) equal(o *Namespace) bool {
	if n == o || n == nil || o == nil {
		return n == o
	}
	return n.Name == o.Name && n.Mode == o.Mode && n.SourceCheckOff == o.SourceCheckOff && slices.Equal(n.Labels, o.Labels)
}
