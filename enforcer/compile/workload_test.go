package compile

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A pod's labels and name tell the same workload as its owners do.
func TestWorkloads(t *testing.T) {
	for _, c := range []struct {
		name   string
		labels map[string]string
		kind   string
		owner  string
		want   string
	}{
		{"web-7d4f9c-x2x9p", map[string]string{"pod-template-hash": "7d4f9c"}, "ReplicaSet", "web-7d4f9c", "deploy/web"},
		{"db-0", map[string]string{"statefulset.kubernetes.io/pod-name": "db-0", "controller-revision-hash": "db-6f"}, "StatefulSet", "db", "sts/db"},
		{"agent-zz9", map[string]string{"controller-revision-hash": "6f"}, "DaemonSet", "agent", "ds/agent"},
		{"once-abcde", map[string]string{"batch.kubernetes.io/job-name": "once"}, "Job", "once", "job/once"},
		{"nightly-29000000-abcde", map[string]string{"job-name": "nightly-29000000"}, "Job", "nightly-29000000", "cronjob/nightly"},
		{"alone", map[string]string{"app": "alone"}, "", "", "alone"},
		{"web-7d4f9c", map[string]string{"pod-template-hash": "other"}, "", "", "web-7d4f9c"},
		{"-x", map[string]string{"controller-revision-hash": "6f"}, "", "", "-x"},
	} {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: c.name, Labels: c.labels}}
		if c.kind != "" {
			controller := true
			p.OwnerReferences = []metav1.OwnerReference{{Kind: c.kind, Name: c.owner, Controller: &controller}}
		}
		for by, got := range map[string]string{"labels": NewPod(p).Named().Workload, "owners": NameOf(p).Workload} {
			if got != c.want {
				t.Errorf("by its %s, %s is of %q, want %q", by, c.name, got, c.want)
			}
		}
		if got := NewPod(p).Named().String(); got != "shop/"+c.name {
			t.Errorf("it is called %q", got)
		}
	}
}
