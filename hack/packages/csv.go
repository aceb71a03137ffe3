package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// complete puts into the CSV what follows from the other objects.
func (b *parts) complete() error {
	version, _, err := unstructured.NestedString(b.csv.Object, "spec", "version")
	if err != nil || version == "" {
		return fmt.Errorf("the ClusterServiceVersion of config/manifests has no version: %w", err)
	}
	if err := sameVersion([]*unstructured.Unstructured{b.home}, version); err != nil {
		return err
	}
	b.csv.SetName(packageName + ".v" + version)
	spec, _ := b.csv.Object["spec"].(map[string]any)
	image, err := icon()
	if err != nil {
		return err
	}
	spec["icon"] = []any{image}
	spec["install"] = map[string]any{"strategy": "deployment", "spec": b.strategy()}
	images := b.images()
	spec["relatedImages"] = images
	owned, kinds := b.owned()
	spec["customresourcedefinitions"] = map[string]any{"owned": owned}
	samples, err := examples(kinds)
	if err != nil {
		return err
	}
	shown, err := json.MarshalIndent(samples, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the examples: %w", err)
	}
	home, err := b.suggestedNamespace()
	if err != nil {
		return err
	}
	annotations := b.csv.GetAnnotations()
	maps.Copy(annotations, map[string]string{
		"alm-examples":   string(shown),
		"olm.skipRange":  "<" + version, // from any release before it, at once
		"containerImage": images[0].(map[string]any)["image"].(string),
		"operatorframework.io/suggested-namespace":          b.suggested,
		"operatorframework.io/suggested-namespace-template": home,
	})
	b.csv.SetAnnotations(annotations)
	return nil
}

// strategy is how OLM installs the bundle: Deployments, and service accounts with their rights.
func (b *parts) strategy() map[string]any {
	var cluster, namespace []any
	for _, account := range slices.Sorted(maps.Keys(b.rights)) {
		of := b.rights[account]
		if len(of.cluster) > 0 {
			cluster = append(cluster, map[string]any{"serviceAccountName": account, "rules": of.cluster})
		}
		if len(of.namespace) > 0 {
			namespace = append(namespace, map[string]any{"serviceAccountName": account, "rules": of.namespace})
		}
	}
	return map[string]any{"deployments": b.deployments, "clusterPermissions": cluster, "permissions": namespace}
}

// images are all images that run, each once, for clusters that cannot reach the place that they come from.
func (b *parts) images() []any {
	var out []any
	seen := map[string]bool{}
	for _, d := range b.deployments {
		containers, _, _ := unstructured.NestedSlice(d.(map[string]any), "spec", "template", "spec", "containers")
		for _, c := range containers {
			c := c.(map[string]any)
			if image := c["image"].(string); !seen[image] {
				seen[image] = true
				out = append(out, map[string]any{"name": c["name"], "image": image})
			}
		}
	}
	return out
}

// owned describes the kinds of our API as their schemas do, and names them.
func (b *parts) owned() ([]any, map[string]bool) {
	var out []any
	kinds := map[string]bool{}
	for _, crd := range b.crds {
		kind, _, _ := unstructured.NestedString(crd.Object, "spec", "names", "kind")
		kinds[kind] = true
		versions, _, _ := unstructured.NestedSlice(crd.Object, "spec", "versions")
		for _, version := range versions {
			v := version.(map[string]any)
			schema, _, _ := unstructured.NestedMap(v, "schema", "openAPIV3Schema")
			description := map[string]any{
				"kind": kind, "name": crd.GetName(), "version": v["name"],
				"displayName": words(kind), "description": firstParagraph(schema["description"]),
			}
			for _, part := range []string{"spec", "status"} {
				if fields := descriptors(schema, part); len(fields) > 0 {
					description[part+"Descriptors"] = fields
				}
			}
			out = append(out, description)
		}
	}
	return out, kinds
}

// descriptors describe the fields of a part of an object.
func descriptors(schema map[string]any, part string) []any {
	fields, _, _ := unstructured.NestedMap(schema, "properties", part, "properties")
	var out []any
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		field, _ := fields[name].(map[string]any)
		descriptor := map[string]any{"path": name, "displayName": words(name), "description": firstParagraph(field["description"])}
		if shown := widgets(name, field); len(shown) > 0 {
			descriptor["x-descriptors"] = shown
		}
		out = append(out, descriptor)
	}
	return out
}

// widgets are how consoles show a field, and let people set it.
func widgets(name string, field map[string]any) []any {
	const ui = "urn:alm:descriptor:com.tectonic.ui:"
	if name == "conditions" {
		return []any{"urn:alm:descriptor:io.kubernetes.conditions"}
	}
	if choices, ok := field["enum"].([]any); ok {
		return each(choices, func(choice any) any { return ui + "select:" + fmt.Sprint(choice) })
	}
	switch field["type"] {
	case "boolean":
		return []any{ui + "booleanSwitch"}
	case "integer":
		return []any{ui + "number"}
	case "string":
		return []any{ui + "text"}
	}
	return nil
}

// words are those of a name in camel case, as in "Namespace Isolation".
func words(name string) string {
	var out strings.Builder
	for i, r := range name {
		switch {
		case i == 0:
			r = unicode.ToUpper(r)
		case unicode.IsUpper(r):
			out.WriteByte(' ')
		}
		out.WriteRune(r)
	}
	return out.String()
}

// firstParagraph is that of a description, on one line.
func firstParagraph(description any) string {
	text, _ := description.(string)
	text, _, _ = strings.Cut(text, "\n\n")
	return strings.Join(strings.Fields(text), " ")
}
