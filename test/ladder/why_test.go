package ladder

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/internal/query"
	"github.com/ringfence-io/ringfence/lab/oracle"
	"github.com/ringfence-io/ringfence/test/gen"
)

// flowsAsked is how many flows of a cluster answers are asked about: each is asked about many times.
const flowsAsked = 6

// TestWhyIsWhatIsEnforced: an answer has the oracle's verdict. Without the rule that it names, something else decides. The change that it proposes allows what
// was denied.
func TestWhyIsWhatIsEnforced(t *testing.T) {
	forEachCase(t, *clustersFlag, func(seed uint64) error {
		s := gen.Seed(seed)
		c := gen.New(s, gen.Options{Invalid: seed%3 == 0, Tiers: seed%2 == 0, Claims: seed%7 < 3, Long: seed%4 == 2})
		asked := questions{c.Cluster, query.New(Objects(c.Cluster))}
		for _, f := range gen.Flows(s, c, flowsAsked) {
			if err := asked.check(f); err != nil {
				return fmt.Errorf("%s: %w", f, err)
			}
		}
		return nil
	})
}

// questions are for a cluster that is asked about.
type questions struct {
	cluster oracle.Cluster
	answers *query.Cluster
}

func (a questions) check(f oracle.Flow) error {
	port, ok := portOf(f)
	if !ok {
		return nil
	}
	from, to := a.answers.EndsAt(f.Src), a.answers.EndsAt(f.Dst)
	f.FromNode, f.ToNode = hostOf(from), hostOf(to)
	want, because := a.cluster.Allowed(f)
	allowed := true
	for _, src := range from {
		for _, dst := range to {
			answer := a.answers.Why(src, dst, port)
			allowed = allowed && answer.Allowed
			for _, v := range answer.Paths[0].Verdicts {
				if err := a.checkDecides(src, dst, port, v); err != nil {
					return err
				}
			}
			if answer.Allowed {
				continue
			}
			if err := a.checkChange(src, dst, port, f, len(from)*len(to) == 1); err != nil {
				return fmt.Errorf("%+v: %w", answer, err)
			}
		}
	}
	if allowed != want {
		return fmt.Errorf("the oracle says %t, because %s; the answer is %t", want, because, allowed)
	}
	return nil
}

// portOf is what people call where a flow goes. They do not ask about packets that say nothing of a port, pings apart.
func portOf(f oracle.Flow) (query.Port, bool) {
	switch {
	case f.Protocol == oracle.TCP || f.Protocol == oracle.UDP || f.Protocol == oracle.SCTP:
		return query.Port{Protocol: policy.Protocol(f.Protocol), Number: f.DstPort}, f.DstPort > 0 // no policy can say 0
	case f.Protocol == oracle.ICMP, f.Protocol == oracle.ICMPv6 && f.ICMPType == 128:
		return query.Port{Protocol: policy.ICMP}, true
	}
	return query.Port{}, false
}

// hostOf is the node that an address means, if it means one.
func hostOf(ends []query.End) string {
	if name, ok := strings.CutPrefix(ends[0].Name, "node "); ok {
		return name
	}
	return ""
}

// checkDecides takes away what a verdict names, and asks again.
func (a questions) checkDecides(src, dst query.End, port query.Port, v query.Verdict) error {
	if len(v.Policies) == 0 {
		return nil
	}
	if len(v.Problems) > 0 {
		v.Rule = nil // what is enforced in the place of what cannot be understood, no rule says
	}
	rest, ok := withoutNamed(Objects(a.cluster), v)
	if !ok {
		return fmt.Errorf("%q names %v, which is not there", v.Reason, v.Policies)
	}
	for _, w := range query.New(rest).Why(src, dst, port).Paths[0].Verdicts {
		if w.Direction == v.Direction && w.Allowed == v.Allowed && w.Reason == v.Reason {
			return fmt.Errorf("without what it names, %v, the reason is still %q", v.Policies, v.Reason)
		}
	}
	return nil
}

// checkChange applies the change that is proposed. The oracle is asked too, if nodes do not differ about whose the addresses are.
func (a questions) checkChange(src, dst query.End, port query.Port, f oracle.Flow, certain bool) error {
	change, err := a.answers.Allowing(a.answers.Why(src, dst, port))
	if errors.Is(err, query.ErrNoRoom) || errors.Is(err, query.ErrNotUnderstood) {
		return nil
	}
	if err != nil {
		return err
	}
	after := Objects(a.cluster).With(change.Objects...)
	if !query.New(after).Why(src, dst, port).Allowed {
		return fmt.Errorf("it is still denied after %+v", change.Objects)
	}
	a.cluster.Policies, a.cluster.ClusterPolicies = after.Policies, after.ClusterPolicies
	if allowed, because := a.cluster.Allowed(f); certain && !allowed {
		return fmt.Errorf("the oracle still denies it after %+v, because %s", change.Objects, because)
	}
	return nil
}

// withoutNamed are the objects with nothing in the rule that a verdict names, or if it names none, without the policies. It reports false if they are not there.
func withoutNamed(o query.Objects, v query.Verdict) (query.Objects, bool) {
	found := 0
	named := func(name string) bool { return slices.Contains(v.Policies, name) }
	var policies []*networkingv1.NetworkPolicy
	for _, p := range o.Policies {
		if named("NetworkPolicy " + p.Namespace + "/" + p.Name) {
			found++
			if v.Rule == nil {
				continue
			}
			p = p.DeepCopy()
			emptyNetworkPolicy(p, v)
		}
		policies = append(policies, p)
	}
	var clusterPolicies []*v1alpha1.ClusterNetworkPolicy
	for _, p := range o.ClusterPolicies {
		kind := "ClusterNetworkPolicy"
		if p.APIVersion != "" && p.APIVersion != v1alpha1.GroupVersion.String() {
			kind += ".policy.networking.k8s.io"
		}
		if named(kind + " " + p.Name) {
			found++
			if v.Rule == nil {
				continue
			}
			p = p.DeepCopy()
			emptyClusterPolicy(p, v)
		}
		clusterPolicies = append(clusterPolicies, p)
	}
	var isolations []*v1alpha1.NamespaceIsolation
	for _, i := range o.Isolations {
		if named("NamespaceIsolation " + i.Name) {
			found++
			continue
		}
		isolations = append(isolations, i)
	}
	o.Policies, o.ClusterPolicies, o.Isolations = policies, clusterPolicies, isolations
	return o, found == len(v.Policies)
}

// nobody is a label that no pod has.
var nobody = map[string]string{"nobody": "has-it"}

// emptyNetworkPolicy has the rule that a verdict names match nothing. The others keep their places.
func emptyNetworkPolicy(p *networkingv1.NetworkPolicy, v query.Verdict) {
	peers := []networkingv1.NetworkPolicyPeer{{PodSelector: &metav1.LabelSelector{MatchLabels: nobody}}}
	if v.Direction == "ingress" {
		p.Spec.Ingress[*v.Rule].From = peers
	} else {
		p.Spec.Egress[*v.Rule].To = peers
	}
}

// emptyClusterPolicy is emptyNetworkPolicy for the other kind.
func emptyClusterPolicy(p *v1alpha1.ClusterNetworkPolicy, v query.Verdict) {
	peers := []v1alpha1.Peer{{Pods: &v1alpha1.NamespacedPod{PodSelector: v1alpha1.LabelSelector{MatchLabels: nobody}}}}
	if v.Direction == "ingress" {
		p.Spec.Ingress[*v.Rule] = v1alpha1.IngressRule{Action: p.Spec.Ingress[*v.Rule].Action, From: peers}
	} else {
		p.Spec.Egress[*v.Rule] = v1alpha1.EgressRule{Action: p.Spec.Egress[*v.Rule].Action, To: peers}
	}
}
