// Package gitops tries what config/argocd and config/flux say of the health of our kinds, with the libraries that Argo CD and Flux evaluate it
// with, on statuses as the controller writes them. It is a module of its own, so that these libraries are nobody else's.
package gitops

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/runtime/cel"
	"github.com/google/go-cmp/cmp"
	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
	"sigs.k8s.io/yaml"
)

const ours, theSIGs = "policy.ringfence.io/v1alpha1", "policy.networking.k8s.io/v1beta1"

// policy is an object with a status, and what is to be thought of it.
type policy struct {
	name       string
	version    string
	kind       string
	generation int64
	status     string // YAML; empty for none

	argo, kstatus, flux string // flux is empty for what Flux has no expressions for
}

// conditions are a status that speaks of a generation.
func conditions(generation int64, accepted, programmed, reason string) string {
	return fmt.Sprintf(`
observedGeneration: %[1]d
conditions:
- {type: Accepted, status: "%[2]s", reason: Accepted, message: about Accepted, observedGeneration: %[1]d}
- {type: Programmed, status: "%[3]s", reason: %[4]s, message: about Programmed, observedGeneration: %[1]d}
- {type: Ready, status: "%[5]s", reason: %[4]s, message: about both, observedGeneration: %[1]d}
`, generation, accepted, programmed, reason, both(accepted, programmed))
}

func both(accepted, programmed string) string {
	if accepted == "True" {
		return programmed
	}
	return accepted
}

// enforcement is the same of a PolicyEnforcement, which has a name of its own for the generation.
func enforcement(generation int64, accepted, programmed, reason string) string {
	return strings.Replace(conditions(generation, accepted, programmed, reason), "observedGeneration", "policyGeneration", 1)
}

var policies = []policy{
	{"no controller has seen it yet", ours, "ClusterNetworkPolicy", 1, "",
		"Progressing", "Current", "an error"},
	{"in force", ours, "ClusterNetworkPolicy", 2, conditions(2, "True", "True", "Programmed"),
		"Healthy", "Current", "Current"},
	{"in force, but an older generation", ours, "ClusterNetworkPolicy", 3, conditions(2, "True", "True", "Programmed"),
		"Progressing", "InProgress", "InProgress"},
	{"selects no pod", ours, "NamespaceIsolation", 1, conditions(1, "True", "True", "NoPods"),
		"Healthy", "Current", "Current"},
	{"waits for nodes", ours, "NamespaceIsolation", 1, conditions(1, "True", "False", "Pending"),
		"Progressing", "InProgress", "InProgress"},
	{"a node fails", ours, "ClusterNetworkPolicy", 1, conditions(1, "True", "False", "NodesFailing"),
		"Degraded", "InProgress", "InProgress"},
	{"a node is silent", ours, "ClusterNetworkPolicy", 1, conditions(1, "True", "False", "NodesUnknown"),
		"Degraded", "InProgress", "InProgress"},
	{"not understood", ours, "ClusterNetworkPolicy", 1, conditions(1, "False", "True", "Programmed"),
		"Degraded", "InProgress", "Failed"},
	{"the SIG's, in force", theSIGs, "ClusterNetworkPolicy", 1, withoutGeneration(conditions(1, "True", "True", "Programmed")),
		"Healthy", "Current", "Current"},
	{"the SIG's, an older generation", theSIGs, "ClusterNetworkPolicy", 2, withoutGeneration(conditions(1, "True", "True", "Programmed")),
		"Progressing", "Current", "InProgress"},
	{"of a NetworkPolicy, in force", ours, "PolicyEnforcement", 1, enforcement(1, "True", "True", "Programmed"),
		"Healthy", "Current", ""},
	{"of a NetworkPolicy that has changed since it was made, in force", ours, "PolicyEnforcement", 1, enforcement(4, "True", "True", "Programmed"),
		"Healthy", "Current", ""},
	{"of a NetworkPolicy, a node fails", ours, "PolicyEnforcement", 1, enforcement(4, "True", "False", "NodesFailing"),
		"Degraded", "InProgress", ""},
}

// withoutGeneration leaves away what the SIG's status does not have: a generation outside of its conditions, and Ready.
func withoutGeneration(status string) string {
	_, rest, _ := strings.Cut(status, "\nconditions:")
	rest, _, _ = strings.Cut(rest, "- {type: Ready")
	return "conditions:" + rest
}

func TestHealth(t *testing.T) {
	scripts, expressions := argoCD(t), flux(t)
	for _, p := range policies {
		t.Run(p.kind+" "+p.name, func(t *testing.T) {
			o := p.object(t)
			group, _, _ := strings.Cut(p.version, "/")
			script, ok := scripts["resource.customizations.health."+group+"_"+p.kind]
			if !ok {
				t.Fatalf("config/argocd has nothing for %s of %s", p.kind, group)
			}
			got := []string{run(t, script, o), kstatus(t, o), ""}
			if evaluator, ok := expressions[p.version+" "+p.kind]; ok {
				got[2] = evaluate(evaluator, o)
			}
			if diff := cmp.Diff([]string{p.argo, p.kstatus, p.flux}, got); diff != "" {
				t.Errorf("health by Argo CD, by kstatus alone, by Flux (-want +got):\n%s", diff)
			}
		})
	}
}

func (p policy) object(t *testing.T) *unstructured.Unstructured {
	t.Helper()
	o := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": p.version, "kind": p.kind, "metadata": map[string]any{"name": "x", "generation": p.generation},
	}}
	if p.status == "" {
		return o
	}
	text, err := yaml.YAMLToJSON([]byte(fmt.Sprintf("{apiVersion: v1, kind: x, status: %s}", flow(t, p.status))))
	must(t, err)
	parsed := &unstructured.Unstructured{}
	must(t, parsed.UnmarshalJSON(text))
	o.Object["status"] = parsed.Object["status"]
	return o
}

// flow is YAML on one line.
func flow(t *testing.T, text string) string {
	t.Helper()
	out, err := yaml.YAMLToJSON([]byte(text))
	must(t, err)
	return string(out)
}

// argoCD are the scripts of config/argocd.
func argoCD(t *testing.T) map[string]string {
	var patch struct{ Data map[string]string }
	read(t, "argocd/argocd-cm.yaml", &patch)
	return patch.Data
}

// run runs a script as Argo CD does: the object is obj, and only the base library is there.
func run(t *testing.T, script string, o *unstructured.Unstructured) string {
	t.Helper()
	vm := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer vm.Close()
	must(t, vm.CallByParam(lua.P{Fn: vm.NewFunction(lua.OpenBase), Protect: true}, lua.LString("")))
	vm.SetGlobal("obj", value(vm, o.Object))
	must(t, vm.DoString(script))
	health, ok := vm.Get(-1).(*lua.LTable)
	if !ok {
		t.Fatalf("the script returns %s, not a table", vm.Get(-1))
	}
	if message := lua.LVAsString(health.RawGetString("message")); message == "" {
		t.Error("the script gives no message")
	}
	return lua.LVAsString(health.RawGetString("status"))
}

// value is a JSON value in Lua.
func value(vm *lua.LState, v any) lua.LValue {
	switch v := v.(type) {
	case map[string]any:
		table := vm.NewTable()
		for k, field := range v {
			table.RawSetString(k, value(vm, field))
		}
		return table
	case []any:
		table := vm.NewTable()
		for _, item := range v {
			table.Append(value(vm, item))
		}
		return table
	case string:
		return lua.LString(v)
	case int64:
		return lua.LNumber(v)
	case bool:
		return lua.LBool(v)
	}
	return lua.LNil
}

// kstatus is what Flux and others think of an object for which they have no expressions.
func kstatus(t *testing.T, o *unstructured.Unstructured) string {
	t.Helper()
	result, err := status.Compute(o)
	must(t, err)
	return string(result.Status)
}

// flux are the expressions of config/flux, by version and kind.
func flux(t *testing.T) map[string]*cel.StatusEvaluator {
	var patch struct {
		Spec struct {
			Wait             bool                          `json:"wait"`
			HealthCheckExprs []kustomize.CustomHealthCheck `json:"healthCheckExprs"`
		} `json:"spec"`
	}
	read(t, "flux/healthchecks.yaml", &patch)
	all := map[string]*cel.StatusEvaluator{}
	for _, e := range patch.Spec.HealthCheckExprs {
		evaluator, err := cel.NewStatusEvaluator(&e.HealthCheckExpressions)
		must(t, err)
		all[e.APIVersion+" "+e.Kind] = evaluator
	}
	return all
}

func read(t *testing.T, file string, to any) {
	t.Helper()
	text, err := os.ReadFile("../../config/" + file)
	must(t, err)
	must(t, yaml.UnmarshalStrict(text, to))
}

func evaluate(e *cel.StatusEvaluator, o *unstructured.Unstructured) string {
	result, err := e.Evaluate(context.Background(), o)
	if err != nil {
		return "an error"
	}
	return string(result.Status)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
