package node

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

func TestWhoseConnectionsAreLookedFor(t *testing.T) {
	addr := func(text string) []netip.Addr { return []netip.Addr{netip.MustParseAddr(text)} }
	s := compile.Snapshot{
		Node: "n",
		Local: []*compile.Pod{
			{Namespace: "asks", Name: "one", Node: "n", Addrs: addr("10.0.0.1")},
			{Namespace: "asks", Name: "ended", Node: "n", Addrs: addr("10.0.0.2"), Finished: true},
			{Namespace: "asks", Name: "host", Node: "n", Addrs: addr("10.0.0.3"), HostNetwork: true},
			{Namespace: "not", Name: "two", Node: "n", Addrs: addr("10.0.0.4")},
			{Namespace: "asks", Name: "claimed", Node: "n", Addrs: addr("10.0.0.5")},
		},
		Remote: compile.ObjectsOf(
			&compile.Pod{Namespace: "asks", Name: "far", Node: "m", Addrs: addr("10.0.1.1")},
			&compile.Pod{Namespace: "far", Name: "far", Node: "m", Addrs: addr("10.0.1.2")},
			&compile.Pod{Namespace: "far", Name: "claims", Node: "m", Addrs: addr("10.0.0.5")},
		),
		Namespaces: compile.ObjectsOf(
			&compile.Namespace{Name: "asks", Watched: true}, &compile.Namespace{Name: "not", Logged: true}, &compile.Namespace{Name: "far", Watched: true},
		),
	}
	want := map[netip.Addr]policy.PodName{
		addr("10.0.0.1")[0]: {Namespace: "asks", Name: "one", Workload: "one"},
		addr("10.0.0.5")[0]: {Namespace: "asks", Name: "claimed", Workload: "claimed"},
	}
	if diff := cmp.Diff(want, watchedPods(s), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
