package rights

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ringfence-io/ringfence/test/kit"
)

// defaultRoles are those of Kubernetes that owners of a namespace are given.
var defaultRoles = []string{"view", "edit", "admin"}

// What Kubernetes adds to the roles of owners is that they read what has become of their NetworkPolicies, and what was denied, and nothing else. The controller that adds rules
// to roles does not run here: the selectors of its roles do.
func TestOwnersReadWhatBecomesOfTheirPolicies(t *testing.T) {
	for _, name := range defaultRoles {
		t.Run(name, func(t *testing.T) {
			added := addedTo(t, name)
			want := []rbacv1.PolicyRule{{
				APIGroups: []string{"policy.ringfence.io"}, Resources: []string{"policyenforcements", "connectionreports"}, Verbs: []string{"get", "list", "watch"},
			}}
			if diff := cmp.Diff(want, added); diff != "" {
				t.Fatalf("what is added to %s (-want +got):\n%s", name, diff)
			}
			role := &rbacv1.ClusterRole{}
			kit.Must(t, admin.Get(t.Context(), client.ObjectKey{Name: name}, role))
			checkOwner(t, owner(t, name, append(slices.Clone(role.Rules), added...)))
		})
	}
}

// addedTo are the rules of our roles that a role of Kubernetes takes in.
func addedTo(t *testing.T, name string) []rbacv1.PolicyRule {
	t.Helper()
	role := &rbacv1.ClusterRole{}
	kit.Must(t, admin.Get(t.Context(), client.ObjectKey{Name: name}, role))
	if role.AggregationRule == nil {
		t.Fatalf("the role %s takes in no others", name)
	}
	var out []rbacv1.PolicyRule
	for _, object := range rendered {
		if object.GetKind() != "ClusterRole" {
			continue
		}
		for _, s := range role.AggregationRule.ClusterRoleSelectors {
			selector, err := metav1.LabelSelectorAsSelector(&s)
			kit.Must(t, err)
			if selector.Matches(labels.Set(object.GetLabels())) {
				ours := &rbacv1.ClusterRole{}
				kit.Must(t, admin.Get(t.Context(), client.ObjectKey{Name: object.GetName()}, ours))
				out = append(out, ours.Rules...)
				break
			}
		}
	}
	return out
}

// owner is somebody who has these rules in the namespace default.
func owner(t *testing.T, role string, rules []rbacv1.PolicyRule) dynamic.Interface {
	t.Helper()
	name := "owner-by-" + role
	objects := []client.Object{
		&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: rules},
		&rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
			Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: name}},
		},
	}
	for _, object := range objects {
		kit.Must(t, admin.Create(t.Context(), object))
		t.Cleanup(func() { kit.Must(t, admin.Delete(context.Background(), object)) })
	}
	config := rest.CopyConfig(restConfig)
	config.Impersonate, config.QPS = rest.ImpersonationConfig{UserName: name, Groups: []string{"system:authenticated"}}, -1
	c, err := dynamic.NewForConfig(config)
	kit.Must(t, err)
	return c
}

// checkOwner tries what an owner may do with each of our kinds: read PolicyEnforcements and ConnectionReports of the own namespace, and no more.
func checkOwner(t *testing.T, c dynamic.Interface) {
	t.Helper()
	for _, resource := range []string{"policyenforcements", "connectionreports"} {
		// The API server reads roles in its own time.
		kit.EventuallySucceeds(t, time.Minute, "the owner may list "+resource+" of the namespace", func(ctx context.Context) error {
			_, err := c.Resource(ours(resource)).Namespace("default").List(ctx, metav1.ListOptions{})
			return err
		})
		if _, err := c.Resource(ours(resource)).Namespace("kube-system").List(t.Context(), metav1.ListOptions{}); !withoutRight(err, "list", resource) {
			t.Errorf("listing %s of another namespace: %v, want it refused", resource, err)
		}
	}
	for _, resource := range []string{
		"policyenforcements", "connectionreports", "clusternetworkpolicies", "namespaceisolations", "nodeenforcements", "nodeconnections",
	} {
		_, err := c.Resource(ours(resource)).List(t.Context(), metav1.ListOptions{})
		if !withoutRight(err, "list", resource) {
			t.Errorf("listing %s of the whole cluster: %v, want it refused", resource, err)
		}
	}
	for _, resource := range []string{"nodeenforcements", "nodeconnections"} {
		if _, err := c.Resource(ours(resource)).Get(t.Context(), "n1", metav1.GetOptions{}); !withoutRight(err, "get", resource) {
			t.Errorf("reading the %s of a node: %v, want it refused", resource, err)
		}
	}
	for _, k := range kinds {
		if k.resource.Group != "policy.ringfence.io" {
			continue
		}
		object := parsed(k.object)
		kit.Must(t, admin.Create(t.Context(), object))
		t.Cleanup(func() { kit.Must(t, admin.Delete(context.Background(), object)) })
		if got := allowed(t, c, k); len(got) > 0 {
			t.Errorf("an owner may %v", got)
		}
	}
}
