package bench

import (
	"context"
	"flag"
	"fmt"
	"net/netip"
	"strings"
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

var largeFlag = flag.Bool("bench.large", false, "whether BenchmarkMemoryLarge is run, which needs 12 GB and some minutes")

const (
	podsPerNode = 110
	teams       = 10
	weighedNode = "node-0"
)

// population is the cluster whose enforcer is weighed.
type population struct {
	pods, namespaces, policies int
	// ofNode is how many namespaces the pods of a node are in.
	ofNode int
	// teams has policies admit the pods of a team of namespaces, or all pods. Without it they name pods of their own namespace, and the cluster's DNS.
	teams bool
	goal  int // of the peak, in MB
}

var (
	ordinaryCluster = population{pods: 15_000, namespaces: 200, policies: 500, ofNode: podsPerNode, teams: true, goal: 60}
	largeCluster    = population{pods: 100_000, namespaces: 2_000, policies: 10_000, ofNode: 20, goal: 80}
)

// goalOfAll is the goal in MB where one policy of the node selects all pods of the large cluster.
const goalOfAll = 150

func (p population) String() string {
	return fmt.Sprintf("%d pods, %d namespaces, %d policies; %d pods on the node, in %d namespaces", p.pods, p.namespaces, p.policies, podsPerNode, p.ofNode)
}

// BenchmarkMemory weighs the enforcer of one node of a cluster: as it starts and reads everything at once, and when for a
// while it has followed pods and policies that come, change and go.
func BenchmarkMemory(b *testing.B) {
	server, client := startServer(b)
	ordinaryCluster.there(b, client)
	ordinaryCluster.weigh(b, server, client, "", ordinaryCluster.goal)
}

// BenchmarkMemoryLarge does so in a cluster of 100,000 pods: with policies that stay within their namespaces, and with one that selects all pods.
func BenchmarkMemoryLarge(b *testing.B) {
	if !*largeFlag {
		b.Skip("making 100,000 pods takes some minutes: ask for it by -bench.large")
	}
	server, client := startServer(b)
	largeCluster.there(b, client)
	largeCluster.weigh(b, server, client, "policies stay within namespaces", largeCluster.goal)
	all := largeCluster.policy(0)
	all.Name, all.Spec.Ingress = "admits-all", []networkingv1.NetworkPolicyIngressRule{{
		From: []networkingv1.NetworkPolicyPeer{{NamespaceSelector: &metav1.LabelSelector{}}},
	}}
	_, err := client.NetworkingV1().NetworkPolicies(all.Namespace).Create(kit.Context(b, patience), all, metav1.CreateOptions{})
	kit.Must(b, err)
	largeCluster.weigh(b, server, client, "one policy selects all pods", goalOfAll)
}

// there makes the cluster.
func (p population) there(b *testing.B, client kubernetes.Interface) {
	b.Helper()
	began := time.Now()
	kit.Must(b, p.fill(b.Context(), client))
	b.Logf("%s were there after %s", p, time.Since(began).Round(time.Second))
}

func (p population) weigh(b *testing.B, server *server, client kubernetes.Interface, what string, goal int) {
	b.Helper()
	e := startEnforcer(b, server, weighedNode)
	defer e.Stop(5 * time.Second)
	started, err := proc.UsageOf(e.PID())
	kit.Must(b, err)
	kit.Must(b, p.churn(b.Context(), client))
	time.Sleep(2 * resync) // until it has compared all that with the kernel
	churned, err := proc.UsageOf(e.PID())
	kit.Must(b, err)

	t := tableOf("Memory of the enforcer, in MB: "+p.String(), "", "peak (VmHWM)", "now (VmRSS)", "of it anonymous", "goal of the peak")
	for _, row := range []struct {
		name string
		at   proc.Usage
	}{{"started", started}, {"after changes", churned}} {
		name := row.name
		if what != "" {
			name = what + ": " + name
		}
		report(b, strings.ReplaceAll(name, " ", "-"), map[string]float64{"peak-MB": mb(row.at.Peak), "rss-MB": mb(row.at.Now)})
		t.add(name, fmt.Sprintf("%.1f", mb(row.at.Peak)), fmt.Sprintf("%.1f", mb(row.at.Now)), fmt.Sprintf("%.1f", mb(row.at.Anonymous)),
			fmt.Sprintf("%d: %s", goal, verdict(mb(row.at.Peak), float64(goal))))
	}
}

func mb(bytes int) float64 { return float64(bytes) / (1 << 20) }

// fill creates the namespaces, the policies, and the pods with the status that their kubelets would write.
func (p population) fill(ctx context.Context, client kubernetes.Interface) error {
	err := scale.InParallel(p.namespaces, func(i int) error {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespaceName(i), Labels: map[string]string{"team": team(i)}}}
		_, err := client.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{})
		return err
	})
	if err != nil {
		return fmt.Errorf("creating namespaces: %w", err)
	}
	err = scale.InParallel(p.policies, func(i int) error {
		one := p.policy(i)
		_, err := client.NetworkingV1().NetworkPolicies(one.Namespace).Create(ctx, one, metav1.CreateOptions{})
		return err
	})
	if err != nil {
		return fmt.Errorf("creating policies: %w", err)
	}
	err = scale.InParallel(p.pods, func(i int) error { return createPod(ctx, client, p.pod(i)) })
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

// pod is the i-th pod, of the size that pods of real clusters have.
func (p population) pod(i int) *corev1.Pod {
	node := i / podsPerNode
	ns, round := (node*p.ofNode+i%podsPerNode%p.ofNode)%p.namespaces, i/p.namespaces+i%podsPerNode/p.ofNode
	app := fmt.Sprintf("app-%d", round%8)
	hash := fmt.Sprintf("%x", 0x5c9f7d64+ns*8+round%8)
	four := netip.AddrFrom4([4]byte{10, byte(64 + node>>8), byte(node), byte(2 + i%podsPerNode)})
	six := netip.MustParsePrefix("fd00:10::/64").Addr().As16()
	copy(six[12:], four.AsSlice())
	pod := &corev1.Pod{
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
			NodeName:   fmt.Sprintf("node-%d", node),
			Containers: []corev1.Container{container("main", 8080), container("sidecar", 9090)},
			Volumes:    []corev1.Volume{{Name: "tmp"}, {Name: "cache"}},
		},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, PodIP: four.String(),
			PodIPs: []corev1.PodIP{{IP: four.String()}, {IP: netip.AddrFrom16(six).String()}},
		},
	}
	for _, kind := range []corev1.PodConditionType{"PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"} {
		pod.Status.Conditions = append(pod.Status.Conditions,
			corev1.PodCondition{Type: kind, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()})
	}
	for _, c := range pod.Spec.Containers {
		started := true
		pod.Status.ContainerStatuses = append(pod.Status.ContainerStatuses, corev1.ContainerStatus{
			Name: c.Name, Image: c.Image, Ready: true, Started: &started,
			ImageID:     fmt.Sprintf("registry.example.com/%s@sha256:%064x", c.Name, i),
			ContainerID: fmt.Sprintf("containerd://%064x", i),
			State:       corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Now()}},
		})
	}
	return pod
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

// policy is the i-th policy. Each isolates an application of a namespace in both directions. What they admit is applications
// of the same namespace, addresses outside, and a cluster's DNS; one in five also admits a whole team of 1,500 pods, and one in
// a hundred every pod of the cluster.
func (p population) policy(i int) *networkingv1.NetworkPolicy {
	ns := i % p.namespaces
	selector := func(key, value string) *metav1.LabelSelector {
		return &metav1.LabelSelector{MatchLabels: map[string]string{key: value}}
	}
	app := func(n int) *metav1.LabelSelector {
		return selector("app.kubernetes.io/name", fmt.Sprintf("app-%d", n%8))
	}
	from := []networkingv1.NetworkPolicyPeer{{PodSelector: app(i + 1)}}
	switch {
	case !p.teams:
	case i%100 == 0:
		from = append(from, networkingv1.NetworkPolicyPeer{NamespaceSelector: &metav1.LabelSelector{}})
	case i%5 == 0:
		from = append(from, networkingv1.NetworkPolicyPeer{NamespaceSelector: selector("team", team(i/5))})
	}
	port, dns, udp := intstr.FromString("http-main"), intstr.FromInt32(53), corev1.ProtocolUDP
	return &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespaceName(ns), Name: fmt.Sprintf("policy-%d", i)},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: *app(i / p.namespaces),
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

// churn replaces pods, and takes policies away and brings them again: a fiftieth of all pods and a tenth of all policies, and no more than these are of an
// ordinary cluster.
func (p population) churn(ctx context.Context, client kubernetes.Interface) error {
	pods, policies := ordinaryCluster.pods/50, ordinaryCluster.policies/10
	err := scale.InParallel(pods, func(i int) error {
		pod := p.pod(p.pods / pods * i)
		now := int64(0)
		err := client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &now})
		if err != nil {
			return err
		}
		return createPod(ctx, client, pod)
	})
	if err != nil {
		return fmt.Errorf("replacing pods: %w", err)
	}
	err = scale.InParallel(policies, func(i int) error {
		one := p.policy(p.policies / policies * i)
		policies := client.NetworkingV1().NetworkPolicies(one.Namespace)
		if err := policies.Delete(ctx, one.Name, metav1.DeleteOptions{}); err != nil {
			return err
		}
		_, err := policies.Create(ctx, one, metav1.CreateOptions{})
		return err
	})
	if err != nil {
		return fmt.Errorf("replacing policies: %w", err)
	}
	return nil
}
