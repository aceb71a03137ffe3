package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/ringfence-io/ringfence/enforcer/arrival"
	"github.com/ringfence-io/ringfence/enforcer/cni"
	"github.com/ringfence-io/ringfence/enforcer/dataplane"
	"github.com/ringfence-io/ringfence/lab"
	"github.com/ringfence-io/ringfence/test/kit"
	"github.com/ringfence-io/ringfence/test/scale"
)

// starting is the namespace of pods that start.
const starting = "starting"

// BenchmarkArrival measures by how much the CNI plugin holds up pods that start: until the enforcer has answered, and with the plugin's own process. Each pod is
// isolated by a policy of its own namespace, among 100 pods of the node that are so already.
func BenchmarkArrival(b *testing.B) {
	kit.NeedNetfilter(b)
	t := tableOf("How long pods wait for their policy when they start, in ms: p50, p99", "back end", "at once", "the enforcer's answer", "with the plugin's process",
		"goal: the answer within as many ms (p99)")
	for _, backend := range []string{dataplane.Legacy, dataplane.NFT} {
		b.Run(backend, func(b *testing.B) { // which ends with its own API server
			server, client := startServer(b)
			kit.Must(b, fillNode(kit.Context(b, patience), client))
			socket := filepath.Join(server.dir, "run", "cni.sock")
			startEnforcer(b, server, "here", "--iptables-backend", backend, "--cni-socket", socket)
			a := &arrivals{client: client, socket: socket, plugin: filepath.Join(server.dir, cni.Type)}
			path, err := program()
			kit.Must(b, err)
			kit.Must(b, os.Symlink(path, a.plugin))
			for _, c := range []struct{ atOnce, rounds, goal int }{{1, 20, 100}, {10, 4, 100}, {50, 2, 250}} {
				var asked, called sample
				for range c.rounds {
					for _, how := range []struct {
						to  *sample
						add func(context.Context, arrival.Pod) error
					}{{&asked, a.ask}, {&called, a.call}} {
						took, err := a.round(kit.Context(b, patience), c.atOnce, how.add)
						kit.Must(b, err)
						*how.to = append(*how.to, took...)
					}
				}
				report(b, fmt.Sprintf("at-once=%d", c.atOnce), map[string]float64{
					"answer-p50-ms": asked.median(), "answer-p99-ms": asked.quantile(0.99), "plugin-p50-ms": called.median(), "plugin-p99-ms": called.quantile(0.99)})
				t.add(backend, fmt.Sprint(c.atOnce), fmt.Sprintf("%.0f, %.0f", asked.median(), asked.quantile(0.99)),
					fmt.Sprintf("%.0f, %.0f", called.median(), called.quantile(0.99)),
					fmt.Sprintf("%d: %s", c.goal, verdict(asked.quantile(0.99), float64(c.goal))))
			}
		})
	}
}

// fillNode makes a node with 100 isolated pods.
func fillNode(ctx context.Context, client kubernetes.Interface) error {
	_, err := client.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "here"}}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	if _, err = client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: starting}}, metav1.CreateOptions{}); err != nil {
		return err
	}
	same := []networkingv1.NetworkPolicyPeer{{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}}}
	if _, err = client.NetworkingV1().NetworkPolicies(starting).Create(ctx, &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "same"},
		Spec: networkingv1.NetworkPolicySpec{
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress},
			Ingress:     []networkingv1.NetworkPolicyIngressRule{{From: same}}, Egress: []networkingv1.NetworkPolicyEgressRule{{To: same}},
		},
	}, metav1.CreateOptions{}); err != nil {
		return err
	}
	return scale.InParallel(100, func(i int) error {
		pod, err := createStarting(ctx, client, fmt.Sprintf("there-%d", i))
		if err != nil {
			return err
		}
		pod.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIP: fmt.Sprintf("10.80.0.%d", i+1), PodIPs: []corev1.PodIP{{IP: fmt.Sprintf("10.80.0.%d", i+1)}}}
		_, err = client.CoreV1().Pods(starting).UpdateStatus(ctx, pod, metav1.UpdateOptions{})
		return err
	})
}

func createStarting(ctx context.Context, client kubernetes.Interface, name string) (*corev1.Pod, error) {
	return client.CoreV1().Pods(starting).Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": "web"}},
		Spec:       corev1.PodSpec{NodeName: "here", Containers: []corev1.Container{{Name: "main", Image: "none"}}},
	}, metav1.CreateOptions{})
}

// arrivals starts pods, as far as an enforcer can see.
type arrivals struct {
	client         kubernetes.Interface
	socket, plugin string
}

// round has some pods start at once, and returns how long each waited, in ms.
func (a *arrivals) round(ctx context.Context, atOnce int, add func(context.Context, arrival.Pod) error) (sample, error) {
	pods := make([]arrival.Pod, atOnce)
	if err := scale.InParallel(atOnce, func(i int) error {
		pod, err := createStarting(ctx, a.client, fmt.Sprintf("new-%d", i))
		if err == nil {
			pods[i] = arrival.Pod{Namespace: starting, Name: pod.Name, UID: string(pod.UID), Container: "c" + string(pod.UID),
				Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 80, 1, byte(i + 1)})}}
		}
		return err
	}); err != nil {
		return nil, err
	}
	time.Sleep(200 * time.Millisecond) // a sandbox takes that long at least, and the enforcer hears of the pod meanwhile
	took, errs := make(sample, atOnce), make([]error, atOnce)
	var all sync.WaitGroup
	for i, p := range pods {
		all.Go(func() {
			began := time.Now()
			errs[i] = add(ctx, p)
			took[i] = milliseconds(time.Since(began))
		})
	}
	all.Wait()
	return took, errors.Join(errors.Join(errs...), a.end(ctx, pods))
}

// end removes the pods.
func (a *arrivals) end(ctx context.Context, pods []arrival.Pod) error {
	var now int64
	for _, p := range pods {
		if err := a.client.CoreV1().Pods(starting).Delete(ctx, p.Name, metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
			return err
		}
		if err := arrival.Ask(ctx, a.socket, arrival.Request{Verb: arrival.Delete, Pod: p}); err != nil {
			return err
		}
	}
	return lab.Poll(ctx, func(ctx context.Context) error {
		_, err := a.client.CoreV1().Pods(starting).Get(ctx, pods[0].Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return errors.Join(err, errors.New("a pod is still there"))
	})
}

// ask asks as the plugin does.
func (a *arrivals) ask(ctx context.Context, p arrival.Pod) error {
	return arrival.Ask(ctx, a.socket, arrival.Request{Verb: arrival.Add, Pod: p, WaitMillis: time.Minute.Milliseconds()})
}

// call runs the plugin as a container runtime does.
func (a *arrivals) call(ctx context.Context, p arrival.Pod) error {
	cmd := exec.CommandContext(ctx, a.plugin)
	cmd.Env = append(os.Environ(), "CNI_COMMAND=ADD", "CNI_CONTAINERID="+p.Container, "CNI_NETNS=/proc/self/ns/net", "CNI_NETNS_OVERRIDE=1",
		"CNI_IFNAME=eth0", "CNI_PATH="+filepath.Dir(a.plugin),
		fmt.Sprintf("CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=%s;K8S_POD_NAME=%s;K8S_POD_UID=%s", p.Namespace, p.Name, p.UID))
	cmd.Stdin = bytes.NewReader(fmt.Appendf(nil, `{"cniVersion":"1.1.0","name":"net","type":%q,"socket":%q,"timeoutSeconds":60,
		"prevResult":{"cniVersion":"1.1.0","interfaces":[{"name":"veth0"},{"name":"eth0","sandbox":"/pod"}],"ips":[{"interface":1,"address":"%s/24"}]}}`,
		cni.Type, a.socket, p.Addrs[0]))
	if out, err := cmd.Output(); err != nil {
		return fmt.Errorf("running the plugin: %w: %s", err, out)
	}
	return nil
}
