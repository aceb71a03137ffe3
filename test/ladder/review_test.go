package ladder

import (
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/lab/oracle"
)

// objects are a cluster's policies, one by one.
func objects(c oracle.Cluster) []compile.Object {
	var all []compile.Object
	for _, p := range c.Policies {
		all = append(all, compile.Object{NetworkPolicy: p})
	}
	for _, p := range c.ClusterPolicies {
		all = append(all, compile.Object{ClusterNetworkPolicy: p})
	}
	for _, p := range c.Isolations {
		all = append(all, compile.Object{NamespaceIsolation: p})
	}
	return all
}

// alone is the snapshot with one policy. A ClusterNetworkPolicy without rules, which Compile leaves away, gets one.
func alone(s compile.Snapshot, o compile.Object) compile.Snapshot {
	s.Policies, s.ClusterPolicies, s.Isolations = compile.Objects[*networkingv1.NetworkPolicy]{}, nil, nil
	switch {
	case o.NetworkPolicy != nil:
		s.Policies = s.Policies.With(o.NetworkPolicy)
	case o.NamespaceIsolation != nil:
		s.Isolations = append(s.Isolations, o.NamespaceIsolation)
	default:
		cnp := o.ClusterNetworkPolicy.DeepCopy()
		if len(cnp.Spec.Ingress) == 0 {
			cnp.Spec.Ingress = []v1alpha1.IngressRule{{Action: v1alpha1.Pass, From: []v1alpha1.Peer{{Namespaces: &v1alpha1.LabelSelector{}}}}}
		}
		s.ClusterPolicies = append(s.ClusterPolicies, cnp)
	}
	return s
}

// holders are the pods that hold an address of theirs as their own node sees it, where policy is enforced on them. Compile makes no endpoint of the others,
// whose addresses have gone to another pod of the same node.
func holders(s compile.Snapshot) []*compile.Pod {
	return slices.DeleteFunc(slices.Collect(s.Pods()), func(p *compile.Pod) bool {
		there := s
		there.Node = p.Node
		return !slices.ContainsFunc(p.Addrs, func(a netip.Addr) bool { return compile.Holder(there, a) == p })
	})
}

// TestAPolicyAskedAloneSelectsWhatItIsCompiledFor: the pods that one policy selects are those for which Compile makes endpoints of it.
func TestAPolicyAskedAloneSelectsWhatItIsCompiledFor(t *testing.T) {
	var selected atomic.Int64
	forEachCase(t, 200, func(seed uint64) error {
		c, _ := newCase(seed, 0)
		for _, o := range objects(c.Cluster) {
			u := compile.Understand(o)
			for _, node := range c.Nodes {
				s := Snapshot(c.Cluster, node.Name)
				v := view(s, nil)
				compiled, _ := compile.Compile(alone(s, o))
				want, got := map[string]bool{}, map[string]bool{}
				for _, e := range compiled.Endpoints {
					want[e.Namespace+"/"+e.Name] = true
				}
				for _, p := range holders(s) {
					if p.Node == node.Name && u.Selects(p, v.Namespaces[p.Namespace]) {
						got[p.Namespace+"/"+p.Name] = true
						selected.Add(1)
					}
					if ns, ok := u.Namespace(); ok && ns != p.Namespace && u.Selects(p, v.Namespaces[p.Namespace]) {
						return fmt.Errorf("%s selects %s/%s, outside of its only namespace", u.Ref(), p.Namespace, p.Name)
					}
				}
				if diff := cmp.Diff(want, got); diff != "" {
					return fmt.Errorf("%s at %s (-compiled +selected):\n%s\n%s", u.Ref(), node.Name, diff, Describe(c.Cluster))
				}
			}
		}
		return nil
	})
	if selected.Load() == 0 {
		t.Error("no policy selected any pod")
	}
}

// view is the cluster as a review sees it.
func view(s compile.Snapshot, all []compile.Object) compile.View {
	v := compile.View{Namespaces: map[string]*compile.Namespace{}}
	for ns := range s.Namespaces.All() {
		v.Namespaces[ns.Name] = ns
	}
	byNamespace := map[string][]*compile.Pod{}
	for _, p := range holders(s) {
		byNamespace[p.Namespace] = append(byNamespace[p.Namespace], p)
	}
	v.Pods = func(namespace string) []*compile.Pod { return byNamespace[namespace] }
	for _, o := range all {
		if o.ClusterNetworkPolicy != nil {
			v.ClusterPolicies = append(v.ClusterPolicies, compile.Understand(o))
		}
	}
	return v
}

// TestReviewFindsWhatCompileFinds: what is not understood is said in the same words, and of two policies that conflict the one that is asked second
// is told of the other wherever some node's Compile says so.
func TestReviewFindsWhatCompileFinds(t *testing.T) {
	var ties atomic.Int64
	forEachCase(t, 200, func(seed uint64) error {
		c, _ := newCase(seed, 0)
		all := objects(c.Cluster)
		want, got := map[string]bool{}, map[string]bool{}
		for _, node := range c.Nodes {
			_, problems := compile.Compile(Snapshot(c.Cluster, node.Name))
			for _, p := range problems {
				if p.Field == "spec.priority" {
					p.Detail = ""
					ties.Add(1)
				}
				want[p.String()] = true
			}
		}
		v := view(Snapshot(c.Cluster, ""), all)
		for _, o := range all {
			u := compile.Understand(o)
			for _, r := range u.Review(v) {
				switch {
				case r.Reason == v1alpha1.NotUnderstoodReason:
					got[compile.Problem{Ref: u.Ref(), Field: r.Field, Detail: r.Detail}.String()] = true
				case r.Reason == v1alpha1.ConflictingReason && strings.Contains(r.Detail, ": it is asked first"):
					got[compile.Problem{Ref: u.Ref(), Field: r.Field}.String()] = true
				}
			}
		}
		if diff := cmp.Diff(slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(got))); diff != "" {
			return fmt.Errorf("(-compiled +reviewed):\n%s\n%s", diff, Describe(c.Cluster))
		}
		return nil
	})
	if ties.Load() == 0 {
		t.Error("no two policies conflicted")
	}
}

// TestRulesThatNeverMatchCanGo: without the rules that a review says never match, every flow gets the verdict that it had.
func TestRulesThatNeverMatchCanGo(t *testing.T) {
	var gone atomic.Int64
	forEachCase(t, 400, func(seed uint64) error {
		c, flows := newCase(2*seed, 60)
		less := c.Cluster
		less.Policies, less.ClusterPolicies, less.Isolations = nil, nil, nil
		v := view(Snapshot(c.Cluster, ""), nil)
		for _, o := range objects(c.Cluster) {
			o = deepCopy(o)
			remarks := compile.Understand(o).Review(v)
			slices.SortFunc(remarks, func(a, b compile.Remark) int { return indexOf(b.Field) - indexOf(a.Field) }) // no rule moves before its turn
			for _, r := range remarks {
				if r.Reason == v1alpha1.NeverMatchesReason && remove(o, r.Field) {
					gone.Add(1)
				}
			}
			switch {
			case o.NetworkPolicy != nil:
				less.Policies = append(less.Policies, o.NetworkPolicy)
			case o.ClusterNetworkPolicy != nil:
				less.ClusterPolicies = append(less.ClusterPolicies, o.ClusterNetworkPolicy)
			default:
				less.Isolations = append(less.Isolations, o.NamespaceIsolation)
			}
		}
		for _, node := range c.Nodes {
			before, after := nodeOf(c.Cluster, node.Name), nodeOf(less, node.Name)
			for _, f := range flows {
				was, is := before.Allows(PolicyFlow(f, node.Name)), after.Allows(PolicyFlow(f, node.Name))
				if was.Allowed != is.Allowed || len(was.WouldDeny) != len(is.WouldDeny) {
					return fmt.Errorf("%s at %s: was %t (%s), is %t (%s)\nbefore:\n%s\nafter:\n%s",
						f, node.Name, was.Allowed, was.Reason, is.Allowed, is.Reason, Describe(c.Cluster), Describe(less))
				}
			}
		}
		return nil
	})
	t.Logf("%d rules, or lists of rules, could go", gone.Load())
	if gone.Load() == 0 {
		t.Error("no rule was said never to match")
	}
}

func deepCopy(o compile.Object) compile.Object {
	return compile.Object{
		NetworkPolicy: o.NetworkPolicy.DeepCopy(), ClusterNetworkPolicy: o.ClusterNetworkPolicy.DeepCopy(), NamespaceIsolation: o.NamespaceIsolation.DeepCopy(),
	}
}

var ruleField = regexp.MustCompile(`^spec\.(?:allow\.)?(ingress|egress)(?:\[(\d+)\])?`)

// indexOf is the index of the rule at a path.
func indexOf(field string) int {
	i := 0
	if found := ruleField.FindStringSubmatch(field); found != nil {
		i, _ = strconv.Atoi(found[2])
	}
	return i
}

// remove takes the rule at a path out of the object, or all of a direction. It reports false if the path is of no rule.
func remove(o compile.Object, field string) bool {
	found := ruleField.FindStringSubmatch(field)
	if found == nil {
		return false
	}
	ingress := found[1] == policy.Ingress.String()
	switch {
	case o.NetworkPolicy != nil:
		spec := &o.NetworkPolicy.Spec
		if len(spec.PolicyTypes) == 0 {
			spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
			if len(spec.Egress) > 0 {
				spec.PolicyTypes = append(spec.PolicyTypes, networkingv1.PolicyTypeEgress)
			}
		}
		removeFrom(&spec.Ingress, &spec.Egress, ingress, found[2])
	case o.ClusterNetworkPolicy != nil:
		removeFrom(&o.ClusterNetworkPolicy.Spec.Ingress, &o.ClusterNetworkPolicy.Spec.Egress, ingress, found[2])
	default:
		removeFrom(&o.NamespaceIsolation.Spec.Allow.Ingress, &o.NamespaceIsolation.Spec.Allow.Egress, ingress, found[2])
	}
	return true
}

func removeFrom[I, E any](in *[]I, out *[]E, ingress bool, index string) {
	if ingress {
		*in = withoutAt(*in, index)
	} else {
		*out = withoutAt(*out, index)
	}
}

// withoutAt is the list without the element at index, which is all of them if it is empty.
func withoutAt[T any](list []T, index string) []T {
	i, err := strconv.Atoi(index)
	if err != nil {
		return nil
	}
	return slices.Delete(list, i, i+1)
}
