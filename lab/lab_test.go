package lab_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/lab"
	"github.com/ringfence-io/ringfence/lab/cni"
	"github.com/ringfence-io/ringfence/lab/kubelet"
	"github.com/ringfence-io/ringfence/lab/probe"
	"github.com/ringfence-io/ringfence/test/kit"
)

func TestImpossibleOptionsAreNamed(t *testing.T) {
	err := lab.Options{Nodes: 1000, CNI: "carrier-pigeon"}.Defaults().Validate()
	for _, want := range []string{"1000 nodes", `CNI plugin "carrier-pigeon"`, "no enforcer"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q: %v", want, err)
		}
	}
}

// TestPods shows what a policy enforcer can see of a pod's life, without one.
func TestPods(t *testing.T) {
	for _, kind := range cni.Kinds {
		t.Run(string(kind), func(t *testing.T) { testPods(t, kind) })
	}
}

func testPods(t *testing.T, kind cni.Kind) {
	l := start(t, lab.Options{CNI: kind, NoEnforcer: true})
	namespace(t, l, "a")
	here := run(t, l, pod("a", "here", onNode("n1")))
	there := run(t, l, pod("a", "there", onNode("n2")))

	t.Run("pods reach each other across nodes", func(t *testing.T) {
		for _, protocol := range []policy.Protocol{policy.TCP, policy.UDP, policy.SCTP} {
			for family, got := range l.Probe(here, there, protocol, 80, probe.Expect(true)) {
				if got.Identity != there.Host.Name() {
					t.Errorf("%s %s: %s", family, protocol, got)
				}
			}
		}
	})
	t.Run("the addresses are the node's own range's", func(t *testing.T) {
		for i, addr := range there.Addresses {
			if !there.Node.PodCIDRs[i].Contains(addr) {
				t.Errorf("%s is not in %s", addr, there.Node.PodCIDRs[i])
			}
		}
	})
	t.Run("a written status stays", func(t *testing.T) {
		// Another pod's whole life is time enough for a status that is written again and again to show.
		run(t, l, pod("a", "passing"))
		kit.Must(t, l.DeletePod(kit.Context(t, time.Minute), "a", "passing"))
		now, err := l.Pod(kit.Context(t, time.Minute), "a", "here")
		kit.Must(t, err)
		if diff := cmp.Diff(here.Object.ResourceVersion, now.Object.ResourceVersion); diff != "" {
			t.Errorf("the pod was written again:\n%s", cmp.Diff(here.Object, now.Object))
		}
	})
	t.Run("pods without a node are spread", func(t *testing.T) {
		nodes := map[string]bool{}
		for i := range 4 {
			nodes[run(t, l, pod("a", fmt.Sprintf("spread-%d", i))).Node.Name] = true
		}
		if len(nodes) != 2 {
			t.Errorf("four pods are on nodes %v only", nodes)
		}
	})
	t.Run("a host-network pod has the node's addresses", func(t *testing.T) {
		p := run(t, l, pod("a", "hostly", onNode("n2"), func(p *corev1.Pod) { p.Spec.HostNetwork = true }))
		if diff := cmp.Diff(l.Node("n2").Addresses, p.Addresses, cmp.Comparer(equal[netip.Addr])); diff != "" {
			t.Error(diff)
		}
		if got := l.Probe(here, p, policy.TCP, 80, probe.Expect(true))[iptables.IPv4]; got.Identity != l.Node("n2").Host.Name() {
			t.Error(got)
		}
		kit.Must(t, l.DeletePod(kit.Context(t, time.Minute), "a", "hostly"))
	})
	t.Run("sidecars listen, plain init containers don't", func(t *testing.T) {
		always := corev1.ContainerRestartPolicyAlways
		p := run(t, l, pod("a", "sidecar", func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{
				{Name: "side", Image: "none", RestartPolicy: &always, Ports: []corev1.ContainerPort{{ContainerPort: 81}}},
				{Name: "init", Image: "none", Ports: []corev1.ContainerPort{{ContainerPort: 82}}},
			}
		}))
		want := map[uint16]probe.Outcome{80: probe.Reached, 81: probe.Reached, 82: probe.Refused}
		for port, outcome := range want {
			if got := l.Probe(here, p, policy.TCP, port, probe.Expect(true))[iptables.IPv6]; got.Outcome != outcome {
				t.Errorf("port %d: %s", port, got)
			}
		}
	})
	t.Run("a finished pod's address can be another's while its status still names it", func(t *testing.T) {
		first := run(t, l, pod("a", "job", onNode("n1")))
		finish(t, l, "a", "job", corev1.PodSucceeded)
		second := run(t, l, pod("a", "heir", onNode("n1"), withAddresses(first.Addresses...)))
		if diff := cmp.Diff(first.Addresses, second.Addresses, cmp.Comparer(equal[netip.Addr])); diff != "" {
			t.Error(diff)
		}
		job, err := l.Client.CoreV1().Pods("a").Get(kit.Context(t, time.Minute), "job", metav1.GetOptions{})
		kit.Must(t, err)
		if diff := cmp.Diff(first.Object.Status.PodIPs, job.Status.PodIPs); diff != "" {
			t.Error(diff)
		}
		if got := l.Probe(there, second, policy.TCP, 80, probe.Expect(true))[iptables.IPv4]; got.Identity != second.Host.Name() {
			t.Error(got)
		}
	})
	t.Run("a pod that lingers serves until its time is up", func(t *testing.T) {
		p := run(t, l, pod("a", "slow", func(p *corev1.Pod) { p.Annotations = map[string]string{kubelet.Linger: "25s"} }))
		kit.Must(t, l.Client.CoreV1().Pods("a").Delete(kit.Context(t, time.Minute), "slow", metav1.DeleteOptions{}))
		if got := l.Probe(here, p, policy.TCP, 80, probe.Expect(true))[iptables.IPv4]; got.Outcome != probe.Reached {
			t.Error(got)
		}
		var now int64
		kit.Must(t, l.Client.CoreV1().Pods("a").Delete(kit.Context(t, time.Minute), "slow", metav1.DeleteOptions{GracePeriodSeconds: &now}))
	})
	t.Run("a pod made anew under its name is another pod", func(t *testing.T) {
		var now int64
		old := run(t, l, pod("a", "phoenix"))
		kit.Must(t, l.Client.CoreV1().Pods("a").Delete(kit.Context(t, time.Minute), "phoenix", metav1.DeleteOptions{GracePeriodSeconds: &now}))
		again := run(t, l, pod("a", "phoenix"))
		if got := l.Probe(here, again, policy.TCP, 80, probe.Expect(true))[iptables.IPv4]; got.Outcome != probe.Reached {
			t.Errorf("%s, formerly %s: %s", again.Addresses, old.Addresses, got)
		}
	})
	t.Run("the longest names", func(t *testing.T) {
		long := strings.Repeat("n", 63)
		namespace(t, l, long)
		one := run(t, l, pod(long, strings.Repeat("p", 252)+"1"))
		two := run(t, l, pod(long, strings.Repeat("p", 252)+"2"))
		if got := l.Probe(one, two, policy.TCP, 80, probe.Expect(true))[iptables.IPv4]; got.Identity != two.Host.Name() {
			t.Error(got)
		}
		kit.Must(t, l.DeleteNamespace(kit.Context(t, time.Minute), long))
	})
	t.Run("a deleted namespace takes its pods along", func(t *testing.T) {
		kit.Must(t, l.DeleteNamespace(kit.Context(t, time.Minute), "a"))
		pods, err := l.WaitReady(kit.Context(t, time.Minute))
		kit.Must(t, err)
		if len(pods) > 0 {
			t.Errorf("%d pods are left", len(pods))
		}
	})
	t.Run("nothing is left", func(t *testing.T) {
		prefix, dir, pids := strings.TrimSuffix(l.World.Name(), "world"), l.Dir, l.API.PIDs()
		kit.Must(t, l.Close())
		entries, err := os.ReadDir("/run/netns")
		kit.Must(t, err)
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), prefix) {
				t.Errorf("network namespace %s is left", e.Name())
			}
		}
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("directory %s is left (%v)", dir, err)
		}
		for _, pid := range pids {
			if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); !os.IsNotExist(err) {
				t.Errorf("process %d is left (%v)", pid, err)
			}
		}
	})
}

func TestOneFamily(t *testing.T) {
	l := start(t, lab.Options{Families: []iptables.Family{iptables.IPv6}, NoEnforcer: true})
	namespace(t, l, "a")
	one := run(t, l, pod("a", "one"))
	two := run(t, l, pod("a", "two"))
	if len(one.Addresses) != 1 || !one.Addresses[0].Is6() {
		t.Errorf("the pod has addresses %s", one.Addresses)
	}
	if got := l.Probe(one, two, policy.TCP, 80, probe.Expect(true))[iptables.IPv6]; got.Outcome != probe.Reached {
		t.Error(got)
	}
}

// start starts a lab that ends with the test.
func start(t *testing.T, opts lab.Options) *lab.Lab {
	t.Helper()
	kit.NeedRoot(t)
	opts.Report = func(err error) { t.Log(err) }
	l, err := lab.Start(kit.Context(t, time.Minute), opts)
	kit.Must(t, err)
	t.Cleanup(func() { kit.Must(t, l.Close()) })
	return l
}

// namespace creates one.
func namespace(t *testing.T, l *lab.Lab, name string) {
	t.Helper()
	object := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	_, err := l.Client.CoreV1().Namespaces().Create(kit.Context(t, time.Minute), object, metav1.CreateOptions{})
	kit.Must(t, err)
}

// pod listens on port 80 of all three protocols.
func pod(namespace, name string, with ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{
			Name: "main", Image: "none",
			Ports: []corev1.ContainerPort{
				{ContainerPort: 80, Protocol: corev1.ProtocolTCP},
				{ContainerPort: 80, Protocol: corev1.ProtocolUDP},
				{ContainerPort: 80, Protocol: corev1.ProtocolSCTP},
			},
		}}},
	}
	for _, change := range with {
		change(p)
	}
	return p
}

func onNode(name string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{corev1.LabelHostname: name} }
}

func withAddresses(addrs ...netip.Addr) func(*corev1.Pod) {
	var texts []string
	for _, addr := range addrs {
		texts = append(texts, addr.String())
	}
	return func(p *corev1.Pod) { p.Annotations = map[string]string{kubelet.Addresses: strings.Join(texts, ",")} }
}

func run(t *testing.T, l *lab.Lab, object *corev1.Pod) *lab.Pod {
	t.Helper()
	var p *lab.Pod
	// A name is free again only when the pod that had it is gone.
	kit.Must(t, lab.Poll(kit.Context(t, time.Minute), func(ctx context.Context) (err error) {
		p, err = l.RunPod(ctx, object)
		if err != nil && !apierrors.IsAlreadyExists(err) {
			t.Fatal(err)
		}
		return err
	}))
	return p
}

// finish ends a pod's containers for good.
func finish(t *testing.T, l *lab.Lab, namespace, name string, phase corev1.PodPhase) {
	t.Helper()
	patch := fmt.Sprintf(`{"metadata": {"annotations": {%q: %q}}}`, kubelet.Exit, phase)
	pods := l.Client.CoreV1().Pods(namespace)
	_, err := pods.Patch(kit.Context(t, time.Minute), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	kit.Must(t, err)
	kit.Must(t, lab.Poll(kit.Context(t, time.Minute), func(ctx context.Context) error {
		p, err := pods.Get(ctx, name, metav1.GetOptions{})
		if err == nil && p.Status.Phase != phase {
			err = fmt.Errorf("pod %s/%s is %s", namespace, name, p.Status.Phase)
		}
		return err
	}))
}

func equal[T comparable](a, b T) bool { return a == b }
