package controllers

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ringfence-io/ringfence/test/kit"
	"github.com/ringfence-io/ringfence/test/kit/transport"
)

func TestKindsComeAndGoWithTheirDefinitions(t *testing.T) {
	for _, k := range allKinds {
		t.Run(k.name, func(t *testing.T) {
			c := newCluster(t)
			n := c.start(time.Hour)
			n.until("a cluster without the kind", func(all []seen) bool { return len(all) > 0 })

			c.install(k)
			one := c.create(k, "one", k.plain)
			n.untilNow("an object", func(s seen) bool { return cmp.Equal(s.objects(), []string{k.shown + " one"}) })
			c.delete(one)
			n.untilNow("its end", func(s seen) bool { return len(s.objects()) == 0 })

			c.create(k, "two", k.plain)
			n.untilNow("another", func(s seen) bool { return cmp.Equal(s.objects(), []string{k.shown + " two"}) })
			c.remove(k)
			n.untilNow("the end of the kind", func(s seen) bool { return len(s.objects()) == 0 })
			n.untilClosed(transport.Path(k.path))
			c.createPolicy("meanwhile")
			n.untilNow("another kind's policy", func(s seen) bool { return s.hasPolicy(c.namespace, "meanwhile") })

			c.install(k)
			c.create(k, "three", k.plain)
			n.untilNow("the kind again", func(s seen) bool { return cmp.Equal(s.objects(), []string{k.shown + " three"}) })
		})
	}
}

func TestADefinitionThatIsThereBeforeTheEnforcer(t *testing.T) {
	c := newCluster(t)
	var want []string
	for _, k := range kindsWithNodes {
		c.install(k)
		c.create(k, "early", k.plain)
		want = append(want, k.shown+" early")
	}
	slices.Sort(want)
	n := c.start(time.Hour)
	n.until("a first snapshot", func(all []seen) bool { return len(all) > 0 })
	if diff := cmp.Diff(want, n.all()[0].objects()); diff != "" {
		t.Errorf("objects of the first snapshot (-want +got):\n%s", diff)
	}
}

// Whatever is missing at the start, nothing is written before it is there.
func TestTheFirstSyncWaitsForEachWatch(t *testing.T) {
	c := newCluster(t)
	c.dns = []types.NamespacedName{{Namespace: c.namespace, Name: "dns"}}
	c.createService("dns")
	c.createNode("node-x", "10.9.0.1")
	want := []string{"Node node-x", "Service dns"}
	for _, k := range kindsWithNodes {
		c.install(k)
		c.create(k, "early", k.nodes)
		want = append(want, k.shown+" early")
	}
	slices.Sort(want)

	bars := []struct {
		name string
		bar  func(*http.Request) bool
	}{
		{"CustomResourceDefinitions", transport.Path("/customresourcedefinitions")},
		{"one CustomResourceDefinition", func(q *http.Request) bool {
			return strings.Contains(q.URL.Query().Get("fieldSelector"), "namespaceisolations")
		}},
		{"our policies", transport.Path(clusterPolicies.path)},
		{"isolations", transport.Path(isolations.path)},
		{"the SIG's policies", transport.Path(sigExperimental.path)},
		{"all nodes", allNodes},
		{"Services", transport.Path("/services")},
	}
	for _, tt := range bars {
		t.Run(tt.name, func(t *testing.T) {
			c := *c
			c.t, c.transport = t, transport.New()
			n := c.prepare(time.Hour)
			c.transport.Hold(tt.bar)
			n.run()
			kit.Eventually(c.t, patience, "a request that is held", func() bool { return c.transport.Held() > 0 })
			n.settle()
			if syncs := len(n.all()); syncs > 0 || n.node.Synced() == nil {
				t.Errorf("%d syncs before %s were there; the node says of itself: %v", syncs, tt.name, n.node.Synced())
			}
			c.transport.Release()
			n.until("a first snapshot", func(all []seen) bool { return len(all) > 0 })
			first := n.all()[0]
			got := first.objects()
			for _, node := range first.Nodes {
				got = append(got, "Node "+node.Name)
			}
			for _, service := range first.DNS.Services {
				got = append(got, "Service "+service.Name)
			}
			slices.Sort(got)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("the first snapshot (-want +got):\n%s", diff)
			}
		})
	}
}

func TestTheAPIServerIsAwayAtTheStart(t *testing.T) {
	c := newCluster(t)
	c.install(clusterPolicies)
	c.create(clusterPolicies, "early", clusterPolicies.plain)
	c.transport.Break()
	n := c.start(time.Hour)
	n.settle()
	if n.node.Synced() == nil || len(n.all()) > 0 {
		t.Fatalf("%d syncs without an API server", len(n.all()))
	}
	c.transport.Mend()
	n.until("a first snapshot", func(all []seen) bool { return len(all) > 0 })
	if diff := cmp.Diff([]string{ours + " early"}, n.all()[0].objects()); diff != "" {
		t.Errorf("objects of the first snapshot (-want +got):\n%s", diff)
	}
}

// A kind that the API server announces and does not show: nobody else waits for it.
func TestANewKindHoldsNobodyUp(t *testing.T) {
	c := newCluster(t)
	n := c.start(time.Hour)
	n.until("a first snapshot", func(all []seen) bool { return len(all) > 0 })

	c.transport.Hold(transport.Path(isolations.path))
	c.install(isolations)
	c.create(isolations, "late", isolations.plain)
	kit.Eventually(c.t, patience, "a request that is held", func() bool { return c.transport.Held() > 0 })
	c.createPolicy("meanwhile")
	n.untilNow("another kind's policy", func(s seen) bool { return s.hasPolicy(c.namespace, "meanwhile") })

	c.remove(isolations)
	kit.Eventually(c.t, patience, "the end of the request", func() bool { return c.transport.Held() == 0 })
	c.createPolicy("afterwards")
	n.untilNow("another kind's policy", func(s seen) bool { return s.hasPolicy(c.namespace, "afterwards") })
}

func TestAStatusWriteCostsNoSync(t *testing.T) {
	for _, k := range allKinds {
		t.Run(k.name, func(t *testing.T) {
			c := newCluster(t)
			c.install(k)
			o := c.create(k, "one", k.plain)
			n := c.start(time.Hour)
			n.untilNow("the object", func(s seen) bool { return len(s.objects()) == 1 })
			n.settle()
			before := len(n.all())

			for i := range 10 {
				patch := fmt.Sprintf(`{"status":{"conditions":[{"type":"Accepted","status":"True","reason":"No%d","message":"",`+
					`"lastTransitionTime":"2026-01-01T00:00:00Z"}]}}`, i)
				kit.Must(c.t, c.client.Status().Patch(t.Context(), o, client.RawPatch(types.MergePatchType, []byte(patch))))
				c.annotate(o, "note", fmt.Sprint(i))
			}
			c.patch(o, `{"spec":{"tier":"Baseline"}}`) // when it shows, all that came before it has been seen
			n.untilNow("a new tier", func(s seen) bool { return s.tier("one") == "Baseline" })
			if syncs := len(n.all()) - before; syncs != 1 {
				t.Errorf("10 writes of a status and of an annotation, and one of the spec, made %d syncs, want 1", syncs)
			}
		})
	}
}

func TestWhatStandsInASnapshot(t *testing.T) {
	c := newCluster(t)
	n := c.start(time.Hour)
	for _, k := range kindsWithNodes {
		c.install(k)
		o := c.create(k, "one", k.plain)
		n.untilNow("the object", func(s seen) bool { return slices.Contains(s.objects(), k.shown+" one") })
		s := n.all()[len(n.all())-1]
		var got metav1.ObjectMeta
		var gotType metav1.TypeMeta
		for _, p := range s.ClusterPolicies {
			if p.APIVersion == k.shown {
				got, gotType = p.ObjectMeta, p.TypeMeta
			}
		}
		for _, i := range s.Isolations {
			if i.Kind == k.kind {
				got, gotType = i.ObjectMeta, i.TypeMeta
			}
		}
		want := metav1.ObjectMeta{
			Name: "one", UID: o.GetUID(), ResourceVersion: o.GetResourceVersion(), Generation: o.GetGeneration(),
			CreationTimestamp: o.GetCreationTimestamp(),
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: metadata (-want +got):\n%s", k.name, diff)
		}
		if want := (metav1.TypeMeta{APIVersion: k.shown, Kind: k.kind}); want != gotType {
			t.Errorf("%s: type %v, want %v", k.name, gotType, want)
		}
		c.remove(k)
	}
}

func TestADefinitionWithoutAVersionThatWeKnow(t *testing.T) {
	var log lines
	c := newCluster(t)
	c.log = funcr.New(log.add, funcr.Options{})
	future := clusterPolicies
	future.definition = definitionOf("ClusterNetworkPolicy", "clusternetworkpolicies", "v9", "v8")
	n := c.start(time.Hour)
	n.until("a first snapshot", func(all []seen) bool { return len(all) > 0 })

	c.install(future)
	name := `"clusternetworkpolicies.policy.ringfence.io"`
	kit.Eventually(c.t, patience, "a line about it in the log", func() bool { return log.count(name, "v9", "v8", "remedy") == 1 })
	c.createPolicy("more")
	n.untilNow("another sync", func(s seen) bool { return s.hasPolicy(c.namespace, "more") })
	if got := log.count(name); got != 1 {
		t.Errorf("it is in the log %d times, want once", got)
	}

	known := definitionOf("ClusterNetworkPolicy", "clusternetworkpolicies", "v9", "v1alpha1")(t)
	spec, err := json.Marshal(map[string]any{"spec": known.Object["spec"]})
	kit.Must(c.t, err)
	c.patch(future.definition(t), string(spec))
	c.create(clusterPolicies, "one", clusterPolicies.plain)
	n.untilNow("an object of a version that we know", func(s seen) bool { return cmp.Equal(s.objects(), []string{ours + " one"}) })
}

func TestNodesAreWatchedAsLongAsAPolicyAsksForThem(t *testing.T) {
	for _, k := range kindsWithNodes {
		t.Run(k.name, func(t *testing.T) {
			c := newCluster(t)
			c.install(k)
			c.create(k, "other", k.plain)
			x := c.createNode("node-x", "10.9.0.1", "fd09::1", "node-x.example.com")
			n := c.start(time.Hour)
			n.untilNow("the policy without nodes", func(s seen) bool { return len(s.objects()) == 1 })
			if open := c.transport.Watches(allNodes); open != 0 || len(n.all()[len(n.all())-1].Nodes) > 0 {
				t.Errorf("%d watches of all nodes are open, which nobody asks for", open)
			}

			asking := c.create(k, "asking", k.nodes)
			n.untilNow("the nodes", func(s seen) bool { return len(s.Nodes) == 1 })
			last := n.all()[len(n.all())-1].Nodes[0]
			want := []netip.Addr{netip.MustParseAddr("10.9.0.1"), netip.MustParseAddr("fd09::1")}
			if last.Name != "node-x" || !slices.Equal(last.Addrs, want) {
				t.Errorf("the node is %v, want node-x at %v", last, want)
			}
			for _, s := range n.all() {
				if slices.Contains(s.objects(), k.shown+" asking") && len(s.Nodes) == 0 {
					t.Error("a snapshot has the policy and not its nodes")
				}
			}

			n.settle()
			before := len(n.all())
			for i := range 5 {
				c.heartbeat(x, i)
			}
			c.patch(x, `{"metadata":{"labels":{"zone":"a"}}}`)
			n.untilNow("a label", func(s seen) bool { return len(s.Nodes) == 1 && s.Nodes[0].Labels.Get("zone") == "a" })
			if syncs := len(n.all()) - before; syncs != 1 {
				t.Errorf("5 heartbeats and one label made %d syncs, want 1", syncs)
			}

			c.delete(asking)
			n.untilNow("the end of the policy", func(s seen) bool { return len(s.objects()) == 1 && len(s.Nodes) == 0 })
			n.untilClosed(allNodes)

			c.create(k, "again", k.nodes)
			n.untilNow("the nodes again", func(s seen) bool { return len(s.Nodes) == 1 })
		})
	}
}

func TestChangesWaitForTheNodesOfTheFirstPolicyThatAsks(t *testing.T) {
	c := newCluster(t)
	c.install(clusterPolicies)
	c.createNode("node-x", "10.9.0.1")
	n := c.start(time.Hour)
	n.until("a first snapshot", func(all []seen) bool { return len(all) > 0 })

	c.transport.Hold(allNodes)
	c.create(clusterPolicies, "asking", clusterPolicies.nodes)
	kit.Eventually(c.t, patience, "a request that is held", func() bool { return c.transport.Held() > 0 })
	n.settle()
	c.transport.Release()
	n.untilNow("policy and nodes", func(s seen) bool { return len(s.objects()) == 1 && len(s.Nodes) == 1 })
	for _, s := range n.all() {
		if len(s.objects()) > 0 && len(s.Nodes) == 0 {
			t.Error("a snapshot has the policy and not its nodes, although they came soon")
		}
	}
}

func TestChangesDoNotWaitForNodesForGood(t *testing.T) {
	var log lines
	c := newCluster(t)
	c.log = funcr.New(log.add, funcr.Options{})
	c.install(clusterPolicies)
	c.createNode("node-x", "10.9.0.1")
	n := c.start(time.Hour)
	n.until("a first snapshot", func(all []seen) bool { return len(all) > 0 })

	c.transport.Hold(allNodes)
	start := time.Now()
	c.create(clusterPolicies, "asking", clusterPolicies.nodes)
	n.untilNow("the policy", func(s seen) bool { return len(s.objects()) == 1 })
	if took := time.Since(start); took < 9*time.Second || took > 15*time.Second {
		t.Errorf("the policy was held back for %s, want about 10 s", took)
	}
	c.createPolicy("afterwards")
	n.untilNow("a change after that", func(s seen) bool { return s.hasPolicy(c.namespace, "afterwards") })
	if got := log.count("enforcing without them"); got != 1 {
		t.Errorf("the log says %d times that nodes are missing, want once", got)
	}
	c.transport.Release()
	n.untilNow("the nodes", func(s seen) bool { return len(s.Nodes) == 1 })
}

func TestTheServicesOfDNS(t *testing.T) {
	c := newCluster(t)
	c.dns = []types.NamespacedName{{Namespace: c.namespace, Name: "dns"}, {Namespace: "nowhere", Name: "dns"}}
	c.createService("other")
	n := c.start(time.Hour)
	n.until("a first snapshot", func(all []seen) bool { return len(all) > 0 })
	addresses := []netip.Addr{netip.MustParseAddr("169.254.20.10")}
	if got := n.all()[0].DNS; len(got.Services) != 0 || !slices.Equal(got.Addresses, addresses) {
		t.Errorf("without a Service of the name DNS is %v, want the address alone", got)
	}

	dns := c.createService("dns")
	n.untilNow("the Service", func(s seen) bool { return len(s.DNS.Services) == 1 })
	got := n.all()[len(n.all())-1].DNS.Services[0]
	want := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace, Name: "dns", UID: dns.UID, ResourceVersion: dns.ResourceVersion},
		Spec: corev1.ServiceSpec{
			Selector: dns.Spec.Selector, Ports: dns.Spec.Ports, ClusterIP: dns.Spec.ClusterIP, ClusterIPs: dns.Spec.ClusterIPs,
		},
	}
	if diff := cmp.Diff(want, got); diff != "" || got.Spec.ClusterIP == "" {
		t.Errorf("the Service (-want +got):\n%s", diff)
	}

	n.settle()
	before := len(n.all())
	for i := range 5 {
		c.annotate(dns, "note", fmt.Sprint(i))
	}
	c.patch(dns, `{"spec":{"selector":{"app":"coredns"}}}`)
	n.untilNow("another selector", func(s seen) bool { return s.DNS.Services[0].Spec.Selector["app"] == "coredns" })
	if syncs := len(n.all()) - before; syncs != 1 {
		t.Errorf("5 annotations and a selector made %d syncs, want 1", syncs)
	}
	c.delete(dns)
	n.untilNow("its end", func(s seen) bool { return len(s.DNS.Services) == 0 })
}

// objects are the cluster-wide policies of a snapshot, by API version and name.
func (s seen) objects() []string {
	var all []string
	for _, p := range s.ClusterPolicies {
		all = append(all, p.APIVersion+" "+p.Name)
	}
	for _, i := range s.Isolations {
		all = append(all, i.APIVersion+" "+i.Name)
	}
	slices.Sort(all)
	return all
}

func (s seen) tier(name string) string {
	for _, p := range s.ClusterPolicies {
		if p.Name == name {
			return string(p.Spec.Tier)
		}
	}
	for _, i := range s.Isolations {
		if i.Name == name {
			return string(i.Spec.Tier)
		}
	}
	return ""
}

// untilNow waits until the last snapshot shows what is waited for.
func (n *running) untilNow(what string, shown func(seen) bool) {
	n.t.Helper()
	n.until(what, func(all []seen) bool { return len(all) > 0 && shown(all[len(all)-1]) })
}

// untilClosed waits until no such watch is open.
func (n *running) untilClosed(which func(*http.Request) bool) {
	n.t.Helper()
	n.until("the end of the watch", func([]seen) bool { return n.transport.Watches(which) == 0 })
}

func (c *cluster) createService(name string) *corev1.Service {
	c.t.Helper()
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace, Name: name, Labels: map[string]string{"a": "b"}},
		Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": "dns"},
			Ports:    []corev1.ServicePort{{Name: "dns", Protocol: corev1.ProtocolUDP, Port: 53}},
		},
	}
	kit.Must(c.t, c.client.Create(c.t.Context(), s))
	return s
}

// createNode makes a node that is there until the test ends.
func (c *cluster) createNode(name string, addresses ...string) *corev1.Node {
	c.t.Helper()
	o := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	kit.Must(c.t, c.client.Create(c.t.Context(), o))
	c.t.Cleanup(func() { kit.Must(c.t, client.IgnoreNotFound(c.client.Delete(context.Background(), o))) })
	for _, a := range addresses {
		o.Status.Addresses = append(o.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a})
	}
	kit.Must(c.t, c.client.Status().Update(c.t.Context(), o))
	return o
}

// heartbeat writes into a node's status what kubelets write there.
func (c *cluster) heartbeat(o *corev1.Node, i int) {
	c.t.Helper()
	o.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: fmt.Sprintf("Beat%d", i)}}
	kit.Must(c.t, c.client.Status().Update(c.t.Context(), o))
}

// lines are those of a log.
type lines struct {
	mu  sync.Mutex
	all []string
}

func (l *lines) add(prefix, args string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, prefix+args)
}

// count is how many lines have all the words.
func (l *lines) count(words ...string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	count := 0
	for _, line := range l.all {
		if !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(line, word) }) {
			count++
		}
	}
	return count
}

// allNodes is about requests for all nodes, rather than for the enforcer's own.
func allNodes(q *http.Request) bool {
	return q.URL.Path == "/api/v1/nodes" && q.URL.Query().Get("fieldSelector") == ""
}
