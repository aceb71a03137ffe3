package watchcost

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func nodeName(i int) string      { return fmt.Sprintf("node-%04d", i) }
func namespaceName(i int) string { return fmt.Sprintf("team-%04d", i) }

// place is where a pod of some number is.
type place struct {
	number          int
	namespace, node string
	addr            string
}

// place is that of pod i. Neighbours by number are on other nodes, and in other namespaces.
func (s Size) place(i int) place {
	addr := netip.AddrFrom4([4]byte{10, byte(1 + i>>16), byte(i >> 8), byte(i)})
	return place{i, namespaceName(i % s.Namespaces), nodeName(i % s.Nodes), addr.String()}
}

// pod is a pod as a ReplicaSet makes it and as admission leaves it: of the size that pods have on clusters.
func (p place) pod(kind string) *corev1.Pod {
	app := fmt.Sprintf("app-%d", p.number%10)
	hash := fmt.Sprintf("%x", 0x5c9f7d64+p.number%10)
	probe := &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/healthz", Port: intstr.FromString("http")}}}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: p.namespace, Name: fmt.Sprintf("%s-%s-%s-%05d", app, hash, kind, p.number),
			Labels: map[string]string{
				"app.kubernetes.io/name": app, "app.kubernetes.io/instance": app + "-production", "app.kubernetes.io/part-of": p.namespace,
				"pod-template-hash": hash,
			},
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: "apps/v1", Kind: "ReplicaSet", Name: app + "-" + hash, UID: "2c0d5f1e-7f0e-4d3c-9d5a-0f3b7c1a9e11",
				Controller: new(true), BlockOwnerDeletion: new(true),
			}},
		},
		Spec: corev1.PodSpec{
			Containers: []corev1.Container{{
				Name: "main", Image: "registry.example.com/" + p.namespace + "/" + app + ":v1.42.0",
				Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}, {Name: "metrics", ContainerPort: 9090}},
				Env: []corev1.EnvVar{
					{Name: "LOG_LEVEL", Value: "info"}, {Name: "DATABASE_URL", Value: "postgres://database." + p.namespace + ".svc:5432/main"},
					{Name: "POD_NAME", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}},
				},
				Resources: corev1.ResourceRequirements{
					Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("128Mi")},
					Limits:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("256Mi")},
				},
				LivenessProbe: probe, ReadinessProbe: probe,
				VolumeMounts: []corev1.VolumeMount{{Name: "kube-api-access-x7k2p", MountPath: "/var/run/secrets/kubernetes.io/serviceaccount", ReadOnly: true}},
			}},
			Volumes: []corev1.Volume{{Name: "kube-api-access-x7k2p", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
				Sources: []corev1.VolumeProjection{
					{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: new(int64(3607))}},
					{ConfigMap: &corev1.ConfigMapProjection{
						LocalObjectReference: corev1.LocalObjectReference{Name: "kube-root-ca.crt"}, Items: []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}},
					}},
				},
			}}}},
			ServiceAccountName: "default",
			Tolerations:        []corev1.Toleration{tolerates(corev1.TaintNodeNotReady), tolerates(corev1.TaintNodeUnreachable)},
		},
	}
}

func tolerates(taint string) corev1.Toleration {
	return corev1.Toleration{Key: taint, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: new(int64(300))}
}

// status is what a kubelet says of a pod, so far as it has come.
func (p place) status(phase corev1.PodPhase, state corev1.ContainerState, ready corev1.ConditionStatus) corev1.PodStatus {
	s := corev1.PodStatus{
		Phase: phase, HostIP: "192.0.2.1", HostIPs: []corev1.HostIP{{IP: "192.0.2.1"}}, StartTime: &metav1.Time{Time: time.Now()},
		QOSClass: corev1.PodQOSBurstable,
		ContainerStatuses: []corev1.ContainerStatus{{
			Name: "main", Image: "registry.example.com/" + p.namespace + "/app:v1.42.0", State: state, Ready: ready == corev1.ConditionTrue,
			Started: new(ready == corev1.ConditionTrue),
		}},
	}
	for _, kind := range []corev1.PodConditionType{
		corev1.PodReadyToStartContainers, corev1.PodInitialized, corev1.PodReady, corev1.ContainersReady, corev1.PodScheduled,
	} {
		is := corev1.ConditionTrue
		if kind == corev1.PodReady || kind == corev1.ContainersReady {
			is = ready
		}
		s.Conditions = append(s.Conditions, corev1.PodCondition{Type: kind, Status: is, LastTransitionTime: metav1.Now()})
	}
	return s
}

func (p place) starting() corev1.PodStatus {
	return p.status(corev1.PodPending, corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}}, corev1.ConditionFalse)
}

func (p place) running() corev1.PodStatus {
	s := p.status(corev1.PodRunning, corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Now()}}, corev1.ConditionTrue)
	s.ContainerStatuses[0].ImageID = "registry.example.com/app@sha256:6f1d3a0f5c2b4e8a9d7c6b5a4f3e2d1c0b9a8f7e6d5c4b3a2f1e0d9c8b7a6f5e"
	s.ContainerStatuses[0].ContainerID = "containerd://0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0"
	s.PodIP, s.PodIPs = p.addr, []corev1.PodIP{{IP: p.addr}}
	return s
}

func (p place) ended() corev1.PodStatus {
	s := p.running()
	s.Phase, s.ContainerStatuses[0].Ready, s.ContainerStatuses[0].Started = corev1.PodSucceeded, false, new(false)
	s.ContainerStatuses[0].State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: "Completed", FinishedAt: metav1.Now()}}
	return s
}

// Events of a pod that comes, runs and goes. On its node it is heard of from the second on.
const (
	PodEvents     = 8
	PodNodeEvents = 7
)

// Round is one of churn: pods that came and went.
type Round struct {
	size        Size
	first, pods int
}

// Events are those of all of its pods.
func (r Round) Events() int { return r.pods * PodEvents }

// Churn has pods come, run and go, one after another, with at most one write in a pause. Each is created, bound, said to start, said to run with its
// address, deleted with a grace, said to have ended, and deleted for good, which takes away the grace first: eight events.
func (c *Cluster) Churn(ctx context.Context, pods int, pause time.Duration) (Round, error) {
	r := Round{c.Size, c.Pods + c.churned, pods}
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for i := range pods {
		for _, write := range c.life(c.place(r.first + i)) {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return r, context.Cause(ctx)
			}
			if err := write(ctx); err != nil {
				return r, fmt.Errorf("having a pod come and go: %w", err)
			}
		}
		c.churned++
	}
	return r, nil
}

// life are the writes about a pod, in their order.
func (c *Cluster) life(at place) []func(context.Context) error {
	p := at.pod("comes")
	says := func(status func() corev1.PodStatus) func(context.Context) error {
		return func(ctx context.Context) error {
			pods := c.kubes[kubelet].CoreV1().Pods(p.Namespace)
			now, err := pods.Get(ctx, p.Name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			now.Status = status()
			_, err = pods.UpdateStatus(ctx, now, metav1.UpdateOptions{})
			return err
		}
	}
	remove := func(who string, grace int64) func(context.Context) error {
		return func(ctx context.Context) error {
			return c.kubes[who].CoreV1().Pods(p.Namespace).Delete(ctx, p.Name, metav1.DeleteOptions{GracePeriodSeconds: &grace})
		}
	}
	return []func(context.Context) error{
		func(ctx context.Context) error {
			_, err := c.kubes[workloads].CoreV1().Pods(p.Namespace).Create(ctx, p, metav1.CreateOptions{})
			return err
		},
		func(ctx context.Context) error {
			return c.kubes[scheduler].CoreV1().Pods(p.Namespace).Bind(ctx, &corev1.Binding{
				ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name}, Target: corev1.ObjectReference{Kind: "Node", Name: at.node},
			}, metav1.CreateOptions{})
		},
		says(at.starting), says(at.running), remove(workloads, 30), says(at.ended), remove(kubelet, 0),
	}
}
