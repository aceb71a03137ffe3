package status

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/startup"
	"github.com/ringfence-io/ringfence/test/kit"
)

// ofOthers are taints that nobody here has a say in.
var ofOthers = []corev1.Taint{
	{Key: "example.com/gpu", Value: "1", Effect: corev1.TaintEffectNoSchedule}, {Key: "node.ringfence.io/not-ready-yet", Effect: corev1.TaintEffectNoExecute},
	{Key: "example.com/gpu", Effect: corev1.TaintEffectNoExecute},
}

// startupTaints is the startup taint with some effects.
func startupTaints(effects ...corev1.TaintEffect) []corev1.Taint {
	var taints []corev1.Taint
	for _, effect := range effects {
		taints = append(taints, corev1.Taint{Key: startup.DefaultTaint, Value: "boot", Effect: effect})
	}
	return taints
}

// tainted makes a node of a boot that has taints.
func (s *story) tainted(name, boot string, taints ...corev1.Taint) *node {
	s.t.Helper()
	n := s.newNode(name)
	s.update(n, func(o *corev1.Node) { o.Spec.Taints = taints })
	n.boots(boot)
	return n
}

// update changes a Node, whoever else does meanwhile.
func (s *story) update(n *node, change func(*corev1.Node)) {
	s.t.Helper()
	kit.EventuallySucceeds(s.t, patience, "a change of node "+n.name, func(ctx context.Context) error {
		o := n.now()
		change(o)
		return s.c.Update(ctx, o)
	})
}

// boots makes the node's kubelet say of which boot it is.
func (n *node) boots(boot string) {
	n.s.t.Helper()
	kit.EventuallySucceeds(n.s.t, patience, "the boot of node "+n.name, func(ctx context.Context) error {
		o := n.now()
		o.Status.NodeInfo.BootID = boot
		return n.s.c.Status().Update(ctx, o)
	})
}

func (n *node) now() *corev1.Node {
	n.s.t.Helper()
	o := &corev1.Node{}
	kit.Must(n.s.t, n.s.c.Get(n.s.t.Context(), client.ObjectKey{Name: n.name}, o))
	return o
}

// enforcesSince makes the node report that it enforces all, in a boot.
func (n *node) enforcesSince(boot string) {
	n.s.t.Helper()
	n.status.BootID = boot
	n.enforces()
}

// has waits until the node has just these taints.
func (n *node) has(taints ...corev1.Taint) {
	n.s.t.Helper()
	kit.EventuallySucceeds(n.s.t, patience, "the taints of "+n.name, func(context.Context) error {
		if diff := cmp.Diff(taints, n.now().Spec.Taints); diff != "" {
			return fmt.Errorf("-want +got:\n%s", diff)
		}
		return nil
	})
}

// TestTheStartupTaintGoesOncePolicyIsInForce: each node is as it says; the last of them shows that the controller has come this far, and left the others alone.
func TestTheStartupTaintGoesOncePolicyIsInForce(t *testing.T) {
	c := startController(t, restConfig)
	s := begin(t)
	const now, before = "boot-2", "boot-1"
	taint := startupTaints(corev1.TaintEffectNoSchedule)

	keeps := map[string]*node{}
	keep := func(what string, report func(n *node)) {
		keeps[what] = s.tainted(fmt.Sprintf("keeps-%d", len(keeps)), now, taint...)
		report(keeps[what])
	}
	keep("its enforcer has said nothing", func(*node) {})
	keep("its enforcer was heard of before the last boot only", func(n *node) { n.enforcesSince(before) })
	keep("its enforcer does not say of which boot it is", func(n *node) { n.enforcesSince("") })
	keep("its kernel refuses", func(n *node) { n.status.BootID = now; n.applies(); n.fails(v1alpha1.RefusedReason, "no") })
	keep("it has applied nothing yet", func(n *node) {
		n.status.BootID = now
		n.fares(metav1.ConditionTrue, v1alpha1.EnforcingReason, "")
		n.reports()
	})
	keep("it is to drop unknown pods, and has no range for them yet", func(n *node) {
		n.status.BootID = now
		n.applies()
		n.fares(metav1.ConditionTrue, v1alpha1.EnforcingReason, "")
		n.status.Conditions = append(n.status.Conditions, metav1.Condition{Type: v1alpha1.UnknownPodsDroppedCondition, Status: metav1.ConditionFalse,
			Reason: v1alpha1.NoPodRangeReason, LastTransitionTime: metav1.Now()})
		n.reports()
	})
	keep("its kubelet has not said of which boot it is", func(n *node) { n.boots(""); n.enforcesSince(now) })
	never := s.tainted("never", now, ofOthers...)
	never.enforcesSince(now)

	all := startupTaints(corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute)
	last := s.tainted("last", now, all[0], ofOthers[0], all[1], ofOthers[1], ofOthers[2], all[2])
	last.enforcesSince(now)
	last.has(ofOthers...)

	for what, n := range keeps {
		if diff := cmp.Diff(taint, n.now().Spec.Taints); diff != "" {
			t.Errorf("%s, and its taints have changed (-want +got):\n%s", what, diff)
		}
		if writes := c.Writes("/nodes/" + n.name); len(writes) > 0 {
			t.Errorf("%s, and it was written to: %v", what, writes)
		}
	}
	never.has(ofOthers...)
	if writes := c.Writes("/nodes/" + never.name); len(writes) > 0 {
		t.Errorf("a node without the taint was written to: %v", writes)
	}

	n := keeps["its enforcer was heard of before the last boot only"]
	n.enforcesSince(now)
	n.has()
	n = keeps["its kubelet has not said of which boot it is"]
	n.boots(now)
	n.has()
	n = keeps["its kernel refuses"]
	n.enforcesSince(now)
	n.has()
}

// TestATaintThatComesMeanwhileStays: somebody else writes the taints of a node while the controller is about to.
func TestATaintThatComesMeanwhileStays(t *testing.T) {
	c := startController(t, restConfig)
	s := begin(t)
	n := s.tainted("mine", "boot", startupTaints(corev1.TaintEffectNoSchedule)...)
	path := "/nodes/" + n.name
	c.Hold(func(q *http.Request) bool { return q.Method == http.MethodPatch && strings.HasSuffix(q.URL.Path, path) })
	n.enforcesSince("boot")
	kit.EventuallySucceeds(t, patience, "the controller's write", func(context.Context) error {
		if c.Held() == 0 {
			return fmt.Errorf("none is on its way")
		}
		return nil
	})
	s.update(n, func(o *corev1.Node) { o.Spec.Taints = append([]corev1.Taint{ofOthers[0]}, o.Spec.Taints...) })
	c.Release()
	n.has(ofOthers[0])
	writes := c.Writes(path)
	if len(writes) < 2 || !strings.HasSuffix(writes[0], " 409") || !strings.HasSuffix(writes[len(writes)-1], " 200") {
		t.Errorf("want a conflict, and a write that succeeds: %v", writes)
	}
}
