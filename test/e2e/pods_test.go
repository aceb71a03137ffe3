package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/lab"
	"github.com/ringfence-io/ringfence/lab/cni"
	"github.com/ringfence-io/ringfence/lab/kubelet"
	"github.com/ringfence-io/ringfence/lab/probe"
	"github.com/ringfence-io/ringfence/test/kit"
)

// manifests isolate a server, which only clients reach, by its port 80 only. The server has two host ports.
const manifests = `
apiVersion: v1
kind: Namespace
metadata: {name: a}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: server, namespace: a}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress:
  - from: [{podSelector: {matchLabels: {app: client}}}]
    ports: [{port: web}]
  - from: [{ipBlock: {cidr: 192.0.2.1/32}}]
    ports: [{port: 80}]
---
apiVersion: v1
kind: Pod
metadata: {name: server, namespace: a, labels: {app: server}}
spec:
  containers:
  - name: main
    image: none
    ports:
    - {name: web, containerPort: 80, hostPort: 8080}
    - {name: admin, containerPort: 81, hostPort: 8081}
`

// TestPodsComeAndGo follows pods through their lives, with real kubelet order, under a policy.
func TestPodsComeAndGo(t *testing.T) {
	for kind, backend := range map[cni.Kind]string{cni.Bridge: "nft", cni.PTP: "legacy"} {
		t.Run(string(kind)+"/"+backend, func(t *testing.T) {
			l := start(t, lab.Options{CNI: kind, Backend: backend})
			kit.Must(t, l.Apply(kit.Context(t, patience), []byte(manifests)))
			server, err := l.WaitPod(kit.Context(t, patience), "a", "server")
			kit.Must(t, err)
			client := run(t, l, "client", "", map[string]string{"app": "client"}, nil)
			stranger := run(t, l, "stranger", "", nil, nil)
			reaches(t, l, client, server, true)
			reaches(t, l, stranger, server, false)

			t.Run("a label that changes counts", func(t *testing.T) {
				label(t, l, "stranger", `{"metadata": {"labels": {"app": "client"}}}`)
				reaches(t, l, stranger, server, true)
				label(t, l, "stranger", `{"metadata": {"labels": {"app": null}}}`)
				reaches(t, l, stranger, server, false)
			})
			t.Run("who inherits the address of a finished pod inherits no right", func(t *testing.T) {
				job := run(t, l, "job", "", map[string]string{"app": "client"}, nil)
				reaches(t, l, job, server, true)
				label(t, l, "job", fmt.Sprintf(`{"metadata": {"annotations": {%q: "Succeeded"}}}`, kubelet.Exit))
				heir := run(t, l, "heir", job.Node.Name, nil, map[string]string{kubelet.Addresses: join(job.Addresses)})
				if join(heir.Addresses) != join(job.Addresses) {
					t.Fatalf("the heir has %s, not %s", heir.Addresses, job.Addresses)
				}
				reaches(t, l, heir, server, false)
			})
			t.Run("a pod that is being deleted stays isolated", func(t *testing.T) {
				last := run(t, l, "last", "", map[string]string{"app": "server"}, map[string]string{kubelet.Linger: "25s"})
				reaches(t, l, stranger, last, false)
				kit.Must(t, l.Client.CoreV1().Pods("a").Delete(kit.Context(t, patience), "last", metav1.DeleteOptions{}))
				reaches(t, l, client, last, true)
				reaches(t, l, stranger, last, false)
				var now int64
				kit.Must(t, l.Client.CoreV1().Pods("a").Delete(kit.Context(t, patience), "last", metav1.DeleteOptions{GracePeriodSeconds: &now}))
			})
			t.Run("a host port is judged by the pod's port", func(t *testing.T) {
				node := server.Node.Addresses[0] // a packet to it is the pod's own after destination NAT
				for port, want := range map[uint16]probe.Outcome{8080: probe.Reached, 8081: probe.TimedOut} {
					flow := probe.Flow{Protocol: policy.TCP, Dst: node, Port: port}
					if got := probe.Dial(l.World, flow, probe.Expect(want == probe.Reached)); got.Outcome != want {
						t.Errorf("%s: %s, not %s", flow, got, want)
					}
				}
			})
			t.Run("without its policy a pod is open", func(t *testing.T) {
				kit.Must(t, l.Client.NetworkingV1().NetworkPolicies("a").Delete(kit.Context(t, patience), "server", metav1.DeleteOptions{}))
				reaches(t, l, stranger, server, true)
			})
		})
	}
}

// reaches waits until from reaches to's port 80 over every family, or over none.
func reaches(t *testing.T, l *lab.Lab, from, to *lab.Pod, want bool) {
	t.Helper()
	kit.Must(t, lab.Poll(kit.Context(t, patience), func(context.Context) error {
		results := l.Probe(from, to, policy.TCP, 80, probe.Expect(want))
		if len(results) != 2 {
			return fmt.Errorf("%s and %s have %d families in common", from.Name, to.Name, len(results))
		}
		for family, got := range results {
			if (got.Identity == to.Host.Name()) != want {
				return fmt.Errorf("%s -> %s over %s: %s", from.Name, to.Name, family, got)
			}
		}
		return nil
	}))
}

// run starts a pod in namespace a that listens on port 80, on a node if that is named.
func run(t *testing.T, l *lab.Lab, name string, node string, labels, annotations map[string]string) *lab.Pod {
	t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: name, Labels: labels, Annotations: annotations},
		Spec: corev1.PodSpec{
			NodeName: node,
			Containers: []corev1.Container{{
				Name: "main", Image: "none", Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: 80}},
			}},
		},
	}
	p, err := l.RunPod(kit.Context(t, patience), pod)
	kit.Must(t, err)
	return p
}

func label(t *testing.T, l *lab.Lab, name, patch string) {
	t.Helper()
	_, err := l.Client.CoreV1().Pods("a").Patch(kit.Context(t, patience), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	kit.Must(t, err)
}

func join(addrs []netip.Addr) string {
	var texts []string
	for _, addr := range addrs {
		texts = append(texts, addr.String())
	}
	return strings.Join(texts, ",")
}
