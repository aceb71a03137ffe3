package node

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/ringfence-io/ringfence/controllers/cached"
	"github.com/ringfence-io/ringfence/enforcer"
	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// storesOf are stores that hold these pods, without an API server behind them.
func storesOf(t *testing.T, node string, pods ...*compile.Pod) *stores {
	t.Helper()
	all := newAllPods(node)
	s := newStores(all)
	s.node = toolscache.NewSharedIndexInformer(&toolscache.ListWatch{}, &corev1.Node{}, 0, toolscache.Indexers{})
	var entries []any
	for _, p := range pods {
		entries = append(entries, cached.NewPodEntry("1", p))
	}
	if err := errors.Join(all.Replace(entries, "1"), s.namespaces.Replace(nil, "1"), s.policies.Replace(nil, "1")); err != nil {
		t.Fatal(err)
	}
	return s
}

// nodeOf is a node whose caches hold these pods.
func nodeOf(t *testing.T, c Config, pods ...*compile.Pod) *Reconciler {
	t.Helper()
	n := New(c)
	n.stores = storesOf(t, c.Name, pods...)
	n.watches = &watches{stores: n.stores, kinds: &cached.Kinds{}}
	return n
}

func TestPodsAt(t *testing.T) {
	v4, v6, shared := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1"), netip.MustParseAddr("10.0.0.2")
	n := nodeOf(t, Config{},
		&compile.Pod{Namespace: "team-a", Name: "web", Addrs: []netip.Addr{v4, v6}},
		&compile.Pod{Namespace: "team-a", Name: "done", Addrs: []netip.Addr{shared}, Finished: true},
		&compile.Pod{Namespace: "team-b", Name: "next", Addrs: []netip.Addr{shared}},
	)
	var got []string
	for _, p := range n.PodsAt(shared, v6, netip.MustParseAddr("192.0.2.1"), v4) {
		got = append(got, p.String())
	}
	if diff := cmp.Diff([]string{"team-b/next", "team-a/web", "", "team-a/web"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// syncs are the reports of syncs to come.
type syncs []enforcer.Report

func (s *syncs) Sync(context.Context, compile.Snapshot, bool) (enforcer.Report, error) {
	r := (*s)[0]
	*s = (*s)[1:]
	return r, nil
}

func TestThePointsOfEachSyncAreTold(t *testing.T) {
	first, second := policy.MapOf(map[string]policy.Point{"a": {ID: "a"}}), policy.MapOf(map[string]policy.Point{"b": {ID: "b"}})
	var told []policy.Map[string, policy.Point]
	n := nodeOf(t, Config{
		Name: "n", Resync: time.Hour, Sync: &syncs{{Points: first}, {Points: second}},
		Points: func(p policy.Map[string, policy.Point]) { told = append(told, p) },
	})
	for range 2 {
		if _, err := n.Reconcile(t.Context(), reconcile.Request{}); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]policy.Map[string, policy.Point]{first, second}, told); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// While a namespace's policies are in force as they were, the next sync comes soon, and its pods go on waiting; those of others do not.
func TestANamespaceWaitsByItself(t *testing.T) {
	pod := func(namespace, addr string) *compile.Pod {
		return &compile.Pod{Namespace: namespace, Name: "p", UID: namespace, Node: "n", Addrs: []netip.Addr{netip.MustParseAddr(addr)}}
	}
	arrivals := &asked{addrs: []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")}}
	n := nodeOf(t, Config{
		Name: "n", Resync: time.Hour, Sync: &syncs{{Waiting: []string{"a"}}, {}}, Arrivals: arrivals,
	}, pod("a", "10.0.0.1"), pod("b", "10.0.0.2"))
	for _, want := range []struct {
		soon bool
		lack []bool
	}{{true, []bool{true, false}}, {false, []bool{false, false}}} {
		result, err := n.Reconcile(t.Context(), reconcile.Request{})
		if err != nil || result.RequeueAfter < time.Second != want.soon {
			t.Errorf("the next sync comes after %s, %v; soon: want %t", result.RequeueAfter, err, want.soon)
		}
		if diff := cmp.Diff(want.lack, arrivals.lack); diff != "" {
			t.Errorf("who lacks policy (-want +got):\n%s", diff)
		}
	}
}

// asked says which of some addresses lack policy after each sync.
type asked struct {
	addrs []netip.Addr
	lack  []bool
}

func (a *asked) Into(*compile.Snapshot) (ended func(lacking func([]netip.Addr) error)) {
	return func(lacking func([]netip.Addr) error) {
		a.lack = nil
		for _, addr := range a.addrs {
			a.lack = append(a.lack, lacking([]netip.Addr{addr}) != nil)
		}
	}
}

func (a *asked) OnArrival(func()) {}
