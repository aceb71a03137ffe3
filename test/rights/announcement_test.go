package rights

import (
	"context"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	announcer "github.com/ringfence-io/ringfence/controllers/node/announce"
	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/test/kit"
)

// starting is a pod that starts on a node, as its kubelet has begun to say.
func starting(t *testing.T, name, node string) *corev1.Pod {
	t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{"app": "web"}},
		Spec:       corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "main", Image: "none"}}},
	}
	kit.Must(t, admin.Create(t.Context(), pod))
	t.Cleanup(func() {
		kit.Must(t, client.IgnoreNotFound(admin.Delete(context.Background(), pod, client.GracePeriodSeconds(0))))
	})
	pod.Status.HostIP, pod.Status.HostIPs = "192.0.2.1", []corev1.HostIP{{IP: "192.0.2.1"}}
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{
		Name: "main", Image: "none", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}},
	}}
	for _, kind := range []corev1.PodConditionType{corev1.PodInitialized, corev1.PodReady, corev1.PodScheduled} {
		pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{Type: kind, Status: corev1.ConditionFalse})
	}
	kit.Must(t, admin.Status().Update(t.Context(), pod))
	return pod
}

// ofNode is a client with the token of a node's enforcer; without a node, with one that names none.
func ofNode(t *testing.T, node string) kubernetes.Interface {
	t.Helper()
	bound := boundTo(t.Context(), node)
	if node == "" {
		bound = nil
	}
	token, err := tokenOf(t.Context(), enforcer, bound)
	kit.Must(t, err)
	config := rest.AnonymousClientConfig(restConfig)
	config.BearerToken, config.QPS = token, -1
	c, err := kubernetes.NewForConfig(config)
	kit.Must(t, err)
	return c
}

// announce announces addresses of a pod as the enforcer of a node does.
func announce(t *testing.T, node string, pod *corev1.Pod, addrs ...string) error {
	t.Helper()
	a := announcer.Announcement{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID}
	for _, text := range addrs {
		a.Addrs = append(a.Addrs, netip.MustParseAddr(text))
	}
	return announcer.NewWriter(ofNode(t, node).CoreV1().RESTClient()).WriteAnnouncement(t.Context(), a)
}

// An enforcer says which addresses a pod of its node has, then others, then none, and all else in the pod stays as it was.
func TestAnEnforcerAnnouncesAddresses(t *testing.T) {
	pod := starting(t, "starts", "n1")
	for _, addrs := range [][]string{{"10.1.0.5", "fd00::5"}, {"10.1.0.6"}, {"10.1.0.6"}, nil} {
		kit.Must(t, announce(t, "n1", pod, addrs...))
		now := &corev1.Pod{}
		kit.Must(t, admin.Get(t.Context(), client.ObjectKeyFromObject(pod), now))
		var got []string
		for _, a := range compile.NewPod(now).Addrs {
			got = append(got, a.String())
		}
		if diff := cmp.Diff(addrs, got); diff != "" {
			t.Errorf("what others read of it (-want +got):\n%s", diff)
		}
		now.Status.Conditions = slices.DeleteFunc(now.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == v1alpha1.AddressesCondition })
		now.ResourceVersion, now.ManagedFields = pod.ResourceVersion, pod.ManagedFields
		if diff := cmp.Diff(pod, now); diff != "" {
			t.Errorf("the rest of the pod (-before +after):\n%s", diff)
		}
	}
}

// What an announcement is written over is looked at by the pod's UID: another of the same name is another pod.
func TestAnAnnouncementIsForOnePod(t *testing.T) {
	pod := starting(t, "another", "n1")
	before := pod.DeepCopy()
	before.UID = "00000000-0000-4000-8000-000000000001"
	refused(t, announce(t, "n1", before, "10.1.0.5"), "metadata.uid")
	gone := pod.DeepCopy()
	gone.Name = "gone"
	if err := announce(t, "n1", gone, "10.1.0.5"); !apierrors.IsNotFound(err) {
		t.Errorf("of a pod that is gone: %v, want it not found", err)
	}
}

func TestAnEnforcerWritesNothingElseIntoPods(t *testing.T) {
	own, other, unbound := starting(t, "own", "n1"), starting(t, "other", "n2"), starting(t, "unbound", "")
	kit.Must(t, announce(t, "n2", other, "10.2.0.5"))
	const (
		noMetadata  = "an enforcer may change nothing in the metadata of a pod"
		noStatus    = "an enforcer may change nothing in the status of a pod but condition policy.ringfence.io/AddressesAssigned"
		noCondition = "an enforcer may change no condition of a pod but policy.ringfence.io/AddressesAssigned"
		once        = "condition policy.ringfence.io/AddressesAssigned of a pod is there once, with a message of at most 2048 characters"
		notItsNode  = "the token of this enforcer is for node n1, so that it may announce the addresses of pods on n1 and no others"
	)
	t.Run("another node's", func(t *testing.T) { refused(t, announce(t, "n1", other, "10.1.0.5"), notItsNode) })
	t.Run("the end of another node's", func(t *testing.T) { refused(t, announce(t, "n1", other), notItsNode) })
	t.Run("one that is bound to no node", func(t *testing.T) { refused(t, announce(t, "n1", unbound, "10.1.0.5"), notItsNode) })
	t.Run("with a token that names no node", func(t *testing.T) {
		refused(t, announce(t, "", own, "10.1.0.5"), "the token of this enforcer does not say which node it is for, so that it may announce no addresses")
	})
	ours := `{"type": "policy.ringfence.io/AddressesAssigned", "status": "True", "message": "10.1.0.5"}`
	with := func(status string) string { return `{"status": {"conditions": [` + ours + `], ` + status + `}}` }
	long := make([]byte, 2049)
	for i := range long {
		long[i] = '1'
	}
	n1 := ofNode(t, "n1").CoreV1().Pods("default")
	for _, there := range []bool{false, true} {
		if there {
			kit.Must(t, announce(t, "n1", own, "10.1.0.4"))
		}
		for _, tt := range []struct {
			name  string
			kind  types.PatchType
			patch string
			why   string
		}{
			{"a label", types.StrategicMergePatchType, `{"metadata": {"labels": {"app": "db"}}}`, noMetadata},
			{"a new label", types.StrategicMergePatchType, `{"metadata": {"labels": {"role": "db"}}}`, noMetadata},
			{"no label", types.StrategicMergePatchType, `{"metadata": {"labels": {"app": null}}}`, noMetadata},
			{"an annotation", types.StrategicMergePatchType, `{"metadata": {"annotations": {"policy.ringfence.io/mode": "Audit"}}}`, noMetadata},
			{"a finalizer", types.StrategicMergePatchType, `{"metadata": {"finalizers": ["example.com/stay"]}}`, noMetadata},
			{"the phase", types.StrategicMergePatchType, with(`"phase": "Failed"`), noStatus},
			{"an address", types.StrategicMergePatchType, with(`"podIP": "10.1.0.5", "podIPs": [{"ip": "10.1.0.5"}]`), noStatus},
			{"the node's address", types.StrategicMergePatchType, with(`"hostIP": "192.0.2.2", "hostIPs": [{"ip": "192.0.2.2"}, {"$patch": "delete", "ip": "192.0.2.1"}]`), noStatus},
			{"the containers", types.StrategicMergePatchType, with(`"containerStatuses": [{"name": "main", "ready": true}]`), noStatus},
			{"the end of a field", types.MergePatchType, `{"status": {"containerStatuses": null}}`, noStatus},
			{"another condition", types.StrategicMergePatchType, `{"status": {"conditions": [` + ours + `, {"type": "Ready", "status": "True"}]}}`, noCondition},
			{"a new condition", types.StrategicMergePatchType, `{"status": {"conditions": [{"type": "example.com/Seen", "status": "True"}]}}`, noCondition},
			{"the end of the others", types.MergePatchType, `{"status": {"conditions": [` + ours + `]}}`, noCondition},
			{"more than it needs", types.StrategicMergePatchType,
				`{"status": {"conditions": [{"type": "policy.ringfence.io/AddressesAssigned", "status": "True", "message": "` + string(long) + `"}]}}`, once},
			{"it twice", types.JSONPatchType, `[{"op": "add", "path": "/status/conditions/-", "value": ` + ours + `},
				{"op": "add", "path": "/status/conditions/-", "value": ` + ours + `}]`, once},
		} {
			t.Run(tt.name, func(t *testing.T) {
				_, err := n1.Patch(t.Context(), own.Name, tt.kind, []byte(tt.patch), metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}}, "status")
				refused(t, err, tt.why)
			})
		}
	}
	t.Run("what is the API server's to hold", func(t *testing.T) {
		patch := []byte(`{"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n2", "uid": "1"}]},
			"spec": {"nodeName": "n2", "activeDeadlineSeconds": 1, "containers": [{"name": "main", "image": "other"}]}}`)
		got, err := n1.Patch(t.Context(), own.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
		kit.Must(t, err)
		if diff := cmp.Diff(own.Spec, got.Spec); diff != "" || len(got.OwnerReferences) > 0 {
			t.Errorf("owned by %v, and the spec (-before +after):\n%s", got.OwnerReferences, diff)
		}
	})
}

// The policy is about enforcers: a kubelet, or here an administrator, writes statuses as before, and leaves or removes what is announced.
func TestOthersWriteStatuses(t *testing.T) {
	pod := starting(t, "served", "n1")
	kit.Must(t, announce(t, "n1", pod, "10.1.0.5"))
	for _, patch := range []string{
		`{"status": {"phase": "Running", "podIP": "10.1.0.5", "podIPs": [{"ip": "10.1.0.5"}], "conditions": [{"type": "Ready", "status": "True"}]}}`,
		`{"metadata": {"labels": {"app": "db"}}, "status": {"conditions": [{"$patch": "delete", "type": "policy.ringfence.io/AddressesAssigned"}]}}`,
	} {
		kit.Must(t, admin.Status().Patch(t.Context(), pod, client.RawPatch(types.StrategicMergePatchType, []byte(patch))))
	}
}
