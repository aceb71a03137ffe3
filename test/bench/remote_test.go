package bench

import (
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ringfence-io/ringfence/enforcer"
	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/dataplane"
	"github.com/ringfence-io/ringfence/test/kit"
)

// grown is a cluster of which a node has 110 pods and 100 policies, whatever its size: all other pods and policies are elsewhere, in namespaces of 100 pods.
func grown(pods, policies int) compile.Snapshot {
	s := cluster(pods, 100)
	for i := 100; i < policies; i++ {
		ns := fmt.Sprintf("team-%d", 2+i/5%max(1, pods/100-2))
		s.Policies = s.Policies.With(networkPolicy(ns, fmt.Sprintf("far-%d", i), i))
	}
	return s
}

// remoteChange is something that comes and goes again.
type remoteChange struct {
	name string
	come func(*compile.Snapshot)
}

func remoteChanges() []remoteChange {
	peer := &compile.Pod{
		Namespace: "team-5", Name: "joining", UID: "joining", Node: "elsewhere", Labels: compile.NewLabels(map[string]string{"app": "app-1"}),
		Addrs: []netip.Addr{netip.MustParseAddr("10.199.0.1")},
	}
	stranger := *peer
	stranger.Namespace = "team-9999"
	changed := networkPolicy("team-0", "p-0", 0)
	changed.UID, changed.Generation = types.UID("changed"), 2
	changed.Spec.Ingress = append(changed.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{From: []networkingv1.NetworkPolicyPeer{
		{NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"team": "7"}}},
	}})
	elsewhere := networkPolicy("team-7", "new", 0)
	return []remoteChange{
		{"a pod that policies select elsewhere", func(s *compile.Snapshot) { s.Remote = s.Remote.With(peer) }},
		{"a pod that none selects elsewhere", func(s *compile.Snapshot) { s.Remote = s.Remote.With(&stranger) }},
		{"a policy of the node becomes another", func(s *compile.Snapshot) { s.Policies = s.Policies.With(changed) }},
		{"a policy elsewhere", func(s *compile.Snapshot) { s.Policies = s.Policies.With(elsewhere) }},
	}
}

// BenchmarkRemote measures what a change costs a node in user space, whatever the size of the cluster: from the snapshot to what the kernel is told, which is
// a kernel of text here.
func BenchmarkRemote(b *testing.B) {
	sizes := []struct{ pods, policies int }{{1000, 100}, {10_000, 1000}, {100_000, 10_000}}
	t := tableOf("One change in a cluster, 110 pods and 100 policies on the node: CPU time of a sync in user space, median in ms, and KB and numbers of allocations",
		"change", "1,000 pods, 100 policies", "10,000 and 1,000", "100,000 and 10,000", "ratio", "allocated KB", "ratio", "allocations", "ratio",
		"goal: ratios up to 2, and 1 ms")
	took := map[string][]remoteCost{}
	for _, size := range sizes {
		s := grown(size.pods, size.policies)
		e := enforcer.New(dataplane.NewFake(dataplane.Capabilities{}), everything)
		_, err := e.Sync(b.Context(), s, true)
		kit.Must(b, err)
		for _, c := range remoteChanges() {
			b.Run(fmt.Sprintf("%s/pods=%d", c.name, size.pods), func(b *testing.B) {
				cost := costOfChange(b, e, s, c)
				took[c.name] = append(took[c.name], cost)
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(cost.ms, "cpu-ms")
				b.ReportMetric(cost.kb, "allocated-KB")
			})
		}
	}
	for _, c := range remoteChanges() {
		if all := took[c.name]; len(all) >= len(sizes) {
			first, last := all[0], all[len(all)-1]
			t.add(c.name, fmt.Sprintf("%.3f", first.ms), fmt.Sprintf("%.3f", all[1].ms), fmt.Sprintf("%.3f", last.ms), fmt.Sprintf("%.2f", last.ms/first.ms),
				fmt.Sprintf("%.0f", last.kb), fmt.Sprintf("%.2f", last.kb/first.kb), fmt.Sprintf("%.0f", last.allocations), fmt.Sprintf("%.2f", last.allocations/first.allocations),
				verdict(max(last.ms/first.ms/2, last.kb/first.kb/2, last.allocations/first.allocations/2, last.ms), 1))
		}
	}
}

// remoteCost is what one sync takes.
type remoteCost struct{ ms, kb, allocations float64 }

// remoteTimes is how often a change comes and goes.
const remoteTimes = 300

func costOfChange(b *testing.B, e *enforcer.Enforcer, s compile.Snapshot, c remoteChange) remoteCost {
	b.Helper()
	with := s
	c.come(&with)
	var times sample
	var before, after runtime.MemStats
	sync := func(s compile.Snapshot) {
		start, err := threadTime()
		kit.Must(b, err)
		_, err = e.Sync(b.Context(), s, false)
		kit.Must(b, err)
		end, err := threadTime()
		kit.Must(b, err)
		times = append(times, milliseconds(end-start))
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	runtime.GC()
	runtime.ReadMemStats(&before)
	for range remoteTimes {
		sync(with)
		sync(s)
	}
	runtime.ReadMemStats(&after)
	n := float64(2 * remoteTimes)
	slices.Sort(times)
	return remoteCost{times.median(), float64(after.TotalAlloc-before.TotalAlloc) / 1e3 / n, float64(after.Mallocs-before.Mallocs) / n}
}
