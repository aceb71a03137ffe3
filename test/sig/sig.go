// Package sig has the releases of the SIG's network-policy-api that Ringfence is tried with, and does what an administrator does to go from one
// CustomResourceDefinition (CRD) of theirs to another.
package sig

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"
)

// Module is the SIG's.
const Module = "sigs.k8s.io/network-policy-api"

// Definition is the name of the CRD.
const Definition = "clusternetworkpolicies.policy.networking.k8s.io"

// Channels are the two CRDs of each release, of which a cluster has one.
var Channels = []string{"standard", "experimental"}

// Release is one of the module.
type Release struct {
	// Name is the module's version.
	Name string
	// Version is the API version that its CRD stores, the newest one that it serves.
	Version string

	pin string // the directory of the go.mod that pins it, from a package directly below test
}

// The releases.
var (
	V02 = Release{"v0.2.0", "v1alpha2", "../../hack/sig"}
	V03 = Release{"v0.3.0", "v1beta1", "../.."}

	Releases = []Release{V02, V03}
)

// GroupVersion is the API version with its group.
func (r Release) GroupVersion() schema.GroupVersion {
	return schema.GroupVersion{Group: "policy.networking.k8s.io", Version: r.Version}
}

// Dir is the directory with the release's files.
func (r Release) Dir() (string, error) {
	cmd := exec.Command("go", "mod", "download", "-json", Module)
	cmd.Dir = r.pin
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("looking for %s %s: %w: %s%s", Module, r.Name, err, out, said.Bytes())
	}
	var module struct{ Version, Dir string }
	if err := json.Unmarshal(out, &module); err != nil {
		return "", fmt.Errorf("looking for %s %s: %w", Module, r.Name, err)
	}
	if module.Version != r.Name {
		return "", fmt.Errorf("looking for %s %s: the go.mod in %s asks for %s", Module, r.Name, r.pin, module.Version)
	}
	return module.Dir, nil
}

// Bases is the directory with the CRD of a channel.
func (r Release) Bases(channel string) (string, error) {
	dir, err := r.Dir()
	return filepath.Join(dir, "config/crd", channel), err
}

// CRD is that of a channel.
func (r Release) CRD(channel string) (*apiextensionsv1.CustomResourceDefinition, error) {
	dir, err := r.Bases(channel)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(filepath.Join(dir, "policy.networking.k8s.io_clusternetworkpolicies.yaml"))
	if err != nil {
		return nil, err
	}
	crd := &apiextensionsv1.CustomResourceDefinition{}
	if err := yaml.UnmarshalStrict(text, crd); err != nil {
		return nil, fmt.Errorf("reading the CRD of %s %s: %w", Module, r.Name, err)
	}
	return crd, nil
}

// Admin is an administrator with every right.
type Admin struct {
	crds    clientset.Interface
	objects dynamic.Interface
}

// NewAdmin makes one.
func NewAdmin(config *rest.Config) (*Admin, error) {
	config = rest.CopyConfig(config)
	config.QPS = -1
	crds, err := clientset.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	objects, err := dynamic.NewForConfig(config)
	return &Admin{crds, objects}, err
}

// Install makes the API have the kind as a release's channel has it. It returns when the CRD is established.
func (a *Admin) Install(ctx context.Context, to Release, channel string) error {
	crd, err := to.CRD(channel)
	if err != nil {
		return err
	}
	if _, err := a.crds.ApiextensionsV1().CustomResourceDefinitions().Create(ctx, crd, metav1.CreateOptions{}); err != nil {
		return err
	}
	return until(ctx, "the CRD to be established", func(ctx context.Context) error {
		crd, err := a.get(ctx)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(crd.Status.Conditions, func(c apiextensionsv1.CustomResourceDefinitionCondition) bool {
			return c.Type == apiextensionsv1.Established && c.Status == apiextensionsv1.ConditionTrue
		}) {
			return errors.New("it is not")
		}
		_, err = a.in(to.Version).List(ctx, metav1.ListOptions{})
		return err
	})
}

// Remove takes the kind out of the API, with all its objects, and returns when it is gone.
func (a *Admin) Remove(ctx context.Context) error {
	err := a.crds.ApiextensionsV1().CustomResourceDefinitions().Delete(ctx, Definition, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	return until(ctx, "the end of the CRD", func(ctx context.Context) error {
		_, err := a.get(ctx)
		if apierrors.IsNotFound(err) {
			return nil
		}
		return errors.Join(errors.New("it is there"), err)
	})
}

// Change puts another release's CRD, or another channel's, in the place of the present one. Where the other one does not have the version that objects are
// stored in, they are stored in its own first: the API server could not read them afterwards.
func (a *Admin) Change(ctx context.Context, to Release, channel string) error {
	crd, err := to.CRD(channel)
	if err != nil {
		return err
	}
	present, err := a.get(ctx)
	if err != nil {
		return err
	}
	kept := func(version string) bool {
		return slices.ContainsFunc(crd.Spec.Versions, func(v apiextensionsv1.CustomResourceDefinitionVersion) bool { return v.Name == version })
	}
	if slices.ContainsFunc(present.Status.StoredVersions, func(version string) bool { return !kept(version) }) {
		if err := a.migrate(ctx, to.Version); err != nil {
			return err
		}
	}
	err = a.update(ctx, func(present *apiextensionsv1.CustomResourceDefinition) {
		present.Annotations, present.Spec = crd.Annotations, crd.Spec
	})
	if err != nil {
		return err
	}
	return until(ctx, "the API to have "+to.Version, func(ctx context.Context) error {
		_, err := a.in(to.Version).List(ctx, metav1.ListOptions{})
		return err
	})
}

// migrate has all objects stored in a version that the present CRD serves.
func (a *Admin) migrate(ctx context.Context, version string) error {
	list, err := a.in(version).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	// From here on each object is stored in the version that is stored now, so that the next write shows when that is another one.
	for _, o := range list.Items {
		patch := fmt.Appendf(nil, `{"metadata":{"annotations":{"stored":%q}}}`, time.Now().Format(time.RFC3339Nano))
		if _, err := a.in(version).Patch(ctx, o.GetName(), types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
			return err
		}
	}
	err = a.update(ctx, func(present *apiextensionsv1.CustomResourceDefinition) {
		for i := range present.Spec.Versions {
			present.Spec.Versions[i].Storage = present.Spec.Versions[i].Name == version
		}
	})
	if err != nil {
		return err
	}
	for _, o := range list.Items {
		err := until(ctx, o.GetName()+" to be stored in "+version, func(ctx context.Context) error {
			before, err := a.in(version).Get(ctx, o.GetName(), metav1.GetOptions{})
			if err != nil {
				return err
			}
			after, err := a.in(version).Update(ctx, before, metav1.UpdateOptions{})
			if err != nil {
				return err
			}
			if after.GetResourceVersion() == before.GetResourceVersion() {
				return errors.New("writing it made no difference: the API server stores it as before")
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return until(ctx, "the other versions to be stored no more", func(ctx context.Context) error {
		crd, err := a.get(ctx)
		if err != nil {
			return err
		}
		crd.Status.StoredVersions = []string{version}
		_, err = a.crds.ApiextensionsV1().CustomResourceDefinitions().UpdateStatus(ctx, crd, metav1.UpdateOptions{})
		return err
	})
}

func (a *Admin) get(ctx context.Context) (*apiextensionsv1.CustomResourceDefinition, error) {
	return a.crds.ApiextensionsV1().CustomResourceDefinitions().Get(ctx, Definition, metav1.GetOptions{})
}

func (a *Admin) update(ctx context.Context, change func(*apiextensionsv1.CustomResourceDefinition)) error {
	return until(ctx, "the CRD to change", func(ctx context.Context) error {
		crd, err := a.get(ctx)
		if err != nil {
			return err
		}
		change(crd)
		_, err = a.crds.ApiextensionsV1().CustomResourceDefinitions().Update(ctx, crd, metav1.UpdateOptions{})
		return err
	})
}

func (a *Admin) in(version string) dynamic.ResourceInterface {
	return a.objects.Resource(schema.GroupVersionResource{Group: "policy.networking.k8s.io", Version: version, Resource: "clusternetworkpolicies"})
}

// until polls until done returns nil.
func until(ctx context.Context, what string, done func(context.Context) error) error {
	var last error
	err := wait.PollUntilContextTimeout(ctx, 20*time.Millisecond, 30*time.Second, true, func(ctx context.Context) (bool, error) {
		last = done(ctx)
		return last == nil, nil
	})
	if err != nil {
		return fmt.Errorf("waiting for %s: %w", what, last)
	}
	return nil
}
