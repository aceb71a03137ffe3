package query

import (
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
	for _, w := range workloadsOf(p) {
		if w.name == name && (kind == "" || w.kind == kind) {
			return true
		}
	}
	return false
}

// workload is what makes pods.
type workload struct{ kind, name string }

// workloadsOf are those that a pod belongs to, its controller first. Of a ReplicaSet and of a Job the owner is known by how Deployments and CronJobs name
// what they make: so pods alone tell.
func workloadsOf(p *corev1.Pod) []workload {
	owner := metav1.GetControllerOf(p)
	if owner == nil {
		return nil
	}
	all := []workload{{owner.Kind, owner.Name}}
	switch owner.Kind {
	case "ReplicaSet":
		if name, ok := strings.CutSuffix(owner.Name, "-"+p.Labels["pod-template-hash"]); ok && p.Labels["pod-template-hash"] != "" {
			all = append(all, workload{"Deployment", name})
		}
	case "Job":
		if i := strings.LastIndexByte(owner.Name, '-'); i > 0 && strings.Trim(owner.Name[i+1:], "0123456789") == "" {
			all = append(all, workload{"CronJob", owner.Name[:i]})
		}
	}
	return all
}

// Workload is what people call what a pod belongs to: "namespace/deploy/name", or "namespace/name" of a pod that nothing made.
func Workload(p *corev1.Pod) string {
	all := workloadsOf(p)
	if len(all) == 0 {
		return p.Namespace + "/" + p.Name
	}
	top := all[len(all)-1]
	return p.Namespace + "/" + short[top.kind] + top.name
}

// short are what kinds are called in answers.
var short = map[string]string{
	"Deployment": "deploy/", "StatefulSet": "sts/", "DaemonSet": "ds/", "ReplicaSet": "rs/", "Job": "job/", "CronJob": "cronjob/",
}
