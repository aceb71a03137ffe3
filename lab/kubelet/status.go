package kubelet

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
)

// isOver reports a pod whose containers have ended for good.
func isOver(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

func deleteNow(uid types.UID) metav1.DeleteOptions {
	var now int64
	return metav1.DeleteOptions{GracePeriodSeconds: &now, Preconditions: &metav1.Preconditions{UID: &uid}}
}

// writeStatus writes the status where it differs from what the object says, as kubelets do by a patch: what others write there, such as conditions of their
// own, stays and is in nobody's way.
func (k *Kubelet) writeStatus(ctx context.Context, pod *corev1.Pod, status corev1.PodStatus) error {
	if apiequality.Semantic.DeepEqual(pod.Status, status) {
		return nil
	}
	patch, err := statusPatch(pod, status)
	if err != nil {
		return fmt.Errorf("writing its status: %w", err)
	}
	pods := k.config.Client.CoreV1().Pods(pod.Namespace)
	if _, err := pods.Patch(ctx, pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status"); err != nil {
		return fmt.Errorf("writing its status: %w", err)
	}
	return nil
}

// statusPatch is what makes a pod's status out of that in its object. It is for this pod, and no other of its name.
func statusPatch(pod *corev1.Pod, status corev1.PodStatus) ([]byte, error) {
	before, err := json.Marshal(corev1.Pod{Status: pod.Status})
	if err != nil {
		return nil, err
	}
	after, err := json.Marshal(corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: pod.UID}, Status: status})
	if err != nil {
		return nil, err
	}
	return strategicpatch.CreateTwoWayMergePatch(before, after, corev1.Pod{})
}

// runningStatus is the status of a pod all of whose containers run.
func runningStatus(pod *corev1.Pod, box *sandbox, nodeAddrs []netip.Addr) corev1.PodStatus {
	started := metav1.NewTime(box.started.Truncate(1e9)) // the API keeps seconds
	state := corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: started}}
	status := base(pod, nodeAddrs)
	status.Phase = corev1.PodRunning
	status.StartTime = &started
	status.PodIP, status.PodIPs = podIPs(box.addrs)
	status.InitContainerStatuses = containerStatuses(pod, pod.Spec.InitContainers, state)
	status.ContainerStatuses = containerStatuses(pod, pod.Spec.Containers, state)
	for _, condition := range []corev1.PodConditionType{
		corev1.PodReadyToStartContainers, corev1.PodInitialized, corev1.ContainersReady, corev1.PodReady,
	} {
		setCondition(&status, condition, corev1.ConditionTrue, "", started)
	}
	return status
}

// exitedStatus is the status of a pod whose containers have ended. It still names the addresses that the pod had.
func exitedStatus(pod *corev1.Pod, phase corev1.PodPhase, nodeAddrs []netip.Addr) corev1.PodStatus {
	status := base(pod, nodeAddrs)
	now := metav1.Now().Rfc3339Copy()
	reason, code := "Completed", int32(0)
	if phase != corev1.PodSucceeded {
		phase, reason, code = corev1.PodFailed, "Error", 1
	}
	status.Phase = phase
	if status.StartTime == nil {
		status.StartTime = &now
	}
	state := corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
		ExitCode: code, Reason: reason, StartedAt: *status.StartTime, FinishedAt: now,
	}}
	status.InitContainerStatuses = containerStatuses(pod, pod.Spec.InitContainers, state)
	status.ContainerStatuses = containerStatuses(pod, pod.Spec.Containers, state)
	setCondition(&status, corev1.PodReadyToStartContainers, corev1.ConditionFalse, "", now)
	setCondition(&status, corev1.PodInitialized, corev1.ConditionTrue, "PodCompleted", now)
	setCondition(&status, corev1.ContainersReady, corev1.ConditionFalse, "PodCompleted", now)
	setCondition(&status, corev1.PodReady, corev1.ConditionFalse, "PodCompleted", now)
	return status
}

// base keeps what the object says already (class of service, scheduling) and adds the node's addresses.
func base(pod *corev1.Pod, nodeAddrs []netip.Addr) corev1.PodStatus {
	status := *pod.Status.DeepCopy()
	status.HostIP, status.HostIPs = nodeAddrs[0].String(), nil
	for _, addr := range nodeAddrs {
		status.HostIPs = append(status.HostIPs, corev1.HostIP{IP: addr.String()})
	}
	return status
}

func podIPs(addrs []netip.Addr) (string, []corev1.PodIP) {
	var ips []corev1.PodIP
	for _, addr := range addrs {
		ips = append(ips, corev1.PodIP{IP: addr.String()})
	}
	return ips[0].IP, ips
}

// containerStatuses gives all containers the state. A plain init container has always ended, and was a success.
func containerStatuses(pod *corev1.Pod, containers []corev1.Container, state corev1.ContainerState) []corev1.ContainerStatus {
	var statuses []corev1.ContainerStatus
	for _, c := range containers {
		own := state
		if isInit(pod, c.Name) && c.RestartPolicy == nil {
			own = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: "Completed"}}
		}
		running := own.Running != nil
		statuses = append(statuses, corev1.ContainerStatus{
			Name: c.Name, Image: c.Image, ImageID: c.Image, ContainerID: "lab://" + string(pod.UID) + "-" + c.Name,
			State: own, Ready: running || isInit(pod, c.Name), Started: &running,
		})
	}
	return statuses
}

func isInit(pod *corev1.Pod, container string) bool {
	for _, c := range pod.Spec.InitContainers {
		if c.Name == container {
			return true
		}
	}
	return false
}

// setCondition changes a condition; the time of the transition stays where the status does.
func setCondition(status *corev1.PodStatus, kind corev1.PodConditionType, is corev1.ConditionStatus, reason string, at metav1.Time) {
	for i := range status.Conditions {
		c := &status.Conditions[i]
		if c.Type == kind {
			if c.Status != is {
				c.LastTransitionTime = at
			}
			c.Status, c.Reason = is, reason
			return
		}
	}
	status.Conditions = append(status.Conditions,
		corev1.PodCondition{Type: kind, Status: is, Reason: reason, LastTransitionTime: at})
}
