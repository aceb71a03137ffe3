package enforcer_test

import (
	"context"
	"net/netip"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/ringfence-io/ringfence/enforcer"
	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/dataplane"
	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// flood is a kernel with a great many connections, which it makes up one after the other, and which counts what is held off.
type flood struct {
	*dataplane.Fake
	n    int
	make func(i int) policy.Connection
	held map[netip.Addr]int // by originator
	cut  int
	peak uint64 // of the heap while they are listed
}

func (f *flood) Connections(_ context.Context, _ policy.Affected, visit func(policy.Connection)) error {
	for i := range f.n {
		visit(f.make(i))
		if i%(f.n/8) == f.n/16 {
			var m runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&m)
			f.peak = max(f.peak, m.HeapAlloc)
		}
	}
	return nil
}

func (f *flood) Cut(_ context.Context, all []policy.Connection, holdOff bool) (int, error) {
	for _, one := range all {
		if holdOff {
			f.held[one.Original.Src]++
		}
	}
	f.cut += len(all)
	return len(all), nil
}

// opened is the i-th connection of a pod to somewhere outside.
func opened(src netip.Addr, i int) policy.Connection {
	dst := netip.AddrFrom4([4]byte{192, 0, byte(i >> 24), 1})
	port := uint16(i)
	return policy.Connection{
		Original: policy.Tuple{Protocol: policy.TCP, Src: src, Dst: dst, SrcPort: port, DstPort: uint16(i >> 16)},
		Reply:    policy.Tuple{Protocol: policy.TCP, Src: dst, Dst: src, SrcPort: uint16(i >> 16), DstPort: port},
		SYN:      true, Left: 24 * time.Hour,
	}
}

// closed has the pods of both tenants in town denied all egress.
func closed() compile.Snapshot {
	s := town()
	for _, ns := range []string{"a", "b"} {
		np := allow(ns, "none", 1)
		np.Spec.PodSelector.MatchLabels, np.Spec.PolicyTypes, np.Spec.Ingress = nil, []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}, nil
		s = with(s, np)
	}
	return s
}

// A tenant opens connections and has them denied, again and again. What it takes of the room for what is held off leaves room for another's.
func TestOneTenantsCutConnectionsLeaveRoomForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hostile, victim := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.1.1")
		kernel := &flood{Fake: dataplane.NewFake(dataplane.Capabilities{}), held: map[netip.Addr]int{}}
		live := enforcer.NewConnections(kernel)
		rounds := 0
		look := func(src netip.Addr, n int) enforcer.Ended {
			rounds++
			e := enforcer.New(kernel, options) // which looks at all connections
			e.Follow(live)
			kernel.n, kernel.make = n, func(i int) policy.Connection { return opened(src, rounds<<22+i) }
			mustSync(t, e, closed(), false)
			return mustCut(t, live)
		}
		for range 3 {
			if got := look(hostile, 200_000); got.Cut != 200_000 {
				t.Errorf("cut %d, want all", got.Cut)
			}
		}
		if n := kernel.held[hostile]; n != iptables.MaxHeld/2 {
			t.Errorf("one tenant holds %d of %d", n, iptables.MaxHeld)
		}
		got := look(hostile, 1000)
		if got.Unheld["a"] != 1000 || got.Cut != 1000 {
			t.Errorf("what found no room is said as %v", got.Unheld)
		}
		if got := look(victim, 50_000); len(got.Unheld) != 0 || kernel.held[victim] != 50_000 {
			t.Errorf("of another's 50000 connections %d are held off, and %v said not to be", kernel.held[victim], got.Unheld)
		}
		time.Sleep(25 * time.Hour) // of the bubble's clock
		if got := look(hostile, 1000); len(got.Unheld) != 0 {
			t.Errorf("after all has ended there is no room: %v", got.Unheld)
		}
	})
}

// A million connections that are denied are ended while they are listed, and take the memory of some.
func TestAMillionDeniedConnectionsTakeLittleMemory(t *testing.T) {
	const n, limit = 1_000_000, 64 << 20
	kernel := &flood{Fake: dataplane.NewFake(dataplane.Capabilities{}), held: map[netip.Addr]int{}}
	kernel.n, kernel.make = n, func(i int) policy.Connection { return opened(netip.MustParseAddr("10.0.0.1"), i) }
	e, live := enforcer.New(kernel, options), enforcer.NewConnections(kernel)
	e.Follow(live)
	mustSync(t, e, closed(), false)
	var before runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	start := time.Now()
	got := mustCut(t, live)
	if got.Cut != n || got.Seen != n {
		t.Errorf("%d were cut, of %d seen", got.Cut, got.Seen)
	}
	grown := int64(kernel.peak) - int64(before.HeapAlloc)
	t.Logf("%d connections: %d MB at most, in %s", n, grown>>20, time.Since(start).Round(time.Millisecond))
	if grown > limit {
		t.Errorf("the heap grew by %d bytes, want %d at most", grown, limit)
	}
}
