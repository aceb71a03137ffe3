package ladder

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ringfence-io/ringfence/enforcer"
	"github.com/ringfence-io/ringfence/enforcer/dataplane"
	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/lab/host"
	"github.com/ringfence-io/ringfence/lab/oracle"
	"github.com/ringfence-io/ringfence/lab/probe"
	"github.com/ringfence-io/ringfence/lab/topology"
	"github.com/ringfence-io/ringfence/lab/twin"
	"github.com/ringfence-io/ringfence/test/gen"
	"github.com/ringfence-io/ringfence/test/kit"
	"github.com/ringfence-io/ringfence/test/kit/netns"
)

// hostPrefix begins the names of the network namespaces that this package makes.
const hostPrefix = "rf-ladder"

// policySets is how many random policy sets each of the four kernels gets.
const policySets = 55

func TestMain(m *testing.M) {
	if os.Geteuid() == 0 {
		netns.Sweep(hostPrefix)
		os.Exit(withOwnLock(m))
	}
	fmt.Fprintln(os.Stderr, "LEFT OUT, NOT ROOT: the ladder's last rung, real packets on a real kernel. Run the tests of test/ladder as root.")
	if os.Getenv("CI") == "true" {
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// withOwnLock keeps the tests from waiting for whoever else uses iptables on this machine: their namespaces are their own.
func withOwnLock(m *testing.M) int {
	dir, err := os.MkdirTemp("", hostPrefix)
	if err == nil {
		defer os.RemoveAll(dir)
		err = os.Setenv("XTABLES_LOCKFILE", filepath.Join(dir, "xtables.lock"))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "making an xtables lock:", err)
		return 1
	}
	return m.Run()
}

// TestKernelAgrees: random policy sets, one after the other on the same nodes, so that each is reached by a plan from the one before;
// after each, a packet of every protocol between all pairs of pods, nodes and the outside, in both families, has the fate
// that the oracle wants.
func TestKernelAgrees(t *testing.T) {
	kit.NeedRoot(t)
	first := seed(t)
	for i, setup := range []struct {
		backend string
		kind    topology.Kind
	}{
		{dataplane.Legacy, topology.Bridged}, {dataplane.NFT, topology.Routed}, {dataplane.NFT, topology.Bridged}, {dataplane.Legacy, topology.Routed},
	} {
		t.Run(fmt.Sprintf("%s %s", setup.backend, setup.kind), func(t *testing.T) {
			t.Parallel()
			k := newKernels(t, fmt.Sprintf("%s%d-", host.RunPrefix(hostPrefix), i), setup.backend, setup.kind)
			probes, denied := 0, 0
			for round := range policySets {
				seed := first + uint64(i*policySets+round)
				n, d, err := k.round(seed)
				if err != nil {
					t.Fatalf("policy set %d, seed %d, of a run with -ladder.seed=%d: %v", round, seed, first, err)
				}
				probes, denied = probes+n, denied+d
			}
			t.Logf("%d policy sets, %d flows, %d of them denied", policySets, probes, denied)
			if denied < probes/20 {
				t.Errorf("%d of %d flows were denied: the policy sets have become too tame", denied, probes)
			}
		})
	}
}

// kernels are the nodes of a topology, each with an enforcer.
type kernels struct {
	top       *topology.Topology
	c         gen.Case
	enforcers []*enforcer.Enforcer
	hosts     map[netip.Addr]*host.Host
	ends      []netip.Addr
}

func newKernels(t *testing.T, prefix, backend string, kind topology.Kind) *kernels {
	t.Helper()
	for _, program := range []string{"iptables-" + backend, "ip6tables-" + backend} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("the ladder's last rung needs %s: %v", program, err)
		}
	}
	top, err := topology.New(topology.Options{Prefix: prefix, Kind: kind, Nodes: 2, Backend: backend})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := top.Close(); err != nil {
			t.Error(err)
		}
	})
	k := &kernels{top: top, hosts: map[netip.Addr]*host.Host{}}
	k.addEnd(t, top.Outside, topology.OutsideAddr)
	k.c.Others = []netip.Addr{topology.OutsideAddr, twin.Of(topology.OutsideAddr)}
	for _, n := range top.Nodes {
		k.addNode(t, n, backend)
	}
	return k
}

// addEnd makes all addresses of a host answer.
func (k *kernels) addEnd(t *testing.T, h *host.Host, addr netip.Addr) {
	t.Helper()
	for _, a := range []netip.Addr{addr, twin.Of(addr)} {
		k.hosts[a] = h
		k.ends = append(k.ends, a)
		for _, f := range probed {
			if f.Protocol == policy.ICMP || f.Protocol == policy.TCP {
				continue // the kernel answers: with a reply, with a reset
			}
			server, err := probe.Listen(h, f.Protocol, netip.AddrPortFrom(a, f.Port))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = server.Close() })
		}
	}
}

func (k *kernels) addNode(t *testing.T, n *topology.Node, backend string) {
	t.Helper()
	k.addEnd(t, n.Host, n.Addr)
	node := gen.Node{Name: n.Name(), Addrs: []netip.Addr{n.Addr, twin.Of(n.Addr)}}
	k.c.Nodes = append(k.c.Nodes, node)
	for i := range 3 {
		p, err := k.top.AddPod(n, fmt.Sprintf("p%d%d", len(k.c.Nodes), i))
		if err != nil {
			t.Fatal(err)
		}
		k.addEnd(t, p.Host, p.Addr)
		k.c.Cluster.Pods = append(k.c.Cluster.Pods, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: p.Name(), UID: types.UID(p.Name())},
			Spec:       corev1.PodSpec{NodeName: node.Name},
			Status: corev1.PodStatus{PodIP: p.Addr.String(), PodIPs: []corev1.PodIP{
				{IP: p.Addr.String()}, {IP: twin.Of(p.Addr).String()}}},
		})
	}
	err := n.Do(func() error {
		d, err := dataplane.New(t.Context(), dataplane.Options{Backend: backend})
		if err != nil {
			return err
		}
		c := d.Capabilities()
		if !slices.Equal(c.Families, iptables.Families[:]) || !c.SelfMatch {
			return fmt.Errorf("the kernel lacks something: %v", d.Findings())
		}
		k.enforcers = append(k.enforcers, enforcer.New(d, iptables.Options{Families: c.Families, Table: c.Table, SelfMatch: c.SelfMatch, HoldCut: c.HoldCut,
			ShareAlways: len(k.enforcers) == 0, ListLength: 3 * len(k.enforcers)}))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// probed are the flows between each pair of ends, by protocol and port: ports that gen's containers and policies name.
var probed = []probe.Flow{
	{Protocol: policy.TCP, Port: 80}, {Protocol: policy.TCP, Port: 53}, {Protocol: policy.TCP, Port: 65535},
	{Protocol: policy.UDP, Port: 53}, {Protocol: policy.UDP, Port: 80},
	{Protocol: policy.SCTP, Port: 80},
	{Protocol: policy.ICMP}, {Protocol: probe.Experimental},
}

// round enforces the policy set of a seed and sends packets.
func (k *kernels) round(seed uint64) (probes, denied int, err error) {
	c := gen.Redraw(gen.Seed(seed), k.c, gen.Options{Invalid: seed%5 == 0, Tiers: seed%4 < 2, Long: seed%4 == 1})
	if err := k.enforce(c); err != nil {
		return 0, 0, err
	}
	if err := k.top.ForgetConnections(); err != nil {
		return 0, 0, err
	}
	var flows []probe.Watched
	for _, f := range k.flows() {
		// Connection tracking knows packets of a protocol without ports by their addresses alone: one that is allowed makes the
		// other direction its reply. So each pair is probed one way, and the other way in the next round.
		if f.Protocol == oracle.Protocol(probe.Experimental) && f.Src.Less(f.Dst) != (seed%2 == 0) {
			continue
		}
		allowed, _ := c.Cluster.Allowed(f)
		flows = append(flows, k.watched(f, allowed))
		if !allowed {
			denied++
		}
	}
	wrong, err := send(flows)
	if err != nil || len(wrong) == 0 {
		return len(flows), denied, err
	}
	return len(flows), denied, k.explain(c, wrong)
}

// enforce brings every node to the case's policies, and wants the kernel to hold afterwards what was asked for.
func (k *kernels) enforce(c gen.Case) error {
	errs := make([]error, len(k.enforcers))
	var wg sync.WaitGroup
	for i, e := range k.enforcers {
		wg.Go(func() {
			errs[i] = k.top.Nodes[i].Do(func() error {
				snapshot := Snapshot(c.Cluster, c.Nodes[i].Name)
				if _, err := e.Sync(context.Background(), snapshot, false); err != nil {
					return err
				}
				report, err := e.Sync(context.Background(), snapshot, true)
				if err == nil && !(report.Applied.Empty() && report.Repairs.Empty()) {
					err = fmt.Errorf("what was applied to %s does not read back equal:\n%s\n%s", c.Nodes[i].Name, report.Applied, report.Repairs)
				}
				return err
			})
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// flows are those between all ends of a family of which at least one is a pod.
func (k *kernels) flows() []oracle.Flow {
	var out []oracle.Flow
	for _, src := range k.ends {
		for _, dst := range k.ends {
			if src == dst || src.Is4() != dst.Is4() || !k.isPod(src) && !k.isPod(dst) {
				continue
			}
			for _, p := range probed {
				f := oracle.Flow{Src: src, Dst: dst, Protocol: oracle.Protocol(p.Protocol), DstPort: p.Port, FromNode: k.nodeOf(src)}
				if p.Protocol == policy.ICMP {
					f.ICMPType = 8
					if src.Is6() {
						f.Protocol, f.ICMPType = oracle.ICMPv6, 128
					}
				}
				out = append(out, f)
			}
		}
	}
	return out
}

func (k *kernels) isPod(a netip.Addr) bool {
	return k.nodeOf(a) == "" && !slices.Contains(k.c.Others, a)
}

// nodeOf is the name of the node that has the address itself, empty if none has.
func (k *kernels) nodeOf(a netip.Addr) string {
	for _, n := range k.c.Nodes {
		if slices.Contains(n.Addrs, a) {
			return n.Name
		}
	}
	return ""
}

func (k *kernels) watched(f oracle.Flow, allowed bool) probe.Watched {
	protocol := policy.Protocol(f.Protocol)
	if protocol == policy.ICMPv6 {
		protocol = policy.ICMP
	}
	return probe.Watched{Host: k.hosts[f.Src], Flow: probe.Flow{Protocol: protocol, Src: f.Src, Dst: f.Dst, Port: f.DstPort}, Allowed: allowed}
}

// send sends a packet of each flow at least, and returns the flows with the wrong fate. A packet that passes where none may is wrong
// at once; one that got no answer may have been lost on a busy machine, and is sent again.
func send(flows []probe.Watched) ([]probe.Watched, error) {
	for attempt := 1; ; attempt++ {
		wrong, err := sendOnce(flows)
		if err != nil || len(wrong) == 0 || attempt == 4 {
			return wrong, err
		}
		for _, w := range wrong {
			if !w.Allowed {
				return wrong, nil
			}
		}
		flows = wrong
	}
}

// sendOnce watches the flows for as long as it takes to send each of them once.
func sendOnce(flows []probe.Watched) ([]probe.Watched, error) {
	rate := max(10*len(flows), 1000)
	for patience := time.Duration(len(flows)+50) * time.Second / time.Duration(rate); patience < time.Minute; patience *= 2 {
		w, err := probe.Watch(flows, rate)
		if err != nil {
			return nil, err
		}
		time.Sleep(patience)
		report, err := w.Stop(3 * time.Second)
		if err != nil {
			return nil, err
		}
		if report.Probes >= len(flows) {
			return distinct(flows, report.Wrong), nil
		}
		// The sender got no processor meanwhile: once more, with more time.
	}
	return nil, fmt.Errorf("sending %d packets took more than a minute", len(flows))
}

// distinct are the flows that were wrong at least once.
func distinct(flows []probe.Watched, wrong []probe.Wrong) []probe.Watched {
	var out []probe.Watched
	for _, w := range wrong {
		i := slices.IndexFunc(flows, func(f probe.Watched) bool { return f.Flow == w.Flow })
		if !slices.Contains(out, flows[i]) {
			out = append(out, flows[i])
		}
	}
	return out
}

// explain says what every judge thinks of the first flow with the wrong fate.
func (k *kernels) explain(c gen.Case, wrong []probe.Watched) error {
	text := fmt.Sprintf("%d flows have the wrong fate on the kernel:", len(wrong))
	for _, w := range wrong[:min(len(wrong), 10)] {
		text += fmt.Sprintf("\n  %s, which the oracle wants allowed=%v", w.Flow, w.Allowed)
	}
	for _, f := range k.flows() {
		if k.watched(f, wrong[0].Allowed) != wrong[0] {
			continue
		}
		for _, node := range c.Nodes {
			j, err := NewJudges(c.Cluster, node)
			if err != nil {
				return err
			}
			text += fmt.Sprintf("\n%s", j.Judge(f))
		}
	}
	return fmt.Errorf("%s\n%s", text, Describe(c.Cluster))
}
