package query

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/ringfence-io/ringfence/enforcer/compile"
)

// serviceKind is that of Services, whose pods are known by their labels. Those of the other kinds are known by their owners.
const serviceKind = "Service"

// kinds are the kinds that pods are known by, by what people call them. The empty name stands for pods, and for workloads of whatever kind.
var kinds = map[string]string{
	"": "", "pod": "Pod", "pods": "Pod", "po": "Pod",
	"svc": serviceKind, "service": serviceKind, "services": serviceKind,
	"deploy": "Deployment", "deployment": "Deployment", "deployments": "Deployment",
	"sts": "StatefulSet", "statefulset": "StatefulSet", "statefulsets": "StatefulSet",
	"ds": "DaemonSet", "daemonset": "DaemonSet", "daemonsets": "DaemonSet",
	"rs": "ReplicaSet", "replicaset": "ReplicaSet", "replicasets": "ReplicaSet",
	"job": "Job", "jobs": "Job", "cj": "CronJob", "cronjob": "CronJob", "cronjobs": "CronJob",
}

var kindNames = slices.DeleteFunc(slices.Sorted(maps.Keys(kinds)), func(s string) bool { return s == "" })

// isOf reports whether a pod is what a kind and a name stand for.
func isOf(p *corev1.Pod, kind, name string) bool {
	if kind == "Pod" || kind == "" && p.Name == name {
		return p.Name == name
	}
	for _, w := range compile.WorkloadsOf(p) {
		if w.Name == name && (kind == "" || w.Kind == kind) {
			return true
		}
	}
	return false
}

// Workload is what people call what a pod belongs to: "namespace/deploy/name", or "namespace/name" of a pod that nothing made.
func Workload(p *corev1.Pod) string { return p.Namespace + "/" + compile.NameOf(p).Workload }
