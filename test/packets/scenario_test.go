package packets

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/ringfence-io/ringfence/test/kit"
)

// scenario is one behaviour.
type scenario struct {
	name     string
	given    func(*cluster) // changes to the standard cluster
	policies string
	wide     string   // cluster-wide objects, as readWide takes them
	want     []string // lines
	// problems are the beginnings of what the compiler must report, none by default.
	problems []string
	// then are further changes, each made to what the ones before have left.
	then []step
	// before runs once, after the policies are in force and before anything is probed.
	before func(*testing.T, *world)
}

// step is a change to a scenario's cluster and what holds after it.
type step struct {
	what     string
	given    func(*cluster)
	policies string // instead of those before, if not empty
	wide     string // likewise
	want     []string
}

// TestPackets runs every scenario on every combination. The scenarios of a combination share one cluster, one after the
// other, so that each is also a change from the policies of the one before.
func TestPackets(t *testing.T) {
	kit.NeedNetfilter(t)
	scenarios := slices.Concat(
		isolationScenarios, hostScenarios, peerScenarios(), portScenarios(), namedPortScenarios,
		blockScenarios, serviceScenarios, tierScenarios, namespaceIsolationScenarios, auditScenarios, lifecycleScenarios, closedScenarios, claimScenarios, invalidScenarios, largeScenarios)
	seen := map[string]bool{}
	for _, s := range scenarios {
		if seen[s.name] {
			t.Fatalf("two scenarios are called %q", s.name)
		}
		seen[s.name] = true
	}
	t.Logf("%d scenarios on %d combinations", len(scenarios), len(combinations()))
	for _, c := range combinations() {
		t.Run(c.String(), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, c)
			for _, s := range scenarios {
				t.Run(s.name, func(t *testing.T) { s.run(t, w) })
			}
		})
	}
}

func (s scenario) run(t *testing.T, w *world) {
	c := w.cluster()
	if s.given != nil {
		s.given(c)
	}
	c.policies = append(c.policies, policies(t, s.policies, w.family)...)
	c.wide = readWide(t, s.wide, w.family)
	s.checkProblems(t, w.apply(t, c))
	if s.before != nil {
		s.before(t, w)
	}
	w.check(t, s.want)
	for _, st := range s.then {
		t.Log(st.what)
		if st.given != nil {
			st.given(c)
		}
		if st.policies != "" {
			c.policies = policies(t, st.policies, w.family)
		}
		if st.wide != "" {
			c.wide = readWide(t, st.wide, w.family)
		}
		w.apply(t, c)
		w.check(t, st.want)
	}
}

// checkProblems compares the beginnings of what is reported. Both nodes report the same.
func (s scenario) checkProblems(t *testing.T, got []string) {
	t.Helper()
	slices.Sort(got)
	got = slices.Compact(got)
	for i := range got {
		for _, p := range s.problems {
			if strings.HasPrefix(got[i], p) {
				got[i] = p
			}
		}
	}
	want := slices.Sorted(slices.Values(s.problems))
	if d := cmp.Diff(want, slices.Compact(got)); d != "" {
		t.Errorf("problems, -want +got:\n%s", d)
	}
}

// cluster is the standard cluster with the addresses of this world.
func (w *world) cluster() *cluster {
	c := standardCluster(w.family, func(pod string) netip.Addr { return w.places[pod].addr })
	c.nodes = []*corev1.Node{clusterNode("n1", w.places["n1"].addr, "zone=a"), clusterNode("n2", w.places["n2"].addr, "zone=b")}
	return c
}
