package ladder

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// asking is a namespace that asks for its denied connections.
func asking(n *corev1.Namespace) *corev1.Namespace {
	n = n.DeepCopy()
	metav1.SetMetaDataAnnotation(&n.ObjectMeta, v1alpha1.ConnectionsAnnotation, v1alpha1.ConnectionsDenied)
	return n
}

// TestWhatANamespaceAsksForIsLogged: the annotation has what the policies of the namespace deny be logged, and what policies of the cluster deny at nodes with its
// pods; of other policies nothing, and nothing else changes.
func TestWhatANamespaceAsksForIsLogged(t *testing.T) {
	saw := map[string]bool{}
	for seed := range uint64(300) {
		c, _ := newCase(seed, 0)
		if len(c.Cluster.Namespaces) == 0 {
			continue
		}
		asks := asking(c.Cluster.Namespaces[int(seed)%len(c.Cluster.Namespaces)])
		after := c.Cluster
		after.Namespaces = replaced(after.Namespaces, int(seed)%len(after.Namespaces), asks)
		for _, node := range c.Nodes {
			for _, unknown := range []bool{false, true} { // pods of other nodes
				before, now := Snapshot(c.Cluster, node.Name), Snapshot(after, node.Name)
				if unknown {
					before, now = withoutOthers(before), withoutOthers(now)
				}
				if err := logsAsAsked(before, now, asks.Name, saw); err != nil {
					t.Fatalf("seed %d, node %s, pods of other nodes unknown: %t: %v", seed, node.Name, unknown, err)
				}
			}
		}
	}
	for _, what := range []string{"in it", "of the cluster", "of the cluster, without its pods", "of others", "a rule that denies", "a rule in doubt that denies"} {
		if !saw[what] {
			t.Errorf("no case has a policy %s", what)
		}
	}
}

// withoutOthers is a snapshot in which no pods of other nodes are known.
func withoutOthers(s compile.Snapshot) compile.Snapshot {
	s.Elsewhere.Partial = true
	for n := range s.Namespaces.All() {
		s.Elsewhere.Unknown = append(s.Elsewhere.Unknown, n.Name)
	}
	slices.Sort(s.Elsewhere.Unknown)
	s.Remote = compile.Objects[*compile.Pod]{}
	return s
}

func logsAsAsked(before, now compile.Snapshot, namespace string, saw map[string]bool) error {
	plain, plainProblems := compile.Compile(before)
	logged, problems := compile.Compile(now)
	if len(plain.Policies) != len(logged.Policies) {
		return fmt.Errorf("%d policies, %d without the annotation", len(logged.Policies), len(plain.Policies))
	}
	hasPods := false
	for _, p := range now.Local { // one that has no address is in nobody's way
		hasPods = hasPods || p.Namespace == namespace && slices.ContainsFunc(p.Addrs, func(a netip.Addr) bool {
			holder := compile.Holder(now, a)
			return holder != nil && holder.Name == p.Name && holder.Namespace == namespace
		})
	}
	for i := range logged.Policies {
		p, without := &logged.Policies[i], plain.Policies[i]
		of := map[bool]string{true: "of the cluster", false: "of others"}[p.Ref.Namespace == ""]
		switch {
		case p.Ref.Namespace == namespace:
			of = "in it"
		case of == "of the cluster" && !hasPods:
			of = "of the cluster, without its pods"
		}
		saw[of] = true
		want := of == "in it" || of == "of the cluster"
		if p.Log != want {
			return fmt.Errorf("%s, %s, is logged: %t", p.Ref, of, p.Log)
		}
		for _, d := range policy.Directions {
			for j := range p.Rules[d] {
				r := &p.Rules[d][j]
				denies := r.Action == policy.Deny
				saw["a rule that denies"] = saw["a rule that denies"] || denies && want
				saw["a rule in doubt that denies"] = saw["a rule in doubt that denies"] || denies && want && r.InDoubt
				if r.Log != (without.Rules[d][j].Log || want && denies) {
					return fmt.Errorf("%s rule %d of %s, %s, which denies: %t, in doubt: %t, is logged: %t", d, r.Index, p.Ref, of, denies, r.InDoubt, r.Log)
				}
				r.Log = without.Rules[d][j].Log
			}
		}
		p.Log = without.Log
	}
	if diff := cmp.Diff(plain, logged, comparers); diff != "" {
		return fmt.Errorf("besides (-without +with the annotation):\n%s", diff)
	}
	if diff := cmp.Diff(plainProblems, problems); diff != "" {
		return fmt.Errorf("problems (-without +with the annotation):\n%s", diff)
	}
	return nil
}

// TestWhatIsLoggedIsDeniedAllTheSame: with namespaces that ask for their denied connections, the oracle, which knows nothing of that, and the rulesets agree.
func TestWhatIsLoggedIsDeniedAllTheSame(t *testing.T) {
	forEachCase(t, 60, func(seed uint64) error {
		c, flows := newCase(seed, 60)
		c.Cluster.Namespaces = slices.Clone(c.Cluster.Namespaces)
		for i, n := range c.Cluster.Namespaces {
			if (seed>>i)&1 == 0 {
				c.Cluster.Namespaces[i] = asking(n)
			}
		}
		different, err := Differences(c, flows)
		if err != nil {
			return err
		}
		if len(different) > 0 {
			return fmt.Errorf("%s\n%v", different[0], explain(c, different[0].Flow))
		}
		return nil
	})
}
