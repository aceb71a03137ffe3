package main

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// value is what people may set of the chart.
type value struct {
	path     string // section.name, or a name alone
	standard any
	doc      string
	schema   map[string]any
}

func schemaOf(kind string) map[string]any { return map[string]any{"type": kind} }

func arrayOf(kind string) map[string]any {
	return map[string]any{"type": "array", "items": schemaOf(kind)}
}

func oneOf(texts ...any) map[string]any { return map[string]any{"type": "string", "enum": texts} }

// orEmpty is a value, or the empty one of its kind.
func orEmpty(value any, kind string) any {
	if value != nil {
		return value
	}
	return map[string]any{"object": map[string]any{}, "array": []any{}, "string": ""}[kind]
}

// commonValues are those that concern no single workload.
func (c *templates) commonValues(cniDirectories map[string]any) {
	labels := map[string]any{"type": "object", "additionalProperties": schemaOf("string")}
	c.values = []value{
		{"imagePullSecrets", []any{}, "Secrets for the image's registry, as in [{name: registry}].", arrayOf("object")},
		{"firstPacket.enabled", false, "Whether policy holds from a pod's first packet: each enforcer installs its CNI plugin on its node.",
			schemaOf("boolean")},
		{"firstPacket.hostPaths", cniDirectories, "Where nodes keep their CNI files; usr is looked at in lib/cni and libexec/cni. " +
			"k3s: /var/lib/rancher/k3s/agent/etc/cni/net.d and /var/lib/rancher/k3s/data/cni. GKE: /home/kubernetes/bin.", map[string]any{"type": "object", "additionalProperties": schemaOf("string")}},
		{"prometheus.enabled", false, "Monitors, alerts and a dashboard. They need the kinds of the Prometheus operator.", schemaOf("boolean")},
		{"prometheus.labels", map[string]any{}, "More labels of these, for an operator that looks for some, as in {release: kube-prometheus-stack}.", labels},
		{"crds.install", true, "Whether the kinds of policy.ringfence.io are part of the release, and so are upgraded with it.", schemaOf("boolean")},
		{"crds.keep", true, "Whether they, and with them all policies, stay when the release is uninstalled.", schemaOf("boolean")},
		{"namespace.create", false, "Whether the namespace, with the label that Pod Security wants, is part of the release. " +
			"Helm cannot make it before, as with --create-namespace, and own it too.", schemaOf("boolean")},
	}
}

// imageValues are those of the image that config/default names.
func (c *templates) imageValues() {
	rest, digest, _ := strings.Cut(c.image, "@")
	repository, tag := rest, ""
	if i := strings.LastIndex(rest, ":"); i > strings.LastIndex(rest, "/") {
		repository, tag = rest[:i], rest[i+1:]
	}
	c.values = append([]value{
		{"image.repository", repository, "The image without its tag.", map[string]any{"type": "string", "minLength": 1}},
		{"image.tag", tag, "Its tag; empty for none.", schemaOf("string")},
		{"image.digest", digest, "Its digest, as in sha256:...; with one, the tag does not count.",
			map[string]any{"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"}},
		{"image.pullPolicy", c.pull, "When nodes fetch it.", oneOf("Always", "IfNotPresent", "Never")},
	}, c.values...)
}

// about is what a chart says of itself, which it has from the bundle.
type about struct {
	version, minKube, description string
	keywords, maintainers         []any
	home                          string
}

func aboutChart(t tree) (about, error) {
	objects, err := t.render("manifests")
	if err != nil {
		return about{}, err
	}
	i := slices.IndexFunc(objects, func(o *unstructured.Unstructured) bool { return is(o, "ClusterServiceVersion") })
	if i < 0 {
		return about{}, fmt.Errorf("config/manifests has no ClusterServiceVersion, which has the version")
	}
	spec, _ := objects[i].Object["spec"].(map[string]any)
	text := func(field string) string { s, _ := spec[field].(string); return s }
	a := about{version: text("version"), minKube: text("minKubeVersion"), description: objects[i].GetAnnotations()["description"]}
	a.keywords, _ = spec["keywords"].([]any)
	a.maintainers, _ = spec["maintainers"].([]any)
	a.home = objects[i].GetAnnotations()["repository"]
	return a, nil
}

// describe writes the files that are no templates of objects.
func (c *templates) describe(a about) error {
	texts := map[string]func() (string, error){
		"Chart.yaml": func() (string, error) {
			return encode(map[string]any{
				"apiVersion": "v2", "name": packageName, "type": "application", "version": a.version, "appVersion": a.version,
				"kubeVersion": ">=" + a.minKube + "-0", "description": a.description, "home": a.home, "sources": []any{a.home},
				"keywords": a.keywords, "maintainers": a.maintainers,
			})
		},
		"values.yaml":        c.valuesFile,
		"values.schema.json": c.schemaFile,
		"README.md":          c.readme,
	}
	for name, text := range texts {
		made, err := text()
		if err != nil {
			return err
		}
		c.out[path.Join(chartDir, name)] = made
	}
	return fs.WalkDir(written, "chart/templates", func(file string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := fs.ReadFile(written, file)
		c.out[path.Join(chartDir, "templates", filepath.Base(file))] = string(text)
		return err
	})
}

// sections are the values in the order of their sections.
func (c *templates) sections() []value {
	var order []string
	for _, v := range c.values {
		if s := section(v.path); !slices.Contains(order, s) {
			order = append(order, s)
		}
	}
	return slices.SortedStableFunc(slices.Values(c.values), func(a, b value) int {
		return slices.Index(order, section(a.path)) - slices.Index(order, section(b.path))
	})
}

func section(path string) string {
	s, _, _ := strings.Cut(path, ".")
	return s
}

func (c *templates) valuesFile() (string, error) {
	out, last := "# `make chart` writes this file, from config.\n", ""
	for _, v := range c.sections() {
		section, name, nested := strings.Cut(v.path, ".")
		indent := ""
		if nested {
			indent = "  "
			if section != last {
				out += section + ":\n"
			}
		} else {
			name = section
		}
		last = section
		text, err := encode(map[string]any{name: v.standard})
		if err != nil {
			return "", err
		}
		out += indent + "# " + v.doc + "\n" + indent + strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n"+indent) + "\n"
	}
	return out, nil
}

// schemaFile refuses what no template looks at: a value that is misspelt would have no effect.
func (c *templates) schemaFile() (string, error) {
	properties := map[string]any{"global": schemaOf("object")} // Helm gives it to charts that others depend on
	for _, v := range c.values {
		field := map[string]any{"description": v.doc}
		for k, s := range v.schema {
			field[k] = s
		}
		section, name, nested := strings.Cut(v.path, ".")
		if !nested {
			properties[section] = field
			continue
		}
		in, ok := properties[section].(map[string]any)
		if !ok {
			in = map[string]any{"type": "object", "additionalProperties": false, "properties": map[string]any{}}
			properties[section] = in
		}
		in["properties"].(map[string]any)[name] = field
	}
	text, err := json.MarshalIndent(map[string]any{
		"$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "additionalProperties": false, "properties": properties,
	}, "", "  ")
	return string(text) + "\n", err
}

func (c *templates) readme() (string, error) {
	head, err := written.ReadFile("chart/README.md")
	if err != nil {
		return "", fmt.Errorf("reading the README: %w", err)
	}
	out := string(head)
	for _, v := range c.sections() {
		standard, err := json.Marshal(v.standard)
		if err != nil {
			return "", fmt.Errorf("encoding a value: %w", err)
		}
		out += fmt.Sprintf("| `%s` | `%s` | %s |\n", v.path, standard, v.doc)
	}
	return out, nil
}
