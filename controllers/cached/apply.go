package cached

import (
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
)

// Who owns the fields that we write, for server-side apply.
const (
	EnforcerManager   = "ringfence-enforcer"
	ControllerManager = "ringfence-controller"
)

// Apply is a server-side apply: what manager says in body is its own, whoever said it before. It asks for no more than the metadata in return.
func Apply(c rest.Interface, manager string, body []byte) *rest.Request {
	return c.Patch(types.ApplyYAMLPatchType).Param("fieldManager", manager).Param("force", "true").
		SetHeader("Accept", OnlyMetadata).Body(body)
}

// WithRemedy adds to the error of an apply what there is to do if the cluster lacks the kind.
func WithRemedy(err error) error {
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("%w: apply the CustomResourceDefinitions of this release", err)
	}
	return err
}

// OnlyMetadata asks for an answer without the object that was written.
const OnlyMetadata = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1, application/json"
