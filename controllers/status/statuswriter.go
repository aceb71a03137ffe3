package status

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/cached"
)

// statusWriter writes statuses by server-side apply: fields of others, as conditions of other types, stay.
type statusWriter struct {
	clients  map[schema.GroupVersion]rest.Interface
	versions map[string]*cached.Versions // in which the statuses of policies are written, by the policies' resource
}

func newStatusWriter(k *cached.Kinds) *statusWriter {
	versions := k.Versions()
	versions[cached.NetworkPolicies.String()] = cached.NewVersions(v1alpha1.GroupVersion) // of their PolicyEnforcements
	return &statusWriter{clients: k.Watcher.Clients, versions: versions}
}

// statusTarget says where the status of a policy is written.
func statusTarget(key policyKey) (kind, resource string) {
	switch key.resource {
	case cached.NetworkPolicies.String():
		return "PolicyEnforcement", "policyenforcements"
	case sigPolicies, "clusternetworkpolicies." + v1alpha1.GroupVersion.Group:
		return "ClusterNetworkPolicy", "clusternetworkpolicies"
	}
	return "NamespaceIsolation", "namespaceisolations"
}

// appliedStatus is a status as it is written: a field without a value is written too, or it would stay as another writer left it.
type appliedStatus struct {
	v1alpha1.EnforcementStatus
	Nodes appliedNodes `json:"nodes"`
}

type appliedNodes struct {
	v1alpha1.NodeCounts
	NotProgrammed []v1alpha1.NodeTrouble `json:"notProgrammed"`
}

// appliedEnforcement is one of a PolicyEnforcement.
type appliedEnforcement struct {
	appliedStatus
	PolicyGeneration int64 `json:"policyGeneration"`
}

// write writes a policy's status into an object that stands at a resource version, and returns the one that came of it. A policy that is gone
// needs none. Where another version stands, which may be another policy's of the same name, nothing is written, and the error is a conflict.
func (w *statusWriter) write(ctx context.Context, key policyKey, at string, status *v1alpha1.EnforcementStatus) (string, error) {
	kind, resource := statusTarget(key)
	written := appliedStatus{*status, appliedNodes{status.Nodes, append([]v1alpha1.NodeTrouble{}, status.Nodes.NotProgrammed...)}}
	written.Conditions = slices.DeleteFunc(slices.Clone(status.Conditions), func(c metav1.Condition) bool {
		return !slices.Contains(ourConditions, c.Type)
	})
	var say any = written
	switch kind {
	case "PolicyEnforcement":
		generation := written.ObservedGeneration
		written.ObservedGeneration = 0
		say = appliedEnforcement{written, generation}
	case "ClusterNetworkPolicy":
		if key.resource == sigPolicies {
			say = map[string]any{"conditions": written.Conditions}
		}
	}
	metadata := map[string]any{"name": key.name, "resourceVersion": at}
	if key.namespace != "" {
		metadata["namespace"] = key.namespace
	}
	answer, err := cached.InServed(w.versions[key.resource], func(version schema.GroupVersion) ([]byte, error) {
		body, err := json.Marshal(map[string]any{"apiVersion": version.String(), "kind": kind, "metadata": metadata, "status": say})
		if err != nil {
			return nil, err
		}
		return cached.Apply(w.clients[version], cached.ControllerManager, body).NamespaceIfScoped(key.namespace, key.namespace != "").
			Resource(resource).Name(key.name).SubResource("status").Do(ctx).Raw()
	})
	if apierrors.IsNotFound(err) && kind != "PolicyEnforcement" {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("writing the status of %s: %w", key, err)
	}
	var partial metav1.PartialObjectMetadata
	if err := json.Unmarshal(answer, &partial); err != nil {
		return "", fmt.Errorf("writing the status of %s: reading the answer: %w", key, err)
	}
	return partial.ResourceVersion, nil
}

// makeEnforcement makes a NetworkPolicy's PolicyEnforcement, which goes with it, and returns its resource version.
func (w *statusWriter) makeEnforcement(ctx context.Context, key policyKey, np metav1.Object) (string, error) {
	e := &v1alpha1.PolicyEnforcement{
		TypeMeta: cached.OurType("PolicyEnforcement"),
		ObjectMeta: metav1.ObjectMeta{Namespace: key.namespace, Name: key.name, OwnerReferences: []metav1.OwnerReference{{
			APIVersion: networkingv1.SchemeGroupVersion.String(), Kind: "NetworkPolicy", Name: key.name, UID: np.GetUID(),
		}}},
	}
	made := &v1alpha1.PolicyEnforcement{}
	err := w.clients[v1alpha1.GroupVersion].Post().Namespace(key.namespace).Resource("policyenforcements").Body(e).Do(ctx).Into(made)
	if err != nil {
		return "", fmt.Errorf("making the PolicyEnforcement of %s: %w", key, err)
	}
	return made.ResourceVersion, nil
}

// deleteEnforcement deletes the PolicyEnforcement of this UID. That it is gone already is as it should be.
func (w *statusWriter) deleteEnforcement(ctx context.Context, key policyKey, uid types.UID) error {
	err := w.clients[v1alpha1.GroupVersion].Delete().Namespace(key.namespace).Resource("policyenforcements").Name(key.name).
		Body(&metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}}).Do(ctx).Error()
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("deleting the PolicyEnforcement of %s: %w", key, err)
	}
	return nil
}
