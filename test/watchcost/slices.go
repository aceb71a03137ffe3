package watchcost

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// What slices are called in the API. Nothing but this measurement has them.
const (
	sliceGroup    = "watchcost.ringfence.io"
	sliceVersion  = "v1"
	sliceResource = "podslices"
	slicePath     = "/apis/" + sliceGroup + "/" + sliceVersion + "/" + sliceResource
)

// slice is an object in which a controller would publish many pods, with no more than enforcers ask of those of other nodes. Label sets are many pods' and
// stand once.
type slice struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Namespace         string              `json:"namespace"`
	LabelSets         []map[string]string `json:"labelSets"`
	Pods              []slicePod          `json:"pods"`
}

// slicePod is one of them.
type slicePod struct {
	UID       string   `json:"u"`
	Addresses []string `json:"a"`
	Labels    int      `json:"l"` // which of the label sets
	Node      string   `json:"n"`
}

// installSlices makes the API serve them.
func (c *Cluster) installSlices() error {
	type schema = apiextensionsv1.JSONSchemaProps
	text := schema{Type: "string"}
	object := func(fields map[string]schema) schema { return schema{Type: "object", Properties: fields} }
	list := func(of schema) schema {
		return schema{Type: "array", Items: &apiextensionsv1.JSONSchemaPropsOrArray{Schema: &of}}
	}
	whole := object(map[string]schema{
		"namespace": text,
		"labelSets": list(schema{Type: "object", AdditionalProperties: &apiextensionsv1.JSONSchemaPropsOrBool{Allows: true, Schema: &text}}),
		"pods":      list(object(map[string]schema{"u": text, "a": list(text), "l": {Type: "integer"}, "n": text})),
	})
	crd := &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: sliceResource + "." + sliceGroup},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: sliceGroup, Scope: apiextensionsv1.ClusterScoped,
			Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: sliceResource, Singular: "podslice", Kind: "PodSlice", ListKind: "PodSliceList"},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{
				Name: sliceVersion, Served: true, Storage: true, Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &whole},
			}},
		},
	}
	if _, err := envtest.InstallCRDs(c.admin, envtest.CRDInstallOptions{CRDs: []*apiextensionsv1.CustomResourceDefinition{crd}}); err != nil {
		return fmt.Errorf("installing the kind of slices: %w", err)
	}
	return nil
}

// allowSlices has enforcers read them.
func (c *Cluster) allowSlices(ctx context.Context) error {
	const name = "watchcost-slices"
	rbac := c.kubes[workloads].RbacV1()
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: []rbacv1.PolicyRule{{
		APIGroups: []string{sliceGroup}, Resources: []string{sliceResource}, Verbs: []string{"get", "list", "watch"},
	}}}
	if _, err := rbac.ClusterRoles().Create(ctx, role, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("creating ClusterRole %s: %w", name, err)
	}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: enforcer.Name}},
	}
	if _, err := rbac.ClusterRoleBindings().Create(ctx, binding, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("creating ClusterRoleBinding %s: %w", name, err)
	}
	return nil
}

// Slices are published ones, which [Slices.Change] writes to as a controller would.
type Slices struct {
	client rest.Interface
	all    []*slice
	next   int
}

// Publish publishes n slices of some pods each.
func (c *Cluster) Publish(ctx context.Context, n, pods int) (*Slices, error) {
	s := &Slices{client: c.kubes[workloads].Discovery().RESTClient()}
	for i := range n {
		one := &slice{
			TypeMeta:   metav1.TypeMeta{APIVersion: sliceGroup + "/" + sliceVersion, Kind: "PodSlice"},
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("slice-%d-%04d", pods, i)},
			Namespace:  namespaceName(i),
		}
		for k := range pods {
			at := c.place(i*pods + k)
			if k < 10 {
				one.LabelSets = append(one.LabelSets, at.pod("").Labels)
			}
			one.Pods = append(one.Pods, slicePod{
				UID: fmt.Sprintf("2c0d5f1e-7f0e-4d3c-9d5a-%012x", at.number), Addresses: []string{at.addr}, Labels: k % 10, Node: at.node,
			})
		}
		if err := s.write(ctx, s.client.Post().AbsPath(slicePath), one); err != nil {
			return nil, fmt.Errorf("publishing a slice: %w", err)
		}
		s.all = append(s.all, one)
	}
	return s, nil
}

// write sends a slice, and takes in its new resource version.
func (s *Slices) write(ctx context.Context, request *rest.Request, one *slice) error {
	text, err := json.Marshal(one)
	if err != nil {
		return err
	}
	answer, err := request.SetHeader("Content-Type", "application/json").SetHeader("Accept", "application/json").Body(text).DoRaw(ctx)
	if err != nil {
		return err
	}
	var now struct {
		Metadata metav1.ObjectMeta `json:"metadata"`
	}
	if err := json.Unmarshal(answer, &now); err != nil {
		return err
	}
	one.ResourceVersion = now.Metadata.ResourceVersion
	return nil
}

// Change has another pod in the next slice: one write, and one event for whoever watches it.
func (s *Slices) Change(ctx context.Context) error {
	s.next++
	one := s.all[s.next%len(s.all)]
	one.Pods[s.next%len(one.Pods)].UID = "2c0d5f1e-7f0e-4d3c-9d5b-" + fmt.Sprintf("%012s", strconv.Itoa(s.next))
	if err := s.write(ctx, s.client.Put().AbsPath(slicePath, one.Name), one); err != nil {
		return fmt.Errorf("writing a slice: %w", err)
	}
	return nil
}

// Remove removes them.
func (s *Slices) Remove(ctx context.Context) error {
	for _, one := range s.all {
		if _, err := s.client.Delete().AbsPath(slicePath, one.Name).SetHeader("Accept", "application/json").DoRaw(ctx); err != nil {
			return fmt.Errorf("removing a slice: %w", err)
		}
	}
	return nil
}
