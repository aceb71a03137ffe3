package controllers

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/ringfence-io/ringfence/controllers/cached"
	nodectl "github.com/ringfence-io/ringfence/controllers/node"
	"github.com/ringfence-io/ringfence/controllers/node/podnames"
	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/test/kit"
	"github.com/ringfence-io/ringfence/test/kit/transport"
)

// neighbours are a cluster whose node has a pod in the first namespace, and another with a pod on another node.
func neighbours(t *testing.T) (c, other *cluster) {
	t.Helper()
	c, other = newCluster(t), newCluster(t)
	c.createPod("mine", node)
	c.createPod("next", "elsewhere")
	other.createPod("far", "elsewhere")
	return c, other
}

// allow creates a policy of c that lets in another's pods.
func (c *cluster) allow(name string, from *cluster) {
	c.t.Helper()
	p := c.policy(name)
	p.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{{
		NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"kubernetes.io/metadata.name": from.namespace}},
	}}}}
	kit.Must(c.t, c.client.Create(c.t.Context(), p))
}

// podsOf are the pods of a snapshot in some namespaces, sorted.
func podsOf(s seen, of ...*cluster) []string {
	var names []string
	for p := range s.Pods() {
		if slices.ContainsFunc(of, func(c *cluster) bool { return c.namespace == p.Namespace }) {
			names = append(names, p.Name)
		}
	}
	slices.Sort(names)
	return names
}

func TestANodeHearsOfWhatItsPoliciesName(t *testing.T) {
	c, other := neighbours(t)
	n := c.start(time.Hour)
	n.untilNow("its own pod alone", func(s seen) bool { return cmp.Equal(podsOf(s, c, other), []string{"mine"}) })
	c.allow("in", other)
	n.untilNow("the other namespace", func(s seen) bool { return cmp.Equal(podsOf(s, c, other), []string{"far", "mine"}) })
	other.createPod("farther", "elsewhere")
	n.untilNow("a new pod there", func(s seen) bool { return cmp.Equal(podsOf(s, c, other), []string{"far", "farther", "mine"}) })
	for _, s := range n.all() {
		if s.hasPolicy(c.namespace, "in") && len(podsOf(s, other)) == 0 {
			t.Error("a sync had the policy, and not the pods that it names")
		}
	}
}

// What is in force stays, and stays in force, until the pods that a new policy names are known.
func TestAPolicyWaitsForThePodsThatItNames(t *testing.T) {
	c, other := neighbours(t)
	n := c.start(300 * time.Millisecond)
	n.until("a first snapshot", func(all []seen) bool { return len(all) > 0 })
	c.transport.Hold(transport.Path("/namespaces/" + other.namespace + "/pods"))
	c.allow("in", other)
	kit.Eventually(t, patience, "a request that is held", func() bool { return c.transport.Held() > 0 })

	before := len(n.all())
	c.createPod("meanwhile", node)
	n.until("the kernel to be looked at while the policy waits", func(all []seen) bool {
		return verifying(all[before:]) >= 3
	})
	for _, s := range n.all() {
		if s.hasPolicy(c.namespace, "in") || slices.Contains(podsOf(s, c), "meanwhile") {
			t.Fatalf("a sync has %v and policies %v before the pods are known that one of these names", podsOf(s, c), s.policies)
		}
	}
	c.transport.Release()
	n.untilNow("all of it", func(s seen) bool {
		return s.hasPolicy(c.namespace, "in") && cmp.Equal(podsOf(s, c, other), []string{"far", "meanwhile", "mine"})
	})
}

// After a while changes come without the pods that are not known, which is said. Later changes come at once, and wait for pods that come at once. What the CNI
// plugin waits for is not said to be in force where it depends on them.
func TestChangesDoNotWaitForPodsForLong(t *testing.T) {
	c, other := neighbours(t)
	third := newCluster(t)
	third.createPod("far", "elsewhere")
	table := c.newTable()
	n := c.start(time.Hour)
	n.until("a first snapshot", func(all []seen) bool { return len(all) > 0 })
	c.transport.Hold(transport.Path("/namespaces/" + other.namespace + "/pods"))
	began := time.Now()
	c.allow("in", other)
	held := c.createPod("held", node)
	n.untilNow("the policy without the pods that it names", func(s seen) bool {
		return s.hasPolicy(c.namespace, "in") && cmp.Equal(s.Elsewhere, compile.Elsewhere{Partial: true, Unknown: []string{other.namespace}})
	})
	if waited := time.Since(began); waited < 9*time.Second {
		t.Errorf("after %s a policy is in force without the pods that it names", waited)
	}

	answers := func(of *cluster, p *corev1.Pod, addr string) <-chan error {
		answered := make(chan error, 1)
		go func() { answered <- table.Add(of.t.Context(), sandboxOf(p, addr)) }()
		return answered
	}
	inDoubt, sure := answers(c, held, "10.9.0.1"), answers(third, third.createPod("sure", node), "10.9.0.2")
	if err := <-sure; err != nil {
		t.Errorf("a pod that no policy in doubt is about: %v", err)
	}

	began = time.Now()
	c.allow("more", third)
	n.untilNow("another policy", func(s seen) bool { return s.hasPolicy(c.namespace, "more") && len(podsOf(s, third)) == 2 })
	if waited := time.Since(began); waited > 5*time.Second {
		t.Errorf("another change took %s", waited)
	}
	for _, s := range n.all() {
		if s.hasPolicy(c.namespace, "more") && slices.Contains(s.Elsewhere.Unknown, third.namespace) {
			t.Error("a namespace whose pods come at once was not waited for")
		}
	}
	select {
	case err := <-inDoubt:
		t.Errorf("a pod whose policy is in doubt is said to have it in force, or not: %v", err)
	default:
	}
	c.transport.Release()
	n.untilNow("all of it", func(s seen) bool {
		return len(s.Elsewhere.Unknown) == 0 && cmp.Equal(podsOf(s, c, other), []string{"far", "held", "mine"})
	})
	if err := <-inDoubt; err != nil {
		t.Errorf("once all pods are known: %v", err)
	}
}

func TestTheFirstSyncWaitsForThePodsThatPoliciesName(t *testing.T) {
	c, other := neighbours(t)
	c.allow("in", other)
	n := c.prepare(time.Hour)
	c.transport.Hold(transport.Path("/namespaces/" + other.namespace + "/pods"))
	n.run()
	kit.Eventually(t, patience, "a request that is held", func() bool { return c.transport.Held() > 0 })
	n.settle()
	if syncs := len(n.all()); syncs > 0 || n.node.Synced() == nil {
		t.Errorf("%d syncs before the pods were there; the node says of itself: %v", syncs, n.node.Synced())
	}
	c.transport.Release()
	n.until("a first snapshot", func(all []seen) bool { return len(all) > 0 })
	if diff := cmp.Diff([]string{"far", "mine"}, podsOf(n.all()[0], c, other)); diff != "" {
		t.Errorf("the first snapshot (-want +got):\n%s", diff)
	}
}

// With pods and policies that come and go, each sync has all pods that its policies name.
func TestEachSyncHasWhatItsPoliciesName(t *testing.T) {
	c, other := neighbours(t)
	third := newCluster(t)
	third.createPod("far", "elsewhere")
	n := c.start(time.Hour)
	n.until("a first snapshot", func(all []seen) bool { return len(all) > 0 })
	for i, from := range []*cluster{other, third, c, other} {
		c.allow(fmt.Sprintf("in-%d", i), from)
		third.createPod(fmt.Sprintf("mine-%d", i), node)
		third.allow(fmt.Sprintf("in-%d", i), c)
		n.untilNow("both policies", func(s seen) bool {
			return s.hasPolicy(c.namespace, fmt.Sprintf("in-%d", i)) && s.hasPolicy(third.namespace, fmt.Sprintf("in-%d", i))
		})
		c.delete(c.policy(fmt.Sprintf("in-%d", i)))
	}
	kit.EventuallySucceeds(t, patience, "the last one's end", func(context.Context) error {
		if last := n.all()[len(n.all())-1]; last.hasPolicy(c.namespace, "in-3") {
			return fmt.Errorf("policies %v", last.policies)
		}
		return nil
	})
	for i, s := range n.all() {
		for np := range s.Policies.All() {
			if np.Namespace != c.namespace && np.Namespace != third.namespace || !slices.ContainsFunc(s.Local, func(p *compile.Pod) bool {
				return p.Namespace == np.Namespace
			}) {
				continue
			}
			for _, of := range []*cluster{c, other, third} {
				if strings.Contains(fmt.Sprint(np.Spec), of.namespace) && len(podsOf(s, of)) == 0 {
					t.Errorf("sync %d has policy %s/%s, and no pods of %s", i, np.Namespace, np.Name, of.namespace)
				}
			}
		}
	}
}

// What an enforcer asks of pods that it does not hear of, it may ask with the rights of config/rbac, and a real API server understands.
func TestWhatIsAskedOfPodsThatAreNotKnown(t *testing.T) {
	c := newCluster(t)
	c.grant(c.enforcerRole(), enforcerUser)
	run := func(name string, hostNetwork bool, phase corev1.PodPhase, ips ...string) {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace, Name: name}, Spec: corev1.PodSpec{
			NodeName: "elsewhere", HostNetwork: hostNetwork, Containers: []corev1.Container{{Name: "c", Image: "none"}}, TerminationGracePeriodSeconds: new(int64),
		}}
		kit.Must(t, c.client.Create(t.Context(), p))
		c.setStatus(p, phase, ips...)
	}
	run("peer", false, corev1.PodRunning, "10.77.0.1", "fd77::1")
	run("six", false, corev1.PodRunning, "fd77::2")
	run("done", false, corev1.PodSucceeded, "10.77.0.2")
	run("host", true, corev1.PodRunning, "10.77.0.3")
	config := c.transport.To(enforcerConfig)
	client, err := rest.HTTPClientFor(config)
	kit.Must(t, err)
	watcher, err := cached.NewWatcher(config, client, []cached.Target{{Kind: "Pod", Versions: cached.NewVersions(corev1.SchemeGroupVersion), Resource: "pods"}})
	kit.Must(t, err)
	api := watcher.Clients[corev1.SchemeGroupVersion]
	for text, want := range map[string]string{
		"10.77.0.1": c.namespace + "/peer", "fd77::2": c.namespace + "/six", "10.77.0.2": "", "10.77.0.3": "", "10.77.0.4": "",
		"fd77::1": "", // the API server compares the first address alone
	} {
		kit.Eventually(t, patience, "the pod at "+text+" to be known as "+want, func() bool {
			got, err := podnames.NewAsker(api).PodAt(t.Context(), netip.MustParseAddr(text))
			return err == nil && got.String() == want // the rights take a moment to be in force
		})
	}

	for namespace, want := range map[string]int{c.namespace: 4, "no-such-namespace": 0} {
		if got, err := nodectl.SizeAsker(api)(t.Context(), namespace); err != nil || got != want {
			t.Errorf("%s has %d pods, %v; want %d", namespace, got, err, want)
		}
	}
	for i := range 3 {
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s-%d", c.namespace, i)}}
		kit.Must(t, c.client.Create(t.Context(), node))
		t.Cleanup(func() { kit.Must(t, c.client.Delete(context.Background(), node)) })
	}
	var nodes corev1.NodeList
	kit.Must(t, c.client.List(t.Context(), &nodes))
	if got, err := nodectl.SizeAsker(api)(t.Context(), ""); err != nil || got != len(nodes.Items) || got < 3 {
		t.Errorf("%d nodes, %v; want %d", got, err, len(nodes.Items))
	}
}

// The name of a pod that no policy names is found all the same, when a line of the log is about it.
func TestThePodOfAnAddressThatIsNotKnownIsNamed(t *testing.T) {
	c, other := neighbours(t)
	n := c.start(time.Hour)
	c.setStatus(c.pod("mine"), corev1.PodRunning, "10.78.0.1")
	other.setStatus(other.pod("far"), corev1.PodRunning, "10.78.0.2")
	n.untilNow("its own pod alone", func(s seen) bool { return cmp.Equal(podsOf(s, c, other), []string{"mine"}) })
	want := []policy.PodName{{Namespace: c.namespace, Name: "mine", Workload: "mine"}, {Namespace: other.namespace, Name: "far", Workload: "far"}, {}}
	kit.Eventually(t, patience, fmt.Sprintf("the names %q", want), func() bool {
		told := make(chan []policy.PodName, 1)
		n.node.Named(func(pods []policy.PodName) { told <- pods }, netip.MustParseAddr("10.78.0.1"), netip.MustParseAddr("10.78.0.2"), netip.MustParseAddr("10.78.0.3"))
		return cmp.Equal(<-told, want)
	})
}

// pod is a pod that there is.
func (c *cluster) pod(name string) *corev1.Pod {
	c.t.Helper()
	p := &corev1.Pod{}
	kit.Must(c.t, c.client.Get(c.t.Context(), types.NamespacedName{Namespace: c.namespace, Name: name}, p))
	return p
}
