package kubectl

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
)

func condition(kind string, is bool, message string) metav1.Condition {
	status := metav1.ConditionFalse
	if is {
		status = metav1.ConditionTrue
	}
	return metav1.Condition{Type: kind, Status: status, Message: message}
}

// reporting is a node whose enforcer has reported some time ago.
func reporting(name string, heard time.Duration, with func(*v1alpha1.NodeEnforcementStatus)) client.Object {
	n := &v1alpha1.NodeEnforcement{ObjectMeta: metav1.ObjectMeta{Name: name}}
	n.Status = v1alpha1.NodeEnforcementStatus{
		HeartbeatTime: metav1.NewMicroTime(before(heard).Time), HeartbeatSeconds: 3600, Version: "v0.1.0",
		Applied:    &v1alpha1.Applied{Counts: v1alpha1.Counts{Policies: 12, Pods: 30}},
		Conditions: []metav1.Condition{condition(v1alpha1.EnforcingCondition, true, ""), condition(v1alpha1.HealthyCondition, true, "")},
	}
	if with != nil {
		with(&n.Status)
	}
	return n
}

// told is a NetworkPolicy of which it is said whether it is in force.
func told(name string, conditions ...metav1.Condition) []client.Object {
	meta := metav1.ObjectMeta{Namespace: "shop", Name: name}
	e := &v1alpha1.PolicyEnforcement{ObjectMeta: meta}
	e.Status.Conditions = conditions
	return []client.Object{&networkingv1.NetworkPolicy{ObjectMeta: meta}, e}
}

func TestStatus(t *testing.T) {
	objects := append(told("good", condition(v1alpha1.ProgrammedCondition, true, "")), told("late", condition(v1alpha1.ProgrammedCondition, false, "1 of 3 nodes: n2"))...)
	wall := &v1alpha1.ClusterNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "wall"}}
	objects = append(objects, wall,
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n6"}},
		reporting("n1", 20*time.Minute, nil),
		reporting("n2", 20*time.Minute, func(s *v1alpha1.NodeEnforcementStatus) {
			s.Conditions[0] = condition(v1alpha1.EnforcingCondition, false, "the last sync failed: no memory")
		}),
		reporting("n3", 20*time.Minute, func(s *v1alpha1.NodeEnforcementStatus) {
			s.Conditions[1] = condition(v1alpha1.HealthyCondition, false, "connections are not cut")
		}),
		reporting("n4", 20*time.Minute, func(s *v1alpha1.NodeEnforcementStatus) {
			s.Failing, s.FailingPolicies = 1, []v1alpha1.FailingPolicy{{Kind: "NetworkPolicy", Namespace: "shop", Name: "big", Message: "it has 5000 rules"}}
		}),
		reporting("n5", 5*time.Hour, nil),
	)
	got, status := runIn(t, clusterOf(t, objects...), "status")
	want := `NODE ENFORCING POLICIES PODS FAILING HEARD VERSION WHY
n1 yes 12 30 0 20m v0.1.0
n2 no 12 30 0 20m v0.1.0 the last sync failed: no memory
n3 yes 12 30 0 20m v0.1.0 connections are not cut
n4 yes 12 30 1 20m v0.1.0 NetworkPolicy shop/big: it has 5000 rules
n5 unknown 12 30 0 5h v0.1.0 its enforcer is silent: what it enforced last stays in force. See its pod's log
n6 unknown 0 0 0 never - no enforcer has ever reported: see the pods of the DaemonSet ringfence-enforcer
NOT IN FORCE EVERYWHERE WHY
ClusterNetworkPolicy wall its status says nothing yet: see the log of the controller if that stays so
NetworkPolicy shop/late 1 of 3 nodes: n2
1 of 6 nodes enforce everything. 1 of 3 policies are in force everywhere.`
	if words(got) != want || status != exitNo {
		t.Errorf("the exit status is %d, printed is\n%s\nwant\n%s", status, words(got), want)
	}
}

func TestStatusIfAllIsInForce(t *testing.T) {
	c := clusterOf(t, append(told("good", condition(v1alpha1.ProgrammedCondition, true, "")), reporting("n1", 20*time.Minute, nil))...)
	for args, want := range map[string]string{
		"":         "1 of 1 nodes enforce everything. 1 of 1 policies are in force everywhere.",
		"-o json":  `"enforcing": "yes"`,
		"-n other": "0 of 0 policies are in force everywhere.",
	} {
		if got, status := runIn(t, c, append([]string{"status"}, strings.Fields(args)...)...); status != exitYes || !strings.Contains(got, want) {
			t.Errorf("%q: the exit status is %d, printed is\n%s", args, status, got)
		}
	}
	if got, status := runIn(t, c, "status", "-f", "."); status != exitTrouble || !strings.Contains(got, "leave --filename out") {
		t.Errorf("of files: the exit status is %d, printed is\n%s", status, got)
	}
}

// Who may not read about nodes is told of policies, and that nodes are missing.
func TestStatusWithoutRightsOnNodes(t *testing.T) {
	c := interceptor.NewClient(clusterOf(t, told("late", condition(v1alpha1.ProgrammedCondition, false, "n2"))...), interceptor.Funcs{
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, options ...client.ListOption) error {
			if _, is := list.(*v1alpha1.NodeEnforcementList); is {
				return apierrors.NewForbidden(schema.GroupResource{Resource: "nodeenforcements"}, "", errors.New("no right"))
			}
			return c.List(ctx, list, options...)
		},
	})
	got, status := runIn(t, c, "status", "-n", "shop")
	if status != exitNo || !strings.Contains(got, "0 of 1 policies are in force everywhere") || strings.Contains(got, "nodes enforce") ||
		!strings.Contains(got, "nodeenforcements: you may not list them") {
		t.Errorf("the exit status is %d, printed is\n%s", status, got)
	}
}
