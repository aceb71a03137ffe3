package compile_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/test/gen"
	"github.com/ringfence-io/ringfence/test/ladder"
)

// TestTogetherEachPodIsDecidedAboutAsByItsNode: where all nodes are compiled at once, each flow has the decision that the pod's own node gives. With small
// budgets, nodes refuse policies, and with claims they differ about addresses: these clusters are to be noticed, and few others are to be taken for them.
func TestTogetherEachPodIsDecidedAboutAsByItsNode(t *testing.T) {
	const clusters = 300
	for name, tt := range map[string]struct {
		together func(compile.Snapshot) (policy.Node, bool)
		compiler func() *compile.Compiler
		claims   bool
		// wantTogether and wantApart are how many clusters are compiled together and are not, at the least.
		wantTogether, wantApart int
		// maxNeedless is in how many that are not, at the most, no node refuses a policy.
		maxNeedless int
	}{
		"documented budgets": {compile.Together, newCompiler, false, clusters, 0, 0},
		"small budgets":      {compile.TogetherSmall, compile.NewSmall, false, 30, 100, 20},
		"small nodes":        {compile.TogetherSmallNode, compile.NewSmallNode, false, 60, 60, 25},
		"claims":             {compile.Together, newCompiler, true, 100, 100, clusters},
	} {
		t.Run(name, func(t *testing.T) {
			together, apart, needless := 0, 0, 0
			for seed := range uint64(clusters) {
				s := gen.Seed(seed)
				c := gen.New(s, gen.Options{Invalid: seed%3 == 0, Tiers: seed%2 == 0, Claims: tt.claims})
				all, ok := tt.together(everywhere(ladder.Snapshot(c.Cluster, "")))
				refuses := false
				for _, n := range c.Nodes {
					node, problems := tt.compiler().Compile(ladder.Snapshot(c.Cluster, n.Name))
					refuses = refuses || slices.ContainsFunc(problems, func(p compile.Problem) bool { return p.Here && p.TooLarge })
					if !ok {
						continue
					}
					if refuses {
						t.Errorf("seed %d: node %s refuses a policy, which all nodes together do not: %v", seed, n.Name, problems)
					}
					for _, f := range gen.Flows(s, c, 40) {
						compareDecisions(t, seed, &node, &all, ladder.PolicyFlow(f, n.Name))
					}
				}
				switch {
				case ok:
					together++
				case !refuses:
					needless++
					fallthrough
				default:
					apart++
				}
			}
			t.Logf("%d clusters are compiled together, %d are not, %d of these needlessly", together, apart, needless)
			if together < tt.wantTogether || apart < tt.wantApart {
				t.Errorf("%d clusters are compiled together, want %d; %d are not, want %d", together, tt.wantTogether, apart, tt.wantApart)
			}
			if needless > tt.maxNeedless {
				t.Errorf("%d clusters are not compiled together though no node refuses a policy, want %d at the most", needless, tt.maxNeedless)
			}
		})
	}
}

func newCompiler() *compile.Compiler { return new(compile.Compiler) }

// everywhere is a snapshot with all pods as those of one node.
func everywhere(s compile.Snapshot) compile.Snapshot {
	s.Local, s.Remote = slices.Collect(s.Pods()), compile.Objects[*compile.Pod]{}
	return s
}

// compareDecisions compares what the node of a pod says of a flow with what all nodes together say.
func compareDecisions(t *testing.T, seed uint64, node, all *policy.Node, f policy.Flow) {
	t.Helper()
	for _, d := range policy.Directions {
		local := f.Src
		if d == policy.Ingress {
			local = f.Dst
		}
		hasLocal := func(e policy.Endpoint) bool { return slices.Contains(e.Addrs, local) }
		if !slices.ContainsFunc(node.Endpoints, hasLocal) {
			continue
		}
		want, wantOK := node.Decide(f, d)
		got, gotOK := all.Decide(f, d)
		if wantOK != gotOK || wantOK && (want.Allowed != got.Allowed || want.String() != got.String() || !slices.Equal(want.WouldDeny, got.WouldDeny)) {
			t.Errorf("seed %d: %s of %+v is %v, %t by all nodes together, and %v, %t by its own", seed, d, f, got, gotOK, want, wantOK)
		}
	}
}

// TestWhatNodesSeeDifferently: an address that may mean different pods on different nodes keeps these from being compiled together.
func TestWhatNodesSeeDifferently(t *testing.T) {
	pod := func(name, node, addr string) *compile.Pod {
		return &compile.Pod{Namespace: "shop", Name: name, UID: name, Node: node, Addrs: []netip.Addr{netip.MustParseAddr(addr)}}
	}
	finished := pod("b", "n2", "10.0.0.1")
	finished.Finished = true
	for name, tt := range map[string]struct {
		pods []*compile.Pod
		want bool
	}{
		"addresses of their own":                 {[]*compile.Pod{pod("a", "n1", "10.0.0.1"), pod("b", "n2", "10.0.0.2")}, true},
		"one address on one node":                {[]*compile.Pod{pod("a", "n1", "10.0.0.1"), pod("b", "n1", "10.0.0.1")}, true},
		"one address on two nodes":               {[]*compile.Pod{pod("a", "n1", "10.0.0.1"), pod("b", "n2", "10.0.0.1")}, false},
		"the address of a pod that has finished": {[]*compile.Pod{pod("a", "n1", "10.0.0.1"), finished}, true},
		"the address of a node":                  {[]*compile.Pod{pod("a", "n1", "192.168.0.1")}, false},
		"an address of a link":                   {[]*compile.Pod{pod("a", "n1", "fe80::1")}, false},
	} {
		s := compile.Snapshot{Local: tt.pods, Nodes: []*compile.Node{{Name: "n1", Addrs: []netip.Addr{netip.MustParseAddr("192.168.0.1")}}}}
		if _, ok := compile.Together(s); ok != tt.want {
			t.Errorf("%s: compiled together: %t, want %t", name, ok, tt.want)
		}
	}
}

// TestTogetherTheBudgetOfANodeIsEachNodes: what all nodes together have may be more than one may have.
func TestTogetherTheBudgetOfANodeIsEachNodes(t *testing.T) {
	for nodes, want := range map[int]bool{40: true, 1: false} {
		var s compile.Snapshot
		var policies []*networkingv1.NetworkPolicy
		for i := range 40 {
			ns, addr := fmt.Sprint("team-", i), netip.AddrFrom4([4]byte{10, 0, 0, byte(1 + i)})
			s.Local = append(s.Local, &compile.Pod{Namespace: ns, Name: "a", UID: ns, Node: fmt.Sprint("n", i%nodes), Addrs: []netip.Addr{addr}})
			policies = append(policies, &networkingv1.NetworkPolicy{
				ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "p"},
				Spec: networkingv1.NetworkPolicySpec{
					Ingress: []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{{PodSelector: &metav1.LabelSelector{}}}}},
				},
			})
		}
		s.Policies = compile.ObjectsOf(policies...)
		if _, ok := compile.TogetherSmallNode(s); ok != want {
			t.Errorf("40 pods with a policy each on %d nodes: compiled together: %t, want %t", nodes, ok, want)
		}
	}
}
