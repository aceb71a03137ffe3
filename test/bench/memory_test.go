package bench

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"

	"github.com/ringfence-io/ringfence/test/kit"
	"github.com/ringfence-io/ringfence/test/kit/proc"
	"github.com/ringfence-io/ringfence/test/scale"
)

// The cluster whose enforcer is weighed.
const (
	manyPods       = 15_000
	manyNamespaces = 200
	policiesThere  = 500
	podsPerNode    = 110
	teams          = 10
	weighedNode    = "node-0"

	memoryGoal = 60 << 20
)

// BenchmarkMemory weighs the enforcer of one node of a large cluster: as it starts and reads everything at once, and when for a
// while it has followed pods and policies that come, change and go.
func BenchmarkMemory(b *testing.B) {
	server, client := startServer(b)
	began := time.Now()
	kit.Must(b, fillCluster(kit.Context(b, patience), client))
	b.Logf("%d pods were there after %s", manyPods, time.Since(began).Round(time.Second))

	e := startEnforcer(b, server, weighedNode)
	started, err := proc.UsageOf(e.PID())
	kit.Must(b, err)
	kit.Must(b, churn(kit.Context(b, patience), client))
	time.Sleep(2 * resync) // until it has compared all that with the kernel
	churned, err := proc.UsageOf(e.PID())
	kit.Must(b, err)

	t := tableOf(fmt.Sprintf("Memory of the enforcer with %d pods, %d namespaces, %d policies, %d local pods, in MB",
		manyPods, manyNamespaces, policiesThere, podsPerNode), "", "peak (VmHWM)", "now (VmRSS)", "of it anonymous", "goal: peak under 60 MB")
	for _, row := range []struct {
		name string
		at   proc.Usage
	}{{"started", started}, {"after changes", churned}} {
		report(b, row.name, map[string]float64{"peak-MB": mb(row.at.Peak), "rss-MB": mb(row.at.Now)})
		t.add(row.name, fmt.Sprintf("%.1f", mb(row.at.Peak)), fmt.Sprintf("%.1f", mb(row.at.Now)), fmt.Sprintf("%.1f", mb(row.at.Anonymous)),
			verdict(float64(row.at.Peak), memoryGoal))
	}
}

func mb(bytes int) float64 { return float64(bytes) / (1 << 20) }

// fillCluster creates the namespaces, the policies, and the pods with the status that their kubelets would write.
func fillCluster(ctx context.Context, client kubernetes.Interface) error {
	err := scale.InParallel(manyNamespaces, func(i int) error {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespaceName(i), Labels: map[string]string{"team": team(i)}}}
		_, err := client.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{})
		return err
	})
	if err != nil {
		return fmt.Errorf("creating namespaces: %w", err)
	}
	err = scale.InParallel(policiesThere, func(i int) error {
		p := policyThere(i)
		_, err := client.NetworkingV1().NetworkPolicies(p.Namespace).Create(ctx, p, metav1.CreateOptions{})
		return err
	})
	if err != nil {
		return fmt.Errorf("creating policies: %w", err)
	}
	err = scale.InParallel(manyPods, func(i int) error { return createPod(ctx, client, podThere(i)) })
	if err != nil {
		return fmt.Errorf("creating pods: %w", err)
	}
	return nil
}

// createPod writes a pod and then its status: the API server takes none with a new pod.
func createPod(ctx context.Context, client kubernetes.Interface, p *corev1.Pod) error {
	created, err := client.CoreV1().Pods(p.Namespace).Create(ctx, p, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	created.Status = p.Status
	_, err = client.CoreV1().Pods(p.Namespace).UpdateStatus(ctx, created, metav1.UpdateOptions{})
	return err
}

func namespaceName(i int) string { return fmt.Sprintf("namespace-%d", i) }
func team(namespace int) string  { return fmt.Sprintf("team-%d", namespace%teams) }

// podThere is the i-th pod, of the size that pods of real clusters have.
func podThere(i int) *corev1.Pod {
	const nodes = (manyPods + podsPerNode - 1) / podsPerNode
	ns, node := i%manyNamespaces, i/podsPerNode
	app := fmt.Sprintf("app-%d", i/manyNamespaces%8)
	hash := fmt.Sprintf("%x", 0x5c9f7d64+ns*8+i/manyNamespaces%8)
	four := netip.AddrFrom4([4]byte{10, byte(64 + node>>8), byte(node), byte(2 + i%podsPerNode)})
	six := netip.MustParsePrefix("fd00:10::/64").Addr().As16()
	copy(six[12:], four.AsSlice())
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespaceName(ns), Name: fmt.Sprintf("%s-%s-%05d", app, hash, i),
			Labels: map[string]string{
				"app.kubernetes.io/name": app, "app.kubernetes.io/instance": app + "-" + namespaceName(ns), "app.kubernetes.io/part-of": team(ns),
				"app.kubernetes.io/version": "v1.2.3", "pod-template-hash": hash,
			},
			Annotations: map[string]string{"checksum/config": fmt.Sprintf("%064x", i), "prometheus.io/scrape": "true"},
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: "apps/v1", Kind: "ReplicaSet", Name: app + "-" + hash, UID: "5d0ad1ba-8f4f-4f0c-9f30-2a4f6f1c0a2e",
			}},
		},
		Spec: corev1.PodSpec{
			NodeName:   fmt.Sprintf("node-%d", node%nodes),
			Containers: []corev1.Container{container("main", 8080), container("sidecar", 9090)},
			Volumes:    []corev1.Volume{{Name: "tmp"}, {Name: "cache"}},
		},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, PodIP: four.String(),
			PodIPs: []corev1.PodIP{{IP: four.String()}, {IP: netip.AddrFrom16(six).String()}},
		},
	}
	for _, kind := range []corev1.PodConditionType{"PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"} {
		p.Status.Conditions = append(p.Status.Conditions,
			corev1.PodCondition{Type: kind, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()})
	}
	for _, c := range p.Spec.Containers {
		started := true
		p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, corev1.ContainerStatus{
			Name: c.Name, Image: c.Image, Ready: true, Started: &started,
			ImageID:     fmt.Sprintf("registry.example.com/%s@sha256:%064x", c.Name, i),
			ContainerID: fmt.Sprintf("containerd://%064x", i),
			State:       corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Now()}},
		})
	}
	return p
}

func container(name string, port int32) corev1.Container {
	c := corev1.Container{
		Name: name, Image: "registry.example.com/" + name + ":v1.2.3",
		Args:         []string{"--listen=:8080", "--log-format=json", "--config=/etc/config/config.yaml"},
		Ports:        []corev1.ContainerPort{{Name: "http-" + name, ContainerPort: port}},
		VolumeMounts: []corev1.VolumeMount{{Name: "tmp", MountPath: "/tmp"}, {Name: "cache", MountPath: "/cache"}},
		ReadinessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{
			HTTPGet: &corev1.HTTPGetAction{Path: "/healthz", Port: intstr.FromInt32(port)}}},
	}
	for i := range 8 {
		c.Env = append(c.Env, corev1.EnvVar{Name: fmt.Sprintf("SETTING_%d", i), Value: "some value of ordinary length"})
	}
	return c
}

// policyThere is the i-th policy. Each isolates an application of a namespace in both directions. What they admit is applications
// of the same namespace, addresses outside, and a cluster's DNS; one in five also admits a whole team of 1,500 pods, and one in
// a hundred every pod of the cluster.
func policyThere(i int) *networkingv1.NetworkPolicy {
	ns := i % manyNamespaces
	selector := func(key, value string) *metav1.LabelSelector {
		return &metav1.LabelSelector{MatchLabels: map[string]string{key: value}}
	}
	app := func(n int) *metav1.LabelSelector {
		return selector("app.kubernetes.io/name", fmt.Sprintf("app-%d", n%8))
	}
	from := []networkingv1.NetworkPolicyPeer{{PodSelector: app(i + 1)}}
	switch {
	case i%100 == 0:
		from = append(from, networkingv1.NetworkPolicyPeer{NamespaceSelector: &metav1.LabelSelector{}})
	case i%5 == 0:
		from = append(from, networkingv1.NetworkPolicyPeer{NamespaceSelector: selector("team", team(i/5))})
	}
	port, dns, udp := intstr.FromString("http-main"), intstr.FromInt32(53), corev1.ProtocolUDP
	return &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespaceName(ns), Name: fmt.Sprintf("policy-%d", i)},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: *app(i / manyNamespaces),
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress},
			Ingress: []networkingv1.NetworkPolicyIngressRule{{
				From:  from,
				Ports: []networkingv1.NetworkPolicyPort{{Port: &port}},
			}},
			Egress: []networkingv1.NetworkPolicyEgressRule{{
				To: []networkingv1.NetworkPolicyPeer{
					{PodSelector: app(i + 2)},
					{IPBlock: &networkingv1.IPBlock{CIDR: "203.0.112.0/20", Except: []string{fmt.Sprintf("203.0.113.%d/32", i%256)}}},
				},
			}, {
				To:    []networkingv1.NetworkPolicyPeer{{NamespaceSelector: selector("kubernetes.io/metadata.name", "namespace-0"), PodSelector: app(0)}},
				Ports: []networkingv1.NetworkPolicyPort{{Protocol: &udp, Port: &dns}},
			}},
		},
	}
}

// churn replaces a fiftieth of the pods, and changes and restores a tenth of the policies.
func churn(ctx context.Context, client kubernetes.Interface) error {
	err := scale.InParallel(manyPods/50, func(i int) error {
		p := podThere(50 * i)
		now := int64(0)
		err := client.CoreV1().Pods(p.Namespace).Delete(ctx, p.Name, metav1.DeleteOptions{GracePeriodSeconds: &now})
		if err != nil {
			return err
		}
		return createPod(ctx, client, p)
	})
	if err != nil {
		return fmt.Errorf("replacing pods: %w", err)
	}
	err = scale.InParallel(policiesThere/10, func(i int) error {
		p := policyThere(10 * i)
		policies := client.NetworkingV1().NetworkPolicies(p.Namespace)
		if err := policies.Delete(ctx, p.Name, metav1.DeleteOptions{}); err != nil {
			return err
		}
		_, err := policies.Create(ctx, p, metav1.CreateOptions{})
		return err
	})
	if err != nil {
		return fmt.Errorf("replacing policies: %w", err)
	}
	return nil
}
