package controllers

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/cached"
	nodectl "github.com/ringfence-io/ringfence/controllers/node"
	"github.com/ringfence-io/ringfence/enforcer"
	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/test/kit"
	"github.com/ringfence-io/ringfence/test/kit/transport"
)

const node = "node-a"

func TestNothingIsSyncedFromHalfAPicture(t *testing.T) {
	c := newCluster(t)
	for i := range 50 {
		c.createPod(fmt.Sprintf("early-%d", i), node)
	}
	c.createPolicy("early")
	n := c.start(time.Hour)

	n.until("the first snapshot", func(all []seen) bool { return len(all) > 0 })
	first := n.all()[0]
	if pods := first.podsIn(c.namespace); len(pods) != 50 || !first.hasPolicy(c.namespace, "early") {
		t.Errorf("the first snapshot has %d pods of 50 and the policies %v: the caches had not synced", len(pods), first.policies)
	}
	kit.EventuallySucceeds(t, patience, "the node to be ready after the first sync", func(context.Context) error { return n.node.Synced() })
}

func TestAChangeThatPolicyLooksAtReachesTheNode(t *testing.T) {
	for watched, all := range map[string]bool{"reached": false, "all": true} {
		t.Run(watched, func(t *testing.T) { followChanges(t, all) })
	}
}

func followChanges(t *testing.T, all bool) {
	t.Helper()
	c := newCluster(t)
	c.all = all
	pod := c.createPod("web", "node-b")
	c.createPod("own", node)
	c.allow("in", c) // so that the other pod is one that a policy names
	n := c.start(time.Hour)

	tests := []struct {
		name   string
		change func()
		shown  func(seen) bool
	}{
		{"an address", func() { c.setStatus(pod, corev1.PodRunning, "10.1.2.3", "fd00::3") },
			func(s seen) bool { return len(s.pod(c.namespace, "web").Addrs) == 2 }},
		{"a label", func() { c.label(pod, "role", "db") },
			func(s seen) bool { return s.pod(c.namespace, "web").Labels.Get("role") == "db" }},
		{"a label of the namespace", func() { c.labelNamespace("team", "x") },
			func(s seen) bool { return s.namespaceLabel(c.namespace, "team") == "x" }},
		{"a policy", func() { c.createPolicy("late") },
			func(s seen) bool { return s.hasPolicy(c.namespace, "late") }},
		{"the mode of a policy", func() { c.annotate(c.policy("late"), v1alpha1.ModeAnnotation, "Audit") },
			func(s seen) bool { return s.policyMode(c.namespace, "late") == "Audit" }},
		{"the mode of the namespace", func() { c.annotate(c.itself(), v1alpha1.ModeAnnotation, "Audit") },
			func(s seen) bool { return s.namespaceMode(c.namespace) == "Audit" }},
		{"the exemption of the namespace", func() { c.annotate(c.itself(), v1alpha1.SourceCheckAnnotation, v1alpha1.SourceCheckOff) },
			func(s seen) bool { return s.exempts(c.namespace) }},
		{"the end of the exemption", func() { c.annotate(c.itself(), v1alpha1.SourceCheckAnnotation, "no") },
			func(s seen) bool { return !s.exempts(c.namespace) }},
		{"the end of a pod's work", func() { c.setStatus(pod, corev1.PodSucceeded, "10.1.2.3", "fd00::3") },
			func(s seen) bool { return s.pod(c.namespace, "web").Finished }},
		{"the end of a pod", func() { c.delete(pod) },
			func(s seen) bool { return s.pod(c.namespace, "web").Name == "" }},
	}
	for _, tt := range tests {
		tt.change()
		n.until(tt.name, func(all []seen) bool { return len(all) > 0 && tt.shown(all[len(all)-1]) })
	}
}

func TestAChangeThatPolicyDoesNotLookAtCostsNoSync(t *testing.T) {
	c := newCluster(t)
	pod := c.createPod("web", node)
	n := c.start(time.Hour)
	n.until("the pod", func(all []seen) bool { return len(all) > 0 && all[len(all)-1].pod(c.namespace, "web").Name != "" })
	n.settle()
	before := len(n.all())

	for i := range 20 {
		c.annotate(pod, "heartbeat", fmt.Sprint(i))
	}
	c.createPolicy("marker") // when it shows, all that came before it has been seen
	n.until("the marker", func(all []seen) bool { return all[len(all)-1].hasPolicy(c.namespace, "marker") })
	if syncs := len(n.all()) - before; syncs != 1 {
		t.Errorf("20 annotations and one policy made %d syncs, want 1", syncs)
	}
}

func TestAFailedSyncIsTriedAgainAndTheNodeIsNotReadyBefore(t *testing.T) {
	c := newCluster(t)
	n := c.prepare(time.Hour)
	n.fail(3)
	n.run()
	n.until("the third failure", func(all []seen) bool { return len(all) >= 3 })
	n.until("a sync that succeeds", func([]seen) bool { return n.node.Synced() == nil })
}

func TestTheKernelIsVerifiedAtTheResyncInterval(t *testing.T) {
	c := newCluster(t)
	n := c.start(time.Second)
	n.until("three verifying syncs", func(all []seen) bool { return verifying(all) >= 3 })
}

func TestChangesDoNotPutTheNextLookAtTheKernelOff(t *testing.T) {
	c := newCluster(t)
	n := c.start(500 * time.Millisecond)
	pod := c.createPod("busy", node)
	for i := 0; verifying(n.all()) < 4; i++ {
		c.label(pod, "change", fmt.Sprint(i))
		if i == 5000 {
			t.Fatalf("5000 changes made %d syncs, and %d of them looked at the kernel", len(n.all()), verifying(n.all()))
		}
	}
}

// verifying counts the syncs that looked at the kernel.
func verifying(all []seen) int {
	count := 0
	for _, s := range all {
		if s.verify {
			count++
		}
	}
	return count
}

// seen is one snapshot as a sync got it.
type seen struct {
	compile.Snapshot
	verify   bool
	policies []string
}

func (s seen) podsIn(namespace string) []*compile.Pod {
	return slices.DeleteFunc(slices.Collect(s.Pods()), func(p *compile.Pod) bool { return p.Namespace != namespace })
}

func (s seen) pod(namespace, name string) compile.Pod {
	for p := range s.Pods() {
		if p.Namespace == namespace && p.Name == name {
			return *p
		}
	}
	return compile.Pod{}
}

func (s seen) namespaceLabel(name, key string) string {
	for n := range s.Namespaces.All() {
		if n.Name == name {
			return n.Labels.Get(key)
		}
	}
	return ""
}

func (s seen) namespaceMode(name string) string {
	for n := range s.Namespaces.All() {
		if n.Name == name {
			return n.Mode
		}
	}
	return ""
}

func (s seen) exempts(name string) bool {
	return slices.ContainsFunc(slices.Collect(s.Namespaces.All()), func(n *compile.Namespace) bool { return n.Name == name && n.SourceCheckOff })
}

func (s seen) policyMode(namespace, name string) string {
	for p := range s.Policies.All() {
		if p.Namespace == namespace && p.Name == name {
			return p.Annotations[v1alpha1.ModeAnnotation]
		}
	}
	return ""
}

func (s seen) hasPolicy(namespace, name string) bool {
	return slices.Contains(s.policies, namespace+"/"+name)
}

// recorder is a kernel that remembers what it was asked to enforce, and fails as often as it is told to.
type recorder struct {
	mu       sync.Mutex
	seen     []seen
	failures int
	during   func() // called while a sync runs, if it is set
}

func (r *recorder) Sync(_ context.Context, s compile.Snapshot, verify bool) (enforcer.Report, error) {
	if r.during != nil {
		r.during()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	one := seen{Snapshot: s, verify: verify}
	for p := range s.Policies.All() {
		one.policies = append(one.policies, p.Namespace+"/"+p.Name)
	}
	r.seen = append(r.seen, one)
	if r.failures > 0 {
		r.failures--
		return enforcer.Report{}, errors.New("the kernel said no")
	}
	compiled, problems := compile.Compile(s)
	return enforcer.Report{Concerns: compiled.Concerns, Problems: problems}, nil
}

func (r *recorder) all() []seen {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.seen)
}

func (r *recorder) fail(times int) { r.failures = times }

// running is a node controller at work.
type running struct {
	*recorder
	t         *testing.T
	node      *nodectl.Reconciler
	manager   ctrl.Manager
	transport *transport.Transport
}

func (n *running) run() {
	ctx, stop := context.WithCancel(n.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- n.manager.Start(ctx) }()
	n.t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			n.t.Errorf("the manager ended with: %v", err)
		}
	})
}

// until waits until the snapshots seen so far show what is waited for.
func (n *running) until(what string, shown func([]seen) bool) {
	n.t.Helper()
	kit.EventuallySucceeds(n.t, patience, what, func(context.Context) error {
		all := n.all()
		if !shown(all) {
			return fmt.Errorf("%d syncs have not seen it", len(all))
		}
		return nil
	})
}

// settle waits until no sync has come for a while.
func (n *running) settle() {
	last, since := len(n.all()), time.Now()
	n.until("the end of its syncs", func(all []seen) bool {
		if len(all) != last {
			last, since = len(all), time.Now()
		}
		return time.Since(since) > 300*time.Millisecond
	})
}

// cluster is a namespace of its own in the API server.
type cluster struct {
	t         *testing.T
	client    client.Client
	namespace string
	config    *rest.Config         // the controllers'
	transport *transport.Transport // between them and the API server
	dns       []types.NamespacedName
	arrivals  nodectl.Arrivals
	silent    bool // announces nothing
	all       bool // the node hears of all pods
	log       logr.Logger
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	unlimited := rest.CopyConfig(restConfig)
	unlimited.QPS = -1
	c, err := client.New(unlimited, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"}}
	cl := &cluster{t: t, client: c, config: restConfig, transport: transport.New(), log: logr.Discard()}
	kit.Must(cl.t, c.Create(t.Context(), ns))
	cl.namespace = ns.Name
	return cl
}

// start runs a node controller against the cluster.
func (c *cluster) start(resync time.Duration) *running {
	n := c.prepare(resync)
	n.run()
	return n
}

func (c *cluster) prepare(resync time.Duration) *running {
	c.t.Helper()
	skip := true
	m, err := ctrl.NewManager(c.transport.To(c.config), ctrl.Options{
		Logger:         c.log,
		Cache:          nodectl.CacheOptions(node),
		MapperProvider: cached.RESTMapper,
		Metrics:        metricsserver.Options{BindAddress: "0"},
		Controller:     config.Controller{SkipNameValidation: &skip},
	})
	kit.Must(c.t, err)
	r := &recorder{}
	n := &running{recorder: r, t: c.t, manager: m, transport: c.transport, node: nodectl.New(nodectl.Config{
		Name: node, Sync: r, Resync: resync, Arrivals: c.arrivals, Announce: !c.silent, ReachedPods: !c.all, DNSServices: c.dns, DNSAddresses: []netip.Addr{netip.MustParseAddr("169.254.20.10")},
	})}
	kit.Must(c.t, n.node.SetupWithManager(c.t.Context(), m))
	return n
}

func (c *cluster) createPod(name, on string) *corev1.Pod {
	c.t.Helper()
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace, Name: name},
		Spec: corev1.PodSpec{NodeName: on, Containers: []corev1.Container{{Name: "c", Image: "none"}},
			TerminationGracePeriodSeconds: new(int64)},
	}
	kit.Must(c.t, c.client.Create(c.t.Context(), p))
	return p
}

func (c *cluster) setStatus(p *corev1.Pod, phase corev1.PodPhase, ips ...string) {
	c.t.Helper()
	p.Status = corev1.PodStatus{Phase: phase, PodIP: ips[0]}
	for _, ip := range ips {
		p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: ip})
	}
	kit.Must(c.t, c.client.Status().Update(c.t.Context(), p))
}

func (c *cluster) label(p *corev1.Pod, key, value string) {
	c.t.Helper()
	c.patch(p, fmt.Sprintf(`{"metadata":{"labels":{%q:%q}}}`, key, value))
}

func (c *cluster) annotate(o client.Object, key, value string) {
	c.t.Helper()
	c.patch(o, fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, key, value))
}

func (c *cluster) labelNamespace(key, value string) {
	c.t.Helper()
	c.patch(c.itself(), fmt.Sprintf(`{"metadata":{"labels":{%q:%q}}}`, key, value))
}

// itself is the cluster's namespace.
func (c *cluster) itself() *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: c.namespace}}
}

// policy is a NetworkPolicy that there is.
func (c *cluster) policy(name string) *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace, Name: name}}
}

func (c *cluster) patch(o client.Object, patch string) {
	c.t.Helper()
	kit.Must(c.t, c.client.Patch(c.t.Context(), o, client.RawPatch(types.MergePatchType, []byte(patch))))
}

func (c *cluster) createPolicy(name string) {
	c.t.Helper()
	kit.Must(c.t, c.client.Create(c.t.Context(), c.policy(name)))
}

func (c *cluster) delete(o client.Object) {
	c.t.Helper()
	kit.Must(c.t, c.client.Delete(c.t.Context(), o))
}
