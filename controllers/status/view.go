package status

import (
	"context"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/cached"
	"github.com/ringfence-io/ringfence/enforcer/compile"
)

// view is the cluster as the controller has seen it.
type view struct {
	pods, namespaces, policies, nodes, reports, enforcements toolscache.SharedIndexInformer
	heartbeats                                               heartbeats
	byName                                                   namespaceIndex
}

func newView(ctx context.Context, c cache.Cache) (*view, error) {
	v := &view{heartbeats: heartbeats{nodes: map[string]heartbeat{}}}
	return v, cached.Informers(ctx, c, []cached.Wanted{
		{Object: &corev1.Pod{}, To: &v.pods},
		{Object: &corev1.Namespace{}, To: &v.namespaces},
		{Object: &networkingv1.NetworkPolicy{}, To: &v.policies},
		{Object: &corev1.Node{}, To: &v.nodes},
		{Object: &v1alpha1.NodeEnforcement{}, To: &v.reports},
		{Object: &v1alpha1.PolicyEnforcement{}, To: &v.enforcements},
	})
}

func (v *view) namespace(name string) *compile.Namespace {
	e := cached.Get[*cached.NamespaceEntry](v.namespaces, name)
	if e == nil {
		return nil
	}
	return e.Namespace
}

// namespaceIndex has all namespaces by name, made once for as long as none changes: each review of a policy asks for them. Who gets them does not write there.
type namespaceIndex struct {
	mu      sync.Mutex
	changes int // that there ever were
	made    int // for how many of them the map was made
	all     map[string]*compile.Namespace
}

// changed notes that a namespace in the cache is another one than it was.
func (n *namespaceIndex) changed() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.changes++
}

// from are the namespaces of a cache, or what was made of it since the last change.
func (n *namespaceIndex) from(cache toolscache.SharedIndexInformer) map[string]*compile.Namespace {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.all != nil && n.made == n.changes {
		return n.all
	}
	list := cached.List(cache, cached.NamespaceOf)
	n.all, n.made = make(map[string]*compile.Namespace, len(list)), n.changes
	for _, ns := range list {
		n.all[ns.Name] = ns
	}
	return n.all
}

// runs reports whether a node runs pods of a namespace.
func (v *view) runs(node, namespace string) bool {
	return slices.ContainsFunc(v.entriesIn(namespace), func(item any) bool { return item.(*podEntry).Pod.Node == node })
}

// podsIn are the pods of a namespace.
func (v *view) podsIn(namespace string) []*compile.Pod {
	items := v.entriesIn(namespace)
	pods := make([]*compile.Pod, 0, len(items))
	for _, item := range items {
		pods = append(pods, item.(*podEntry).Pod)
	}
	return pods
}

// entriesIn are what the cache has for the pods of a namespace: each a podEntry.
func (v *view) entriesIn(namespace string) []any {
	items, err := v.pods.GetIndexer().ByIndex(toolscache.NamespaceIndex, namespace)
	if err != nil {
		return nil // there is no such index: a cache without it could not have been started
	}
	return items
}

func (v *view) hasNode(name string) bool {
	return cached.Get[metav1.Object](v.nodes, name) != nil
}

func (v *view) report(node string) *cached.ReportEntry {
	return cached.Get[*cached.ReportEntry](v.reports, node)
}

// enforcement is the PolicyEnforcement of a NetworkPolicy, nil if there is none.
func (v *view) enforcement(key policyKey) *v1alpha1.PolicyEnforcement {
	return cached.Get[*v1alpha1.PolicyEnforcement](v.enforcements, key.inCache())
}

// nodesOf are the nodes that exist and run pods which the policy selects, and the names of those that such pods are bound to and that do
// not exist: their pods do not run.
func (v *view) nodesOf(u *compile.Understood, now time.Time) (nodes map[string]*NodeCase, absent []string) {
	nodes = map[string]*NodeCase{}
	add := func(ns *compile.Namespace, name string) {
		for _, item := range v.entriesIn(name) {
			e := item.(*podEntry)
			p := e.Pod
			if !u.Selects(p, ns) {
				continue
			}
			n := nodes[p.Node]
			if n == nil {
				if !v.hasNode(p.Node) {
					if !slices.Contains(absent, p.Node) {
						absent = append(absent, p.Node)
					}
					continue
				}
				n = &NodeCase{Report: v.report(p.Node)}
				n.Heard = n.Report != nil && v.heartbeats.recent(n.Report, now)
				n.Presumed = n.Heard && v.heartbeats.presumes(n.Report)
				nodes[p.Node] = n
			}
			n.Pods = append(n.Pods, e.Digest(ns))
			if n.Report != nil && n.Family == "" {
				n.Family = unenforced(p, n.Report.Families)
			}
		}
	}
	if name, one := u.Namespace(); one {
		add(v.namespace(name), name)
		return nodes, absent
	}
	for _, ns := range cached.List(v.namespaces, cached.NamespaceOf) {
		add(ns, ns.Name)
	}
	return nodes, absent
}

// missed reports whether something has happened to fresh nodes since nodesOf looked at them.
func (v *view) missed(nodes map[string]*NodeCase, fresh []string) bool {
	return slices.ContainsFunc(fresh, func(name string) bool {
		n, exists := nodes[name], v.hasNode(name)
		if n == nil || !exists {
			return exists == (n == nil)
		}
		report := v.report(name)
		return report != n.Report || report != nil && v.heartbeats.recent(report, time.Now()) != n.Heard
	})
}

// count counts the nodes by what is known of them.
func (v *view) count(now time.Time) map[string]int {
	counts := map[string]int{"enforcing": 0, "failing": 0, "unknown": 0}
	for _, name := range v.nodes.GetStore().ListKeys() {
		switch report := v.report(name); {
		case report == nil || !v.heartbeats.recent(report, now):
			counts["unknown"]++
		case report.Failing || report.Passed:
			counts["failing"]++
		default:
			counts["enforcing"]++
		}
	}
	return counts
}

// unenforced is a family of the pod's addresses that is not among those, empty if there is none.
func unenforced(p *compile.Pod, families []v1alpha1.Family) v1alpha1.Family {
	for _, a := range p.Addrs {
		family := v1alpha1.IPv4
		if a.Is6() {
			family = v1alpha1.IPv6
		}
		if !slices.Contains(families, family) {
			return family
		}
	}
	return ""
}

// ownerUID is the UID of the object's owner of a kind, empty if it has none.
func ownerUID(o metav1.Object, kind string) string {
	for _, owner := range o.GetOwnerReferences() {
		if owner.Kind == kind {
			return string(owner.UID)
		}
	}
	return ""
}
