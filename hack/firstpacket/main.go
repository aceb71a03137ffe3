// Firstpacket measures in any cluster what docs/first-packet.md promises: it starts pods whose first act is a connection, and says how many that policy denies
// got through, how many that it allows on the same node came about with the first packet, and after how long another node let the pods in, the start of
// their curl included.
//
//	go run ./hack/firstpacket --kubeconfig FILE --pods 1000
//
// It makes a namespace of its own and deletes it at the end. The image needs sh, curl and agnhost, as that of upstream's tests has.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

const defaultImage = "registry.k8s.io/e2e-test-images/agnhost:2.53"

// port is where servers answer.
const port = "8080"

// What pods do. curl's time_connect is in seconds; /proc/uptime counts hundredths of a second.
const (
	clientScript = `
curl -s -o /dev/null --connect-timeout 60 -w '%{time_connect}' http://$NEAR/hostname > /tmp/near &
read from _ < /proc/uptime
tries=1
until curl -s -o /dev/null --connect-timeout 0.2 http://$FAR/hostname; do tries=$((tries + 1)); done
read to _ < /proc/uptime
wait
echo "client $(cat /tmp/near) $from $to $tries" > /dev/termination-log`
	mutedScript = `
if curl -s -o /dev/null --connect-timeout 3 http://$OPEN/hostname; then through=1; else through=0; fi
echo "muted $through" > /dev/termination-log`
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var m measurement
	kubeconfig := flag.String("kubeconfig", os.Getenv("RINGFENCE_KUBECONFIG"), "kubeconfig file; without it RINGFENCE_KUBECONFIG, then KUBECONFIG")
	flag.IntVar(&m.pods, "pods", 100, "how many pods to start")
	flag.IntVar(&m.atOnce, "at-once", 20, "how many of them there are at a time")
	flag.StringVar(&m.image, "image", defaultImage, "image of the pods")
	strict := flag.Bool("strict", false, "fail unless all that is promised holds")
	flag.Parse()
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = *kubeconfig
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	if err == nil {
		config.QPS = -1
		m.client, err = kubernetes.NewForConfig(config)
	}
	var results tally
	if err == nil {
		results, err = m.run(ctx)
		fmt.Println(results)
	}
	if err == nil && *strict {
		err = results.broken()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// measurement is one run.
type measurement struct {
	client       kubernetes.Interface
	pods, atOnce int
	image        string

	namespace       string
	node            string // where pods start
	near, far, open string // servers, as address:port
}

// run measures, and returns what came of as many pods as could be started.
func (m *measurement) run(ctx context.Context) (results tally, err error) {
	fresh := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "first-packet-"}}
	ns, err := m.client.CoreV1().Namespaces().Create(ctx, fresh, metav1.CreateOptions{})
	if err != nil {
		return results, fmt.Errorf("making a namespace: %w", err)
	}
	m.namespace = ns.Name
	defer func() {
		ended := m.client.CoreV1().Namespaces().Delete(context.WithoutCancel(ctx), m.namespace, metav1.DeleteOptions{})
		err = errors.Join(err, ended)
	}()
	if err := m.prepare(ctx); err != nil {
		return results, err
	}
	for started := 0; started < m.pods; {
		n := min(m.atOnce, m.pods-started)
		if err := m.wave(ctx, started, n, &results); err != nil {
			return results, err
		}
		started += n
	}
	return results, nil
}

// prepare writes the policies, and then starts the servers: near and guarded on one node, far and guarded on another, and open.
func (m *measurement) prepare(ctx context.Context) error {
	nodes, err := m.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("listing nodes: %w", err)
	}
	var usable []string
	for _, n := range nodes.Items {
		if !n.Spec.Unschedulable && len(n.Spec.Taints) == 0 {
			usable = append(usable, n.Name)
		}
	}
	if len(usable) < 2 {
		return fmt.Errorf("the cluster has %d nodes that take pods: two are needed", len(usable))
	}
	m.node = usable[0]
	selected := func(app string) metav1.LabelSelector {
		return metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}
	}
	clients := selected("client")
	for name, spec := range map[string]networkingv1.NetworkPolicySpec{
		"guarded": {
			PodSelector: selected("guarded"),
			Ingress:     []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{{PodSelector: &clients}}}},
		},
		"muted": {PodSelector: selected("muted"), PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}},
	} {
		np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec}
		if _, err := m.client.NetworkingV1().NetworkPolicies(m.namespace).Create(ctx, np, metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("writing policy %s: %w", name, err)
		}
	}
	for _, s := range []struct {
		name, node, app string
		address         *string
	}{{"near", usable[0], "guarded", &m.near}, {"far", usable[1], "guarded", &m.far}, {"open", usable[0], "open", &m.open}} {
		if err := m.start(ctx, s.name, s.node, s.app, []string{"/agnhost", "netexec", "--http-port=" + port}); err != nil {
			return err
		}
		pod, err := m.until(ctx, s.name, func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodRunning && p.Status.PodIP != "" })
		if err != nil {
			return err
		}
		*s.address = net.JoinHostPort(pod.Status.PodIP, port)
	}
	return nil
}

// wave starts pods, every other one of them denied, waits until they have acted, and deletes them.
func (m *measurement) wave(ctx context.Context, first, n int, results *tally) error {
	names := make([]string, n)
	for i := range names {
		app, script := "client", clientScript
		if i%2 == 1 {
			app, script = "muted", mutedScript
		}
		names[i] = fmt.Sprintf("%s-%d", app, first+i)
		if err := m.start(ctx, names[i], m.node, app, []string{"sh", "-c", script}); err != nil {
			return err
		}
	}
	for _, name := range names {
		pod, err := m.until(ctx, name, func(p *corev1.Pod) bool {
			return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
		})
		if err != nil {
			return err
		}
		if err := results.add(pod); err != nil {
			return err
		}
	}
	now := int64(0)
	err := m.client.CoreV1().Pods(m.namespace).DeleteCollection(ctx, metav1.DeleteOptions{GracePeriodSeconds: &now},
		metav1.ListOptions{LabelSelector: "app in (client, muted)"})
	if err != nil {
		return fmt.Errorf("deleting pods: %w", err)
	}
	return nil
}

func (m *measurement) start(ctx context.Context, name, node, app string, command []string) error {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": app}},
		Spec: corev1.PodSpec{
			NodeName: node, RestartPolicy: corev1.RestartPolicyNever, AutomountServiceAccountToken: new(bool), TerminationGracePeriodSeconds: new(int64),
			Containers: []corev1.Container{{Name: "main", Image: m.image, Command: command, Env: []corev1.EnvVar{
				{Name: "NEAR", Value: m.near}, {Name: "FAR", Value: m.far}, {Name: "OPEN", Value: m.open},
			}}},
		},
	}
	if _, err := m.client.CoreV1().Pods(m.namespace).Create(ctx, pod, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("starting pod %s: %w", name, err)
	}
	return nil
}

// patience is for a pod that is to start and end.
const patience = 5 * time.Minute

// until waits until a pod is as it should be.
func (m *measurement) until(ctx context.Context, name string, done func(*corev1.Pod) bool) (pod *corev1.Pod, err error) {
	err = wait.PollUntilContextTimeout(ctx, 200*time.Millisecond, patience, true, func(ctx context.Context) (bool, error) {
		pod, err = m.client.CoreV1().Pods(m.namespace).Get(ctx, name, metav1.GetOptions{})
		return err == nil && done(pod), err
	})
	if err != nil {
		return nil, fmt.Errorf("waiting for pod %s: %w", name, err)
	}
	return pod, nil
}
