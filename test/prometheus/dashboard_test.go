package prometheus

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

type grid struct{ H, W, X, Y int }

type panel struct {
	ID          int
	Type, Title string
	Datasource  map[string]string
	GridPos     grid
	Targets     []struct {
		RefID, Expr string
		Datasource  map[string]string
	}
}

type dashboard struct {
	ID         *int
	UID        string
	Panels     []panel
	Templating struct {
		List []struct{ Name, Type, Definition string }
	}
}

func readDashboard(t *testing.T) dashboard {
	t.Helper()
	var d dashboard
	read(t, "../../config/prometheus/dashboard.json", &d)
	return d
}

// dashboardQueries are by where they stand. A variable of Grafana is a text for the reader of a query.
func dashboardQueries(t *testing.T) map[string]string {
	t.Helper()
	queries := map[string]string{}
	for _, p := range readDashboard(t).Panels {
		for _, target := range p.Targets {
			queries[fmt.Sprintf("panel %q %s", p.Title, target.RefID)] = target.Expr
		}
	}
	return queries
}

func TestEveryMetricIsOnTheDashboard(t *testing.T) {
	all := ours(t)
	missing := ours(t)
	for _, query := range dashboardQueries(t) {
		metrics, _ := asked(query)
		for name := range metrics {
			if m, _, ok := existing(all, name); ok {
				delete(missing, m.name)
			}
		}
	}
	for name := range missing {
		t.Errorf("%s is on no panel", name)
	}
}

// A dashboard is for any Grafana: its data source is chosen there, and it has no number yet.
func TestTheDashboardIsForAnyGrafana(t *testing.T) {
	d := readDashboard(t)
	if d.ID != nil || d.UID != "ringfence" {
		t.Errorf("id %v, uid %q: an id is of one Grafana, and links lead to the uid", d.ID, d.UID)
	}
	var variables []string
	for _, v := range d.Templating.List {
		variables = append(variables, v.Name)
	}
	if diff := cmp.Diff([]string{"datasource", "node"}, variables); diff != "" {
		t.Errorf("variables (-want +got):\n%s", diff)
	}
	chosen := map[string]string{"type": "prometheus", "uid": "${datasource}"}
	used := regexp.MustCompile(`\$\{?(\w+)`)
	for _, p := range d.Panels {
		if p.Type == "row" {
			continue
		}
		if diff := cmp.Diff(chosen, p.Datasource); diff != "" {
			t.Errorf("%s: data source (-want +got):\n%s", p.Title, diff)
		}
		for _, target := range p.Targets {
			if diff := cmp.Diff(chosen, target.Datasource); diff != "" {
				t.Errorf("%s: data source (-want +got):\n%s", p.Title, diff)
			}
			for _, v := range used.FindAllStringSubmatch(target.Expr, -1) {
				if !slices.Contains(append(variables, "__rate_interval"), v[1]) {
					t.Errorf("%s: the variable %s is not there", p.Title, v[1])
				}
			}
		}
	}
}

func TestPanelsStandBesideEachOther(t *testing.T) {
	taken := map[[2]int]string{}
	ids := map[int]bool{}
	rows := []string{}
	for _, p := range readDashboard(t).Panels {
		if ids[p.ID] || p.Title == "" {
			t.Errorf("panel %d %q: its number is another one's, or it has no title", p.ID, p.Title)
		}
		ids[p.ID] = true
		if p.Type == "row" {
			rows = append(rows, p.Title)
		} else if len(p.Targets) == 0 {
			t.Errorf("%s asks for nothing", p.Title)
		}
		if g := p.GridPos; g.X+g.W > 24 || g.W == 0 || g.H == 0 {
			t.Errorf("%s: a dashboard is 24 columns wide: %+v", p.Title, g)
		}
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" {
					t.Fatalf("%s stands on %s", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
	}
	if diff := cmp.Diff([]string{"Enforcement", "Latency", "Denied packets", "Failures and repairs", "Status"}, rows); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

// monitor is what monitors.yaml says of a ServiceMonitor.
type monitor struct {
	APIVersion, Kind string
	Metadata         struct{ Name string }
	Spec             struct {
		Selector  struct{ MatchLabels map[string]string }
		Endpoints []struct {
			Port, Scheme, BearerTokenFile string
			TLSConfig                     map[string]bool
			Relabelings                   []struct {
				SourceLabels             []string
				TargetLabel, Replacement string
			}
		}
	}
}

// The monitors find the pods of config/default by their Services, ask as the guard of the metrics wants it, and give the labels that the queries ask for.
func TestMonitorsFindTheProcesses(t *testing.T) {
	text, err := os.ReadFile("../../config/prometheus/monitors.yaml")
	if err != nil {
		t.Fatal(err)
	}
	monitors, services := map[string]monitor{}, map[string]corev1.Service{}
	for document := range strings.SplitSeq(string(text), "\n---\n") {
		var m monitor
		if err := yaml.Unmarshal([]byte(document), &m); err != nil {
			t.Fatal(err)
		}
		if m.Kind == "ServiceMonitor" {
			err = yaml.UnmarshalStrict([]byte(document), &m)
			monitors[m.Metadata.Name] = m
		} else {
			var s corev1.Service
			err = yaml.UnmarshalStrict([]byte(document), &s)
			services[strings.TrimSuffix(s.Name, "-metrics")] = s
		}
		if err != nil {
			t.Error(err)
		}
	}
	for name, workloadFile := range map[string]string{"enforcer": "enforcer/daemonset.yaml", "controller": "manager/deployment.yaml"} {
		var workload appsv1.DaemonSet // a Deployment's template is at the same place
		read(t, "../../config/"+workloadFile, &workload)
		template, service := workload.Spec.Template, services[name]
		if diff := cmp.Diff(template.Labels, service.Spec.Selector); diff != "" {
			t.Errorf("%s: labels of the pods (-pods +service):\n%s", name, diff)
		}
		m := monitors[name]
		labels := map[string]string{"app.kubernetes.io/name": "ringfence"} // which kustomization.yaml adds
		maps.Copy(labels, service.Labels)
		if diff := cmp.Diff(labels, m.Spec.Selector.MatchLabels); diff != "" {
			t.Errorf("%s: labels of the service (-service +monitor):\n%s", name, diff)
		}
		if len(m.Spec.Endpoints) != 1 || len(service.Spec.Ports) != 1 {
			t.Fatalf("%s: %d endpoints, %d ports, want one of each", name, len(m.Spec.Endpoints), len(service.Spec.Ports))
		}
		endpoint, port := m.Spec.Endpoints[0], service.Spec.Ports[0]
		if endpoint.Port != port.Name || endpoint.Scheme != "https" || endpoint.BearerTokenFile == "" {
			t.Errorf("%s: Prometheus does not ask as it has to: %+v", name, endpoint)
		}
		ports := map[string]int32{"enforcer": 9441, "controller": 9442}
		isMetrics := func(p corev1.ContainerPort) bool {
			return p.Name == port.TargetPort.StrVal && p.ContainerPort == ports[name]
		}
		if port.Port != ports[name] || !slices.ContainsFunc(template.Spec.Containers[0].Ports, isMetrics) {
			t.Errorf("%s: port %s is not that of the metrics", name, port.TargetPort.StrVal)
		}
		given := map[string]string{}
		for _, r := range endpoint.Relabelings {
			given[r.TargetLabel] = r.Replacement + strings.Join(r.SourceLabels, " ")
		}
		want := map[string]string{"job": "ringfence-" + name}
		if name == "enforcer" {
			want["node"] = "__meta_kubernetes_pod_node_name"
		}
		if diff := cmp.Diff(want, given); diff != "" {
			t.Errorf("%s: labels of the series (-want +got):\n%s", name, diff)
		}
	}
}
