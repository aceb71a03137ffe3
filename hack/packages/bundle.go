package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

const (
	packageName = "ringfence"
	// channel is where releases of an API of version v1alpha1 belong.
	channel = "candidate"
	// placeholder stands for the namespace while kustomize renders.
	placeholder = "namespace-of-the-installation"
)

// besides are the kinds of objects that a bundle may have besides its ClusterServiceVersion (CSV), as OLM's operator-registry lists them in
// pkg/lib/bundle/supported_resources.go. It refuses all others. What came to that list late is not here: older OLMs have not heard of it.
var besides = []string{
	"CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding", "ServiceAccount", "Service", "ConfigMap", "Secret",
	"PriorityClass", "PodDisruptionBudget", "PrometheusRule", "ServiceMonitor", "VerticalPodAutoscaler",
	"ConsoleYAMLSample", "ConsoleQuickStart", "ConsoleCLIDownload", "ConsoleLink",
}

// beforehand are kinds of config that an installation by OLM goes without: who installs has to put them there before it, where they are needed
// (docs/install-olm.md). The controller cannot: where pods of its priority class need a quota, it does not run before there is one.
var beforehand = []string{"ResourceQuota"}

// variants are the directories of config that the controller can install from: what --install-enforcers takes.
var variants = []string{"default", "first-packet"}

// bundle makes the bundle, and what of config its controller has to install.
func bundle() (files, error) {
	t, err := original()
	if err != nil {
		return nil, err
	}
	out, suggested := files{}, t.namespace
	err = t.in(placeholder, func(t tree) error {
		objects, err := t.render("manifests")
		if err != nil {
			return err
		}
		for _, o := range objects {
			relabel(o, "olm", o.GetLabels()[versionLabel])
		}
		b := &parts{namespace: t.namespace, suggested: suggested, rights: map[string]*rights{}}
		if err := b.sort(objects); err != nil {
			return err
		}
		if err := b.bundle(out); err != nil {
			return err
		}
		return installedLater(t, out)
	})
	return out, err
}

// parts are the objects of config/manifests by where they go.
type parts struct {
	namespace string // while it is rendered
	suggested string // to those who install

	csv         *unstructured.Unstructured
	home        *unstructured.Unstructured // the namespace
	accounts    []*unstructured.Unstructured
	roles       []*unstructured.Unstructured
	bindings    []*unstructured.Unstructured
	deployments []any
	crds        []*unstructured.Unstructured
	rights      map[string]*rights // by service account
	rest        []*unstructured.Unstructured
}

// rights are what a service account may do: OLM makes it, its roles and their bindings, in the namespace that people choose.
type rights struct{ cluster, namespace []any }

func (b *parts) sort(objects []*unstructured.Unstructured) error {
	for _, o := range objects {
		if ns := o.GetNamespace(); ns != "" && ns != b.namespace {
			return fmt.Errorf("%s is in a namespace of its own: OLM puts all objects of a bundle into the one that people choose", identity(o))
		}
		switch {
		case is(o, "ClusterServiceVersion"):
			b.csv = o
		case is(o, "Namespace"):
			b.home = o
		case is(o, "ServiceAccount"):
			b.accounts = append(b.accounts, o)
		case is(o, "Role", "ClusterRole"):
			b.roles = append(b.roles, o)
		case is(o, "RoleBinding", "ClusterRoleBinding"):
			b.bindings = append(b.bindings, o)
		case is(o, "Deployment"):
			b.deployments = append(b.deployments, map[string]any{"name": o.GetName(), "label": anyMap(o.GetLabels()), "spec": o.Object["spec"]})
		case is(o, "CustomResourceDefinition"):
			b.crds = append(b.crds, o)
		case is(o, besides...):
			b.rest = append(b.rest, o)
		}
	}
	return b.grant()
}

// grant finds the rights of each service account. Roles that nobody is given stay objects of the bundle: people bind them.
func (b *parts) grant() error {
	bound := map[string]bool{}
	for _, binding := range b.bindings {
		ref, _ := binding.Object["roleRef"].(map[string]any)
		i := slices.IndexFunc(b.roles, func(o *unstructured.Unstructured) bool {
			return is(o, fmt.Sprint(ref["kind"])) && o.GetName() == ref["name"]
		})
		if i < 0 {
			return fmt.Errorf("%s gives the role %v, which is not one of Ringfence's: a bundle can only say the rules themselves", identity(binding), ref["name"])
		}
		bound[identity(b.roles[i])] = true
		rules, _, _ := unstructured.NestedSlice(b.roles[i].Object, "rules")
		subjects, _ := binding.Object["subjects"].([]any)
		for _, subject := range subjects {
			s, _ := subject.(map[string]any)
			if s["kind"] != "ServiceAccount" || s["namespace"] != b.namespace {
				return fmt.Errorf("%s is for %v, which is not one of Ringfence's service accounts", identity(binding), s)
			}
			of := b.rights[s["name"].(string)]
			if of == nil {
				of = &rights{}
				b.rights[s["name"].(string)] = of
			}
			if is(binding, "ClusterRoleBinding") {
				of.cluster = append(of.cluster, rules...)
			} else {
				of.namespace = append(of.namespace, rules...)
			}
		}
	}
	for _, role := range b.roles {
		if !bound[identity(role)] {
			b.rest = append(b.rest, role)
		}
	}
	for _, account := range b.accounts {
		if b.rights[account.GetName()] == nil {
			b.rest = append(b.rest, account)
		}
	}
	return nil
}

// bundle writes the parts to where they go.
func (b *parts) bundle(out files) error {
	if b.csv == nil || b.home == nil || len(b.deployments) == 0 {
		return errors.New("config/manifests has no ClusterServiceVersion, no Namespace or no Deployment")
	}
	if err := b.complete(); err != nil {
		return err
	}
	named := map[string]*unstructured.Unstructured{"ringfence.clusterserviceversion.yaml": b.csv}
	for _, crd := range b.crds {
		plural, group, _ := strings.Cut(crd.GetName(), ".")
		named[group+"_"+plural+".yaml"] = crd
	}
	for _, o := range b.rest {
		o.SetNamespace("")
		named[o.GetName()+"_"+strings.ToLower(o.GetKind())+".yaml"] = o
	}
	for name, o := range named {
		if names(o.Object, b.namespace) {
			return fmt.Errorf("%s names the namespace, which is not known when a bundle is made", identity(o))
		}
		text, err := encode(o)
		if err != nil {
			return err
		}
		out[path.Join("bundle/manifests", name)] = text
	}
	return b.metadata(out)
}

// metadata is what is said of the bundle as a whole.
func (b *parts) metadata(out files) error {
	annotations := map[string]string{
		"operators.operatorframework.io.bundle.mediatype.v1":       "registry+v1",
		"operators.operatorframework.io.bundle.manifests.v1":       "manifests/",
		"operators.operatorframework.io.bundle.metadata.v1":        "metadata/",
		"operators.operatorframework.io.bundle.package.v1":         packageName,
		"operators.operatorframework.io.bundle.channels.v1":        channel,
		"operators.operatorframework.io.bundle.channel.default.v1": channel,
		"operators.operatorframework.io.test.mediatype.v1":         "scorecard+v1",
		"operators.operatorframework.io.test.config.v1":            "tests/scorecard/",
	}
	text, err := encode(map[string]any{"annotations": annotations})
	if err != nil {
		return err
	}
	out["bundle/metadata/annotations.yaml"] = text
	dockerfile := "# `make bundle` writes this file.\nFROM scratch\n\n"
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		dockerfile += fmt.Sprintf("LABEL %s=%s\n", key, annotations[key])
	}
	out["bundle.Dockerfile"] = dockerfile +
		"\nCOPY bundle/manifests /manifests/\nCOPY bundle/metadata /metadata/\nCOPY bundle/tests/scorecard /tests/scorecard/\n"
	scorecard, err := os.ReadFile(filepath.Join(root, "config/scorecard/config.yaml"))
	if err != nil {
		return fmt.Errorf("reading the tests of the scorecard: %w", err)
	}
	out["bundle/tests/scorecard/config.yaml"] = string(scorecard)
	return nil
}

// installedLater writes to config/olm what the bundle cannot have of each variant, with marks for what is known only where it is installed.
func installedLater(t tree, out files) error {
	common := map[string]string{}
	for _, variant := range variants {
		objects, err := t.render(variant)
		if err != nil {
			return err
		}
		texts, others := []string{}, map[string]string{}
		for _, o := range objects {
			text, err := encode(o)
			if err != nil {
				return err
			}
			if is(o, "Deployment", "Namespace") || is(o, besides...) || is(o, beforehand...) {
				others[identity(o)] = text
				continue
			}
			relabel(o, "ringfence-controller", "$(VERSION)")
			if text, err = marked(o); err != nil {
				return err
			}
			texts = append(texts, text)
		}
		if variant == variants[0] {
			common = others
		} else if !maps.Equal(common, others) {
			return fmt.Errorf("config/%s changes what the bundle itself has: the controller cannot choose it", variant)
		}
		out["config/olm/"+variant+".yaml"] = fmt.Sprintf("# `make bundle` writes this file: what an OLM bundle cannot have of config/%s.\n%s",
			variant, strings.ReplaceAll(strings.Join(texts, "---\n"), t.namespace, "$(NAMESPACE)"))
	}
	return nil
}

// marked is an object with marks for the image and for more arguments.
func marked(o *unstructured.Unstructured) (string, error) {
	containers, found, err := unstructured.NestedSlice(o.Object, "spec", "template", "spec", "containers")
	if err != nil {
		return "", fmt.Errorf("reading the containers of %s: %w", identity(o), err)
	}
	if found {
		first := containers[0].(map[string]any)
		args, _ := first["args"].([]any)
		first["args"] = append(args, "$(ARGS)")
		for _, c := range containers {
			c.(map[string]any)["image"] = "$(IMAGE)"
		}
		if err := unstructured.SetNestedSlice(o.Object, containers, "spec", "template", "spec", "containers"); err != nil {
			return "", fmt.Errorf("marking %s: %w", identity(o), err)
		}
	}
	return encode(o)
}

func anyMap(in map[string]string) map[string]any {
	out := map[string]any{}
	for k, v := range in {
		out[k] = v
	}
	return out
}

// icon is the image that consoles show.
func icon() (map[string]any, error) {
	svg, err := os.ReadFile(filepath.Join(root, "config/manifests/bases/icon.svg"))
	if err != nil {
		return nil, fmt.Errorf("reading the icon: %w", err)
	}
	return map[string]any{"base64data": base64.StdEncoding.EncodeToString(svg), "mediatype": "image/svg+xml"}, nil
}

// examples are the samples that are of our kinds, in the order of their files.
func examples(kinds map[string]bool) ([]any, error) {
	var out []any
	for _, dir := range []string{"cluster", "namespace"} {
		sampled, err := filepath.Glob(filepath.Join(root, "config/samples", dir, "*.yaml"))
		if err != nil {
			return nil, fmt.Errorf("looking for samples: %w", err)
		}
		for _, file := range sampled {
			text, err := os.ReadFile(file)
			if err != nil {
				return nil, fmt.Errorf("reading a sample: %w", err)
			}
			objects, err := decode(text)
			if err != nil {
				return nil, fmt.Errorf("reading %s: %w", file, err)
			}
			for _, o := range objects {
				if kinds[o.GetKind()] && strings.HasSuffix(strings.Split(o.GetAPIVersion(), "/")[0], "ringfence.io") {
					out = append(out, o.Object)
				}
			}
		}
	}
	return out, nil
}

// suggestedNamespace is the namespace that consoles offer to make, as a text of JSON: with the labels that it needs, and none of ours, which nobody
// would keep up to date.
func (b *parts) suggestedNamespace() (string, error) {
	home := b.home.DeepCopy()
	home.SetName(b.suggested)
	labels := home.GetLabels()
	maps.DeleteFunc(labels, func(name, _ string) bool { return strings.HasPrefix(name, "app.kubernetes.io/") })
	home.SetLabels(labels)
	text, err := yaml.Marshal(home.Object)
	if err != nil {
		return "", fmt.Errorf("encoding the namespace: %w", err)
	}
	json, err := yaml.YAMLToJSON(text)
	return string(json), err
}
