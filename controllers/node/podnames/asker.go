package podnames

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/rest"

	"github.com/ringfence-io/ringfence/controllers/cached"
	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// askTimeout is longer than any line waits: an answer that comes late is there for the next line.
const askTimeout = 5 * time.Second

// NewAsker asks an API server, by a client of its version v1.
func NewAsker(c rest.Interface) Asker { return asker{c} }

type asker struct{ rest.Interface }

var _ Asker = asker{}

// PodAt asks for the metadata of the pods that have an address as their first: the API server knows no other field. It is to answer from its cache, whatever
// the age of that, as it does for resource version 0: from etcd it would have to read all pods. Pods that have ended have no address any more, and those of the
// host network have their node's.
func (c asker) PodAt(ctx context.Context, a netip.Addr) (policy.PodName, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	by := fields.AndSelectors(
		fields.OneTermEqualSelector("status.podIP", a.String()), fields.OneTermEqualSelector("spec.hostNetwork", "false"),
		fields.OneTermNotEqualSelector("status.phase", "Succeeded"), fields.OneTermNotEqualSelector("status.phase", "Failed"),
	)
	pods, err := cached.ListMetadata(ctx, c.Get().Resource("pods").Param("fieldSelector", by.String()).Param("resourceVersion", "0"))
	if err != nil {
		return policy.PodName{}, fmt.Errorf("asking for the pod at %s: %w", a, err)
	}
	return holder(pods.Items), nil
}

// holder is the pod that is named where several are shown with an address: one that stays rather than one that goes, then the older one. Metadata does not say
// on which nodes they are, by which policy would decide.
func holder(pods []metav1.PartialObjectMetadata) policy.PodName {
	var first *metav1.PartialObjectMetadata
	for i := range pods {
		p := &pods[i]
		switch {
		case first == nil:
			first = p
		case (p.DeletionTimestamp == nil) != (first.DeletionTimestamp == nil):
			if p.DeletionTimestamp == nil {
				first = p
			}
		case p.CreationTimestamp.Before(&first.CreationTimestamp):
			first = p
		}
	}
	if first == nil {
		return policy.PodName{}
	}
	return compile.NameOf(first)
}
