package cached

import (
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/resourceversion"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
)

// ReportEntry stands in the controller's cache for a NodeEnforcement. It has none of the report's texts: a kernel's words name whatever stood in its way, a
// node that lies could write anything, and tenants read what the controller says of their policies.
type ReportEntry struct {
	metav1.ObjectMeta
	Heartbeat time.Time // by the node's clock
	Interval  time.Duration
	Families  []v1alpha1.Family
	Failing   bool   // the node does not enforce what the API says
	Unread    bool   // what the node's kernel holds is not known
	Passed    bool   // packets of some pods pass no rule
	Boot      string // of the node's kernel
	Complete  bool   // all that the node is to enforce is in force
	Versions  map[string]string
	Digests   []uint64 // ascending
	Refused   []uint64 // digests of the policies of which a part is refused, ascending

	// Void is set if the node has seen data that the API server no longer has: how far it has come then says nothing.
	Void bool
}

// ReportToEntry stores a ReportEntry for a NodeEnforcement.
func ReportToEntry(obj any) (any, error) {
	r, ok := obj.(*v1alpha1.NodeEnforcement)
	if !ok {
		return obj, nil
	}
	e := &ReportEntry{
		ObjectMeta: identity(r), Heartbeat: r.Status.HeartbeatTime.Time,
		Interval: time.Duration(r.Status.HeartbeatSeconds) * time.Second, Families: r.Status.Families,
		Void: r.Status.Before != "" && Reached(r.Status.Before, r.ResourceVersion),
	}
	if c := meta.FindStatusCondition(r.Status.Conditions, v1alpha1.EnforcingCondition); c != nil && c.Status != metav1.ConditionTrue {
		e.Failing, e.Unread = true, c.Reason == v1alpha1.UnreadableReason
	}
	if c := meta.FindStatusCondition(r.Status.Conditions, v1alpha1.BridgesPolicedCondition); c != nil && c.Status != metav1.ConditionTrue {
		e.Passed = true
	}
	e.Boot, e.Complete = r.Status.BootID, isComplete(&r.Status)
	e.Refused = UnpackDigests(r.Status.Refused)
	if a := r.Status.Applied; a != nil {
		e.Versions, e.Digests = a.ResourceVersions, UnpackDigests(a.PodDigests)
	}
	return e, nil
}

// StripEnforcement leaves of a PolicyEnforcement its status, and whose it is.
func StripEnforcement(obj any) (any, error) {
	p, ok := obj.(*v1alpha1.PolicyEnforcement)
	if !ok {
		return obj, nil
	}
	stripped := &v1alpha1.PolicyEnforcement{ObjectMeta: identity(p), Status: p.Status}
	stripped.Status.ObservedGeneration = p.Status.PolicyGeneration // as with the other kinds, from here on
	stripped.OwnerReferences = p.OwnerReferences
	return stripped, nil
}

// StripConnections leaves of what was seen of connections, on a node or in a namespace, that and whose it is.
func StripConnections(obj any) (any, error) {
	switch o := obj.(type) {
	case *v1alpha1.NodeConnections:
		return &v1alpha1.NodeConnections{ObjectMeta: identity(o), Status: o.Status}, nil
	case *v1alpha1.ConnectionReport:
		return &v1alpha1.ConnectionReport{ObjectMeta: identity(o), Status: o.Status}, nil
	}
	return obj, nil
}

// Reached reports whether the node has enforced all changes of a kind of policy up to a resource version.
func (e *ReportEntry) Reached(resource, since string) bool {
	if since == "" {
		return true
	}
	return Reached(e.Versions[resource], since)
}

// Reached reports whether a resource version is at or behind another one of the same resource.
func Reached(version, since string) bool {
	order, err := resourceversion.CompareResourceVersion(version, since)
	return err == nil && order >= 0
}

// Covers reports whether the node enforces policy on all of these pods, as they are now.
func (e *ReportEntry) Covers(pods []uint64) bool {
	for _, digest := range pods {
		if _, ok := slices.BinarySearch(e.Digests, digest); !ok {
			return false
		}
	}
	return true
}

// WorseThan reports whether a policy that was programmed by the report before may not be by this one, or for another reason.
func (e *ReportEntry) WorseThan(before *ReportEntry) bool {
	if e.Failing != before.Failing || e.Unread != before.Unread || !slices.Equal(e.Families, before.Families) || !e.Covers(before.Digests) ||
		!slices.Equal(e.Refused, before.Refused) {
		return true
	}
	for resource, version := range before.Versions {
		if !e.Reached(resource, version) {
			return true
		}
	}
	return false
}

// HasRefused reports whether a digest is among those of what the node refuses.
func (e *ReportEntry) HasRefused(digest uint64) bool {
	_, there := slices.BinarySearch(e.Refused, digest)
	return there
}

// Waits reports whether a node has the policies of a namespace in force as they were, while what they have become is being made ready.
func (e *ReportEntry) Waits(namespace string) bool {
	return len(e.Refused) > 0 && namespace != "" && e.HasRefused(WaitingNamespace(namespace))
}

// isComplete reports whether all that a node is to enforce is in force. Where unknown pods are to be dropped and no range is known yet, as before a new Node
// was given one, it is not.
func isComplete(status *v1alpha1.NodeEnforcementStatus) bool {
	if status.Applied == nil || !meta.IsStatusConditionTrue(status.Conditions, v1alpha1.EnforcingCondition) {
		return false
	}
	unknown := meta.FindStatusCondition(status.Conditions, v1alpha1.UnknownPodsDroppedCondition)
	return unknown == nil || unknown.Reason != v1alpha1.NoPodRangeReason
}
