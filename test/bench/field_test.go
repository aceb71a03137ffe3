package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"

	"github.com/ringfence-io/ringfence/enforcer/dataplane"
	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/lab"
	"github.com/ringfence-io/ringfence/lab/cni"
	"github.com/ringfence-io/ringfence/lab/host"
	"github.com/ringfence-io/ringfence/test/kit"
)

// The loads by which others measure network policy: clusterloader2's network policy enforcement latency has 20 clients that connect to each target, and
// measures from the write of a policy, and from a pod's address, to the first connection. kube-burner's network-policy workload denies everything in each of its
// namespaces first, and has policies come at a steady rate. What is played here has the shape of both, in a size for one machine.
const (
	fieldClients    = 20
	fieldNamespaces = 5
	fieldTargets    = 10 // of each namespace
	fieldComing     = 20 // pods that come
	fieldPolicyRate = 10 // policies a second
	fieldPodRate    = 2  // pods a second
	// fieldStep is how long after one attempt to connect a client makes the next. More of them would be what is measured.
	fieldStep = 10 * time.Millisecond
	// fieldTries is how many of these it waits for at a time: what is answered is answered soon.
	fieldTries = 10
	fieldPort  = 8080
	// fieldGoal is the goal for all of it, in ms (p99): clients, policies and pods share the machine with the cluster.
	fieldGoal = 250
)

// BenchmarkFieldLoad plays these loads.
func BenchmarkFieldLoad(b *testing.B) {
	kit.NeedNetfilter(b)
	t := tableOf(fmt.Sprintf("The field's own loads: %d clients, %d namespaces that deny all, %d policies and %d pods a second; ms until the first allowed connection of each",
		fieldClients, fieldNamespaces, fieldPolicyRate, fieldPodRate), "back end", "from", "connections", "p50", "p95", "p99", fmt.Sprintf("goal: %d (p99)", fieldGoal))
	for _, backend := range []string{dataplane.Legacy, dataplane.NFT} {
		f := &field{}
		// Pods are routed: on one bridge, each client and each target would have the other among its neighbours, and the kernel has room for a thousand.
		var l *lab.Lab
		l, f.client = startLab(b, lab.Options{Backend: backend, CNI: cni.PTP, FirstPacket: true})
		f.lab = l
		kit.Must(b, f.populate(kit.Context(b, patience)))
		kit.Must(b, l.WaitEnforcers(kit.Context(b, patience)))
		for _, one := range []struct {
			name, title string
			run         func(context.Context) (sample, error)
		}{
			{"policies", "the write of a policy that allows it", f.policiesCome},
			{"pods", "the pod's address in the API", f.podsCome},
		} {
			took, err := one.run(kit.Context(b, patience))
			kit.Must(b, err)
			report(b, backend+"/"+one.name, map[string]float64{"p50-ms": took.median(), "p99-ms": took.quantile(0.99)})
			t.add(backend, one.title, fmt.Sprint(len(took)), fmt.Sprintf("%.0f", took.median()), fmt.Sprintf("%.0f", took.quantile(0.95)),
				fmt.Sprintf("%.0f", took.quantile(0.99)), verdict(took.quantile(0.99), fieldGoal))
		}
		kit.Must(b, l.Close())
	}
}

// field is a cluster with clients and targets.
type field struct {
	lab     *lab.Lab
	client  kubernetes.Interface
	clients []*lab.Pod
	targets []*lab.Pod
}

const fieldClientNamespace = "field-clients"

func fieldNamespace(i int) string { return fmt.Sprintf("field-%d", i%fieldNamespaces) }

// populate makes the namespaces, which deny everything that comes in but for clients' connections to the pods that come later, the clients and the targets.
func (f *field) populate(ctx context.Context) error {
	names := []string{fieldClientNamespace}
	for i := range fieldNamespaces {
		names = append(names, fieldNamespace(i))
	}
	for _, name := range names {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if _, err := f.client.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("creating a namespace: %w", err)
		}
		if name == fieldClientNamespace {
			continue
		}
		for _, p := range []*networkingv1.NetworkPolicy{fieldPolicy(name, "deny-all", nil), fieldPolicy(name, "coming", map[string]string{"kind": "coming"})} {
			if _, err := f.client.NetworkingV1().NetworkPolicies(name).Create(ctx, p, metav1.CreateOptions{}); err != nil {
				return fmt.Errorf("creating a policy: %w", err)
			}
		}
	}
	f.clients, f.targets = make([]*lab.Pod, fieldClients), make([]*lab.Pod, fieldNamespaces*fieldTargets)
	var group errgroup.Group
	group.SetLimit(4) // each pod starts programs of its network
	for i := range f.clients {
		group.Go(func() (err error) {
			f.clients[i], err = f.lab.RunPod(ctx, f.pod(fieldClientNamespace, fmt.Sprintf("client-%d", i), "client"))
			return err
		})
	}
	for i := range f.targets {
		group.Go(func() (err error) {
			f.targets[i], err = f.lab.RunPod(ctx, f.pod(fieldNamespace(i), fmt.Sprintf("target-%d", i), "target"))
			return err
		})
	}
	return group.Wait()
}

func (f *field) pod(namespace, name, kind string) *corev1.Pod {
	p := stagePod(name, name, f.lab.Nodes[0].Name, "")
	p.Namespace, p.Labels["kind"] = namespace, kind
	return p
}

// fieldPolicy allows the clients to reach the pods with some labels; with none it denies everything to all.
func fieldPolicy(namespace, name string, to map[string]string) *networkingv1.NetworkPolicy {
	p := &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: to}, PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress},
		},
	}
	if to != nil {
		p.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{{
			NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"kubernetes.io/metadata.name": fieldClientNamespace}},
			PodSelector:       &metav1.LabelSelector{MatchLabels: map[string]string{"kind": "client"}},
		}}}}
	}
	return p
}

// policiesCome has a policy come for each target, and measures from its write to each client's first connection.
func (f *field) policiesCome(ctx context.Context) (sample, error) {
	var all connecting
	err := steadily(ctx, len(f.targets), fieldPolicyRate, func(i int) error {
		t := f.targets[i]
		since := time.Now()
		_, err := f.client.NetworkingV1().NetworkPolicies(t.Namespace).Create(ctx, fieldPolicy(t.Namespace, "to-"+t.Name, map[string]string{"app": t.Name}), metav1.CreateOptions{})
		if err != nil {
			return fmt.Errorf("creating a policy: %w", err)
		}
		f.connectAll(ctx, &all, t.Address(iptables.IPv4), since)
		return nil
	})
	return all.end(err)
}

// podsCome has pods come, and measures from the event that shows a pod's address to each client's first connection.
func (f *field) podsCome(ctx context.Context) (sample, error) {
	var all connecting
	shown, err := f.client.CoreV1().Pods(metav1.NamespaceAll).Watch(ctx, metav1.ListOptions{LabelSelector: "kind=coming"})
	if err != nil {
		return nil, fmt.Errorf("watching pods: %w", err)
	}
	defer shown.Stop()
	seen := make(chan error, 1)
	go func() { seen <- f.connectToShown(ctx, &all, shown) }()
	err = steadily(ctx, fieldComing, fieldPodRate, func(i int) error {
		p := f.pod(fieldNamespace(i), fmt.Sprintf("coming-%d", i), "coming")
		if _, err := f.client.CoreV1().Pods(p.Namespace).Create(ctx, p, metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("creating a pod: %w", err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return all.end(<-seen)
}

// connectToShown has the clients connect to each pod that comes, from the moment on at which the API shows its address.
func (f *field) connectToShown(ctx context.Context, all *connecting, shown apiwatch.Interface) error {
	begun := map[string]bool{}
	for len(begun) < fieldComing {
		select {
		case e, ok := <-shown.ResultChan():
			p, isPod := e.Object.(*corev1.Pod)
			if !ok || !isPod {
				return errors.New("the watch of pods has ended")
			}
			if p.Status.PodIP != "" && !begun[p.Name] {
				begun[p.Name] = true
				f.connectAll(ctx, all, netip.MustParseAddr(p.Status.PodIP), time.Now())
			}
		case <-ctx.Done():
			return fmt.Errorf("waiting for the addresses of pods: %w", ctx.Err())
		}
	}
	return nil
}

// steadily calls do n times, so often a second.
func steadily(ctx context.Context, n, often int, do func(i int) error) error {
	tick := time.NewTicker(time.Second / time.Duration(often))
	defer tick.Stop()
	for i := range n {
		if err := do(i); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// connecting are clients that connect, and how long each took.
type connecting struct {
	group errgroup.Group
	mu    sync.Mutex
	took  sample
}

// end returns what all took, once all have connected.
func (c *connecting) end(err error) (sample, error) {
	err = errors.Join(err, c.group.Wait())
	return c.took, err
}

// connectAll has each client try until it is let through.
func (f *field) connectAll(ctx context.Context, all *connecting, to netip.Addr, since time.Time) {
	for _, client := range f.clients {
		all.group.Go(func() error {
			at, err := firstConnection(ctx, client.Host, netip.AddrPortFrom(to, fieldPort))
			if err != nil {
				return fmt.Errorf("%s to %s: %w", client.Name, to, err)
			}
			all.mu.Lock()
			defer all.mu.Unlock()
			all.took = append(all.took, milliseconds(at.Sub(since)))
			return nil
		})
	}
}

// firstConnection begins a connection every fieldStep, and returns when the first was begun that was answered. Nobody listens: what policy lets through is
// refused by the pod itself.
func firstConnection(ctx context.Context, from *host.Host, to netip.AddrPort) (began time.Time, err error) {
	var tries []unix.PollFd
	var begins []time.Time
	defer func() {
		for _, try := range tries {
			unix.Close(int(try.Fd))
		}
	}()
	err = from.Do(func() error {
		for ctx.Err() == nil {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return fmt.Errorf("opening a socket: %w", err)
			}
			if len(tries) == fieldTries {
				unix.Close(int(tries[0].Fd))
				tries, begins = tries[1:], begins[1:]
			}
			tries, begins = append(tries, unix.PollFd{Fd: int32(fd), Events: unix.POLLOUT}), append(begins, time.Now())
			if err := connect(fd, to); err != nil && !errors.Is(err, unix.EINPROGRESS) {
				return err
			}
			if _, err := unix.Poll(tries, int(fieldStep.Milliseconds())); err != nil && !errors.Is(err, unix.EINTR) {
				return fmt.Errorf("waiting for an answer: %w", err)
			}
			for i, try := range tries {
				if try.Revents != 0 && isAnswered(int(try.Fd)) {
					began = begins[i]
					return nil
				}
			}
		}
		return ctx.Err()
	})
	return began, err
}

// isAnswered reports whether the other end has answered, rather than a router on the way.
func isAnswered(fd int) bool {
	got, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	return err == nil && (got == 0 || syscall.Errno(got) == unix.ECONNREFUSED)
}
