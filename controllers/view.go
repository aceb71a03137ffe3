package controllers

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer/compile"
)

// ControllerCacheOptions are what the controller's manager keeps: the same of pods, namespaces and policies as an enforcer does, that nodes
// exist, and what they report.
func ControllerCacheOptions() cache.Options {
	t := new(transforms)
	return cache.Options{ByObject: map[client.Object]cache.ByObject{
		&corev1.Pod{}:                 {Transform: t.podToEntry},
		&corev1.Namespace{}:           {Transform: namespaceToEntry},
		&networkingv1.NetworkPolicy{}: {Transform: t.stripPolicy},
		&corev1.Node{}:                {Transform: stripNode},
		&v1alpha1.NodeEnforcement{}:   {Transform: reportToEntry},
		&v1alpha1.PolicyEnforcement{}: {Transform: stripEnforcement},
	}}
}

// ControllerRESTMapper knows the kinds of ControllerCacheOptions, for the reason that [RESTMapper] gives.
func ControllerRESTMapper(config *rest.Config, c *http.Client) (meta.RESTMapper, error) {
	mapper, err := RESTMapper(config, c)
	if err != nil {
		return nil, err
	}
	ours := mapper.(*meta.DefaultRESTMapper)
	ours.Add(v1alpha1.GroupVersion.WithKind("NodeEnforcement"), meta.RESTScopeRoot)
	ours.Add(v1alpha1.GroupVersion.WithKind("PolicyEnforcement"), meta.RESTScopeNamespace)
	return ours, nil
}

// Scheme has the kinds that the controller's manager reads and makes.
func Scheme() *runtime.Scheme {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		corev1.AddToScheme, networkingv1.AddToScheme, coordinationv1.AddToScheme, eventsv1.AddToScheme, v1alpha1.AddToScheme,
	} {
		utilruntime.Must(add(s)) // it fails on types that are added twice under different names, and on nothing at run time
	}
	return s
}

// view is the cluster as the controller has seen it.
type view struct {
	pods, namespaces, policies, nodes, reports, enforcements toolscache.SharedIndexInformer
	hearing                                                  hearing
}

func newView(ctx context.Context, c cache.Cache) (*view, error) {
	v := &view{hearing: hearing{nodes: map[string]heard{}}}
	return v, informers(ctx, c, []wanted{
		{&corev1.Pod{}, &v.pods},
		{&corev1.Namespace{}, &v.namespaces},
		{&networkingv1.NetworkPolicy{}, &v.policies},
		{&corev1.Node{}, &v.nodes},
		{&v1alpha1.NodeEnforcement{}, &v.reports},
		{&v1alpha1.PolicyEnforcement{}, &v.enforcements},
	})
}

func (v *view) namespace(name string) *compile.Namespace {
	e := get[*namespaceEntry](v.namespaces, name)
	if e == nil {
		return nil
	}
	return e.namespace
}

// podsIn are the pods of a namespace.
func (v *view) podsIn(namespace string) []*compile.Pod {
	items, err := v.pods.GetIndexer().ByIndex(toolscache.NamespaceIndex, namespace)
	if err != nil {
		return nil // there is no such index: a cache without it could not have been started
	}
	pods := make([]*compile.Pod, 0, len(items))
	for _, item := range items {
		pods = append(pods, item.(*podEntry).pod)
	}
	return pods
}

func (v *view) hasNode(name string) bool {
	return get[metav1.Object](v.nodes, name) != nil
}

func (v *view) report(node string) *reportEntry { return get[*reportEntry](v.reports, node) }

// enforcement is the PolicyEnforcement of a NetworkPolicy, nil if there is none.
func (v *view) enforcement(key policyKey) *v1alpha1.PolicyEnforcement {
	return get[*v1alpha1.PolicyEnforcement](v.enforcements, key.inCache())
}

// nodesOf are the nodes that exist and run pods which the policy selects, and the names of those that such pods are bound to and that do
// not exist: their pods do not run.
func (v *view) nodesOf(u *compile.Understood, now time.Time) (nodes map[string]*nodeCase, absent []string) {
	nodes = map[string]*nodeCase{}
	add := func(ns *compile.Namespace, pods []*compile.Pod) {
		for _, p := range pods {
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
				n = &nodeCase{report: v.report(p.Node)}
				n.heard = n.report != nil && v.hearing.recent(n.report, now)
				n.presumed = n.heard && v.hearing.presumes(n.report)
				nodes[p.Node] = n
			}
			n.pods = append(n.pods, p.Digest(ns))
			if n.report != nil && n.family == "" {
				n.family = unenforced(p, n.report.families)
			}
		}
	}
	if name, one := u.Namespace(); one {
		add(v.namespace(name), v.podsIn(name))
		return nodes, absent
	}
	for _, ns := range list(v.namespaces, namespaceOf) {
		add(ns, v.podsIn(ns.Name))
	}
	return nodes, absent
}

// missed reports whether something has happened to fresh nodes since nodesOf looked at them.
func (v *view) missed(nodes map[string]*nodeCase, fresh []string) bool {
	return slices.ContainsFunc(fresh, func(name string) bool {
		n, exists := nodes[name], v.hasNode(name)
		if n == nil || !exists {
			return exists == (n == nil)
		}
		report := v.report(name)
		return report != n.report || report != nil && v.hearing.recent(report, time.Now()) != n.heard
	})
}

// count counts the nodes by what is known of them.
func (v *view) count(now time.Time) map[string]int {
	counts := map[string]int{"enforcing": 0, "failing": 0, "unknown": 0}
	for _, name := range v.nodes.GetStore().ListKeys() {
		switch report := v.report(name); {
		case report == nil || !v.hearing.recent(report, now):
			counts["unknown"]++
		case report.failing || report.passed:
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

// hearing says which nodes have been heard of, by this process's clock: nodes' own clocks may differ from it and from each other's. A node that was
// there before the controller is presumed to be heard of when the controller first sees its report.
type hearing struct {
	mu    sync.Mutex
	nodes map[string]heard
}

type heard struct {
	at     time.Time     // that the last heartbeat was seen
	silent time.Duration // after which the node is not heard of any more

	presumed bool // the heartbeat was there before this process, and may be of any age
}

// silentHeartbeats is how many heartbeats a node may leave out.
const silentHeartbeats = 3

// note takes in a report, and says whether the node was not heard of before.
func (h *hearing) note(e *reportEntry, now time.Time) (again bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	before, known := h.nodes[e.Name]
	h.nodes[e.Name] = heardAt(e, now)
	return !known || now.Sub(before.at) > before.silent
}

// presume takes in a report that was there before this process.
func (h *hearing) presume(e *reportEntry, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := heardAt(e, now)
	n.presumed = true
	h.nodes[e.Name] = n
}

func heardAt(e *reportEntry, now time.Time) heard {
	return heard{at: now, silent: silentHeartbeats * max(e.interval, time.Second)}
}

// presumes reports whether it is only presumed that the node of a report is heard of.
func (h *hearing) presumes(e *reportEntry) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	n, ok := h.nodes[e.Name]
	return !ok || n.presumed
}

func (h *hearing) forget(node string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.nodes, node)
}

// recent reports whether the node of a report is heard of. Of a report that nobody has noted yet, it is.
func (h *hearing) recent(e *reportEntry, now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	n, ok := h.nodes[e.Name]
	return !ok || now.Sub(n.at) <= n.silent
}

// lost are the nodes that fell silent between two moments.
func (h *hearing) lost(since, now time.Time) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var names []string
	for name, n := range h.nodes {
		if end := n.at.Add(n.silent); end.Before(now) && !end.Before(since) {
			names = append(names, name)
		}
	}
	return names
}

// wanted is an informer that is asked for.
type wanted struct {
	object client.Object
	to     *toolscache.SharedIndexInformer
}

// informers asks the cache for informers. Their contents may be entries rather than API objects, so they are read by who asked for
// them and nobody else.
func informers(ctx context.Context, c cache.Cache, all []wanted) error {
	for _, want := range all {
		informer, err := c.GetInformer(ctx, want.object, cache.BlockUntilSynced(false))
		if err != nil {
			return fmt.Errorf("watching %T: %w", want.object, err)
		}
		shared, ok := informer.(toolscache.SharedIndexInformer)
		if !ok {
			return fmt.Errorf("watching %T: the cache gave a %T, which has no store to read", want.object, informer)
		}
		*want.to = shared
	}
	return nil
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
