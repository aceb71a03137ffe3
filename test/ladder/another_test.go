package ladder

import (
	"net/netip"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringfence-io/ringfence/enforcer"
	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/dataplane"
	"github.com/ringfence-io/ringfence/test/gen"
	"github.com/ringfence-io/ringfence/test/kit"
)

// TestAnothersSyncDoesNotPayForWhatATenantHas: while another tenant's pod comes and goes elsewhere, a sync takes at most twice the memory and the time that it
// takes without a hostile tenant's objects, however many sets, policies and rules these have made on the node: nothing walks over all of them. What selects the
// pod itself, as peers in all namespaces do, is not among these objects.
func TestAnothersSyncDoesNotPayForWhatATenantHas(t *testing.T) {
	bare := Snapshot(hostileShop().Cluster, "node1")
	without := costOfAnothers(t, bare)
	for _, a := range gen.Attacks() {
		switch a.Name {
		case "1,000 policies x 20 peers, each pod its own group", "10,000 policies", "500 policies x 8 peers, each pod has half of them",
			"1,000 audited policies, each pod its own group", "200 policies x 500 named ports":
		default:
			continue
		}
		s := bare
		for _, p := range a.Policies {
			s.Policies = s.Policies.With(p)
		}
		with := costOfAnothers(t, s)
		t.Logf("%s: %v, %d KB; without %v, %d KB", a.Name, with.took, with.bytes/1000, without.took, without.bytes/1000)
		if with.bytes > 2*without.bytes+10_000 || with.took > 2*without.took+100*time.Microsecond {
			t.Errorf("%s: another tenant's sync takes %v and %d KB, where it takes %v and %d KB without", a.Name,
				with.took, with.bytes/1000, without.took, without.bytes/1000)
		}
	}
}

// syncCost is what a sync takes: the least time of many, and the memory that all allocate, by their number.
type syncCost struct {
	took  time.Duration
	bytes uint64
}

func costOfAnothers(t *testing.T, s compile.Snapshot) syncCost {
	t.Helper()
	e := enforcer.New(dataplane.NewFake(dataplane.Capabilities{}), Options)
	sync := func(s compile.Snapshot) {
		t.Helper()
		_, err := e.Sync(t.Context(), s, false)
		kit.Must(t, err)
	}
	for range 40 { // the first ones bring what waits
		sync(s)
	}
	with := s
	with.Remote = s.Remote.With(&compile.Pod{
		Namespace: "shop", Name: "another", UID: "another", Node: "elsewhere", Labels: compile.NewLabels(map[string]string{"app": "web"}),
		Addrs: []netip.Addr{netip.MustParseAddr("10.77.0.1")},
	})
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const times = 50
	least := time.Hour
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for range times {
		for _, s := range []compile.Snapshot{with, s} {
			start := threadTime(t)
			sync(s)
			least = min(least, threadTime(t)-start)
		}
	}
	runtime.ReadMemStats(&after)
	return syncCost{least, (after.TotalAlloc - before.TotalAlloc) / (2 * times)}
}

func threadTime(t *testing.T) time.Duration {
	t.Helper()
	var now unix.Timespec
	kit.Must(t, unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &now))
	return time.Duration(now.Nano())
}
