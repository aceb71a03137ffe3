package cached

import (
	"errors"
	"net/http"
	"slices"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func TestARequestIsMadeInTheNewestVersionThatIsServed(t *testing.T) {
	one := schema.GroupResource{Group: "g", Resource: "ones"}
	unserved := apierrors.NewGenericServerResponse(http.StatusNotFound, "GET", one, "", "404 page not found", 0, true)
	missing := apierrors.NewNotFound(one, "a")
	refused := apierrors.NewForbidden(one, "a", errors.New("no"))
	tests := []struct {
		name    string
		serves  []string // by the CRD, as far as has been heard
		answers map[string]error
		asked   []string
		want    error
		known   bool
	}{
		{"both are served", []string{"v1", "v2"}, nil, []string{"v2"}, nil, true},
		{"the older one is", []string{"v1"}, nil, []string{"v1"}, nil, true},
		{"the newer one is, beside others", []string{"v3", "v2"}, nil, []string{"v2"}, nil, true},
		{"the server lacks the newer one", []string{"v1", "v2"}, map[string]error{"v2": unserved}, []string{"v2", "v1"}, nil, true},
		{"the server has the newer one already", []string{"v1"}, map[string]error{"v1": unserved}, []string{"v1", "v2"}, nil, true},
		{"the server has neither", []string{"v1"}, map[string]error{"v1": unserved, "v2": unserved}, []string{"v1", "v2"}, unserved, true},
		{"no known one is served", []string{"v3"}, nil, []string{"v2"}, nil, false},
		{"the object is missing", []string{"v1", "v2"}, map[string]error{"v2": missing}, []string{"v2"}, missing, true},
		{"another error", []string{"v1", "v2"}, map[string]error{"v2": refused}, []string{"v2"}, refused, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := NewVersions(schema.GroupVersion{Group: "g", Version: "v2"}, schema.GroupVersion{Group: "g", Version: "v1"})
			if known := v.serve(tt.serves); known != tt.known {
				t.Errorf("a version is known: %t, want %t", known, tt.known)
			}
			var asked []string
			answer, err := InServed(v, func(version schema.GroupVersion) (string, error) {
				asked = append(asked, version.Version)
				return version.Version, tt.answers[version.Version]
			})
			if !slices.Equal(asked, tt.asked) || !errors.Is(err, tt.want) || answer != asked[len(asked)-1] {
				t.Errorf("asked in %v, got %q and error %v; want %v and error %v", asked, answer, err, tt.asked, tt.want)
			}
		})
	}
}
