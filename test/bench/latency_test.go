package bench

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/ringfence-io/ringfence/enforcer/dataplane"
	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/lab"
	"github.com/ringfence-io/ringfence/lab/cni"
	"github.com/ringfence-io/ringfence/test/kit"
	"github.com/ringfence-io/ringfence/test/scale"
)

// How often each change is made: in so many rounds, which go through all numbers of policies, so often in each.
const (
	changeRounds  = 2
	changesOfEach = 25
)

// load is what changes are made in.
type load struct {
	policies int
	// apart is how long nothing is written before a change. Without it each change follows the one before as soon as that is seen, and meets what the enforcer
	// still does for it: the other family, what nothing refers to any more, and the pause that it makes between syncs if changes have no end.
	apart time.Duration
}

// loads are those that are measured.
var loads = []load{{policies: 10}, {policies: 100}, {policies: 1000}, {policies: 1000, apart: 300 * time.Millisecond}}

// String is "1000", or "1000 apart".
func (l load) String() string {
	if l.apart > 0 {
		return fmt.Sprint(l.policies, " apart")
	}
	return fmt.Sprint(l.policies)
}

// goalBeyond is how many ms after a bare watch has heard of a change it is to be in force.
const goalBeyond = 100

const (
	localApps     = 10 // applications, with a pod each on the node
	elsewherePods = 200
)

// watchedPort is where the watch's packets go. Nothing else listens there.
const watchedPort = 9000

// BenchmarkProgramming measures the time from the write of an API object to the first packet that is treated by it, through a real API
// server and a real enforcer.
func BenchmarkProgramming(b *testing.B) {
	kit.NeedNetfilter(b)
	t := tableOf("From a write to the API to its enforcement, in ms, and how much of it is beyond the time until a bare watch has heard of the write",
		"back end", "policies", "policy changed: p50", "p99", "beyond: p50", "p99", "pod came or went: p50", "p99", "beyond: p50", "p99", "changes",
		fmt.Sprintf("goal: beyond within %d (p99)", goalBeyond))
	for _, backend := range []string{dataplane.Legacy, dataplane.NFT} {
		s := newStage(b, backend)
		policies, pods := make([]reaction, len(loads)), make([]reaction, len(loads))
		for range changeRounds {
			for i, l := range loads {
				kit.Must(b, s.fill(b.Context(), l.policies))
				s.apart = l.apart
				for range changesOfEach {
					kit.Must(b, s.changePolicy(b.Context(), &policies[i]))
					kit.Must(b, s.changePod(b.Context(), &pods[i]))
				}
			}
		}
		for i, l := range loads {
			report(b, fmt.Sprintf("%s/policies=%s", backend, strings.ReplaceAll(l.String(), " ", "-")), map[string]float64{
				"policy-p50-ms": policies[i].took.median(), "policy-p99-ms": policies[i].took.quantile(0.99),
				"policy-beyond-p99-ms": policies[i].beyond.quantile(0.99), "pod-beyond-p99-ms": pods[i].beyond.quantile(0.99),
				"pod-p50-ms": pods[i].took.median(), "pod-p99-ms": pods[i].took.quantile(0.99)})
			row := []string{backend, l.String()}
			for _, s := range []sample{policies[i].took, policies[i].beyond, pods[i].took, pods[i].beyond} {
				row = append(row, fmt.Sprintf("%.1f", s.median()), fmt.Sprintf("%.1f", s.quantile(0.99)))
			}
			t.add(append(row, fmt.Sprintf("%d + %d", len(policies[i].took), len(pods[i].took)),
				verdict(max(policies[i].beyond.quantile(0.99), pods[i].beyond.quantile(0.99)), goalBeyond))...)
		}
		s.end()
	}
}

// reaction is how long changes took until they were enforced, and how much of it came after a bare watch had heard of them, in ms.
type reaction struct{ took, beyond sample }

// stage is a cluster with a node, whose pods policies select, and a pod on it that somebody outside of the node sends packets to.
type stage struct {
	lab     *lab.Lab
	client  kubernetes.Interface
	watch   *watch
	bare    *bareWatch
	remote  *corev1.Pod // whose address the packets come from, when it is there
	current int         // policies now
	apart   time.Duration
	end     func()
}

const stageNamespace = "team"

func newStage(b *testing.B, backend string) *stage {
	b.Helper()
	s := &stage{}
	s.lab, s.client = startLab(b, lab.Options{Backend: backend, CNI: cni.Bridge})
	kit.Must(b, s.populate(kit.Context(b, patience)))
	target, err := s.lab.WaitPod(kit.Context(b, patience), stageNamespace, "local-0")
	kit.Must(b, err)
	kit.Must(b, s.lab.WaitEnforcers(kit.Context(b, patience)))
	src := netip.AddrPortFrom(netip.MustParseAddr(s.remote.Status.PodIP), 0)
	s.watch, err = watchFlow(s.lab.World, target.Host, src, netip.AddrPortFrom(target.Address(iptables.IPv4), watchedPort))
	kit.Must(b, err)
	began := time.Now()
	_, err = s.watch.opened(b.Context(), began)
	kit.Must(b, err)
	s.bare, err = newBareWatch(b.Context(), s.client, stageNamespace)
	kit.Must(b, err)
	s.end = func() {
		s.bare.stop()
		kit.Must(b, s.watch.close())
		kit.Must(b, s.lab.Close())
	}
	return s
}

// populate creates the namespace, the pods of the node, and pods of other nodes, which nobody runs.
func (s *stage) populate(ctx context.Context) error {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: stageNamespace}}
	if _, err := s.client.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{}); err != nil {
		return err
	}
	for i := range localApps {
		p := stagePod(fmt.Sprintf("local-%d", i), fmt.Sprintf("app-%d", i), s.lab.Nodes[0].Name, "")
		if _, err := s.client.CoreV1().Pods(stageNamespace).Create(ctx, p, metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	s.remote = stagePod("remote", "watched", "elsewhere", "10.244.200.200")
	return scale.InParallel(elsewherePods, func(i int) error {
		addr := netip.AddrFrom4([4]byte{10, 244, 201, byte(i)}).String()
		return createPod(ctx, s.client, stagePod(fmt.Sprintf("elsewhere-%d", i), "elsewhere", "elsewhere", addr))
	})
}

func stagePod(name, app, node, addr string) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: stageNamespace, Name: name, Labels: map[string]string{"app": app}},
		Spec:       corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "main", Image: "main"}}},
	}
	if addr != "" {
		p.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIP: addr, PodIPs: []corev1.PodIP{{IP: addr}}}
	}
	return p
}

// fill brings the number of policies to n, the two that are changed among them.
func (s *stage) fill(ctx context.Context, n int) error {
	policies := s.client.NetworkingV1().NetworkPolicies(stageNamespace)
	n -= 2
	s.apart = 0
	err := scale.InParallel(max(n-s.current, 0), func(i int) error {
		_, err := policies.Create(ctx, stagePolicy(s.current+i), metav1.CreateOptions{})
		return err
	})
	if err == nil {
		err = scale.InParallel(max(s.current-n, 0), func(i int) error {
			return policies.Delete(ctx, stagePolicy(n+i).Name, metav1.DeleteOptions{})
		})
	}
	if err != nil {
		return fmt.Errorf("filling the cluster with %d policies: %w", n, err)
	}
	s.current = n
	return s.settle(ctx)
}

// settle waits until the enforcer has taken in everything: a change now is enforced, and so are all before it.
func (s *stage) settle(ctx context.Context) error {
	return s.changePolicy(ctx, new(reaction))
}

// stagePolicy isolates one of the applications, none of which is the watched pod's: what changes there is seen at once.
func stagePolicy(i int) *networkingv1.NetworkPolicy {
	p := mutual(fmt.Sprintf("app-%d", 1+i%(localApps-1)), int32(serverPort+i), fmt.Sprintf("app-%d", 1+i%7), "elsewhere")
	p.Namespace = stageNamespace
	return p
}

// changePolicy isolates the watched pod by a new policy, and opens it again by deleting the policy.
func (s *stage) changePolicy(ctx context.Context, took *reaction) error {
	p := mutual("app-0", watchedPort+1, "elsewhere")
	p.Namespace = stageNamespace
	policies := s.client.NetworkingV1().NetworkPolicies(stageNamespace)
	err := s.closes(ctx, took, func() error {
		_, err := policies.Create(ctx, p, metav1.CreateOptions{})
		return err
	})
	if err != nil {
		return err
	}
	return s.opens(ctx, took, func() error { return policies.Delete(ctx, p.Name, metav1.DeleteOptions{}) })
}

// changePod isolates the watched pod from all but the pods of an application, and has a pod of it come and go.
func (s *stage) changePod(ctx context.Context, took *reaction) error {
	p := mutual("app-0", watchedPort, "watched")
	p.Namespace = stageNamespace
	policies, pods := s.client.NetworkingV1().NetworkPolicies(stageNamespace), s.client.CoreV1().Pods(stageNamespace)
	err := s.closes(ctx, new(reaction), func() error {
		_, err := policies.Create(ctx, p, metav1.CreateOptions{})
		return err
	})
	if err != nil {
		return err
	}
	created, err := pods.Create(ctx, s.remote, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("creating a pod: %w", err)
	}
	created.Status = s.remote.Status
	err = s.opens(ctx, took, func() error { // from here on the pod has an address
		_, err := pods.UpdateStatus(ctx, created, metav1.UpdateOptions{})
		return err
	})
	if err != nil {
		return err
	}
	now := int64(0)
	err = s.closes(ctx, took, func() error {
		return pods.Delete(ctx, s.remote.Name, metav1.DeleteOptions{GracePeriodSeconds: &now})
	})
	if err != nil {
		return err
	}
	return s.opens(ctx, new(reaction), func() error { return policies.Delete(ctx, p.Name, metav1.DeleteOptions{}) })
}

// opens makes a change, and adds the milliseconds until the flow opens.
func (s *stage) opens(ctx context.Context, took *reaction, change func() error) error {
	return s.change(ctx, took, change, s.watch.opened)
}

// closes makes a change, and adds the milliseconds until the flow closes.
func (s *stage) closes(ctx context.Context, took *reaction, change func() error) error {
	return s.change(ctx, took, change, s.watch.closed)
}

func (s *stage) change(ctx context.Context, took *reaction, change func() error, seen func(context.Context, time.Time) (time.Duration, error)) error {
	time.Sleep(s.apart)
	since := time.Now()
	if err := change(); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("writing to the API: %w", err)
	}
	d, err := seen(ctx, since)
	if err != nil {
		return err
	}
	heard, err := s.bare.since(ctx, since)
	took.took, took.beyond = append(took.took, milliseconds(d)), append(took.beyond, milliseconds(d-heard))
	return err
}
