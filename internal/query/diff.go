package query

import (
	"cmp"
	"reflect"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ringfence-io/ringfence/enforcer/compile"
)

// Difference is what becomes possible, and what no longer is, between two ends.
type Difference struct {
	From   string         `json:"from"`
	To     string         `json:"to"`
	Opened []PortsVerdict `json:"opened,omitempty"`
	Closed []PortsVerdict `json:"closed,omitempty"`
	// By says who decides about what was opened, after the change, and about what was closed, before it.
	By []string `json:"by,omitempty"`
}

// Diff are the connections that one state of a cluster allows and the other does not, by From and To.
func Diff(before, after *Cluster) []Difference {
	s := Selection{Outside: true, Blocks: append(before.blocks(), after.blocks()...), Either: concernedBy(before.parts, after.parts)}
	was, is := before.Edges(s), after.Edges(s)
	differences := []Difference{}
	for len(was)+len(is) > 0 {
		var old, now Edge
		switch order := compareFirst(was, is); {
		case order < 0:
			old, was = was[0], was[1:]
		case order > 0:
			now, is = is[0], is[1:]
		default:
			old, now, was, is = was[0], is[0], was[1:], is[1:]
		}
		d := Difference{From: cmp.Or(old.From, now.From), To: cmp.Or(old.To, now.To), Opened: less(now.Ports, old.Ports), Closed: less(old.Ports, now.Ports)}
		if len(d.Opened) > 0 {
			d.By = append(d.By, now.By...)
		}
		if len(d.Closed) > 0 {
			d.By = append(d.By, old.By...)
		}
		if len(d.Opened)+len(d.Closed) > 0 {
			d.By = slices.Compact(d.By)
			differences = append(differences, d)
		}
	}
	return differences
}

// compareFirst orders the first edges of two lists; a list without any comes last.
func compareFirst(a, b []Edge) int {
	switch {
	case len(a) == 0:
		return 1
	case len(b) == 0:
		return -1
	}
	return cmp.Or(cmp.Compare(a[0].From, b[0].From), cmp.Compare(a[0].To, b[0].To))
}

// less are the ports of one list that the other lacks. In each, ranges of one protocol are ascending and do not overlap.
func less(ports, without []PortsVerdict) []PortsVerdict {
	var left []PortsVerdict
	for _, p := range ports {
		first, last, gone := int(p.First), int(p.Last), false
		for _, w := range without {
			if w.Protocol != p.Protocol || int(w.Last) < first || int(w.First) > last {
				continue
			}
			if int(w.First) > first {
				left = append(left, PortsVerdict{p.Protocol, uint16(first), w.First - 1, true})
			}
			first = int(w.Last) + 1
			gone = first > last
		}
		if !gone {
			left = append(left, PortsVerdict{p.Protocol, uint16(first), uint16(last), true})
		}
	}
	return left
}

// concernedBy takes the workloads that a change is about: nothing becomes of connections between others. Nil takes all, where an object has changed that may be
// about any pod.
func concernedBy(before, after *parts) func(namespace, workload string) bool {
	if len(changed(before.ClusterPolicies, after.ClusterPolicies))+len(changed(before.Isolations, after.Isolations))+
		len(changed(before.Namespaces, after.Namespaces))+len(changed(before.Nodes, after.Nodes)) > 0 || !sameDNS(before.Objects, after.Objects) {
		return nil
	}
	concerned := map[string]bool{}
	for _, p := range changed(before.Pods, after.Pods) {
		concerned[Workload(p)] = true
	}
	for _, p := range changed(before.Policies, after.Policies) {
		u := compile.Understand(compile.Object{NetworkPolicy: p})
		for _, state := range []*parts{before, after} {
			for _, i := range state.byNamespace[p.Namespace] {
				if u.Selects(state.pods[i], nil) {
					concerned[Workload(state.Pods[i])] = true
				}
			}
		}
	}
	return func(_, workload string) bool { return concerned[workload] }
}

// changed are the objects of a kind that only one of two states has: an object that differs is two.
func changed[T metav1.Object](before, after []T) []T {
	was, is := byIdentity(before), byIdentity(after)
	var all []T
	for id, o := range was {
		if now, ok := is[id]; !ok || !reflect.DeepEqual(o, now) {
			all = append(all, o)
		}
	}
	for id, o := range is {
		if old, ok := was[id]; !ok || !reflect.DeepEqual(old, o) {
			all = append(all, o)
		}
	}
	return all
}

func byIdentity[T metav1.Object](objects []T) map[[3]string]T {
	all := map[[3]string]T{}
	for _, o := range objects {
		all[identity(o)] = o
	}
	return all
}

// sameDNS reports whether pods ask for names at the same places. Isolations allow that.
func sameDNS(before, after Objects) bool {
	return slices.Equal(before.DNS.Addresses, after.DNS.Addresses) && len(changed(before.DNS.Services, after.DNS.Services)) == 0
}
