package compile

import (
	"net/netip"
	"slices"
)

// changes are what is new to policy since the snapshot before: pods, by their namespace, and nodes. They hold until the snapshot is compiled.
type changes struct {
	in    map[string]*change
	nodes nodesChange
}

// change is that of one namespace. A pod that has changed has gone as it was, and come as it is. If the namespace itself has changed, so have all its pods.
type change struct {
	name          string
	before, after *Namespace // nil if it is not known
	gone, come    []*Pod
}

// nodesChange is whether the addresses of nodes may have changed, or whose those are. It is found out for whoever asks first.
type nodesChange struct {
	before []*Node
	own    []netip.Addr // before
	after  *cluster
	asked  bool
	is     bool
}

// ofNodes reports whether the addresses of nodes may have changed, or whose those are.
func (all *changes) ofNodes() bool {
	n := &all.nodes
	if !n.asked {
		n.asked, n.is = true, n.after.haveNodesChanged(all)
	}
	return n.is
}

// note notes which namespaces and pods have gone and come. before are the namespaces as they were.
func (all *changes) note(before map[string]*Namespace, goneNamespaces, comeNamespaces []*Namespace, gone, come []*Pod) {
	at := func(name string) *change {
		if all.in[name] == nil {
			all.in[name] = &change{name: name, before: before[name]}
		}
		return all.in[name]
	}
	for _, namespaces := range [2][]*Namespace{goneNamespaces, comeNamespaces} {
		for _, ns := range namespaces {
			at(ns.Name)
		}
	}
	for _, p := range gone {
		one := at(p.Namespace)
		one.gone = append(one.gone, p)
	}
	for _, p := range come {
		one := at(p.Namespace)
		one.come = append(one.come, p)
	}
}

// complete adds what the namespaces are now, and the pods of those that have changed. It returns how many pods that are in all. A set is asked about each of
// them, but about the pods of the cluster by their groups, and there are some ten times fewer of those.
func (all *changes) complete(c *cluster) (moved int) {
	for name, one := range all.in {
		one.after = c.namespaces[name]
		switch {
		case !one.before.equal(one.after):
			is, isNew := c.byNamespace[name], setOf(one.come)
			stayed := slices.DeleteFunc(slices.Clone(is), func(p *Pod) bool { return isNew[p] })
			one.gone, one.come = append(one.gone, stayed...), is
		case len(one.gone)+len(one.come) == 0:
			delete(all.in, name)
		}
		moved += len(one.gone) + len(one.come)
	}
	return moved
}

// differing says what of one list is not in another, and what of that one was not in the first, in whatever order both stand.
func differing[T comparable](before, after []T) (gone, come []T) {
	if slices.Equal(before, after) {
		return nil, nil
	}
	had, has := setOf(before), setOf(after)
	for _, one := range before {
		if !has[one] {
			gone = append(gone, one)
		}
	}
	for _, one := range after {
		if !had[one] {
			come = append(come, one)
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

// fewPods is how many may change in any cluster.
const fewPods = 16

// equal reports whether two states of a namespace are the same for policy. None is equal to none.
func (n *Namespace) equal(o *Namespace) bool {
	if n == o || n == nil || o == nil {
		return n == o
	}
	return n.Name == o.Name && n.Mode == o.Mode && n.Logged == o.Logged && n.SourceCheckOff == o.SourceCheckOff && slices.Equal(n.Labels, o.Labels)
}
