package rights

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ringfence-io/ringfence/test/kit"
)

// right is one thing that a service account may do, or has asked for: one verb, one resource.
type right struct {
	account  string // as in ringfence-enforcer
	verb     string
	resource string // with its group and its subresource, as in deployments.apps/status; or a path, as in /metrics
	// namespace and name are those of the objects, if a role is narrowed to them, or a request is about one. An empty one is all of them.
	namespace, name string
}

// String is what a test says of it.
func (r right) String() string {
	text := r.account + ": " + r.verb + " " + r.resource
	if r.name != "" {
		text += " named " + r.name
	}
	if r.namespace != "" {
		text += " in " + r.namespace
	}
	return text
}

// covers reports whether a request is within a right.
func (r right) covers(request right) bool {
	return r.account == request.account && r.verb == request.verb && r.resource == request.resource &&
		(r.namespace == "" || r.namespace == request.namespace) && (r.name == "" || r.name == request.name)
}

// granted are all rights that the roles of config/default give to its service accounts, one verb of one resource each, sorted. A role of
// the cluster that is bound to one of them counts likewise.
func granted(ctx context.Context, objects []*unstructured.Unstructured) ([]right, error) {
	var rights []right
	for _, object := range objects {
		var binding rbacv1.RoleBinding // a ClusterRoleBinding has the same fields
		if kind := object.GetKind(); kind != "ClusterRoleBinding" && kind != "RoleBinding" {
			continue
		}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &binding); err != nil {
			return nil, fmt.Errorf("reading %s %s: %w", object.GetKind(), object.GetName(), err)
		}
		rules, err := rulesOf(ctx, &binding)
		if err != nil {
			return nil, err
		}
		for _, subject := range binding.Subjects {
			if subject.Kind != rbacv1.ServiceAccountKind || subject.Namespace != system {
				return nil, fmt.Errorf("%s %s gives rights to %s %s: none of our programs is that", object.GetKind(), object.GetName(), subject.Kind, subject.Name)
			}
			for _, rule := range rules {
				rights = append(rights, spread(subject.Name, binding.Namespace, rule)...)
			}
		}
	}
	slices.SortFunc(rights, func(a, b right) int { return strings.Compare(a.String(), b.String()) })
	return rights, nil
}

// rulesOf are the rules of the role that a binding is about, as the API server has it.
func rulesOf(ctx context.Context, binding *rbacv1.RoleBinding) ([]rbacv1.PolicyRule, error) {
	key := client.ObjectKey{Name: binding.RoleRef.Name}
	if binding.RoleRef.Kind == "ClusterRole" {
		role := &rbacv1.ClusterRole{}
		err := admin.Get(ctx, key, role)
		return role.Rules, err
	}
	role := &rbacv1.Role{}
	key.Namespace = binding.Namespace
	err := admin.Get(ctx, key, role)
	return role.Rules, err
}

// spread is a rule as its single rights.
func spread(account, namespace string, rule rbacv1.PolicyRule) []right {
	names := rule.ResourceNames
	if len(names) == 0 {
		names = []string{""}
	}
	var out []right
	for _, verb := range rule.Verbs {
		for _, path := range rule.NonResourceURLs {
			out = append(out, right{account: account, verb: verb, resource: path})
		}
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				for _, name := range names {
					out = append(out, right{account, verb, inGroup(resource, group), namespace, name})
				}
			}
		}
	}
	return out
}

// inGroup is a resource, with or without a subresource, and its group.
func inGroup(resource, group string) string {
	resource, sub, ok := strings.Cut(resource, "/")
	if group != "" {
		resource += "." + group
	}
	if ok {
		resource += "/" + sub
	}
	return resource
}

// role is a rule that gives this right and nothing else.
func (r right) rule() rbacv1.PolicyRule {
	if strings.HasPrefix(r.resource, "/") {
		return rbacv1.PolicyRule{Verbs: []string{r.verb}, NonResourceURLs: []string{r.resource}}
	}
	group, resource := r.split()
	rule := rbacv1.PolicyRule{Verbs: []string{r.verb}, APIGroups: []string{group}, Resources: []string{resource}}
	if r.name != "" {
		rule.ResourceNames = []string{r.name}
	}
	return rule
}

// split is the resource's group, and the resource with its subresource, as rules have them.
func (r right) split() (group, resource string) {
	whole, sub, ok := strings.Cut(r.resource, "/")
	resource, group, _ = strings.Cut(whole, ".")
	if ok {
		resource += "/" + sub
	}
	return group, resource
}

// Each role is that of one of our programs, but two: the one for scrapers, which is nobody's until an administrator binds it, and the one that Kubernetes
// adds to its own.
func TestOnlyTheRolesOfPeopleAreBoundToNobody(t *testing.T) {
	unbound, bound := map[string]any{}, map[string]bool{}
	for _, object := range rendered {
		name, _, err := unstructured.NestedString(object.Object, "roleRef", "name")
		kit.Must(t, err)
		kind, _, err := unstructured.NestedString(object.Object, "roleRef", "kind")
		kit.Must(t, err)
		bound[kind+" "+name] = true
	}
	for _, object := range rendered {
		if role := object.GetKind() + " " + object.GetName(); strings.HasSuffix(object.GetKind(), "Role") && !bound[role] {
			unbound[role] = object.Object["rules"]
		}
	}
	want := map[string]any{
		"ClusterRole ringfence-metrics-reader": []any{map[string]any{"nonResourceURLs": []any{"/metrics"}, "verbs": []any{"get"}}},
		"ClusterRole ringfence-view": []any{map[string]any{
			"apiGroups": []any{"policy.ringfence.io"}, "resources": []any{"policyenforcements", "connectionreports"},
			"verbs": []any{"get", "list", "watch"},
		}},
	}
	if diff := cmp.Diff(want, unbound); diff != "" {
		t.Errorf("roles that are bound to nobody (-want +got):\n%s", diff)
	}
}

// Whoever reads a role has to see what it gives: "*" is more tomorrow than today, and no test can show that all of it is needed.
func TestNoRightIsForWhateverThereIs(t *testing.T) {
	rights, err := granted(t.Context(), rendered)
	kit.Must(t, err)
	if len(rights) < 10 {
		t.Errorf("the roles give %d rights: %v", len(rights), rights)
	}
	for i, r := range rights {
		if strings.Contains(r.String(), "*") {
			t.Errorf("config/rbac gives %s", r)
		}
		if i > 0 && rights[i-1] == r {
			t.Errorf("config/rbac gives %s twice, so that neither is needed", r)
		}
	}
}
