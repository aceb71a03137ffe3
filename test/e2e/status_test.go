package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/lab"
	"github.com/ringfence-io/ringfence/lab/apiserver"
	"github.com/ringfence-io/ringfence/lab/probe"
	"github.com/ringfence-io/ringfence/test/kit"
)

// promiseLanes go beside each other, each in a namespace of its own.
const promiseLanes = 5

// promiseRounds is how often a policy is written, waited for and tried at once, in all lanes together. RINGFENCE_ROUNDS says otherwise.
func promiseRounds(t *testing.T) int {
	t.Helper()
	text := os.Getenv("RINGFENCE_ROUNDS")
	if text == "" {
		return 20
	}
	n, err := strconv.Atoi(text)
	kit.Must(t, err)
	return n
}

// TestProgrammedIsAPromise writes a policy, waits by kubectl until it is said to be programmed, and probes at once. In each round a new
// NetworkPolicy closes what was open, and a new ClusterNetworkPolicy opens it again; a change of that one's spec closes it once more. Three nodes
// run the pods. On a fourth one the enforcer is stopped, and a policy that selects a pod there too is not programmed and says where.
func TestProgrammedIsAPromise(t *testing.T) {
	l := start(t, lab.Options{Nodes: 4, Controller: true})
	lanes := make([]*lane, promiseLanes)
	for i := range lanes {
		lanes[i] = newLane(t, l, fmt.Sprintf("lane-%d", i))
	}
	everywhere := newLane(t, l, "everywhere", "n4")
	paused := l.Node("n4")
	kit.Must(t, syscall.Kill(paused.EnforcerPID(), syscall.SIGSTOP))
	resumed := false
	resume := func() {
		if !resumed {
			resumed = true
			kit.Must(t, syscall.Kill(paused.EnforcerPID(), syscall.SIGCONT))
		}
	}
	t.Cleanup(resume)
	kit.Must(t, l.Apply(kit.Context(t, patience), []byte(deny(everywhere.namespace, "late"))))
	kubectl(t, l, "wait", "-n", everywhere.namespace, "--for=create", "policyenforcement/late", "--timeout=30s")
	kubectl(t, l, "wait", "-n", everywhere.namespace, `--for=jsonpath={.status.nodes.programmed}=3`, "policyenforcement/late", "--timeout=30s")

	rounds := promiseRounds(t)
	var all sync.WaitGroup
	var wrong, probes atomic.Int64
	for i, own := range lanes {
		all.Go(func() {
			for round := i; round < rounds; round += promiseLanes {
				own.round(t, round, &probes, &wrong)
			}
		})
	}
	all.Wait()
	t.Logf("%d rounds of three changes, %d probes at once after them, %d wrong", rounds, probes.Load(), wrong.Load())

	what := kubectl(t, l, "get", "-n", everywhere.namespace, "policyenforcement/late",
		`-o=jsonpath={.status.conditions[?(@.type=="Programmed")].status} {.status.nodes.notProgrammed[*].name} {.status.conditions[?(@.type=="Programmed")].message}`)
	if !strings.HasPrefix(what, "False n4 1 of 4 nodes do not enforce generation 1: n4") {
		t.Errorf("with the enforcer of n4 stopped, the condition says: %s", what)
	}
	resume()
	kubectl(t, l, "wait", "-n", everywhere.namespace, "--for=condition=Programmed", "policyenforcement/late", "--timeout=60s")
	everywhere.expect(t, false, "once n4 enforces too", &probes, &wrong)
}

// lane is a namespace with a server on each of some nodes, and a client on one.
type lane struct {
	lab       *lab.Lab
	namespace string
	client    *lab.Pod
	servers   []*lab.Pod
}

func newLane(t *testing.T, l *lab.Lab, namespace string, more ...string) *lane {
	t.Helper()
	return newLaneOn(t, l, namespace, append([]string{"n1", "n2", "n3"}, more...)...)
}

// newLaneOn has its servers on these nodes, and the client on n1.
func newLaneOn(t *testing.T, l *lab.Lab, namespace string, nodes ...string) *lane {
	t.Helper()
	own := &lane{lab: l, namespace: namespace}
	_, err := l.Client.CoreV1().Namespaces().Create(kit.Context(t, patience), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{})
	kit.Must(t, err)
	run := func(name, node string, labels map[string]string, ports ...corev1.ContainerPort) *lab.Pod {
		pod, err := l.RunPod(kit.Context(t, patience), &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: labels},
			Spec:       corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "main", Image: "lab", Ports: ports}}},
		})
		kit.Must(t, err)
		return pod
	}
	own.client = run("client", "n1", nil)
	for _, node := range nodes {
		own.servers = append(own.servers, run("server-"+node, node, map[string]string{"app": "server"}, port(corev1.ProtocolTCP, 8080)))
	}
	return own
}

// deny is a NetworkPolicy that lets nothing reach the servers of a namespace.
func deny(namespace, name string) string {
	return fmt.Sprintf(`
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: %s, name: %s}
spec: {podSelector: {matchLabels: {app: server}}, policyTypes: [Ingress]}
`, namespace, name)
}

// admin is a ClusterNetworkPolicy that decides about all traffic to the servers of a namespace.
func admin(namespace, name, action string) string {
	return fmt.Sprintf(`
apiVersion: policy.ringfence.io/v1alpha1
kind: ClusterNetworkPolicy
metadata: {name: %s}
spec:
  tier: Admin
  priority: 10
  subject: {pods: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: %s}}, podSelector: {matchLabels: {app: server}}}}
  ingress: [{action: %s, from: [{namespaces: {}}]}]
`, name, namespace, action)
}

func (own *lane) round(t *testing.T, round int, probes, wrong *atomic.Int64) {
	closing, opening := fmt.Sprintf("close-%d", round), fmt.Sprintf("open-%d", round)
	kit.Must(t, own.lab.Apply(kit.Context(t, patience), []byte(deny(own.namespace, closing))))
	kubectl(t, own.lab, "wait", "-n", own.namespace, "--for=create", "policyenforcement/"+closing, "--timeout=30s")
	kubectl(t, own.lab, "wait", "-n", own.namespace, "--for=condition=Programmed", "policyenforcement/"+closing, "--timeout=30s")
	own.expect(t, false, "behind NetworkPolicy "+closing, probes, wrong)

	const ours = "clusternetworkpolicies.policy.ringfence.io/"
	for _, step := range []struct {
		action  string
		allowed bool
	}{{"Accept", true}, {"Deny", false}} {
		kit.Must(t, own.lab.Apply(kit.Context(t, patience), []byte(admin(own.namespace, opening, step.action))))
		kubectl(t, own.lab, "wait", "--for=condition=Programmed", ours+opening, "--timeout=30s")
		own.expect(t, step.allowed, fmt.Sprintf("behind ClusterNetworkPolicy %s with action %s", opening, step.action), probes, wrong)
	}
	kit.Must(t, own.lab.Delete(kit.Context(t, patience), []byte(deny(own.namespace, closing)+"---"+admin(own.namespace, opening, "Deny"))))
	kit.Must(t, lab.Poll(kit.Context(t, patience), func(context.Context) error { // what is gone has no condition
		for _, s := range own.servers {
			for _, result := range own.lab.Probe(own.client, s, policy.TCP, 8080, probe.Patience{Timeout: 300 * time.Millisecond, Retry: 20 * time.Millisecond}) {
				if result.Outcome != probe.Reached {
					return fmt.Errorf("%s is not reached after its policies have been deleted: %s", s.Name, result)
				}
			}
		}
		return nil
	}))
}

// expect tries all servers at the same moment, once: what is allowed is to be reached at the first attempt.
func (own *lane) expect(t *testing.T, allowed bool, when string, probes, wrong *atomic.Int64) {
	once := probe.Expect(allowed)
	once.Retry = once.Timeout
	var all sync.WaitGroup
	for _, s := range own.servers {
		all.Go(func() {
			for family, result := range own.lab.Probe(own.client, s, policy.TCP, 8080, once) {
				probes.Add(1)
				if (result.Outcome == probe.Reached) != allowed {
					wrong.Add(1)
					t.Errorf("%s, over %s: %s on %s: %s, want reached: %t", when, family, s.Name, s.Node.Name, result, allowed)
				}
			}
		})
	}
	all.Wait()
}

// kubectl runs kubectl as an administrator and returns what it printed.
func kubectl(t *testing.T, l *lab.Lab, args ...string) string {
	t.Helper()
	dir, err := apiserver.Assets()
	kit.Must(t, err)
	out, err := exec.CommandContext(kit.Context(t, patience), filepath.Join(dir, "kubectl"), append([]string{"--kubeconfig", l.Kubeconfig}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}
