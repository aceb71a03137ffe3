package e2e

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/status"
	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/lab"
	"github.com/ringfence-io/ringfence/lab/cni"
	"github.com/ringfence-io/ringfence/lab/host"
	"github.com/ringfence-io/ringfence/test/kit"
)

// firstActors is how many pods act; the variable says how many instead.
const (
	firstActors         = 100
	firstActorsVariable = "RINGFENCE_FIRST_PACKET_PODS"
)

// wave is how many of them there are at a time: a node has addresses for 250, and later pods get those of earlier ones.
const wave = 120

// first isolates three kinds of pods: clients reach guarded servers and nobody else does, muted pods send nothing, and shy pods receive nothing.
const first = `
apiVersion: v1
kind: Namespace
metadata: {name: first}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: guarded, namespace: first}
spec:
  podSelector: {matchLabels: {app: guarded}}
  ingress: [{from: [{podSelector: {matchLabels: {app: client}}}]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: muted, namespace: first}
spec:
  podSelector: {matchLabels: {app: muted}}
  policyTypes: [Egress]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: shy, namespace: first}
spec:
  podSelector: {matchLabels: {app: shy}}
  policyTypes: [Ingress]
`

// TestFirstPacket starts pods whose first act is to send, or to listen while others send. With the CNI plugin what policy denies them never happens, and what
// it allows them happens at the first packet on the same node. Without it the same is counted, for comparison.
func TestFirstPacket(t *testing.T) {
	n := firstActors
	if text := os.Getenv(firstActorsVariable); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			t.Fatalf("%s: %v", firstActorsVariable, err)
		}
	}
	for _, tt := range []struct {
		kind    cni.Kind
		backend string
		plugin  bool
	}{{cni.Bridge, "nft", true}, {cni.PTP, "legacy", true}, {cni.Bridge, "nft", false}} {
		t.Run(fmt.Sprintf("%s/%s/plugin=%v", tt.kind, tt.backend, tt.plugin), func(t *testing.T) {
			a := &acts{t: t, denied: map[string]int{}}
			l := start(t, lab.Options{CNI: tt.kind, Backend: tt.backend, FirstPacket: tt.plugin, FirstAct: a.act})
			kit.Must(t, l.Apply(kit.Context(t, patience), []byte(first)))
			a.prepare(l)
			for done := 0; done < n; {
				for range min(wave, n-done) {
					createActor(t, l, []string{"client", "muted", "shy"}[done%3], done)
					done++
				}
				a.finish(done)
				t.Log(a.report())
				removeActors(t, l)
			}
			if !tt.plugin {
				return
			}
			if len(a.denied) > 0 {
				t.Errorf("what policy denies got through: %v", a.denied)
			}
			if a.firstSYN != a.clients {
				t.Errorf("of %d connections that policy allows on the same node, %d came about with the first packet", a.clients, a.firstSYN)
			}
		})
	}
}

func createActor(t *testing.T, l *lab.Lab, app string, i int) {
	t.Helper()
	_, err := l.Client.CoreV1().Pods("first").Create(kit.Context(t, patience), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s-%d", app, i), Labels: map[string]string{"app": app}},
		Spec:       corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{Name: "main", Image: "none"}}},
	}, metav1.CreateOptions{})
	kit.Must(t, err)
}

// removeActors removes the pods that have acted.
func removeActors(t *testing.T, l *lab.Lab) {
	t.Helper()
	pods := l.Client.CoreV1().Pods("first")
	actors := metav1.ListOptions{LabelSelector: "app in (client, muted, shy)"}
	ctx, cancel := context.WithTimeout(t.Context(), patience+wave*time.Second) // each goes through the CNI plugins
	defer cancel()
	kit.Must(t, pods.DeleteCollection(ctx, metav1.DeleteOptions{}, actors))
	kit.Must(t, lab.Poll(ctx, func(ctx context.Context) error {
		left, err := pods.List(ctx, actors)
		if err == nil && len(left.Items) > 0 {
			err = fmt.Errorf("%d pods that have acted are still there", len(left.Items))
		}
		return err
	}))
}

// acts is what pods do first, and what came of it.
type acts struct {
	t               *testing.T
	near, far, open *lab.Pod // servers: guarded on the same node, guarded on the other, and open to all
	all             sync.WaitGroup

	mu       sync.Mutex
	done     int
	clients  int
	firstSYN int             // connections to the near server that needed one packet
	delays   []time.Duration // until the far server let somebody in
	denied   map[string]int  // packets that got through, by pod
	errs     []error
}

// Ports of the actors.
const (
	echoPort  = 7
	countPort = 9
)

// long is how long somebody sends whom policy denies it: until well after the API shows the address.
const long = 1500 * time.Millisecond

// prepare starts the servers. Pods that start before it have nothing to do.
func (a *acts) prepare(l *lab.Lab) {
	a.t.Helper()
	server := func(name, node, app string) *lab.Pod {
		pod, err := l.RunPod(kit.Context(a.t, patience), &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "first", Name: name, Labels: map[string]string{"app": app}},
			Spec: corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{
				Name: "main", Image: "none", Ports: []corev1.ContainerPort{{ContainerPort: 80}},
			}}},
		})
		kit.Must(a.t, err)
		return pod
	}
	a.near, a.far, a.open = server("near", "n1", "guarded"), server("far", "n2", "guarded"), server("open", "n1", "open")
	for _, f := range iptables.Families {
		a.hear(a.open.Host, netip.AddrPortFrom(a.open.Address(f), countPort), a.through)
		echo := a.listen(a.far.Host, netip.AddrPortFrom(a.far.Address(f), echoPort))
		a.all.Go(func() { answerAll(echo) })
	}
}

// act is called when a pod has its network. It does not hold up what the kubelet says of the pod.
func (a *acts) act(pod *corev1.Pod, h *host.Host, addrs []netip.Addr) {
	began := time.Now()
	does := map[string]func(string, *host.Host, []netip.Addr, time.Time){"client": a.connect, "muted": a.speak, "shy": a.listenOnly}[pod.Labels["app"]]
	if does == nil {
		return
	}
	a.all.Go(func() {
		does(pod.Name, h, addrs, began)
		a.mu.Lock()
		defer a.mu.Unlock()
		a.done++
	})
}

// connect is allowed, to both guarded servers.
func (a *acts) connect(_ string, h *host.Host, addrs []netip.Addr, began time.Time) {
	var inner sync.WaitGroup
	for _, addr := range addrs {
		f := iptables.FamilyOf(addr)
		inner.Go(func() {
			retransmitted, err := dialOnce(h, netip.AddrPortFrom(a.near.Address(f), 80))
			a.mu.Lock()
			defer a.mu.Unlock()
			a.clients++
			if err == nil && retransmitted == 0 {
				a.firstSYN++
			}
		})
		inner.Go(func() {
			delay, err := untilAnswered(h, netip.AddrPortFrom(a.far.Address(f), echoPort), began)
			a.mu.Lock()
			defer a.mu.Unlock()
			a.delays, a.errs = append(a.delays, delay), append(a.errs, err)
		})
	}
	inner.Wait()
}

// speak is denied.
func (a *acts) speak(name string, h *host.Host, addrs []netip.Addr, _ time.Time) {
	for _, addr := range addrs {
		a.spray(h, netip.AddrPortFrom(a.open.Address(iptables.FamilyOf(addr)), countPort), name, long/time.Duration(len(addrs)))
	}
}

// listenOnly hears what it must not: others speak to it from the first moment.
func (a *acts) listenOnly(name string, h *host.Host, addrs []netip.Addr, _ time.Time) {
	for _, addr := range addrs {
		to := netip.AddrPortFrom(addr, countPort)
		a.hear(h, to, a.through)
		a.spray(a.open.Host, to, name, long/time.Duration(len(addrs)))
	}
}

// through notes a packet that got through.
func (a *acts) through(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.denied[name]++
}

func (a *acts) fail(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.errs = append(a.errs, err)
}

// finish waits until n pods have acted.
func (a *acts) finish(n int) {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(a.t.Context(), patience+time.Duration(n)*time.Second)
	defer cancel()
	kit.Must(a.t, lab.Poll(ctx, func(context.Context) error {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.done < n {
			return fmt.Errorf("of %d pods, %d have acted", n, a.done)
		}
		return errors.Join(a.errs...)
	}))
}

func (a *acts) report() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	packets := 0
	for _, n := range a.denied {
		packets += n
	}
	slices.Sort(a.delays)
	at := func(share float64) time.Duration {
		if len(a.delays) == 0 {
			return 0
		}
		return a.delays[min(int(share*float64(len(a.delays))), len(a.delays)-1)].Round(100 * time.Microsecond)
	}
	return fmt.Sprintf("of %d pods: %d that policy denies got %d packets through; %d of %d connections that it allows on the same node came about with the "+
		"first packet; the other node let them in after p50 %s, p99 %s, max %s", a.done, len(a.denied), packets, a.firstSYN, a.clients, at(0.5), at(0.99), at(1))
}

// listen opens a UDP socket inside a host.
func (a *acts) listen(h *host.Host, addr netip.AddrPort) *net.UDPConn {
	var c *net.UDPConn
	if err := h.Do(func() (err error) {
		c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
		return err
	}); err != nil {
		a.fail(err)
		return nil
	}
	a.t.Cleanup(func() { c.Close() })
	return c
}

// hear tells of each packet who has sent it: that is what it says.
func (a *acts) hear(h *host.Host, addr netip.AddrPort, of func(name string)) {
	c := a.listen(h, addr)
	if c == nil {
		return
	}
	go func() {
		buf := make([]byte, 512)
		for {
			n, _, err := c.ReadFromUDP(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				of(string(buf[:n]))
			}
		}
	}()
}

// spray sends a name all the time.
func (a *acts) spray(h *host.Host, to netip.AddrPort, name string, during time.Duration) {
	c, err := dialUDP(h, to)
	if err != nil {
		a.fail(err)
		return
	}
	defer c.Close()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(during); time.Now().Before(end); <-tick.C {
		_, _ = c.Write([]byte(name)) // an ICMP error of an earlier one is none of ours
	}
}

func answerAll(c *net.UDPConn) {
	if c == nil {
		return
	}
	go func() {
		buf := make([]byte, 512)
		for {
			n, from, err := c.ReadFromUDPAddrPort(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				_, _ = c.WriteToUDPAddrPort(buf[:n], from)
			}
		}
	}()
}

func dialUDP(h *host.Host, to netip.AddrPort) (*net.UDPConn, error) {
	var c *net.UDPConn
	err := h.Do(func() (err error) {
		c, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
		return err
	})
	return c, err
}

// untilAnswered asks every two milliseconds, and says how long after began an answer came.
func untilAnswered(h *host.Host, to netip.AddrPort, began time.Time) (time.Duration, error) {
	c, err := dialUDP(h, to)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	buf := make([]byte, 16)
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if _, err := c.Write([]byte("?")); err != nil && !errors.Is(err, syscall.ECONNREFUSED) {
			return 0, err
		}
		if err := c.SetReadDeadline(time.Now().Add(2 * time.Millisecond)); err != nil {
			return 0, err
		}
		if _, err := c.Read(buf); err == nil {
			return time.Since(began), nil
		}
	}
	return 0, fmt.Errorf("%s did not answer within %s", to, patience)
}

// dialOnce opens a connection, and says how many packets the kernel had to send again for it.
func dialOnce(h *host.Host, to netip.AddrPort) (retransmitted uint32, err error) {
	var c net.Conn
	if err := h.Do(func() (err error) {
		c, err = net.DialTimeout("tcp", to.String(), patience)
		return err
	}); err != nil {
		return 0, err
	}
	defer c.Close()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	var info *unix.TCPInfo
	failed := raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.SOL_TCP, unix.TCP_INFO) })
	if err := errors.Join(failed, err); err != nil {
		return 0, err
	}
	return info.Total_retrans, nil
}

// ofClients isolates the clients themselves: its status counts them.
const ofClients = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: clients, namespace: first}
spec:
  podSelector: {matchLabels: {app: client}}
  policyTypes: [Ingress]
`

// TestOtherNodesNeedNotWaitForTheKubelet: kubelets take a while to write the status of a pod that has started, and another node lets it in long before, since its
// own node has announced its addresses. The controller knows them too. Without that the other node waits for the status.
func TestOtherNodesNeedNotWaitForTheKubelet(t *testing.T) {
	const late, pods = 10 * time.Second, 8
	for _, announced := range []bool{true, false} {
		t.Run(fmt.Sprintf("announced=%v", announced), func(t *testing.T) {
			a := &acts{t: t, denied: map[string]int{}}
			l := start(t, lab.Options{
				FirstPacket: true, FirstAct: a.act, StatusDelay: late, Controller: true,
				EnforcerArgs: []string{fmt.Sprintf("--announce-addresses=%v", announced)},
			})
			kit.Must(t, l.Apply(kit.Context(t, patience), []byte(first+"---"+ofClients)))
			a.prepare(l)
			for i := range pods {
				createActor(t, l, "client", i)
			}
			a.finish(pods)
			t.Log(a.report())
			for _, delay := range a.delays {
				if announced == (delay >= late) {
					t.Errorf("kubelets write after %s, and the other node lets a pod in after %s", late, delay)
				}
			}
			if a.firstSYN != a.clients {
				t.Errorf("of %d connections that policy allows on the same node, %d came about with the first packet", a.clients, a.firstSYN)
			}
			c, err := client.New(l.Config, client.Options{Scheme: status.Scheme()})
			kit.Must(t, err)
			(&told{l, c}).says(t, "first", "clients", on(1, pods))
			shown, said := 0, 0
			all, err := l.Client.CoreV1().Pods("first").List(kit.Context(t, patience), metav1.ListOptions{LabelSelector: "app=client"})
			kit.Must(t, err)
			for _, p := range all.Items {
				if len(p.Status.PodIPs) > 0 {
					shown++
				}
				if slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == v1alpha1.AddressesCondition }) {
					said++
				}
			}
			t.Logf("their own policy was programmed when the API showed the addresses of %d of %d, and %d were announced", shown, pods, said)
			if announced && (shown == pods || said != pods) || !announced && said > 0 {
				t.Error("that does not show what announcing does")
			}
		})
	}
}

// TestARestartKnowsWhomTheAPIDoesNotShow has the enforcer of a pod's node start anew after the pod has got its network, and before its status names an address: the
// new enforcer has that from the one before, and the pod stays isolated.
func TestARestartKnowsWhomTheAPIDoesNotShow(t *testing.T) {
	a := &acts{t: t, denied: map[string]int{}}
	var l *lab.Lab
	acted := make(chan error, 1)
	l = start(t, lab.Options{FirstPacket: true, FirstAct: func(pod *corev1.Pod, h *host.Host, addrs []netip.Addr) {
		if pod.Labels["app"] != "muted" {
			return
		}
		n := l.Node("n1")
		n.KillEnforcer()
		err := n.StartEnforcer()
		if err == nil {
			err = lab.Poll(kit.Context(t, patience), n.EnforcerReady)
		}
		a.speak(pod.Name, h, addrs, time.Time{})
		acted <- err
	}})
	kit.Must(t, l.Apply(kit.Context(t, patience), []byte(first)))
	a.prepare(l)
	createActor(t, l, "muted", 0)
	select {
	case err := <-acted:
		kit.Must(t, err)
	case <-kit.Context(t, patience).Done():
		t.Fatal("the pod has not acted")
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.denied) > 0 {
		t.Errorf("what policy denies got through: %v", a.denied)
	}
	kit.Must(t, errors.Join(a.errs...))
}

// TestStartingWithoutAnEnforcer: pods wait for the enforcer, which is away, and start, policed, once it is back.
func TestStartingWithoutAnEnforcer(t *testing.T) {
	a := &acts{t: t, denied: map[string]int{}}
	l := start(t, lab.Options{FirstPacket: true, FirstAct: a.act})
	kit.Must(t, l.Apply(kit.Context(t, patience), []byte(first)))
	a.prepare(l)
	n1 := l.Node("n1")
	n1.KillEnforcer()
	createActor(t, l, "muted", 0)
	createActor(t, l, "client", 0)
	kit.Must(t, lab.Poll(kit.Context(t, patience), func(context.Context) error {
		if _, err := os.Stat(n1.CNISocket()); err != nil {
			return err
		}
		return cmp.Or(waiting(l, "muted-0"), waiting(l, "client-0"))
	}))
	kit.Must(t, n1.StartEnforcer())
	a.finish(2)
	t.Log(a.report())
	if len(a.denied) > 0 || a.firstSYN != a.clients {
		t.Errorf("what policy denies got through: %v; what it allows came about at the first packet %d times of %d", a.denied, a.firstSYN, a.clients)
	}
}

// waiting is nil if the pod has its network namespace, and so is being connected, and does not run.
func waiting(l *lab.Lab, name string) error {
	pods, err := os.ReadDir("/run/netns")
	if err != nil {
		return err
	}
	for _, p := range pods {
		if strings.HasSuffix(p.Name(), "first."+name) {
			if _, err := l.Pod(context.Background(), "first", name); err != nil {
				return nil
			}
			return fmt.Errorf("pod %s runs without an enforcer", name)
		}
	}
	return fmt.Errorf("pod %s is not being started", name)
}
