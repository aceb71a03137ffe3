package status

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/cached"
	"github.com/ringfence-io/ringfence/enforcer/compile"
)

// visible is a pod that policy sees, on a node.
func visible(namespace, on string, addrs ...string) *compile.Pod {
	p := &compile.Pod{Namespace: namespace, Name: "pod-on-" + on, UID: namespace + on, Node: on}
	if len(addrs) == 0 {
		addrs = []string{"10.0.0.1"}
	}
	for _, a := range addrs {
		p.Addrs = append(p.Addrs, netip.MustParseAddr(a))
	}
	return p
}

// reportOf is what a node's report becomes in the cache; beats is its heartbeat, by whatever clock.
func reportOf(name string, interval time.Duration, beats time.Time) *cached.ReportEntry {
	r := having("10")
	r.Name, r.Interval, r.Heartbeat = name, interval, beats
	return r
}

// viewOf is a view without an API server behind it.
func viewOf(t testing.TB, entries ...any) *view {
	t.Helper()
	informer := func(of runtime.Object) toolscache.SharedIndexInformer {
		return toolscache.NewSharedIndexInformer(&toolscache.ListWatch{}, of, 0, toolscache.Indexers{toolscache.NamespaceIndex: toolscache.MetaNamespaceIndexFunc})
	}
	v := &view{
		pods: informer(&corev1.Pod{}), namespaces: informer(&corev1.Namespace{}), policies: informer(&networkingv1.NetworkPolicy{}),
		nodes: informer(&corev1.Node{}), reports: informer(&v1alpha1.NodeEnforcement{}), enforcements: informer(&v1alpha1.PolicyEnforcement{}),
		heartbeats: heartbeats{nodes: map[string]heartbeat{}},
	}
	v.holds(t, entries...)
	return v
}

// holds puts entries into the stores of their kinds.
func (v *view) holds(t testing.TB, entries ...any) {
	t.Helper()
	for _, e := range entries {
		store := v.pods
		switch p := e.(type) {
		case *compile.Pod:
			e = &podEntry{PodEntry: cached.NewPodEntry("1", p)}
		case *cached.NamespaceEntry:
			store = v.namespaces
		case *corev1.Node:
			store = v.nodes
		case *cached.ReportEntry:
			store = v.reports
		default:
			t.Fatalf("there is no store for a %T", e)
		}
		if err := store.GetStore().Add(e); err != nil {
			t.Fatal(err)
		}
	}
}

func named(name string) *corev1.Node { return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}} }

func TestDesiredNodesAreThoseThatExistAndRunASelectedPod(t *testing.T) {
	everything := compile.Understand(compile.Object{NetworkPolicy: webAt(1, "10")})
	onHost, over := visible("shop", "n4"), visible("shop", "n5")
	onHost.HostNetwork, over.Finished = true, true
	without := visible("shop", "n6")
	without.Addrs = nil
	dual := visible("shop", "n2", "10.0.0.2", "fd00::2")
	old := reportOf("n2", time.Minute, started)
	old.Families = []v1alpha1.Family{v1alpha1.IPv4}
	v := viewOf(t,
		&cached.NamespaceEntry{ObjectMeta: metav1.ObjectMeta{Name: "shop"}, Namespace: &compile.Namespace{Name: "shop"}},
		visible("shop", "n1"), dual, visible("shop", "n3"), onHost, over, without, visible("shop", "gone"), visible("other", "n7"),
		named("n1"), named("n2"), named("n3"), named("n4"), named("n5"), named("n6"), named("n7"),
		old, reportOf("n3", time.Minute, started), reportOf("gone", time.Minute, started),
	)
	v.heartbeats.note(v.report("n3"), started)
	nodes, absent := v.nodesOf(everything, started.Add(time.Hour))

	got := map[string]string{}
	for name, n := range nodes {
		got[name] = fmt.Sprintf("%d pods, reported %t, heard %t, lacks %q", len(n.Pods), n.Report != nil, n.Heard, n.Family)
	}
	want := map[string]string{
		"n1": `1 pods, reported false, heard false, lacks ""`,
		"n2": `1 pods, reported true, heard true, lacks "IPv6"`,
		"n3": `1 pods, reported true, heard false, lacks ""`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("desired nodes (-want +got):\n%s", diff)
	}
	if !slices.Equal(absent, []string{"gone"}) {
		t.Errorf("nodes that do not exist: %v", absent)
	}
}

// What happens to a node while a worker looks at a policy that selects its pods for the first time marks nothing.
func TestWhatAWorkerHasMissed(t *testing.T) {
	everything := compile.Understand(compile.Object{NetworkPolicy: webAt(1, "10")})
	for _, tt := range []struct {
		name  string
		fresh []string
		then  func(*testing.T, *view)
		want  bool
	}{
		{"nothing", []string{"n1", "n2", "gone"}, func(*testing.T, *view) {}, false},
		{"a report", []string{"n1"}, func(t *testing.T, v *view) { v.holds(t, reportOf("n1", time.Minute, started)) }, true},
		{"the report of a node that was known", []string{"n2"}, func(t *testing.T, v *view) { v.holds(t, reportOf("n1", time.Minute, started)) }, false},
		{"a first report", []string{"n2"}, func(t *testing.T, v *view) { v.holds(t, reportOf("n2", time.Minute, started)) }, true},
		{"a node that comes", []string{"gone"}, func(t *testing.T, v *view) { v.holds(t, named("gone")) }, true},
		{"a node that goes", []string{"n2"}, func(t *testing.T, v *view) {
			if err := v.nodes.GetStore().Delete(named("n2")); err != nil {
				t.Fatal(err)
			}
		}, true},
		{"silence", []string{"n1"}, func(_ *testing.T, v *view) { v.heartbeats.note(v.report("n1"), time.Now().Add(-time.Hour)) }, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := viewOf(t, &cached.NamespaceEntry{ObjectMeta: metav1.ObjectMeta{Name: "shop"}, Namespace: &compile.Namespace{Name: "shop"}},
				visible("shop", "n1"), visible("shop", "n2"), visible("shop", "gone"), named("n1"), named("n2"), reportOf("n1", time.Minute, started))
			nodes, _ := v.nodesOf(everything, time.Now())
			tt.then(t, v)
			if got := v.missed(nodes, tt.fresh); got != tt.want {
				t.Errorf("missed something: %t, want %t", got, tt.want)
			}
		})
	}
}

func TestNodesAreHeardByTheControllersClock(t *testing.T) {
	for _, clock := range []time.Time{started, started.AddDate(-30, 0, 0), started.AddDate(30, 0, 0), {}} {
		h := heartbeats{nodes: map[string]heartbeat{}}
		at := func(d time.Duration) time.Time { return started.Add(d) }
		report := func(beat int) *cached.ReportEntry {
			return reportOf("n1", 10*time.Second, clock.Add(time.Duration(beat)))
		}
		recent := func(d time.Duration, want bool) {
			t.Helper()
			if got := h.recent(report(0), at(d)); got != want {
				t.Errorf("with its clock at %s, the node is heard of after %s: %t, want %t", clock, d, got, want)
			}
		}
		recent(0, true) // nobody has noted it yet
		if !h.note(report(0), at(0)) || h.note(report(1), at(10*time.Second)) {
			t.Error("a node is heard of again with its first report, and not with its second")
		}
		recent(40*time.Second, true)
		recent(40*time.Second+1, false)
		for _, tt := range []struct {
			since, now time.Duration
			want       int
		}{{39, 40, 0}, {40, 41, 1}, {41, 42, 0}, {30, 60, 1}} {
			if got := h.lost(at(tt.since*time.Second), at(tt.now*time.Second)); len(got) != tt.want {
				t.Errorf("between %d and %d s fell silent: %v", tt.since, tt.now, got)
			}
		}
		if !h.note(report(2), at(time.Minute)) {
			t.Error("a node that was silent is not heard of again")
		}
		recent(90*time.Second, true)
		h.forget("n1")
		if got := h.lost(at(0), at(time.Hour)); got != nil {
			t.Errorf("a node that is gone fell silent: %v", got)
		}
	}
	h := heartbeats{nodes: map[string]heartbeat{}}
	h.note(reportOf("n1", 0, started), started)
	if h.recent(reportOf("n1", 0, started), started.Add(4*time.Second)) || !h.recent(reportOf("n1", 0, started), started.Add(3*time.Second)) {
		t.Error("a node that does not say how often it reports is not taken for one that does so every second")
	}
}

func TestWhatMakesAReportWorse(t *testing.T) {
	before := having("10", 1, 2)
	for _, tt := range []struct {
		name  string
		after *cached.ReportEntry
		want  bool
	}{
		{"the same", having("10", 1, 2), false},
		{"a later resource version", having("11", 1, 2), false},
		{"one more pod", having("10", 1, 2, 3), false},
		{"an earlier resource version", having("9", 1, 2), true},
		{"a kind that is gone", &cached.ReportEntry{Families: before.Families, Digests: before.Digests}, true},
		{"one pod less", having("10", 1), true},
		{"another pod", having("10", 1, 3), true},
		{"a failure", failing(having("10", 1, 2)), true},
		{"what cannot be read", unread(having("10", 1, 2)), true},
		{"a family less", func() *cached.ReportEntry { e := having("10", 1, 2); e.Families = e.Families[:1]; return e }(), true},
	} {
		if got := tt.after.WorseThan(before); got != tt.want {
			t.Errorf("%s: worse is %t, want %t", tt.name, got, tt.want)
		}
	}
	if !having("10", 1).WorseThan(failing(having("10", 1))) {
		t.Error("a failure that is gone is no news")
	}
}

func TestNodesAreCountedByWhatIsKnownOfThem(t *testing.T) {
	v := viewOf(t, named("n1"), named("n2"), named("n3"), named("n4"),
		reportOf("n1", time.Minute, started), failing(reportOf("n2", time.Minute, started)), reportOf("n3", time.Minute, started))
	v.heartbeats.note(v.report("n3"), started.Add(-time.Hour))
	want := map[string]int{"enforcing": 1, "failing": 1, "unknown": 2}
	if diff := cmp.Diff(want, v.count(started), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
}
