package compile

import (
	"cmp"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// Workload is what makes pods.
type Workload struct{ Kind, Name string }

// shortKinds are what kinds are called in answers and reports.
var shortKinds = map[string]string{
	"Deployment": "deploy/", "StatefulSet": "sts/", "DaemonSet": "ds/", "ReplicaSet": "rs/", "Job": "job/", "CronJob": "cronjob/",
}

// String is what people call it: "deploy/web", or the name alone of a kind that has no short one.
func (w Workload) String() string { return shortKinds[w.Kind] + w.Name }

// WorkloadsOf are those that a pod belongs to, its controller first. Of a ReplicaSet and of a Job the owner is known by how Deployments and CronJobs name
// what they make: so pods alone tell.
func WorkloadsOf(pod metav1.Object) []Workload {
	owner := metav1.GetControllerOf(pod)
	if owner == nil {
		return nil
	}
	all := []Workload{{owner.Kind, owner.Name}}
	switch hash := pod.GetLabels()[appsv1.DefaultDeploymentUniqueLabelKey]; owner.Kind {
	case "ReplicaSet":
		if name, ok := strings.CutSuffix(owner.Name, "-"+hash); ok && hash != "" {
			all = append(all, Workload{"Deployment", name})
		}
	case "Job":
		if name, ok := cutNumber(owner.Name); ok {
			all = append(all, Workload{"CronJob", name})
		}
	}
	return all
}

// NameOf is how logs and reports name a pod that the API shows.
func NameOf(pod metav1.Object) policy.PodName {
	named := policy.PodName{Namespace: pod.GetNamespace(), Name: pod.GetName(), Workload: pod.GetName()}
	if all := WorkloadsOf(pod); len(all) > 0 {
		named.Workload = all[len(all)-1].String()
	}
	return named
}

// Named is how logs and reports name the pod. Whose pod it is, its labels tell, which the API's own controllers write: its owners are not kept.
func (p *Pod) Named() policy.PodName {
	return policy.PodName{Namespace: p.Namespace, Name: p.Name, Workload: cmp.Or(p.workload().String(), p.Name)}
}

// workload is what made the pod, by its labels and its name; zero if nothing is known to have.
func (p *Pod) workload() Workload {
	if hash := p.Labels.Get(appsv1.DefaultDeploymentUniqueLabelKey); hash != "" {
		if i := strings.LastIndex(p.Name, "-"+hash+"-"); i > 0 {
			return Workload{"Deployment", p.Name[:i]}
		}
	}
	job := cmp.Or(p.Labels.Get("batch.kubernetes.io/job-name"), p.Labels.Get("job-name"))
	switch {
	case job != "" && strings.HasPrefix(p.Name, job+"-"):
		if name, ok := cutNumber(job); ok {
			return Workload{"CronJob", name}
		}
		return Workload{"Job", job}
	case p.Labels.Get(appsv1.StatefulSetPodNameLabel) == p.Name:
		if name, ok := cutNumber(p.Name); ok {
			return Workload{"StatefulSet", name}
		}
	case p.Labels.Has(appsv1.ControllerRevisionHashLabelKey):
		if i := strings.LastIndexByte(p.Name, '-'); i > 0 {
			return Workload{"DaemonSet", p.Name[:i]}
		}
	}
	return Workload{}
}

// cutNumber cuts the number off that stands behind a name.
func cutNumber(name string) (string, bool) {
	i := strings.LastIndexByte(name, '-')
	if i <= 0 || i+1 == len(name) || strings.Trim(name[i+1:], "0123456789") != "" {
		return "", false
	}
	return name[:i], true
}
