// Package crds holds the tests of our schemas against a real API server: what it refuses, with which words, and what it makes of
// what it accepts.
package crds

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/yaml"

	"github.com/ringfence-io/ringfence/test/apiserver"
)

var (
	// config and server reach the API server of this test run; our CRDs are installed in it.
	config *rest.Config
	server client.Client
)

func TestMain(m *testing.M) { apiserver.Main(m, prepare) }

// prepare puts our CRDs into the server, and makes a client.
func prepare(env *envtest.Environment) error {
	config = env.Config
	if err := apiserver.InstallCRDs(config, apiserver.CRDs); err != nil {
		return err
	}
	scheme := runtime.NewScheme()
	if err := apiextensionsv1.AddToScheme(scheme); err != nil {
		return err
	}
	var err error
	if server, err = client.New(config, client.Options{Scheme: scheme}); err != nil {
		return fmt.Errorf("making a client: %w", err)
	}
	return nil
}

// readCRDs reads the manifests of a directory.
func readCRDs(t *testing.T, dir string) []*apiextensionsv1.CustomResourceDefinition {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "policy.*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s has no manifests (%v)", dir, err)
	}
	var out []*apiextensionsv1.CustomResourceDefinition
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		crd := new(apiextensionsv1.CustomResourceDefinition)
		if err := yaml.UnmarshalStrict(text, crd); err != nil {
			t.Fatalf("reading %s: %v", file, err)
		}
		out = append(out, crd)
	}
	return out
}
