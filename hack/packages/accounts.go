package main

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// accountOf stands before a component for the name of its service account, which people may choose.
const accountOf = "account-of-"

// accountsOf are the components by the names of the service accounts that their pods run as.
func accountsOf(objects []*unstructured.Unstructured) map[string]string {
	out := map[string]string{}
	for _, o := range objects {
		if account, found, _ := unstructured.NestedString(o.Object, "spec", "template", "spec", "serviceAccountName"); found {
			out[account] = o.GetLabels()["app.kubernetes.io/component"]
		}
	}
	return out
}

// nameAccounts puts what stands for the name of a service account wherever an object has the name: the account itself, the subjects of bindings,
// pods, and the expressions by which admission policies find it.
func (c *templates) nameAccounts(o *unstructured.Unstructured) error {
	switch {
	case is(o, "ServiceAccount"):
		o.SetName(accountOf + c.accounts[o.GetName()])
	case is(o, "RoleBinding", "ClusterRoleBinding"):
		subjects, _ := o.Object["subjects"].([]any)
		for _, subject := range subjects {
			c.nameAccount(subject, "name")
		}
	case is(o, "ValidatingAdmissionPolicy"):
		conditions, _, _ := unstructured.NestedFieldNoCopy(o.Object, "spec", "matchConditions")
		list, _ := conditions.([]any)
		found := 0
		for _, condition := range list {
			m, _ := condition.(map[string]any)
			expression, _ := m["expression"].(string)
			for account, component := range c.accounts {
				found += strings.Count(expression, "'"+account+"'")
				expression = strings.ReplaceAll(expression, "'"+account+"'", "'"+accountOf+component+"'")
			}
			m["expression"] = expression
		}
		if found != 1 {
			return fmt.Errorf("%s names %d service accounts in its conditions, want one", identity(o), found)
		}
	default:
		pod, _, _ := unstructured.NestedFieldNoCopy(o.Object, "spec", "template", "spec")
		c.nameAccount(pod, "serviceAccountName")
	}
	return nil
}

func (c *templates) nameAccount(in any, field string) {
	m, _ := in.(map[string]any)
	if component := c.accounts[fmt.Sprint(m[field])]; component != "" {
		m[field] = accountOf + component
	}
}

func (c *templates) accountValues(component string) {
	section := component + ".serviceAccount."
	c.values = append(c.values,
		value{section + "create", true, "Whether its service account is part of the release.", schemaOf("boolean")},
		value{section + "name", "", "Its name, of one that is there if create is false; empty for " + packageName + "-" + component + ".", schemaOf("string")},
		value{section + "annotations", map[string]any{}, "Annotations of the service account.", mapOf("string")})
}
