package controllers

import (
	"os"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/ringfence-io/ringfence/test/kit"
)

const enforcerUser = "enforcer"

// The manifest's rights are enough for each watch, CustomResourceDefinitions and Services by name included.
func TestTheRightsOfTheEnforcerAreEnough(t *testing.T) {
	c := newCluster(t)
	c.config = enforcerConfig
	role := c.enforcerRole()
	for _, rule := range role.Rules {
		want := []string{"list", "watch"}
		switch rule.Resources[0] { // of its own node; test/rights tries it
		case "nodeenforcements", "nodeconnections":
			want = []string{"create", "patch"}
		case "pods/status":
			want = []string{"patch"}
		}
		if diff := cmp.Diff(want, rule.Verbs); diff != "" {
			t.Errorf("verbs for %v (-want +got):\n%s", rule.Resources, diff)
		}
	}
	c.grant(role, enforcerUser)

	c.dns = []types.NamespacedName{{Namespace: c.namespace, Name: "kube-dns"}}
	c.createService("kube-dns")
	c.createNode("node-x", "10.9.0.1")
	var want []string
	for _, k := range kindsWithNodes {
		c.install(k)
		c.create(k, "one", k.nodes)
		want = append(want, k.apiVersion+" one")
	}
	slices.Sort(want)
	n := c.start(time.Hour)
	n.untilNow("everything", func(s seen) bool {
		return cmp.Equal(s.objects(), want) && len(s.Nodes) == 1 && len(s.DNS.Services) == 1
	})
}

// enforcerRole is the one of config/rbac.
func (c *cluster) enforcerRole() *rbacv1.ClusterRole {
	c.t.Helper()
	text, err := os.ReadFile("../../config/rbac/role.yaml")
	kit.Must(c.t, err)
	role := &rbacv1.ClusterRole{}
	kit.Must(c.t, yaml.UnmarshalStrict(text, role))
	return role
}

// grant makes the role, and gives it to a user, unless another test has.
func (c *cluster) grant(role *rbacv1.ClusterRole, user string) {
	c.t.Helper()
	kit.Must(c.t, client.IgnoreAlreadyExists(c.client.Create(c.t.Context(), role)))
	kit.Must(c.t, client.IgnoreAlreadyExists(c.client.Create(c.t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: role.Name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user}},
	})))
}
