package main

import (
	"embed"
	"errors"
	"fmt"
	"maps"
	"path"
	"reflect"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// written are the files of the chart that nothing of config is in.
//
//go:embed all:chart
var written embed.FS

// chartDir is where the chart lies.
const chartDir = "charts/ringfence"

// podFields are what people set of a pod: its field, and what it is for.
var podFields = []struct{ field, kind, doc string }{
	{"nodeSelector", "object", "Labels of the nodes that its pods run on."},
	{"tolerations", "array", "Taints that its pods tolerate."},
	{"affinity", "object", "Where else its pods run, and where not."},
	{"priorityClassName", "string", "What its pods are worth to the scheduler."},
}

// chart makes the Helm chart.
func chart() (files, error) {
	t, err := original()
	if err != nil {
		return nil, err
	}
	about, err := aboutChart(t)
	if err != nil {
		return nil, err
	}
	out := files{}
	err = t.in(placeholder, func(t tree) error {
		c := &templates{tree: t, out: out}
		if err := c.render(); err != nil {
			return err
		}
		return c.describe(about)
	})
	return out, err
}

// templates makes the chart's templates, and collects its values on the way.
type templates struct {
	tree
	out      files
	values   []value
	image    string
	pull     string
	accounts map[string]string // components by the names of their service accounts
	blocks   []block
}

// render makes a template of each object.
func (c *templates) render() error {
	plain, err := c.tree.render("default")
	if err != nil {
		return err
	}
	first, err := c.tree.render("first-packet")
	if err != nil {
		return err
	}
	monitors, err := c.tree.render("prometheus")
	if err != nil {
		return err
	}
	c.commonValues(cniDirectories(plain, first))
	c.accounts = accountsOf(plain)
	if !slices.Equal(each(plain, identity), each(first, identity)) {
		return fmt.Errorf("config/first-packet has other objects than config/default")
	}
	for i, o := range plain {
		before := o.DeepCopy() // what both have in common is shared, and is changed below
		merged := &unstructured.Unstructured{Object: c.either(".Values.firstPacket.enabled", o.Object, first[i].Object).(map[string]any)}
		if err := c.adapt(merged, before); err != nil {
			return err
		}
		if err := c.write(merged, c.condition(before)); err != nil {
			return err
		}
	}
	return c.renderMonitors(monitors)
}

// monitoring are the sections of values that the objects of config/prometheus belong to, by kind.
var monitoring = map[string]string{
	"Service": "serviceMonitor", "ServiceMonitor": "serviceMonitor", "PrometheusRule": "prometheusRule", "ConfigMap": "dashboard",
}

// renderMonitors makes a template of each object of config/prometheus.
func (c *templates) renderMonitors(objects []*unstructured.Unstructured) error {
	for _, o := range objects {
		section := monitoring[o.GetKind()]
		if section == "" {
			return fmt.Errorf("config/prometheus has %s, which no value of the chart is about", identity(o))
		}
		extra := ""
		if !is(o, "Service") {
			extra = ".Values." + section + ".labels"
		}
		if err := c.label(o, extra); err != nil {
			return err
		}
		if is(o, "ServiceMonitor") {
			endpoints, _, _ := unstructured.NestedSlice(o.Object, "spec", "endpoints")
			for _, endpoint := range endpoints {
				c.insert(endpoint.(map[string]any), "interval", func(indent string) string {
					return optionalScalar(".Values.serviceMonitor.interval", indent, "interval")
				})
			}
			if err := unstructured.SetNestedSlice(o.Object, endpoints, "spec", "endpoints"); err != nil {
				return fmt.Errorf("marking %s: %w", identity(o), err)
			}
		}
		if err := c.write(o, ".Values."+section+".enabled"); err != nil {
			return err
		}
	}
	return nil
}

// label puts the labels of a release in the place of those that kustomize gives, and those of another value beside them.
func (c *templates) label(o *unstructured.Unstructured, extra string) error {
	labels, _, err := unstructured.NestedMap(o.Object, "metadata", "labels")
	if err != nil {
		return fmt.Errorf("reading the labels of %s: %w", identity(o), err)
	}
	for _, l := range []string{instanceLabel, managedByLabel, versionLabel} {
		delete(labels, l)
	}
	c.insert(labels, "labels", func(indent string) string {
		text := fmt.Sprintf("{{ include \"ringfence.labels\" . | indent %d }}", len(indent))
		if extra != "" {
			text += "\n" + optional(extra, indent, "")
		}
		return text
	})
	if err := unstructured.SetNestedMap(o.Object, labels, "metadata", "labels"); err != nil {
		return fmt.Errorf("marking %s: %w", identity(o), err)
	}
	return nil
}

// cniDirectories are the directories of nodes that config/first-packet adds, by the names of their volumes in camel case. What stands for them takes their
// place.
func cniDirectories(plain, first []*unstructured.Unstructured) map[string]any {
	out, known := map[string]any{}, map[string]bool{}
	eachVolume(plain, func(name string, _ map[string]any) { known[name] = true })
	eachVolume(first, func(name string, host map[string]any) {
		if !known[name] && host != nil {
			out[camel(name)] = host["path"]
			host["path"] = "directory-of-volume/" + camel(name)
		}
	})
	return out
}

// eachVolume calls use with each volume and the directory of the host that it is, if it is one.
func eachVolume(objects []*unstructured.Unstructured, use func(name string, host map[string]any)) {
	for _, o := range objects {
		volumes, _, _ := unstructured.NestedFieldNoCopy(o.Object, "spec", "template", "spec", "volumes")
		list, _ := volumes.([]any)
		for _, volume := range list {
			v, _ := volume.(map[string]any)
			host, _ := v["hostPath"].(map[string]any)
			use(fmt.Sprint(v["name"]), host)
		}
	}
}

// condition is under which an object is in the release, empty for always.
func (c *templates) condition(o *unstructured.Unstructured) string {
	switch {
	case is(o, "ServiceAccount"):
		return ".Values." + c.accounts[o.GetName()] + ".serviceAccount.create"
	case is(o, "Namespace"):
		return ".Values.namespace.create"
	case is(o, "CustomResourceDefinition"):
		return ".Values.crds.install"
	}
	return ""
}

// adapt opens an object to the values that concern it. The object is marked already; plain is as it was.
func (c *templates) adapt(o, plain *unstructured.Unstructured) error {
	if err := c.label(o, ""); err != nil {
		return err
	}
	if err := c.nameAccounts(o); err != nil {
		return err
	}
	switch {
	case is(o, "CustomResourceDefinition"):
		annotations, _, _ := unstructured.NestedMap(o.Object, "metadata", "annotations")
		if annotations == nil {
			annotations = map[string]any{}
		}
		c.insert(annotations, "keep", func(indent string) string {
			return "{{- if .Values.crds.keep }}\n" + indent + "helm.sh/resource-policy: keep\n{{- end }}"
		})
		return unstructured.SetNestedMap(o.Object, annotations, "metadata", "annotations")
	case is(o, "ServiceAccount"):
		component := c.accounts[plain.GetName()]
		if component == "" {
			return fmt.Errorf("no pod runs as %s: the chart names its values after the component that does", identity(plain))
		}
		c.accountValues(component)
		c.insert(o.Object["metadata"].(map[string]any), "annotations", func(indent string) string {
			return optional(".Values."+component+".serviceAccount.annotations", indent, "annotations")
		})
		return nil
	}
	pod, found, err := unstructured.NestedFieldNoCopy(o.Object, "spec", "template", "spec")
	if err != nil || !found {
		return err
	}
	return c.workload(o, plain, pod.(map[string]any))
}

// workload opens a DaemonSet or a Deployment: its values are below the name of its component.
func (c *templates) workload(o, plain *unstructured.Unstructured, pod map[string]any) error {
	component := plain.GetLabels()["app.kubernetes.io/component"]
	if component == "" {
		return fmt.Errorf("%s has no label app.kubernetes.io/component: the chart names its values after it", identity(plain))
	}
	section := ".Values." + component + "."
	spec := o.Object["spec"].(map[string]any)
	if replicas, ok := spec["replicas"]; ok {
		delete(spec, "replicas")
		c.values = append(c.values, value{component + ".replicas", replicas, "How many run.", schemaOf("integer")})
		c.insert(spec, "replicas", func(indent string) string { return indent + "replicas: {{ " + section + "replicas }}" })
	}
	if err := c.podMetadata(component, spec); err != nil {
		return fmt.Errorf("%s: %w", identity(plain), err)
	}
	c.strategy(component, o, spec)
	before, _, _ := unstructured.NestedMap(plain.Object, "spec", "template", "spec")
	for _, f := range podFields {
		delete(pod, f.field)
		c.values = append(c.values, value{component + "." + f.field, orEmpty(before[f.field], f.kind), f.doc, schemaOf(f.kind)})
		write := optional
		if f.kind == "string" {
			write = optionalScalar
		}
		c.insert(pod, f.field, func(indent string) string { return write(section+f.field, indent, f.field) })
	}
	c.insert(pod, "imagePullSecrets", func(indent string) string { return optional(".Values.imagePullSecrets", indent, "imagePullSecrets") })
	containers, _ := pod["containers"].([]any)
	if len(containers) != 1 {
		return fmt.Errorf("%s has %d containers: the chart has values for one", identity(plain), len(containers))
	}
	return c.container(component, plain, containers[0].(map[string]any))
}

// podMetadata opens the labels and annotations of a workload's pods.
func (c *templates) podMetadata(component string, spec map[string]any) error {
	metadata, _, err := unstructured.NestedMap(spec, "template", "metadata")
	if err != nil {
		return fmt.Errorf("reading the metadata of its pods: %w", err)
	}
	labels, _ := metadata["labels"].(map[string]any)
	annotations, _ := metadata["annotations"].(map[string]any)
	if labels == nil || annotations == nil {
		return errors.New("its pods have no labels or no annotations: the chart puts others beside them")
	}
	section := ".Values." + component + "."
	delete(labels, instanceLabel)
	c.insert(labels, "labels", func(indent string) string {
		return fmt.Sprintf("{{ include \"ringfence.podLabels\" (list . %spodLabels) | indent %d }}", section, len(indent))
	})
	c.insert(annotations, "more", func(indent string) string { return optional(section+"podAnnotations", indent, "") })
	c.values = append(c.values,
		value{component + ".podLabels", map[string]any{}, "More labels of its pods.", labelsSchema()},
		value{component + ".podAnnotations", map[string]any{}, "More annotations of its pods.", mapOf("string")})
	return unstructured.SetNestedMap(spec, metadata, "template", "metadata")
}

// strategy opens how the pods of a workload are replaced.
func (c *templates) strategy(component string, o *unstructured.Unstructured, spec map[string]any) {
	field := "updateStrategy"
	if is(o, "Deployment") {
		field = "strategy"
	}
	c.values = append(c.values,
		value{component + ".updateStrategy", orEmpty(spec[field], "object"), "How its pods are replaced in an upgrade.", schemaOf("object")})
	delete(spec, field)
	c.insert(spec, field, func(indent string) string { return optional(".Values."+component+".updateStrategy", indent, field) })
}

func (c *templates) container(component string, plain *unstructured.Unstructured, container map[string]any) error {
	image, _ := container["image"].(string)
	pull, _ := container["imagePullPolicy"].(string)
	if c.image == "" {
		c.image, c.pull = image, pull
		c.imageValues()
	}
	if c.image != image || c.pull != pull {
		return fmt.Errorf("%s has another image or pull policy than others: the chart has one", identity(plain))
	}
	section := ".Values." + component + "."
	delete(container, "image")
	delete(container, "imagePullPolicy")
	c.insert(container, "image", func(indent string) string {
		return indent + "image: {{ include \"ringfence.image\" . | quote }}\n" + indent + "imagePullPolicy: {{ .Values.image.pullPolicy }}"
	})
	c.values = append(c.values,
		value{component + ".resources", orEmpty(container["resources"], "object"), "What its container asks for.", schemaOf("object")},
		value{component + ".extraArgs", []any{}, "More flags: 'ringfence " + component + " --help' lists them.", arrayOf("string")},
		value{component + ".extraEnv", []any{}, "More environment variables of its container, such as [{name: GOMEMLIMIT, value: 400MiB}].", arrayOf("object")})
	delete(container, "resources")
	c.insert(container, "resources", func(indent string) string { return optional(section+"resources", indent, "resources") })
	args, _ := container["args"].([]any)
	container["args"] = append(args, c.item(func(indent string) string {
		level := "{{- if ne .Values.logLevel \"info\" }}\n" + indent + "- --log-level={{ .Values.logLevel }}\n{{- end }}\n"
		return level + optional(section+"extraArgs", indent, "")
	}))
	if env, ok := container["env"].([]any); ok {
		container["env"] = append(env, c.item(func(indent string) string { return optional(section+"extraEnv", indent, "") }))
	} else {
		c.insert(container, "env", func(indent string) string { return optional(section+"extraEnv", indent, "env") })
	}
	return nil
}

// optional is a template of a field that is left out where its value is empty. Without a name the value's own fields or items stand there.
func optional(value, indent, name string) string {
	if name == "" {
		return fmt.Sprintf("{{- with %s }}\n{{ toYaml . | indent %d }}\n{{- end }}", value, len(indent))
	}
	return fmt.Sprintf("{{- with %s }}\n%s%s:\n{{ toYaml . | indent %d }}\n{{- end }}", value, indent, name, len(indent)+2)
}

// optionalScalar is the same of a text.
func optionalScalar(value, indent, name string) string {
	return fmt.Sprintf("{{- with %s }}\n%s%s: {{ . | quote }}\n{{- end }}", value, indent, name)
}

// either is what two trees have in common, with a choice wherever they differ: the second is what holds under a condition.
func (c *templates) either(when string, no, yes any) any {
	if reflect.DeepEqual(no, yes) {
		return no
	}
	if n, ok := no.(map[string]any); ok {
		if y, ok := yes.(map[string]any); ok {
			return c.eitherMap(when, n, y)
		}
	}
	n, fits := no.([]any)
	y, too := yes.([]any)
	if !fits || !too {
		panic("a difference is chosen in the map that has it") // eitherMap and the root see to it
	}
	return c.eitherList(when, n, y)
}

func (c *templates) eitherMap(when string, no, yes map[string]any) map[string]any {
	out, both := map[string]any{}, maps.Clone(no)
	maps.Copy(both, yes)
	for key := range both {
		n, inNo := no[key]
		y, inYes := yes[key]
		switch {
		case inNo && inYes && (reflect.DeepEqual(n, y) || sameShape(n, y)):
			out[key] = c.either(when, n, y)
		default:
			c.insert(out, key, func(indent string) string {
				return chosen(when, entry(key, n, inNo, indent), entry(key, y, inYes, indent))
			})
		}
	}
	return out
}

// eitherList takes items that were appended as such, and compares the others one by one.
func (c *templates) eitherList(when string, no, yes []any) []any {
	var out []any
	for i := range max(len(no), len(yes)) {
		if i < len(no) && i < len(yes) && (reflect.DeepEqual(no[i], yes[i]) || sameShape(no[i], yes[i])) {
			out = append(out, c.either(when, no[i], yes[i]))
			continue
		}
		n, y := no[min(i, len(no)):], yes[min(i, len(yes)):]
		return append(out, c.item(func(indent string) string { return chosen(when, items(n, indent), items(y, indent)) }))
	}
	return out
}

// sameShape reports whether two values can be compared part by part.
func sameShape(a, b any) bool {
	_, aMap := a.(map[string]any)
	_, bMap := b.(map[string]any)
	_, aList := a.([]any)
	_, bList := b.([]any)
	return aMap && bMap || aList && bList
}

// chosen is one of two texts.
func chosen(when, no, yes string) string {
	switch {
	case no == "":
		return "{{- if " + when + " }}\n" + yes + "\n{{- end }}"
	case yes == "":
		return "{{- if not " + when + " }}\n" + no + "\n{{- end }}"
	}
	return "{{- if " + when + " }}\n" + yes + "\n{{- else }}\n" + no + "\n{{- end }}"
}

func each[T, U any](in []T, f func(T) U) []U {
	out := make([]U, len(in))
	for i, v := range in {
		out[i] = f(v)
	}
	return out
}

// fileOf is the template of an object.
func fileOf(o *unstructured.Unstructured) string {
	dir := "templates"
	if is(o, "CustomResourceDefinition") {
		dir = "templates/crds"
	}
	name := strings.ReplaceAll(o.GetName(), placeholder, "namespace")
	name = strings.ReplaceAll(name, accountOf, packageName+"-")
	return path.Join(chartDir, dir, strings.ToLower(o.GetKind())+"-"+name+".yaml")
}
