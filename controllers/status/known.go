package status

import (
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/cached"
	"github.com/ringfence-io/ringfence/enforcer/compile"
)

// known is what is remembered of one policy.
type known struct {
	version version   // which version of it is known, and since when
	marks   marks     // what has happened since it was judged
	judged  judgement // what was found when it was last judged
	written written   // what was last written about it
}

// version is one version of a policy, and since when this process knows it.
type version struct {
	uid        types.UID
	generation int64
	mode       string        // that the policy itself says, in an annotation which has no generation
	object     metav1.Object // the last one that was seen of this version
	understood *compile.Understood
	since      string    // resource version at which this version was first seen
	seen       time.Time // likewise
	first      bool      // the first version of the policy that this process sees: another may have seen it before
}

// marks are what has happened since a policy was judged.
type marks struct {
	count   int  // of all marks that there ever were
	review  bool // what the remarks are about has changed
	settled bool // programmed everywhere, and not marked since
}

// judgement is what was found when a policy was last judged.
type judgement struct {
	remarks      []compile.Remark
	on           []string      // nodes on which the policy selects pods, whether they exist or not
	programmed   bool          // everywhere
	took         time.Duration // to find it
	pendingSince time.Time     // when it was found to wait for a report again, after it was programmed; zero if it does not
	timed        bool          // how long programming took has been recorded
}

// written is what was last written about a policy.
type written struct {
	made            bool // a PolicyEnforcement, which the cache may not have yet
	status          *v1alpha1.EnforcementStatus
	resourceVersion string // that came of the last write
	at              time.Time
}

// becomes is what is known of a policy when another version of it is seen. Nothing is known before the first one.
func (k *known) becomes(seen version) *known {
	after := &known{version: seen, marks: marks{review: true}}
	if k == nil {
		return after
	}
	after.marks.count, after.judged.on = k.marks.count, k.judged.on
	if k.version.uid == seen.uid {
		after.written = k.written
	}
	return after
}

// versionOf is the version of a policy that is seen now.
func versionOf(o metav1.Object, now time.Time) version {
	return version{
		uid: o.GetUID(), generation: o.GetGeneration(), mode: ownMode(o), object: o, understood: compile.Understand(objectOf(o)),
		since: o.GetResourceVersion(), seen: now,
	}
}

// isOf reports whether v is the version of an object. The generation alone does not tell: once a CustomResourceDefinition (CRD) has lost a field, the API
// server hands objects out without it, and counts no new generation.
func (v *version) isOf(o metav1.Object) bool {
	return v.object == o || cached.SameForPolicy(v.object, o)
}

// same reports whether two are the same version.
func (v *version) same(w *version) bool {
	return v.uid == w.uid && v.generation == w.generation && v.mode == w.mode
}

// ownMode is the mode that a policy says of itself outside of its spec.
func ownMode(o metav1.Object) string {
	if np, ok := o.(*networkingv1.NetworkPolicy); ok {
		return np.Annotations[v1alpha1.ModeAnnotation]
	}
	return ""
}

func objectOf(o metav1.Object) compile.Object {
	switch o := o.(type) {
	case *networkingv1.NetworkPolicy:
		return compile.Object{NetworkPolicy: o}
	case *v1alpha1.ClusterNetworkPolicy:
		return compile.Object{ClusterNetworkPolicy: o}
	case *v1alpha1.NamespaceIsolation:
		return compile.Object{NamespaceIsolation: o}
	}
	return compile.Object{}
}

// created notes that a policy has a PolicyEnforcement now, at a resource version.
func (w *written) created(resourceVersion string) { w.made, w.resourceVersion = true, resourceVersion }

// updated notes which status was written, when, and the resource version that came of it.
func (w *written) updated(status *v1alpha1.EnforcementStatus, resourceVersion string, at time.Time) {
	w.status, w.resourceVersion, w.at = status, resourceVersion, at
}

// gone notes that the policy has no PolicyEnforcement.
func (w *written) gone() { w.made, w.status, w.resourceVersion = false, nil, "" }
