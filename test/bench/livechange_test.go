package bench

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sys/unix"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	nodectl "github.com/ringfence-io/ringfence/controllers/node"
	"github.com/ringfence-io/ringfence/enforcer"
	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/test/kit"
)

// trackedMany is how many entries the kernel's table has where a node has very many connections.
const trackedMany = 500_000

// fillTable has the kernel's table hold so many entries. A network namespace holds as many as net.netfilter.nf_conntrack_max says; beyond that they are
// another namespace's, which a walk over the table passes too. It says how many the node has.
func (n *trackingNode) fillTable(b *testing.B, count int) int {
	b.Helper()
	text, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_max")
	kit.Must(b, err)
	limit, err := strconv.Atoi(strings.TrimSpace(string(text)))
	kit.Must(b, err)
	here := min(count, limit-1000)
	track(b, n.host, n.all[:here])
	for rest := n.all[here:count]; len(rest) > 0; {
		some := rest[:min(len(rest), here)]
		track(b, newHost(b), some)
		rest = rest[len(some):]
	}
	return here
}

// widely is a cluster with a policy in each namespace of this node that admits the pods of all namespaces.
func widely(s compile.Snapshot) compile.Snapshot {
	for _, ns := range []string{"team-0", "team-1"} {
		s.Policies = s.Policies.With(&networkingv1.NetworkPolicy{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "all"},
			Spec: networkingv1.NetworkPolicySpec{Ingress: []networkingv1.NetworkPolicyIngressRule{{
				From: []networkingv1.NetworkPolicyPeer{{NamespaceSelector: &metav1.LabelSelector{}}}}}},
		})
	}
	return s
}

// withoutPod is a cluster that lacks one of its pods, by its number in [cluster].
func withoutPod(s compile.Snapshot, i int) compile.Snapshot {
	isIt := func(p *compile.Pod) bool { return p.UID == fmt.Sprint(i) }
	s.Local = slices.DeleteFunc(slices.Clone(s.Local), isIt)
	for p := range s.Remote.All() {
		if isIt(p) {
			s.Remote = s.Remote.Without(p.Namespace, p.Name)
			break
		}
	}
	return s
}

// liveChanges are what may happen to a cluster, from one snapshot to the next.
var liveChanges = []struct {
	name string
	do   func(compile.Snapshot) (before, after compile.Snapshot)
}{
	{"a remote pod goes, a peer of 10 pods here", func(s compile.Snapshot) (before, after compile.Snapshot) { return s, withoutPod(s, 700) }},
	{"a remote pod goes, a peer of all pods here", func(s compile.Snapshot) (before, after compile.Snapshot) {
		s = widely(s)
		return s, withoutPod(s, 5400)
	}},
	{"a policy of 10 pods here loses a rule", func(s compile.Snapshot) (before, after compile.Snapshot) {
		before = s
		seventh, _ := s.Policies.Get("team-0", "p-7")
		wider := seventh.DeepCopy()
		wider.Spec.Ingress = append(wider.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{
			From: []networkingv1.NetworkPolicyPeer{{IPBlock: &networkingv1.IPBlock{CIDR: "192.0.2.0/24"}}}})
		before.Policies = s.Policies.With(wider)
		return before, s
	}},
	{"a policy comes to all pods here", func(s compile.Snapshot) (before, after compile.Snapshot) { return s, widely(s) }},
	{"a local pod comes", func(s compile.Snapshot) (before, after compile.Snapshot) { return withoutPod(s, 42), s }},
	{"a local pod goes, a peer of 10 pods here", func(s compile.Snapshot) (before, after compile.Snapshot) { return s, withoutPod(s, 42) }},
}

// BenchmarkAffected takes the time to say which connections a remote pod that goes affects.
func BenchmarkAffected(b *testing.B) {
	for _, policies := range []int{100, 1000} {
		for _, pods := range []int{1000, 10_000} {
			b.Run(fmt.Sprintf("pods=%d/policies=%d", pods, policies), func(b *testing.B) {
				var kept compile.Compiler
				s := cluster(pods, policies)
				before, _ := kept.Compile(s)
				after, _ := kept.Compile(withoutPod(s, 700))
				b.ReportAllocs()
				for b.Loop() {
					if got := policy.AffectedBy(&before, &after); len(got.Between) != 1 || got.Urgent {
						b.Fatalf("%+v", got)
					}
				}
			})
		}
	}
}

// BenchmarkLookAfterChange takes what a look at live connections costs after a change of each kind, beside a look at all of them.
func BenchmarkLookAfterChange(b *testing.B) {
	kit.NeedNetfilter(b)
	for _, count := range []int{tracked, trackedMany} {
		s := cluster(10000, 100)
		n := newTracking(b, s, count, 0)
		here := n.fillTable(b, count)
		header := []string{"entries in the table", "of this node", "change", "judged", "processor time", "user", "kernel", "KB allocated"}
		t := tableOf("One look at live connections, 110 isolated pods here, 10,000 pods, 100 policies: median (quartiles) in ms", header...)
		measure := func(name string, due func(), want func(enforcer.Ended) bool) {
			b.Run(fmt.Sprintf("entries=%d/%s", count, strings.ReplaceAll(name, " ", "_")), func(b *testing.B) {
				var all, user, kernel, allocated sample
				judged := 0
				for b.Loop() {
					b.StopTimer()
					due()
					b.StartTimer()
					e, spent := n.spend(b)
					if e.Cut != 0 || !want(e) {
						b.Fatalf("%+v", e)
					}
					judged = e.Seen
					user, kernel = append(user, spent.user.Seconds()*1000), append(kernel, spent.kernel.Seconds()*1000)
					all = append(all, spent.all.Seconds()*1000)
					allocated = append(allocated, float64(spent.allocated)/1000)
				}
				t.add(fmt.Sprint(count), fmt.Sprint(here), name, fmt.Sprint(judged), all.text("%.1f"), fmt.Sprintf("%.0f", user.median()),
					fmt.Sprintf("%.0f", kernel.median()), fmt.Sprintf("%.0f", allocated.median()))
			})
		}
		n.restart(b)
		n.cut(b) // tries what the kernel filters by
		measure("an enforcer starts", func() { n.restart(b) }, func(e enforcer.Ended) bool { return e.All && e.Seen == here })
		for _, c := range liveChanges {
			before, after := c.do(s)
			measure(c.name, func() {
				n.snapshot = before
				n.restart(b)
				n.cut(b)
				n.sync(b, after)
			}, func(e enforcer.Ended) bool { return !e.All })
		}
	}
}

// spent is what a look has taken of the thread that it ran on, and of memory.
type spent struct {
	all, user, kernel time.Duration
	allocated         uint64
}

func (n *trackingNode) spend(b *testing.B) (e enforcer.Ended, s spent) {
	b.Helper()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	before := m.TotalAlloc
	kit.Must(b, n.host.Do(func() (err error) {
		e, s, err = spending(func() (enforcer.Ended, error) { return n.live.Cut(context.Background()) })
		return err
	}))
	runtime.ReadMemStats(&m)
	s.allocated = m.TotalAlloc - before
	return e, s
}

func spending(f func() (enforcer.Ended, error)) (e enforcer.Ended, s spent, err error) {
	var before, after unix.Rusage
	start, err := threadTime()
	if err != nil {
		return e, s, err
	}
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &before); err != nil {
		return e, s, fmt.Errorf("reading what the thread has taken: %w", err)
	}
	if e, err = f(); err != nil {
		return e, s, err
	}
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &after); err != nil {
		return e, s, fmt.Errorf("reading what the thread has taken: %w", err)
	}
	end, err := threadTime()
	s.all = end - start
	s.user, s.kernel = time.Duration(after.Utime.Nano()-before.Utime.Nano()), time.Duration(after.Stime.Nano()-before.Stime.Nano())
	return e, s, err
}

// leaving is a cutter's view of connections that notes what looks cost, and how late they are.
type leaving struct {
	*enforcer.Connections
	mu    sync.Mutex
	looks int
	spent spent
	late  sample // s
}

var _ nodectl.Live = (*leaving)(nil)

func (l *leaving) Cut(ctx context.Context) (enforcer.Ended, error) {
	e, s, err := spending(func() (enforcer.Ended, error) { return l.Connections.Cut(ctx) })
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil && !e.Since.IsZero() {
		l.late = append(l.late, time.Since(e.Since).Seconds())
	}
	l.looks++
	l.spent.all, l.spent.user, l.spent.kernel = l.spent.all+s.all, l.spent.user+s.user, l.spent.kernel+s.kernel
	return e, err
}

// leavingTime is for how long pods leave.
const leavingTime = 3 * time.Minute

// BenchmarkRemotePodsLeave takes the share of a core that live connections cost while a remote pod leaves each second, and the node is resynced as ever. Each
// is a peer of pods of this node. Before a look was about what a change affects, it was about all connections, once for each of them.
func BenchmarkRemotePodsLeave(b *testing.B) {
	kit.NeedNetfilter(b)
	for _, c := range []struct {
		name  string
		peers func(compile.Snapshot) compile.Snapshot
	}{
		{"10 pods here", func(s compile.Snapshot) compile.Snapshot { return s }},
		{"all pods here", widely},
	} {
		b.Run("peers_of="+strings.ReplaceAll(c.name, " ", "_"), func(b *testing.B) {
			s := c.peers(cluster(10000, 100))
			n := newTracking(b, s, trackedMany, 0)
			here := n.fillTable(b, trackedMany)
			n.restart(b)
			n.cut(b)
			n.restart(b)
			_, all := n.cut(b)
			for b.Loop() {
				l := &leaving{Connections: n.live}
				took := n.leave(b, l)
				part := func(d time.Duration) float64 { return 100 * d.Seconds() / took.Seconds() }
				share := part(l.spent.all)
				b.ReportMetric(share, "%core")
				tableOf("A remote pod leaves each second for 3 minutes, 500,000 entries in the table", "a peer of", "entries of this node", "looks",
					"% of a core", "user", "kernel", "goal: 2 %", "s from the first change to the end of a look", "at the most", "with a look at all for each, %").
					add(c.name, fmt.Sprint(here), fmt.Sprint(l.looks), fmt.Sprintf("%.2f", share), fmt.Sprintf("%.2f", part(l.spent.user)),
						fmt.Sprintf("%.2f", part(l.spent.kernel)), verdict(share, 2), l.late.text("%.1f"), fmt.Sprintf("%.1f", l.late.quantile(1)),
						fmt.Sprintf("%.0f", min(25, 100*all.Seconds())))
			}
		})
	}
}

// leave has one pod after the other leave, while a cutter looks at connections, and says how long it took.
func (n *trackingNode) leave(b *testing.B, l *leaving) time.Duration {
	b.Helper()
	ctx, stop := context.WithCancel(logr.NewContext(context.Background(), logr.Discard()))
	var done sync.WaitGroup
	cutter := &nodectl.Cutter{Live: l, Pods: func(write func([]policy.PodName), a ...netip.Addr) { write(make([]policy.PodName, len(a))) }}
	done.Go(func() { kit.Must(b, n.host.Do(func() error { return cutter.Start(ctx) })) })
	start := time.Now()
	s := n.snapshot
	each := time.NewTicker(time.Second)
	defer each.Stop()
	for i := 0; time.Since(start) < leavingTime; i++ {
		s = withoutPod(s, 500+37*i%2000) // of namespaces that are peers of one application here
		_, err := n.enforcer.Sync(context.Background(), s, i%30 == 29)
		kit.Must(b, err)
		<-each.C
	}
	took := time.Since(start)
	stop()
	done.Wait()
	return took
}
