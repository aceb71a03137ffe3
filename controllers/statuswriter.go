package controllers

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
)

// statusManager owns the fields that the controller writes, for server-side apply.
const statusManager = "ringfence-controller"

// statusWriter writes statuses by server-side apply: fields of others, as conditions of other types, stay.
type statusWriter struct {
	clients  map[schema.GroupVersion]rest.Interface
	versions map[string]*versions // in which the statuses of policies are written, by the policies' resource
}

func newStatusWriter(w *watches) *statusWriter {
	written := map[string]*versions{networkPolicies.String(): newVersions(v1alpha1.GroupVersion)} // their PolicyEnforcements
	for _, d := range w.definitions {
		written[d.objects.groupResource().String()] = d.objects.versions
	}
	return &statusWriter{clients: w.watcher.clients, versions: written}
}

// apply is a server-side apply: what manager says in body is its own, whoever said it before. It asks for no more than the metadata in return.
func apply(c rest.Interface, manager string, body []byte) *rest.Request {
	return c.Patch(types.ApplyYAMLPatchType).Param("fieldManager", manager).Param("force", "true").
		SetHeader("Accept", onlyMetadata).Body(body)
}

// onlyMetadata asks for an answer without the object that was written.
const onlyMetadata = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1, application/json"

// statusTarget says where the status of a policy is written.
func statusTarget(key policyKey) (kind, resource string) {
	switch key.resource {
	case networkPolicies.String():
		return "PolicyEnforcement", "policyenforcements"
	case sigPolicies, "clusternetworkpolicies." + v1alpha1.GroupVersion.Group:
		return "ClusterNetworkPolicy", "clusternetworkpolicies"
	}
	return "NamespaceIsolation", "namespaceisolations"
}

// appliedStatus is a status as it is written: also of what there is none of it says so, or it would stay as somebody else has written it.
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
	answer, err := inServed(w.versions[key.resource], func(version schema.GroupVersion) ([]byte, error) {
		body, err := json.Marshal(map[string]any{"apiVersion": version.String(), "kind": kind, "metadata": metadata, "status": say})
		if err != nil {
			return nil, err
		}
		return apply(w.clients[version], statusManager, body).NamespaceIfScoped(key.namespace, key.namespace != "").
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
		TypeMeta: ourType("PolicyEnforcement"),
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

// tell makes an Event of what is news to a person: that a policy is in force, or is not, or is not understood. Its reason is the condition's.
func (r *Policies) tell(o metav1.Object, previous, status *v1alpha1.EnforcementStatus) {
	for _, kind := range []string{v1alpha1.AcceptedCondition, v1alpha1.ProgrammedCondition} {
		before, now := meta.FindStatusCondition(previous.Conditions, kind), meta.FindStatusCondition(status.Conditions, kind)
		if before != nil && before.Status == now.Status && before.Reason == now.Reason {
			continue
		}
		level := ""
		switch now.Reason {
		case v1alpha1.ProgrammedReason:
			level = corev1.EventTypeNormal
		case v1alpha1.NotUnderstoodReason, v1alpha1.TooLargeReason, v1alpha1.ConflictingReason, v1alpha1.NodesFailingReason, v1alpha1.NodesUnknownReason:
			level = corev1.EventTypeWarning
		}
		if level != "" {
			r.recorder.Eventf(r.writer.referenceTo(o), nil, level, now.Reason, "Enforce", "%s", shortened(note(o, now), maxNote))
		}
	}
}

// note is what an Event says of a condition. Events of the cluster's own objects are in the namespace default, where other people read them than those who
// may read the objects: what is said of how they are understood may name other policies, and pods of any namespace.
func note(o metav1.Object, c *metav1.Condition) string {
	if c.Type == v1alpha1.AcceptedCondition && o.GetNamespace() == "" {
		return "the object's condition Accepted says what is meant"
	}
	return c.Message
}

// maxNote is the longest note of an Event, in bytes.
const maxNote = 1024

// referenceTo names a policy for an Event, in the version that the API serves.
func (w *statusWriter) referenceTo(o metav1.Object) *corev1.ObjectReference {
	ref := &corev1.ObjectReference{
		APIVersion: networkingv1.SchemeGroupVersion.String(), Kind: "NetworkPolicy",
		Namespace: o.GetNamespace(), Name: o.GetName(), UID: o.GetUID(), ResourceVersion: o.GetResourceVersion(),
	}
	switch o := o.(type) {
	case *v1alpha1.ClusterNetworkPolicy:
		ref.APIVersion, ref.Kind = o.APIVersion, o.Kind
		if o.APIVersion == sigVersions[0].String() {
			ref.APIVersion = w.versions[sigPolicies].newest().String()
		}
	case *v1alpha1.NamespaceIsolation:
		ref.APIVersion, ref.Kind = o.APIVersion, o.Kind
	}
	return ref
}

func isTrue(conditions []metav1.Condition, kind string) bool {
	return meta.IsStatusConditionTrue(conditions, kind)
}
