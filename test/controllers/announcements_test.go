package controllers

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/test/kit"
	"github.com/ringfence-io/ringfence/test/kit/transport"
)

// announced waits until the API says of a pod what is wanted, and returns the pod.
func (c *cluster) announced(p *corev1.Pod, want string) *corev1.Pod {
	c.t.Helper()
	now := &corev1.Pod{}
	kit.EventuallySucceeds(c.t, patience, "what is said of pod "+p.Name, func(ctx context.Context) error {
		kit.Must(c.t, c.client.Get(ctx, client.ObjectKeyFromObject(p), now))
		if got := conditionOf(now); got != want {
			return fmt.Errorf("the API says %q, want %q", got, want)
		}
		return nil
	})
	return now
}

func conditionOf(p *corev1.Pod) string {
	for _, condition := range p.Status.Conditions {
		if condition.Type == v1alpha1.AddressesCondition {
			return fmt.Sprintf("%s %s: %s", condition.Status, condition.Reason, condition.Message)
		}
	}
	return ""
}

// elsewhere is the same cluster for the enforcer of another node, to which no pod comes: it has what the API shows.
func (c *cluster) elsewhere() *running {
	other := *c
	other.arrivals, other.transport = nil, transport.New()
	return other.start(time.Hour)
}

// shows waits until a node's last snapshot has a pod with the addresses.
func (n *running) shows(namespace, name string, source compile.Source, addrs ...string) compile.Pod {
	n.t.Helper()
	var p compile.Pod
	n.until(fmt.Sprintf("pod %s with %s", name, addrs), func(all []seen) bool {
		if len(all) == 0 {
			return false
		}
		p = all[len(all)-1].pod(namespace, name)
		var got []string
		for _, a := range p.Addrs {
			got = append(got, a.String())
		}
		return p.Name == name && p.Source == source && slices.Equal(got, addrs)
	})
	return p
}

const gone = "False SandboxGone: the pod has no sandbox with the addresses that were announced"

// TestOtherNodesHearOfAPodBeforeItsKubeletSpeaks: they know the addresses, the same as its own node knows, and when the kubelet shows these nothing more is done.
func TestOtherNodesHearOfAPodBeforeItsKubeletSpeaks(t *testing.T) {
	c := newCluster(t)
	pod := c.createPod("web", node)
	table := c.newTable()
	own, other := c.start(time.Hour), c.elsewhere()
	other.shows(c.namespace, "web", compile.Shown)

	sandbox := sandboxOf(pod, "10.9.0.1")
	sandbox.Addrs = append([]netip.Addr{netip.MustParseAddr("fd00::1")}, sandbox.Addrs...) // in whatever order plugins say them
	kit.Must(c.t, table.Add(t.Context(), sandbox))
	known, heard := own.shows(c.namespace, "web", compile.Arrived, "10.9.0.1", "fd00::1"), other.shows(c.namespace, "web", compile.Announced, "10.9.0.1", "fd00::1")
	if known.Digest(nil) != heard.Digest(nil) {
		t.Errorf("the pod's own node and others would not agree that its policies are enforced:\n%+v\n%+v", known, heard)
	}
	now := c.announced(pod, "True SandboxConnected: 10.9.0.1,fd00::1")

	// The kubelet shows the same, and leaves the condition where it is.
	own.settle()
	other.settle()
	before := len(other.all())
	kit.Must(c.t, c.client.Status().Patch(t.Context(), pod, client.RawPatch(types.StrategicMergePatchType,
		[]byte(`{"status": {"phase": "Running", "podIP": "10.9.0.1", "podIPs": [{"ip": "10.9.0.1"}, {"ip": "fd00::1"}]}}`))))
	c.createPolicy("marker") // when it shows, all that came before it has been seen
	other.until("the marker", func(all []seen) bool { return all[len(all)-1].hasPolicy(c.namespace, "marker") })
	if syncs := len(other.all()) - before; syncs != 1 {
		t.Errorf("the kubelet's status and one policy made %d syncs on another node, want 1", syncs)
	}
	own.shows(c.namespace, "web", compile.Shown, "10.9.0.1", "fd00::1")
	other.shows(c.namespace, "web", compile.Shown, "10.9.0.1", "fd00::1")

	// A kubelet that has lost sight of the sandbox, as after the node has started anew: the pod has run, and what was announced is of the past.
	kit.Must(c.t, c.client.Status().Patch(t.Context(), pod, client.RawPatch(types.MergePatchType, []byte(`{"status": {"podIP": null, "podIPs": null}}`))))
	other.shows(c.namespace, "web", compile.Shown)
	if last := c.announced(pod, "True SandboxConnected: 10.9.0.1,fd00::1"); len(last.ManagedFields) == 0 || conditionOf(last) != conditionOf(now) {
		t.Errorf("the condition is %q", conditionOf(last))
	}
}

// TestWhatIsShownIsTakenInLater: where two pods are announced with one address, nobody has it until the API shows whose it is, without any other event.
func TestWhatIsShownIsTakenInLater(t *testing.T) {
	c := newCluster(t)
	other := c.elsewhere()
	const announced = `{"status": {"conditions": [{"type": "policy.ringfence.io/AddressesAssigned", "status": "True", "message": "10.9.0.1"}]}}`
	pod := c.createPod("web", node)
	kit.Must(c.t, c.client.Status().Patch(t.Context(), pod, client.RawPatch(types.StrategicMergePatchType, []byte(announced))))
	other.shows(c.namespace, "web", compile.Announced, "10.9.0.1")
	kit.Must(c.t, c.client.Status().Patch(t.Context(), pod, client.RawPatch(types.StrategicMergePatchType,
		[]byte(`{"status": {"phase": "Running", "podIP": "10.9.0.1", "podIPs": [{"ip": "10.9.0.1"}]}}`))))
	other.shows(c.namespace, "web", compile.Shown, "10.9.0.1")
}

// TestAnAnnouncementFollowsTheSandbox: what is announced is what the pod's present sandbox has, whichever way another one went.
func TestAnAnnouncementFollowsTheSandbox(t *testing.T) {
	c := newCluster(t)
	stale, pod, next := c.createPod("stale", node), c.createPod("web", node), c.createPod("next", node)
	// The enforcer before this one, or the node before it started anew, has left this.
	kit.Must(c.t, c.client.Status().Patch(t.Context(), stale, client.RawPatch(types.StrategicMergePatchType,
		[]byte(`{"status": {"conditions": [{"type": "policy.ringfence.io/AddressesAssigned", "status": "True", "message": "10.9.0.9"}]}}`))))
	table := c.newTable()
	c.start(time.Hour)
	other := c.elsewhere()
	c.announced(stale, gone)

	first := sandboxOf(pod, "10.9.0.1")
	kit.Must(c.t, table.Add(t.Context(), first))
	c.announced(pod, "True SandboxConnected: 10.9.0.1")
	second := sandboxOf(pod, "10.9.0.2")
	second.Container = "c-second"
	kit.Must(c.t, table.Add(t.Context(), second))
	c.announced(pod, "True SandboxConnected: 10.9.0.2")
	other.shows(c.namespace, "web", compile.Announced, "10.9.0.2")
	table.Delete(first.Container) // late
	kit.Must(c.t, table.Add(t.Context(), sandboxOf(next, "10.9.0.2")))
	c.announced(next, "True SandboxConnected: 10.9.0.2")
	c.announced(pod, gone)
	other.shows(c.namespace, "next", compile.Announced, "10.9.0.2")
	other.shows(c.namespace, "web", compile.Shown)
	table.Delete("c-next")
	c.announced(next, gone)
	other.shows(c.namespace, "next", compile.Shown)
}

// TestNobodyWaitsForAnAnnouncement: pods start while the API server takes none, and it is written when it does.
func TestNobodyWaitsForAnAnnouncement(t *testing.T) {
	c := newCluster(t)
	pod := c.createPod("web", node)
	table := c.newTable()
	n := c.start(time.Hour)
	statuses := func(q *http.Request) bool {
		return q.Method == http.MethodPatch && transport.Path("/pods/web/status")(q)
	}
	n.transport.Hold(statuses)
	kit.Must(c.t, table.Add(t.Context(), sandboxOf(pod, "10.9.0.1")))
	n.until("the announcement on its way", func([]seen) bool { return n.transport.Held() == 1 })
	n.transport.Release()
	c.announced(pod, "True SandboxConnected: 10.9.0.1")
}

// TestAnEnforcerThatMayNotAnnounceSaysSo: with the rights of an earlier release it says once what is missing, and pods start as before.
func TestAnEnforcerThatMayNotAnnounceSaysSo(t *testing.T) {
	c := newCluster(t)
	role := c.enforcerRole()
	role.Name = "earlier"
	role.Rules = slices.DeleteFunc(role.Rules, func(r rbacv1.PolicyRule) bool { return slices.Contains(r.Resources, "pods/status") })
	c.grant(role, "earlier")
	c.config = rest.CopyConfig(restConfig)
	c.config.Impersonate.UserName = "earlier"
	var pods []*corev1.Pod
	for i := range 3 {
		pods = append(pods, c.createPod(fmt.Sprintf("web-%d", i), node))
	}
	table := c.newTable()
	var log lines
	c.log = funcr.New(log.add, funcr.Options{})
	n := c.start(time.Hour)
	const says = "An enforcer needs the rights of config/rbac for that, of this release, and a token that names its node"
	for i, p := range pods {
		kit.Must(c.t, table.Add(t.Context(), sandboxOf(p, fmt.Sprintf("10.9.0.%d", i+1))))
		n.until("what is missing", func([]seen) bool { return log.count(says) == 1 })
	}
	n.settle()
	if got := log.count("cannot be announced"); got != 1 {
		t.Errorf("it is in the log %d times, want once", got)
	}
}

// TestAnnouncingCanBeTurnedOff.
func TestAnnouncingCanBeTurnedOff(t *testing.T) {
	c := newCluster(t)
	c.silent = true
	pod := c.createPod("web", node)
	table := c.newTable()
	n := c.start(time.Hour)
	kit.Must(c.t, table.Add(t.Context(), sandboxOf(pod, "10.9.0.1")))
	n.settle()
	c.announced(pod, "")
}
