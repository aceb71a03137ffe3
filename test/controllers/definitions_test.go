package controllers

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/ringfence-io/ringfence/test/kit"
	"github.com/ringfence-io/ringfence/test/sig"
)

// kind is a kind of policy whose CustomResourceDefinition comes and goes.
type kind struct {
	name       string
	definition func(*testing.T) *unstructured.Unstructured
	path       string // of its objects in the API
	apiVersion string
	shown      string // the API version in snapshots
	kind       string
	plain      string // a spec that the kind's schema takes
	nodes      string // one with nodes for a peer
}

const (
	selectAll = `tier: Admin, priority: 7, subject: {namespaces: {}}`
	theSIGs   = "policy.networking.k8s.io/v1beta1"
	ours      = "policy.ringfence.io/v1alpha1"
)

var (
	clusterPolicies = kind{
		name: "ClusterNetworkPolicy", definition: definitionOf("ClusterNetworkPolicy", "clusternetworkpolicies", "v1alpha1"),
		path: "/policy.ringfence.io/v1alpha1/clusternetworkpolicies", apiVersion: ours, shown: ours, kind: "ClusterNetworkPolicy",
		plain: `{` + selectAll + `}`,
		nodes: `{` + selectAll + `, ingress: [{action: Deny, from: [{networks: [10.0.0.0/8]}, {nodes: {}}]}]}`,
	}
	isolations = kind{
		name: "NamespaceIsolation", definition: definitionOf("NamespaceIsolation", "namespaceisolations", "v1alpha1"),
		path: "/policy.ringfence.io/v1alpha1/namespaceisolations", apiVersion: ours, shown: ours, kind: "NamespaceIsolation",
		plain: `{namespaceSelector: {}, tier: Admin}`,
		nodes: `{namespaceSelector: {}, tier: Baseline, allow: {ingress: [{from: [{nodes: {}}]}]}}`,
	}
	// The channels of the SIG's kind are two schemas of one definition, of which a cluster has one at a time. Only one knows nodes.
	sigExperimental = sigKind(sig.V03, "experimental")
	sigStandard     = sigKind(sig.V03, "standard")

	kindsWithNodes = []kind{clusterPolicies, isolations, sigExperimental}
	allKinds       = []kind{
		clusterPolicies, isolations, sigExperimental, sigStandard, sigKind(sig.V02, "experimental"), sigKind(sig.V02, "standard"),
	}
)

func sigKind(release sig.Release, channel string) kind {
	version := release.GroupVersion().String()
	return kind{
		name: "the SIG's ClusterNetworkPolicy of " + release.Name + ", channel " + channel, definition: sigDefinition(release, channel),
		path: "/" + version + "/clusternetworkpolicies", apiVersion: version, shown: theSIGs, kind: "ClusterNetworkPolicy",
		plain: `{` + selectAll + `}`,
		nodes: `{` + selectAll + `, egress: [{action: Deny, to: [{nodes: {}}]}]}`,
	}
}

// definitionOf is a CustomResourceDefinition of our group that takes any object.
func definitionOf(kind, plural string, versions ...string) func(*testing.T) *unstructured.Unstructured {
	var list []string
	for i, version := range versions {
		list = append(list, fmt.Sprintf(`{name: %s, served: true, storage: %t, subresources: {status: {}},
			schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}`, version, i == 0))
	}
	text := fmt.Sprintf(`{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition,
		metadata: {name: %[2]s.policy.ringfence.io},
		spec: {group: policy.ringfence.io, scope: Cluster, names: {kind: %[1]s, plural: %[2]s}, versions: [%[3]s]}}`,
		kind, plural, strings.Join(list, ","))
	return func(t *testing.T) *unstructured.Unstructured { return parsed(t, text) }
}

// sigDefinition is the SIG's own, from its module.
func sigDefinition(release sig.Release, channel string) func(*testing.T) *unstructured.Unstructured {
	return func(t *testing.T) *unstructured.Unstructured {
		t.Helper()
		dir, err := release.Bases(channel)
		kit.Must(t, err)
		text, err := os.ReadFile(filepath.Join(dir, "policy.networking.k8s.io_clusternetworkpolicies.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		return parsed(t, string(text))
	}
}

func parsed(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	o := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(strings.ReplaceAll(text, "\t", " ")), &o.Object); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return o
}

// object is an object of the kind.
func (k kind) object(t *testing.T, name, spec string) *unstructured.Unstructured {
	t.Helper()
	return parsed(t, fmt.Sprintf(`{apiVersion: %s, kind: %s, metadata: {name: %s}, spec: %s}`, k.apiVersion, k.kind, name, spec))
}

// install makes the API have a kind until the test ends.
func (c *cluster) install(k kind) {
	c.t.Helper()
	definition := k.definition(c.t)
	kit.Must(c.t, c.client.Create(c.t.Context(), definition))
	c.t.Cleanup(func() { c.remove(k) })
}

// remove takes a kind out of the API, with all its objects, and waits until it is gone.
func (c *cluster) remove(k kind) {
	c.t.Helper()
	definition := k.definition(c.t)
	kit.Must(c.t, client.IgnoreNotFound(c.client.Delete(context.Background(), definition)))
	kit.EventuallySucceeds(c.t, patience, k.name+" to be gone", func(ctx context.Context) error {
		err := c.client.Get(ctx, client.ObjectKeyFromObject(definition), definition)
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("it is there: %w", err)
	})
}

// create makes an object of a kind, as soon as the API takes it.
func (c *cluster) create(k kind, name, spec string) *unstructured.Unstructured {
	c.t.Helper()
	o := k.object(c.t, name, spec)
	kit.EventuallySucceeds(c.t, patience, "the API to take a "+k.name, func(ctx context.Context) error {
		err := c.client.Create(ctx, o)
		if apierrors.IsInvalid(err) {
			c.t.Fatal(err)
		}
		return err
	})
	return o
}
