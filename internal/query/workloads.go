package query

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// workload is what people call some pods of a namespace, with these by what policies tell apart.
type workload struct {
	name, namespace string
	classes         []class // by their first pod
}

// class are pods of one workload that no policy tells apart: they have a namespace, labels, named ports and families of addresses in common, and the same
// blocks of policies contain their addresses. Where nodes may differ, one node runs them. Pods of other workloads may have all of that in common with them:
// then the classes are alike.
type class struct {
	alike int
	ends  []End // by name
}

// workloads are those of all pods that policy is about, by name. They are found once.
func (c *Cluster) workloads() []*workload {
	if c.listed == nil {
		c.expectMany()
		c.listed = c.listWorkloads()
	}
	return c.listed
}

func (c *Cluster) listWorkloads() []*workload {
	blocks := newBlockIndex(slices.DeleteFunc(c.blocks(), func(b netip.Prefix) bool { return b.Bits() == 0 }))
	alike := map[string]int{}
	type place struct {
		workload string
		alike    int
	}
	index := map[place]int{} // in the classes of the workload
	named := map[string]*workload{}
	all := []*workload{}
	for i, pod := range c.parts.Pods {
		if p := c.parts.pods[i]; p.HostNetwork || p.Finished || len(p.Addrs) == 0 {
			continue
		}
		name := Workload(pod)
		w := named[name]
		if w == nil {
			w = &workload{name: name, namespace: pod.Namespace}
			named[name], all = w, append(all, w)
		}
		key := c.traits(i, blocks)
		if _, known := alike[key]; !known {
			alike[key] = len(alike)
		}
		at := place{name, alike[key]}
		k, known := index[at]
		if !known {
			k = len(w.classes)
			index[at], w.classes = k, append(w.classes, class{alike: at.alike})
		}
		w.classes[k].ends = append(w.classes[k].ends, c.podEnd(i))
	}
	for _, w := range all {
		for _, k := range w.classes {
			slices.SortFunc(k.ends, func(a, b End) int { return cmp.Compare(a.Name, b.Name) })
		}
		slices.SortFunc(w.classes, func(a, b class) int { return cmp.Compare(a.ends[0].Name, b.ends[0].Name) })
	}
	slices.SortFunc(all, func(a, b *workload) int { return cmp.Compare(a.name, b.name) })
	return all
}

// traits are all by which a policy may tell the pod of an index from others. Pods that claim one address differ by their names: nodes may differ about who has
// it.
func (c *Cluster) traits(i int, blocks blockIndex) string {
	p := c.parts.pods[i]
	var text strings.Builder
	fmt.Fprintf(&text, "%q %q", p.Namespace, p.Labels)
	if c.every == nil {
		fmt.Fprintf(&text, " on %q", p.Node)
	}
	for _, port := range p.Ports {
		fmt.Fprintf(&text, " %q %d %d", port.Name, port.Protocol, port.Port)
	}
	for _, a := range p.Addrs {
		fmt.Fprint(&text, " ", a.Is4(), blocks.around(a))
		if len(c.parts.byAddr[a]) > 1 {
			fmt.Fprintf(&text, " of %q", p.Name)
		}
	}
	return text.String()
}
