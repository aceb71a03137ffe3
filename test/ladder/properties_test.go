package ladder

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/lab/oracle"
	"github.com/ringfence-io/ringfence/test/gen"
)

// TestOrderOfObjectsDoesNotMatter: the same objects in another order make the same node, problems and ruleset.
func TestOrderOfObjectsDoesNotMatter(t *testing.T) {
	forEachCase(t, 300, func(seed uint64) error {
		c, _ := newCase(seed, 0)
		random := rand.New(rand.NewPCG(seed, 2))
		for _, node := range c.Nodes {
			first, firstProblems := compile.Compile(Snapshot(c.Cluster, node.Name))
			second, secondProblems := compile.Compile(Snapshot(shuffled(c.Cluster, random), node.Name))
			if diff := cmp.Diff(first, second, comparers); diff != "" {
				return fmt.Errorf("node %s (-in order +shuffled):\n%s", node.Name, diff)
			}
			if diff := cmp.Diff(firstProblems, secondProblems); diff != "" {
				return fmt.Errorf("problems at %s (-in order +shuffled):\n%s", node.Name, diff)
			}
			if diff := cmp.Diff(iptables.Render(first, Options).String(), iptables.Render(second, Options).String()); diff != "" {
				return fmt.Errorf("ruleset of %s (-in order +shuffled):\n%s", node.Name, diff)
			}
		}
		return nil
	})
}

// comparers compare addresses and prefixes as values.
var comparers = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

// TestLongSelectorsHaveOneName: a selector with many requirements, several of them about one key, makes the same sets every time.
func TestLongSelectorsHaveOneName(t *testing.T) {
	c, _ := smallShop()
	long := metav1.LabelSelector{MatchLabels: map[string]string{}}
	for i := range 16 {
		key := fmt.Sprintf("key-%d", i)
		long.MatchLabels[key] = "a"
		long.MatchExpressions = append(long.MatchExpressions,
			metav1.LabelSelectorRequirement{Key: key, Operator: metav1.LabelSelectorOpExists},
			metav1.LabelSelectorRequirement{Key: key, Operator: metav1.LabelSelectorOpIn, Values: []string{"b", "a"}})
	}
	c.Cluster.Policies = append(c.Cluster.Policies, &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "long"},
		Spec: networkingv1.NetworkPolicySpec{Ingress: []networkingv1.NetworkPolicyIngressRule{
			{From: []networkingv1.NetworkPolicyPeer{{PodSelector: &long}, {PodSelector: &long, NamespaceSelector: &long}}}}},
	})
	first := Rendered(c.Cluster, "node1").String()
	for range 50 {
		if diff := cmp.Diff(first, Rendered(c.Cluster, "node1").String()); diff != "" {
			t.Fatalf("the same objects, rendered twice (-first +second):\n%s", diff)
		}
	}
}

func shuffled(c oracle.Cluster, random *rand.Rand) oracle.Cluster {
	c.Pods, c.Namespaces, c.Nodes = shuffle(c.Pods, random), shuffle(c.Namespaces, random), shuffle(c.Nodes, random)
	c.Policies, c.ClusterPolicies = shuffle(c.Policies, random), shuffle(c.ClusterPolicies, random)
	c.Isolations, c.DNSServices = shuffle(c.Isolations, random), shuffle(c.DNSServices, random)
	return c
}

func shuffle[T any](list []T, random *rand.Rand) []T {
	list = slices.Clone(list)
	random.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list
}

// TestAddingARuleClosesNothing: what was allowed stays allowed when a policy that isolates in a direction gets one more rule
// in that direction.
func TestAddingARuleClosesNothing(t *testing.T) {
	forEachCase(t, 600, func(seed uint64) error {
		s := gen.Seed(seed)
		c := gen.New(s, gen.Options{Invalid: seed%3 == 0})
		if len(c.Cluster.Policies) == 0 {
			return nil
		}
		i := int(seed) % len(c.Cluster.Policies)
		richer := c.Cluster
		richer.Policies = replaced(c.Cluster.Policies, i, withRule(c.Cluster.Policies[i], gen.Policy(s, c, gen.Options{}, "more")))
		flows := gen.Flows(s, c, 80)
		for _, node := range c.Nodes {
			before, after := nodeOf(c.Cluster, node.Name), nodeOf(richer, node.Name)
			for _, f := range flows {
				was, is := before.Allows(PolicyFlow(f, node.Name)), after.Allows(PolicyFlow(f, node.Name))
				if was.Allowed && !is.Allowed {
					return fmt.Errorf("%s at %s: was allowed (%s), with one more rule it is denied (%s)\nbefore:\n%s\nafter:\n%s",
						f, node.Name, was.Reason, is.Reason, Describe(c.Cluster), Describe(richer))
				}
			}
		}
		return nil
	})
}

// withRule is p with the first rule of another policy added, in a direction in which p isolates by name.
func withRule(p, other *networkingv1.NetworkPolicy) *networkingv1.NetworkPolicy {
	p = p.DeepCopy()
	if len(p.Spec.PolicyTypes) == 0 {
		p.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
		if len(p.Spec.Egress) > 0 {
			p.Spec.PolicyTypes = append(p.Spec.PolicyTypes, networkingv1.PolicyTypeEgress)
		}
	}
	if len(other.Spec.Ingress) > 0 {
		p.Spec.Ingress = append(p.Spec.Ingress, other.Spec.Ingress[0])
	}
	if len(other.Spec.Egress) > 0 {
		p.Spec.Egress = append(p.Spec.Egress, other.Spec.Egress[0])
	}
	return p
}

func nodeOf(c oracle.Cluster, node string) *policy.Node {
	n, _ := compile.Compile(Snapshot(c, node))
	return &n
}

// TestPolicyThatSelectsNothingChangesNothing: not one rule and not one set entry.
func TestPolicyThatSelectsNothingChangesNothing(t *testing.T) {
	forEachCase(t, 300, func(seed uint64) error {
		s := gen.Seed(seed)
		c := gen.New(s, gen.Options{})
		idle := gen.Policy(s, c, gen.Options{}, "idle")
		if seed%2 == 0 {
			idle.Spec.PodSelector = metav1.LabelSelector{MatchLabels: map[string]string{"app": "nobody"}}
		} else {
			idle.Namespace = "elsewhere"
		}
		more := c.Cluster
		more.Policies = append(slices.Clone(more.Policies), idle)
		for _, node := range c.Nodes {
			if diff := cmp.Diff(Rendered(c.Cluster, node.Name).String(), Rendered(more, node.Name).String()); diff != "" {
				return fmt.Errorf("at %s (-without +with the policy):\n%s", node.Name, diff)
			}
		}
		return nil
	})
}

// TestRemotePodsChangeSetsOnly: a pod that comes to another node costs set entries, and no rule.
func TestRemotePodsChangeSetsOnly(t *testing.T) {
	forEachCase(t, 300, func(seed uint64) error {
		c, _ := newCase(seed, 0)
		fewer := c.Cluster
		fewer.Pods = slices.DeleteFunc(slices.Clone(fewer.Pods), func(p *corev1.Pod) bool { return p.Spec.NodeName != "node1" })
		// A pod of another node may hold an address that a local pod would have without it.
		if shareAddresses(c.Cluster) {
			return nil
		}
		if diff := cmp.Diff(chainsOf(Rendered(fewer, "node1")), chainsOf(Rendered(c.Cluster, "node1"))); diff != "" {
			return fmt.Errorf("chains of node1 (-with its own pods +with all pods):\n%s\n%s", diff, Describe(c.Cluster))
		}
		return nil
	})
}

func shareAddresses(c oracle.Cluster) bool {
	seen := map[string]bool{}
	for _, p := range c.Pods {
		for _, ip := range p.Status.PodIPs {
			if seen[ip.IP] && !p.Spec.HostNetwork {
				return true
			}
			seen[ip.IP] = true
		}
	}
	return false
}

func chainsOf(r iptables.Ruleset) map[iptables.Family]policy.Map[string, []iptables.Rule] {
	out := map[iptables.Family]policy.Map[string, []iptables.Rule]{}
	for f, t := range r.Tables {
		out[f] = t.Chains
	}
	return out
}

// TestNamesAreInjective: what differs has different names, also where joining the parts would make one text of two.
func TestNamesAreInjective(t *testing.T) {
	pairs := [][2]policy.Ref{
		{{Kind: "NetworkPolicy", Namespace: "team", Name: "ab"}, {Kind: "NetworkPolicy", Namespace: "teama", Name: "b"}},
		{{Kind: "NetworkPolicy", Namespace: "a", Name: "b-c"}, {Kind: "NetworkPolicy", Namespace: "a-b", Name: "c"}},
		{{Kind: "NetworkPolicy", Namespace: "1", Name: "1a"}, {Kind: "NetworkPolicy", Namespace: "11", Name: "a"}},
		{{Kind: "NetworkPolicy", Namespace: "n", Name: strings.Repeat("x", 252) + "a"}, {Kind: "NetworkPolicy", Namespace: "n", Name: strings.Repeat("x", 252) + "b"}},
	}
	for _, pair := range pairs {
		a, b := groupNames(pair[0]), groupNames(pair[1])
		if len(a) == 0 || slices.ContainsFunc(a, func(name string) bool { return slices.Contains(b, name) }) {
			t.Errorf("%s and %s have the chains %v and %v", pair[0], pair[1], a, b)
		}
	}
	// A list of two policies is not a list of one whose name looks like both.
	both := groupNames(policy.Ref{Kind: "P", Namespace: "a", Name: "b"}, policy.Ref{Kind: "P", Namespace: "c", Name: "d"})
	joined := groupNames(policy.Ref{Kind: "P", Namespace: "a", Name: "bPcd"})
	if slices.Equal(both, joined) {
		t.Errorf("two policies and one share the chain %v", both)
	}
}

// somePod are the addresses of a pod.
var somePod = []netip.Addr{netip.MustParseAddr("10.244.0.1"), netip.MustParseAddr("fd00:10:24::1")}

// groupNames are the names of the group chains of a pod that the policies isolate.
func groupNames(refs ...policy.Ref) []string {
	n := policy.Node{Endpoints: []policy.Endpoint{{Namespace: "x", Name: "y", Addrs: somePod}}}
	for i, r := range refs {
		n.Policies = append(n.Policies, policy.Policy{Ref: r, Stage: policy.NetworkPolicies})
		for _, d := range policy.Directions {
			by := &n.Endpoints[0].Applies[d][policy.NetworkPolicies]
			*by = append(*by, i)
		}
	}
	var names []string
	for _, table := range iptables.Render(n, Options).Tables {
		for name := range table.Chains.All() {
			if strings.HasPrefix(name, "RF-v1-EG-") || strings.HasPrefix(name, "RF-v1-IG-") {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return names
}

// TestSetsOfDifferentSelectorsAreDifferent: in every case, two sets of one name would be one set; the number of sets is that of the
// distinct things that the policies select.
func TestSetsOfDifferentSelectorsAreDifferent(t *testing.T) {
	forEachCase(t, 300, func(seed uint64) error {
		c, _ := newCase(seed, 0)
		n := nodeOf(c.Cluster, "node1")
		contents := map[string]map[policy.SetID]bool{}
		for id := range n.Sets.All() {
			only := policy.Node{
				Endpoints: []policy.Endpoint{{Addrs: somePod}},
				Policies: []policy.Policy{{Stage: policy.NetworkPolicies, Rules: [2][]policy.Rule{{{
					Action: policy.Accept, Peer: policy.Peer{Kind: policy.InSet, Set: id}, Ports: policy.Ports{Kind: policy.AnyPort},
				}}, nil}}},
				Sets: n.Sets,
			}
			only.Endpoints[0].Applies[policy.Ingress][policy.NetworkPolicies] = []int{0}
			if n.Sets.Get(id).Kind != policy.Addresses {
				only.Policies[0].Rules[0][0] = policy.Rule{Action: policy.Accept, Peer: policy.Peer{Kind: policy.AnyPeer},
					Ports: policy.Ports{Kind: policy.InPorts, Set: id, Protocol: policy.TCP}}
			}
			for name, set := range iptables.Render(only, Options).Sets.All() {
				if set.Type.Timed() {
					continue // stands for no selector
				}
				if contents[name] == nil {
					contents[name] = map[policy.SetID]bool{}
				}
				contents[name][id] = true
			}
		}
		for name, ids := range contents {
			if len(ids) > 1 {
				return fmt.Errorf("set %s stands for %v", name, ids)
			}
		}
		return nil
	})
}
