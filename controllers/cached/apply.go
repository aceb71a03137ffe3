package cached

import (
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

// OnlyMetadata asks for an answer without the object that was written.
const OnlyMetadata = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1, application/json"
