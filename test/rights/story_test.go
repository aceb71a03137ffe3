package rights

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/lab"
	"github.com/ringfence-io/ringfence/test/kit"
	"github.com/ringfence-io/ringfence/test/sig"
)

const (
	// story is the namespace in which it takes place, with the pod that policies are about, and another one that is denied.
	story = `{apiVersion: v1, kind: Namespace, metadata: {name: story, labels: {story: told}, annotations: {policy.ringfence.io/connections: denied}}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: story, name: one, labels: {app: web}}, spec: {containers: [{name: c, image: i}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: story, name: two, labels: {app: client}}, spec: {containers: [{name: c, image: i}]}}
`
	// scrapers are two who ask for metrics, of whom one may.
	scrapers = `{apiVersion: v1, kind: ServiceAccount, metadata: {namespace: story, name: reader}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {namespace: story, name: stranger}}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: story-reader},
  roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: ringfence-metrics-reader},
  subjects: [{kind: ServiceAccount, namespace: story, name: reader}]}
`
	// policies are one of each kind. Nodes are read only while a policy has them for a peer.
	policies = `{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: story, name: web},
  spec: {podSelector: {matchLabels: {app: web}}}}
---
{apiVersion: policy.ringfence.io/v1alpha1, kind: ClusterNetworkPolicy, metadata: {name: ours}, spec: {tier: Admin, priority: 7,
  subject: {namespaces: {matchLabels: {story: told}}}, ingress: [{action: Accept, from: [{nodes: {}}]}]}}
---
{apiVersion: policy.networking.k8s.io/v1beta1, kind: ClusterNetworkPolicy, metadata: {name: sigs}, spec: {tier: Admin, priority: 8,
  subject: {namespaces: {matchLabels: {story: told}}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}}
---
{apiVersion: policy.ringfence.io/v1alpha1, kind: NamespaceIsolation, metadata: {name: alone}, spec: {tier: Baseline,
  namespaceSelector: {matchLabels: {story: told}}}}
`
	// changed is the NetworkPolicy again, for another port.
	changed = `{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: story, name: web},
  spec: {podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: %d}]}]}}`
)

// kubeletDelay is how late the kubelet says which addresses a pod has: the enforcer has announced them long before.
const kubeletDelay = 10 * time.Second

// patience is for everything that happens some time after it was asked for.
const patience = 2 * time.Minute

// Each right that config/default gives is needed, and they are enough: while the programs do all that they do, they ask for each of them, and for
// nothing else.
//
// The story is that of policies of all kinds, from the first to be enforced to the last to go, told twice: by clients that list before they
// watch, as all do where the API server does not offer more (WatchList, a feature gate that is off by default in Kubernetes 1.33), and by clients
// that only watch. A right of which no request is ever made has no place in a role. Of each of the others
// the API server is asked what becomes of the requests without it.
func TestEachRightIsNeededAndNoOther(t *testing.T) {
	kit.NeedRoot(t)
	rights, err := granted(t.Context(), rendered)
	kit.Must(t, err)
	log, flags := newAudit(t)
	t.Cleanup(func() { nothingBeyond(t, log, rights) }) // also of a story that came to no end, perhaps for that
	listFirst(t, true)
	l := tell(t, flags)
	seen := until(t, log, rights)

	listFirst(t, false)
	for _, n := range l.Nodes {
		kit.Must(t, n.RestartEnforcer())
	}
	kit.Must(t, l.StartController("c2"))
	l.StopController("c1")
	kit.Must(t, l.WaitEnforcers(kit.Context(t, patience)))
	kit.Must(t, l.Apply(kit.Context(t, patience), []byte(fmt.Sprintf(changed, 82))))
	programmed(t, l)
	kit.Must(t, l.Delete(kit.Context(t, patience), []byte(policies)))
	withoutEnforcements(t, l)
	l.StopController("c2")

	all, err := log.requests()
	kit.Must(t, err)
	if len(all) <= len(seen) {
		t.Errorf("the programs have asked nothing after their restart")
	}
	t.Logf("%d rights, %d requests of %d kinds", len(rights), len(all), len(asked(all)))
	withoutEach(t, rights, asked(all))
}

// nothingBeyond checks that the programs have asked for nothing but what their roles give them, to the end of their lives.
func nothingBeyond(t *testing.T, log audit, rights []right) {
	t.Helper()
	all, err := log.requests()
	kit.Must(t, err)
	for _, line := range beyond(rights, all) {
		t.Errorf("a program asks for what config/rbac does not give it: %s. Either it must not, or its role lacks a rule", line)
	}
}

// tell starts a lab whose programs have the rights of config/default, and has them meet all there is.
func tell(t *testing.T, flags []string) *lab.Lab {
	t.Helper()
	program := filepath.Join(t.TempDir(), "ringfence")
	out, err := exec.Command("go", "build", "-o", program, "github.com/ringfence-io/ringfence").CombinedOutput()
	if err != nil {
		t.Fatalf("building ringfence: %v\n%s", err, out)
	}
	l, err := lab.Start(kit.Context(t, patience), lab.Options{
		Nodes: 1, EnforcerBinary: program, Controller: true, FirstPacket: true, APIServerArgs: flags, Report: func(err error) { t.Log(err) },
		StatusDelay: kubeletDelay, EnforcerArgs: []string{"--metrics-secure"}, ControllerArgs: []string{"--metrics-secure"},
	})
	kit.Must(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			for _, file := range []string{l.Nodes[0].EnforcerLog(), l.ControllerLog("c1")} {
				text, _ := os.ReadFile(file)
				t.Logf("%s:\n%s", filepath.Base(file), text)
			}
		}
		kit.Must(t, l.Close())
	})
	crds, err := sig.V03.Bases("standard")
	kit.Must(t, err)
	crd, err := os.ReadFile(filepath.Join(crds, "policy.networking.k8s.io_clusternetworkpolicies.yaml"))
	kit.Must(t, err)
	kit.Must(t, l.Apply(kit.Context(t, patience), crd))
	kit.Must(t, l.WaitEnforcers(kit.Context(t, patience)))
	kit.Must(t, l.Apply(kit.Context(t, patience), []byte(story)))
	isAnnounced(t, l)
	losesStartupTaint(t, l)
	kit.Must(t, l.Apply(kit.Context(t, patience), []byte(scrapers)))
	isScraped(t, l)
	_, err = l.WaitReady(kit.Context(t, patience))
	kit.Must(t, err)
	kit.Must(t, lab.Poll(kit.Context(t, patience), func(ctx context.Context) error { return l.Apply(ctx, []byte(policies)) })) // the SIG's kind takes a moment
	programmed(t, l)
	isDenied(t, l)
	for _, label := range []string{"other", "web"} { // the policy selects nothing, and again the pod: the second Event of a kind is a patch of the first
		patch := []byte(fmt.Sprintf(`{"metadata": {"labels": {"app": %q}}}`, label))
		_, err := l.Client.CoreV1().Pods("story").Patch(kit.Context(t, patience), "one", types.MergePatchType, patch, metav1.PatchOptions{})
		kit.Must(t, err)
		selects(t, l, map[string]int{"web": 1}[label])
	}
	kit.Must(t, l.Apply(kit.Context(t, patience), []byte(fmt.Sprintf(changed, 81))))
	programmed(t, l)
	kit.Must(t, l.Delete(kit.Context(t, patience), []byte(fmt.Sprintf(changed, 0))))
	withoutEnforcements(t, l)
	kit.Must(t, l.Apply(kit.Context(t, patience), []byte(policies)))
	programmed(t, l)
	return l
}

// programmed waits until each policy is said to be enforced as it is now.
func programmed(t *testing.T, l *lab.Lab) {
	t.Helper()
	c, err := dynamic.NewForConfig(l.Config)
	kit.Must(t, err)
	web, err := c.Resource(networkPolicies).Namespace("story").Get(kit.Context(t, patience), "web", metav1.GetOptions{})
	kit.Must(t, err)
	kit.Must(t, lab.Poll(kit.Context(t, patience), func(ctx context.Context) error {
		enforcement, err := c.Resource(policyEnforcements).Namespace("story").Get(ctx, "web", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if err := isProgrammed(enforcement.Object, web.GetGeneration()); err != nil {
			return fmt.Errorf("NetworkPolicy web: %w", err)
		}
		for _, p := range []struct {
			kind string
			of   dynamic.NamespaceableResourceInterface
			name string
		}{
			{"our ClusterNetworkPolicy", c.Resource(clusterPolicies), "ours"},
			{"the SIG's ClusterNetworkPolicy", c.Resource(in("policy.networking.k8s.io", "v1beta1", "clusternetworkpolicies")), "sigs"},
			{"NamespaceIsolation", c.Resource(isolations), "alone"},
		} {
			object, err := p.of.Get(ctx, p.name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			if err := isProgrammed(object.Object, object.GetGeneration()); err != nil {
				return fmt.Errorf("%s %s: %w", p.kind, p.name, err)
			}
		}
		return nil
	}))
}

// selects waits until so many pods are said to be held by the NetworkPolicy.
func selects(t *testing.T, l *lab.Lab, pods int) {
	t.Helper()
	kit.Must(t, lab.Poll(kit.Context(t, patience), func(ctx context.Context) error {
		all, err := l.PolicyEnforcements(ctx)
		if err != nil {
			return err
		}
		for _, e := range all {
			c := meta.FindStatusCondition(e.Status.Conditions, v1alpha1.ProgrammedCondition)
			if e.Name == "web" && int(e.Status.Pods) == pods && c != nil && (c.Reason == v1alpha1.ProgrammedReason) == (pods > 0) {
				return nil
			}
		}
		return fmt.Errorf("the policy is not said to hold %d pods: %+v", pods, all)
	}))
}

// isProgrammed returns nil if an object's condition says so of a generation.
func isProgrammed(object map[string]any, generation int64) error {
	conditions, _, err := unstructured.NestedSlice(object, "status", "conditions")
	if err != nil {
		return err
	}
	for _, c := range conditions {
		c, _ := c.(map[string]any)
		if c["type"] == v1alpha1.ProgrammedCondition && c["status"] == "True" && c["observedGeneration"] == generation {
			return nil
		}
	}
	return fmt.Errorf("it is not said to be programmed at generation %d: %v", generation, conditions)
}

// withoutEnforcements waits until nothing is said of any NetworkPolicy.
func withoutEnforcements(t *testing.T, l *lab.Lab) {
	t.Helper()
	kit.Must(t, lab.Poll(kit.Context(t, patience), func(ctx context.Context) error {
		left, err := l.PolicyEnforcements(ctx)
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("%d PolicyEnforcements are left", len(left))
		}
		return err
	}))
}

// until waits until programs have asked for all that they may, and returns the requests.
func until(t *testing.T, log audit, rights []right) []request {
	t.Helper()
	var requests []request
	ctx := kit.Context(t, patience)
	err := lab.Poll(ctx, func(context.Context) error {
		var err error
		if requests, err = log.requests(); err != nil {
			return err
		}
		var idle []string
		for _, r := range unused(rights, asked(requests)) {
			idle = append(idle, r.String())
		}
		if len(idle) > 0 {
			return fmt.Errorf(`config/rbac gives rights that nothing has asked for:
	%s
Take them out of the role, or add to the story (tell, in test/rights/story_test.go) what needs them`, strings.Join(idle, "\n\t"))
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return requests
}

// withoutEach asks the API server's authorizer, for each right, what becomes of the requests that were seen if a role has all rights but this one:
// those that are about it are refused, and the next ones are not.
func withoutEach(t *testing.T, rights, asked []right) {
	t.Helper()
	for i, r := range rights {
		rest := slices.Delete(slices.Clone(rights), i, i+1)
		rest = slices.DeleteFunc(rest, func(other right) bool { return other.account != r.account })
		user := fmt.Sprintf("without-%d", i)
		give(t, user, rest)
		control := rest[0] // of the same account, so that it shows when the role is in force
		kit.Must(t, lab.Poll(kit.Context(t, patience), func(ctx context.Context) error {
			if ok, err := may(ctx, user, control); err != nil || !ok {
				return fmt.Errorf("waiting for the role of %s: %t %w", user, ok, err)
			}
			return nil
		}))
		for _, q := range asked {
			if !r.covers(q) {
				continue
			}
			ok, err := may(t.Context(), user, q)
			kit.Must(t, err)
			if ok {
				t.Errorf("%s is allowed without the right of %s, which is not needed then", q, r)
			}
		}
	}
}

// give gives a user rights, by roles of its own.
func give(t *testing.T, user string, rights []right) {
	t.Helper()
	subjects := []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user}}
	namespaced := map[string][]rbacv1.PolicyRule{}
	for _, r := range rights {
		namespaced[r.namespace] = append(namespaced[r.namespace], r.rule())
	}
	for namespace, rules := range namespaced {
		meta := metav1.ObjectMeta{Namespace: namespace, Name: user}
		var role, binding client.Object = &rbacv1.Role{ObjectMeta: meta, Rules: rules}, &rbacv1.RoleBinding{
			ObjectMeta: meta, Subjects: subjects, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: user},
		}
		if namespace == "" {
			role, binding = &rbacv1.ClusterRole{ObjectMeta: meta, Rules: rules}, &rbacv1.ClusterRoleBinding{
				ObjectMeta: meta, Subjects: subjects, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: user},
			}
		}
		for _, object := range []client.Object{role, binding} {
			kit.Must(t, admin.Create(t.Context(), object))
			t.Cleanup(func() { kit.Must(t, admin.Delete(context.Background(), object)) })
		}
	}
}

// may asks the API server whether a user may do that.
func may(ctx context.Context, user string, what right) (bool, error) {
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{User: user}}
	if strings.HasPrefix(what.resource, "/") {
		review.Spec.NonResourceAttributes = &authorizationv1.NonResourceAttributes{Path: what.resource, Verb: what.verb}
	} else {
		group, resource := what.split()
		resource, sub, _ := strings.Cut(resource, "/")
		review.Spec.ResourceAttributes = &authorizationv1.ResourceAttributes{
			Verb: what.verb, Group: group, Resource: resource, Subresource: sub, Namespace: what.namespace, Name: what.name,
		}
	}
	answer, err := kube.AuthorizationV1().SubjectAccessReviews().Create(ctx, review, metav1.CreateOptions{})
	if err != nil {
		return false, fmt.Errorf("asking whether %s may %s %s: %w", user, what.verb, what.resource, err)
	}
	return answer.Status.Allowed, nil
}

// listFirst has the clients of programs that start from now on list before they watch, or not.
func listFirst(t *testing.T, list bool) {
	t.Helper()
	t.Setenv("KUBE_FEATURE_WatchListClient", fmt.Sprint(!list))
}
