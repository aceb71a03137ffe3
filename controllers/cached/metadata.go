package cached

import (
	"context"
	"encoding/json"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// ListMetadata makes a request for a list, and has the API server leave out all but the metadata of its objects.
func ListMetadata(ctx context.Context, request *rest.Request) (list metav1.PartialObjectMetadataList, err error) {
	const onlyMetadata = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1, application/json"
	answer, err := request.SetHeader("Accept", onlyMetadata).Do(ctx).Raw()
	if err == nil {
		err = json.Unmarshal(answer, &list)
	}
	return list, err
}
