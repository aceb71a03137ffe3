package rights

import (
	"os"
	"regexp"
	"strconv"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// documentedPeaks are the figures of docs/benchmarks.md, in MB, that a pattern finds.
func documentedPeaks(t *testing.T, pattern string) []float64 {
	t.Helper()
	text, err := os.ReadFile("../../docs/benchmarks.md")
	if err != nil {
		t.Fatal(err)
	}
	var all []float64
	for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(string(text), -1) {
		mb, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, mb)
	}
	if len(all) == 0 {
		t.Fatalf("docs/benchmarks.md says nothing like %s", pattern)
	}
	return all
}

// containers are those of a shipped workload, with those that begin it.
func containers(t *testing.T, file string) []corev1.Container {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var workload appsv1.DaemonSet // a Deployment has its template in the same place
	if err := yaml.Unmarshal(text, &workload); err != nil {
		t.Fatal(err)
	}
	pod := workload.Spec.Template.Spec
	return append(pod.InitContainers, pod.Containers...)
}

// What is shipped has a memory limit that holds at the sizes that are documented, several times over, and asks the scheduler for what it was seen to take.
func TestMemoryLimitsHoldAtTheDocumentedSizes(t *testing.T) {
	const enforcer, controller = `after changes +([\d.]+)`, `all changes above +[\d.]+ +[\d.]+ +([\d.]+)`
	for _, tt := range []struct {
		file    string
		pattern string  // of the peak, in the text
		times   float64 // how many times the peak the limit is at least
		beside  float64 // MB: what else runs in the container, and what the kernel counts
	}{
		// Beside the enforcer: both sets of connections that were cut, at 30 MB each, the look at a million connections, and iptables-restore.
		{"../../config/enforcer/daemonset.yaml", enforcer, 3, 60 + 35 + 100},
		{"../../config/manager/deployment.yaml", controller, 3, 0},
		{"../../config/manager/deployment.yaml", `memory of the controller, peak MB +([\d.]+)`, 2, 0}, // 5,000 nodes
	} {
		for _, peak := range documentedPeaks(t, tt.pattern) {
			for _, c := range containers(t, tt.file) {
				limit, ok := c.Resources.Limits[corev1.ResourceMemory]
				if !ok {
					t.Errorf("%s: container %s has no memory limit", tt.file, c.Name)
					continue
				}
				const mb = 1e6
				if want := tt.times*peak + tt.beside; float64(limit.Value())/mb < want {
					t.Errorf("%s: container %s is limited to %s, want %.0f MB for a peak of %.0f MB", tt.file, c.Name, limit.String(), want, peak)
				}
				if request := c.Resources.Requests[corev1.ResourceMemory]; request.Value() > limit.Value() {
					t.Errorf("%s: container %s asks for %s, more than its limit %s", tt.file, c.Name, request.String(), limit.String())
				}
				if _, throttled := c.Resources.Limits[corev1.ResourceCPU]; throttled {
					t.Errorf("%s: container %s is throttled, so that policy comes late", tt.file, c.Name)
				}
			}
		}
	}
}
