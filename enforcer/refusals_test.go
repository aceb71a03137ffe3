package enforcer_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/ringfence-io/ringfence/enforcer"
	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/dataplane"
	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// town has two tenants with two pods each: tenant a's are 10.0.0.1 and .2, tenant b's 10.0.1.1 and .2. Neither has a policy.
func town() compile.Snapshot {
	s := compile.Snapshot{Node: "n"}
	for i, ns := range []*compile.Namespace{{Name: "a"}, {Name: "b"}} {
		s.Namespaces = s.Namespaces.With(ns)
		for j, name := range []string{"server", "client"} {
			s = s.WithPods(&compile.Pod{Namespace: ns.Name, Name: name, UID: ns.Name + name, Node: "n",
				Labels: compile.Labels{{Key: "name", Value: name}}, Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, byte(i), byte(j + 1)})}})
		}
	}
	return s
}

// allow is a policy by which the servers of a namespace may be reached, at a port, by the pods that selectors name there.
func allow(namespace, name string, port int, peers ...string) *networkingv1.NetworkPolicy {
	p := intstr.FromInt32(int32(port))
	rule := networkingv1.NetworkPolicyIngressRule{Ports: []networkingv1.NetworkPolicyPort{{Port: &p}}}
	for _, peer := range peers {
		rule.From = append(rule.From, networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"name": peer}}})
	}
	return &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID(namespace + name), Generation: 1},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"name": "server"}},
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}, Ingress: []networkingv1.NetworkPolicyIngressRule{rule},
		},
	}
}

// allowEach is allow with a rule for each peer: what one rule names adds up to one set, what several do does not.
func allowEach(namespace, name string, port int, peers ...string) *networkingv1.NetworkPolicy {
	p := allow(namespace, name, port)
	p.Spec.Ingress = nil
	for _, peer := range peers {
		p.Spec.Ingress = append(p.Spec.Ingress, allow(namespace, name, port, peer).Spec.Ingress...)
	}
	return p
}

func with(s compile.Snapshot, policies ...*networkingv1.NetworkPolicy) compile.Snapshot {
	for _, p := range policies {
		s.Policies = s.Policies.With(p)
	}
	return s
}

// named is the policy of a name.
func named(s compile.Snapshot, namespace, name string) *networkingv1.NetworkPolicy {
	p, _ := s.Policies.Get(namespace, name)
	return p
}

// names are distinct peers, each of which takes a set of its own.
func names(prefix string, n int) []string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprint(prefix, i))
	}
	return all
}

// inForce is whether the kernel's IPv4 rules have one of a policy that accepts.
func inForce(kernel *dataplane.Fake, np *networkingv1.NetworkPolicy) bool {
	mark := fmt.Sprintf("NetworkPolicy %s/%s ", np.Namespace, np.Name)
	return slices.ContainsFunc(strings.Split(kernel.Save(4), "\n"), func(line string) bool {
		return strings.Contains(line, mark) && strings.HasSuffix(line, "-j RETURN")
	})
}

// isolated is whether a server has a place in the tree of the kernel's ingress rules.
func isolated(kernel *dataplane.Fake, addr string) bool {
	return strings.Contains(kernel.Save(4), "-d "+addr+"/32 ")
}

func refusedNames(r enforcer.Report) []string {
	var all []string
	for _, one := range r.Refused {
		all = append(all, one.Object.Ref.Namespace+"/"+one.Object.Ref.Name)
	}
	return all
}

// unsupported is a match that a kernel lacks, wherever a rule is of a policy with some name.
func unsupported(names ...string) func(policy string) bool {
	return func(rule string) bool {
		return slices.ContainsFunc(names, func(n string) bool { return strings.Contains(rule, "/"+n+" ") })
	}
}

// lacking are limits by which rules of some policies are refused.
func lacking(silent bool, names ...string) dataplane.Limits {
	refused := unsupported(names...)
	return dataplane.Limits{Silent: silent, Rule: func(r iptables.Rule) error {
		if refused(string(r)) {
			return errors.New("RULE_APPEND failed (No such file or directory): rule in chain")
		}
		return nil
	}}
}

// What the kernel refuses costs the object that asked for it, and nobody else, in the same sync.
func TestARefusalCostsItsObjectAlone(t *testing.T) {
	hostile := allowEach("a", "hostile", 80, names("h", 40)...)
	full := town()
	for i := range 30 {
		full = full.WithPods(&compile.Pod{Namespace: "a", Name: fmt.Sprint("many", i), UID: fmt.Sprint("many", i), Node: "elsewhere",
			Labels: compile.Labels{{Key: "name", Value: "many"}}, Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 1, 0, byte(i + 1)})}})
	}
	for _, tt := range []struct {
		name    string
		town    compile.Snapshot
		hostile *networkingv1.NetworkPolicy
		limits  dataplane.Limits
		word    string
	}{
		{"the maximal number of sets is reached", town(), hostile, dataplane.Limits{Sets: 40}, "maximal number of sets"},
		{"a set is full", full, allow("a", "hostile", 80, "many"), dataplane.Limits{Entries: 20}, "the set is full"},
		{"there is no memory for entries", full, allow("a", "hostile", 80, "many"), dataplane.Limits{Memory: 40}, "cannot allocate memory"},
		{"there is no memory for rules", town(), hostile, dataplane.Limits{Memory: 50}, "cannot allocate memory"},
		{"a match is not supported, and the line is named", town(), hostile, lacking(false, "hostile"), "No such file or directory"},
		{"a match is not supported, and no line is named", town(), hostile, lacking(true, "hostile"), "No such file or directory"},
	} {
		for _, order := range []string{"others first", "all at once"} {
			t.Run(tt.name+"/"+order, func(t *testing.T) {
				kernel := dataplane.NewFake(dataplane.Capabilities{})
				e := enforcer.New(kernel, options)
				mine, theirs := allow("a", "mine", 81, "client"), allow("b", "theirs", 80, "client")
				if order == "others first" {
					mustSync(t, e, with(tt.town, mine, theirs), false)
				}
				kernel.Limit(tt.limits)
				changed := allow("b", "theirs", 443, "client")
				changed.Generation = 2
				r := mustSync(t, e, with(tt.town, mine, changed, tt.hostile), false)

				if got := refusedNames(r); !slices.Equal(got, []string{"a/hostile"}) {
					t.Errorf("refused: %v, want a/hostile alone", got)
				}
				if len(r.Refused) > 0 && !strings.Contains(r.Refused[0].Word, tt.word) {
					t.Errorf("the kernel's word is %q, want %q", r.Refused[0].Word, tt.word)
				}
				if len(r.Problems) != 1 || !strings.Contains(r.Problems[0].Detail, tt.word) || r.Problems[0].Ref.Name != "hostile" {
					t.Errorf("problems: %v", r.Problems)
				}
				if !inForce(kernel, mine) || !inForce(kernel, changed) || !strings.Contains(kernel.Save(4), "--dport 443") {
					t.Errorf("another policy is not in force:\n%s", kernel.Save(4))
				}
				if inForce(kernel, tt.hostile) {
					t.Error("rules of what was refused are in force")
				}
				if !isolated(kernel, "10.0.0.1") {
					t.Error("the pods of what was refused are open")
				}
			})
		}
	}
}

// What was in force of a policy stays when the kernel refuses what is new in it, and nothing that it no longer allows.
func TestARefusedPolicyKeepsWhatWasInForceOfIt(t *testing.T) {
	for _, silent := range []bool{false, true} {
		kernel := dataplane.NewFake(dataplane.Capabilities{})
		e := enforcer.New(kernel, options)
		np := allow("a", "mine", 80, "client")
		gone := allow("a", "mine", 81, "client").Spec.Ingress[0]
		np.Spec.Ingress = append(np.Spec.Ingress, gone)
		mustSync(t, e, with(town(), np), false)
		changed := np.DeepCopy()
		changed.Generation = 2
		changed.Spec.Ingress[1] = allow("a", "mine", 443, "client").Spec.Ingress[0]
		kernel.Limit(dataplane.Limits{Silent: silent, Rule: func(r iptables.Rule) error {
			if strings.Contains(string(r), "443") {
				return errors.New("no such match")
			}
			return nil
		}})
		r := mustSync(t, e, with(town(), changed), false)
		saved := kernel.Save(4)
		if len(r.Refused) != 1 || r.Refused[0].Object.Generation != 2 {
			t.Errorf("silent %t: refused: %v", silent, r.Refused)
		}
		if !strings.Contains(saved, "--dport 80 ") || strings.Contains(saved, "--dport 81 ") || strings.Contains(saved, "--dport 443 ") {
			t.Errorf("silent %t: want port 80 alone:\n%s", silent, saved)
		}
		inDoubt := with(town(), changed)
		inDoubt.Elsewhere.Unknown = []string{"a"}
		mustSync(t, e, inDoubt, false)
		if saved := kernel.Save(4); !strings.Contains(saved, "--dport 80 ") {
			t.Errorf("silent %t: that a pod is not known takes away what was in force:\n%s", silent, saved)
		}
	}
}

// A set that takes no more entries keeps those that it has, less those that go; where a rule denies what is in it, that rule denies everything.
func TestASetThatIsFullKeepsWhatItHas(t *testing.T) {
	kernel := dataplane.NewFake(dataplane.Capabilities{})
	e := enforcer.New(kernel, options)
	s := with(town(), allow("a", "mine", 80, "client"))
	mustSync(t, e, s, false)
	kernel.Limit(dataplane.Limits{Entries: 1})
	more := with(town(), allow("a", "mine", 80, "client"))
	for i := range 3 {
		more = more.WithPods(&compile.Pod{Namespace: "a", Name: fmt.Sprint("c", i), UID: fmt.Sprint("c", i), Node: "elsewhere",
			Labels: compile.Labels{{Key: "name", Value: "client"}}, Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 1, 0, byte(i + 1)})}})
	}
	r := mustSync(t, e, more, false)
	have, err := kernel.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name, set := range have.Sets.All() {
		if set.Family == iptables.IPv4 && (set.Len() != 1 || set.Entries()[0].Prefix.IPs().String() != "10.0.0.2/32") {
			t.Errorf("%s holds %v, want the client that it had", name, set.Entries())
		}
	}
	if got := refusedNames(r); !slices.Equal(got, []string{"a/mine"}) || !inForce(kernel, named(s, "a", "mine")) {
		t.Errorf("refused: %v, and in force is:\n%s", got, kernel.Save(4))
	}
}

// What was refused is tried again after pauses that double, and is in force once the kernel takes it. A new version is tried at once, but not for ever.
func TestWhatWasRefusedIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kernel := dataplane.NewFake(dataplane.Capabilities{})
		e := enforcer.New(kernel, options)
		tries := 0
		limits := lacking(false, "bad")
		refuse := limits.Rule
		limits.Rule = func(r iptables.Rule) error {
			err := refuse(r)
			if err != nil {
				tries++
			}
			return err
		}
		kernel.Limit(limits)
		s := with(town(), allow("a", "bad", 80, "client"), allow("b", "good", 80, "client"))
		var at []time.Duration
		start := time.Now()
		for time.Since(start) < 40*time.Minute {
			before := tries
			if r := mustSync(t, e, s, false); len(r.Refused) != 1 {
				t.Fatalf("refused: %v", r.Refused)
			}
			if tries > before {
				at = append(at, time.Since(start))
			}
			time.Sleep(10 * time.Second) // of the bubble's clock
		}
		want := []time.Duration{0, 30 * time.Second, 90 * time.Second, 210 * time.Second, 450 * time.Second, 930 * time.Second, 1530 * time.Second, 2130 * time.Second}
		if !slices.Equal(at, want) {
			t.Errorf("tried at %v, want %v", at, want)
		}
		before := tries
		for version := range int64(20) {
			bad := named(s, "a", "bad").DeepCopy()
			bad.Generation = version + 2
			s = with(s, bad)
			mustSync(t, e, s, false)
		}
		if n := tries - before; n < 3 || n > 6 {
			t.Errorf("20 new versions were tried %d times, want some", n)
		}
		kernel.Limit(dataplane.Limits{})
		time.Sleep(10 * time.Minute)
		if r := mustSync(t, e, s, false); len(r.Refused) != 0 || !inForce(kernel, named(s, "a", "bad")) {
			t.Errorf("still refused: %v", r.Refused)
		}
		holds(t, kernel, s)
	})
}

// However many objects are refused, the others are in force after one sync, which takes a bounded number of attempts.
func TestManyRefusalsAreBounded(t *testing.T) {
	for _, silent := range []bool{false, true} {
		kernel := &counting{Fake: dataplane.NewFake(dataplane.Capabilities{})}
		e := enforcer.New(kernel, options)
		mine := allow("b", "mine", 80, "client")
		mustSync(t, e, with(town(), mine), false)
		s := with(town(), mine)
		var bad []string
		for i := range 200 {
			name := fmt.Sprint("bad", i)
			bad = append(bad, name)
			s = with(s, allow("a", name, 1000+i, "client"))
		}
		kernel.Limit(lacking(silent, bad...))
		kernel.plans = 0
		r := mustSync(t, e, s, false)
		if kernel.plans > 40 {
			t.Errorf("silent %t: one sync applied %d plans", silent, kernel.plans)
		}
		if len(r.Refused) != 200 || !inForce(kernel.Fake, mine) || !isolated(kernel.Fake, "10.0.0.1") {
			t.Errorf("silent %t: %d refused, in force:\n%s", silent, len(r.Refused), kernel.Save(4))
		}
	}
}

// counting counts the plans that are applied.
type counting struct {
	*dataplane.Fake
	plans int
}

func (k *counting) Apply(ctx context.Context, p iptables.Plan) error {
	k.plans++
	return k.Fake.Apply(ctx, p)
}

// A failure that is no object's doing costs nobody a policy, and is an error as ever.
func TestWhatIsNobodysDoingIsBlamedOnNobody(t *testing.T) {
	for name, limit := range map[string]func(*dataplane.Fake){
		"the lock is held": func(k *dataplane.Fake) {
			k.Before = func(s dataplane.Step) error {
				if s.Kind == dataplane.Restore {
					return dataplane.ErrLocked
				}
				return nil
			}
		},
		"every rule is refused": func(k *dataplane.Fake) {
			k.Limit(dataplane.Limits{Silent: true, Rule: func(iptables.Rule) error { return errors.New("no such table") }})
		},
	} {
		kernel := dataplane.NewFake(dataplane.Capabilities{})
		e := enforcer.New(kernel, options)
		first := with(town(), allow("a", "mine", 80, "client"))
		mustSync(t, e, first, false)
		limit(kernel)
		second := with(first, allow("b", "theirs", 80, "client"))
		r, err := e.Sync(t.Context(), second, false)
		if err == nil || len(r.Refused) != 0 {
			t.Errorf("%s: error %v, refused %v", name, err, r.Refused)
		}
		if !inForce(kernel, named(first, "a", "mine")) || inForce(kernel, named(second, "b", "theirs")) {
			t.Errorf("%s: want the old policy in force:\n%s", name, kernel.Save(4))
		}
		kernel.Before = nil
		kernel.Limit(dataplane.Limits{})
		mustSync(t, e, second, false)
		holds(t, kernel, second)
	}
}

// A process that starts leaves in force what the one before had put there of a policy that is refused now.
func TestARestartKeepsWhatIsInForceOfARefusedPolicy(t *testing.T) {
	kernel := dataplane.NewFake(dataplane.Capabilities{})
	np := allow("a", "mine", 80, "client")
	mustSync(t, enforcer.New(kernel, options), with(town(), np), false)
	changed := np.DeepCopy()
	changed.Spec.Ingress = append(changed.Spec.Ingress, allow("a", "mine", 443, "client").Spec.Ingress...)
	kernel.Limit(dataplane.Limits{Silent: true, Rule: func(r iptables.Rule) error {
		if strings.Contains(string(r), "443") {
			return errors.New("no such match")
		}
		return nil
	}})
	r := mustSync(t, enforcer.New(kernel, options), with(town(), changed, allow("b", "theirs", 81, "client")), false)
	if got := refusedNames(r); !slices.Equal(got, []string{"a/mine"}) || !strings.Contains(kernel.Save(4), "--dport 80 ") || !strings.Contains(kernel.Save(4), "--dport 81 ") {
		t.Errorf("refused: %v, in force:\n%s", got, kernel.Save(4))
	}
}

// A rule that denies or passes is no smaller for what the kernel refuses: it denies everything from its place on.
func TestWhatIsClosedOfARefusedPolicy(t *testing.T) {
	everybody, set := policy.Peer{Kind: policy.AnyPeer}, policy.Peer{Kind: policy.InSet, Set: "s"}
	rule := func(a policy.Action, p policy.Peer) policy.Rule {
		return policy.Rule{Action: a, Peer: p, Ports: policy.Ports{Kind: policy.AnyPort}}
	}
	for _, tt := range []struct {
		stage policy.Stage
		audit bool
		rules []policy.Rule
		want  []policy.Rule
	}{
		{policy.NetworkPolicies, false, []policy.Rule{rule(policy.Accept, set), rule(policy.Accept, everybody)}, []policy.Rule{rule(policy.Accept, everybody)}},
		{policy.AdminRules, false, []policy.Rule{rule(policy.Accept, set), rule(policy.Deny, everybody)}, []policy.Rule{rule(policy.Deny, everybody)}},
		{policy.AdminRules, false, []policy.Rule{rule(policy.Deny, set), rule(policy.Accept, everybody)}, []policy.Rule{rule(policy.Deny, everybody)}},
		{policy.BaselineRules, false, []policy.Rule{rule(policy.Accept, everybody), rule(policy.Pass, set)}, []policy.Rule{rule(policy.Accept, everybody), rule(policy.Deny, everybody)}},
		{policy.AdminRules, true, []policy.Rule{rule(policy.Deny, set), rule(policy.Deny, everybody)}, []policy.Rule{rule(policy.Deny, everybody)}},
	} {
		p := policy.Policy{Stage: tt.stage, Audit: tt.audit, Rules: [2][]policy.Rule{policy.Ingress: tt.rules}}
		got := p.Closed(func(_ policy.Direction, r policy.Rule) bool { return !r.Names("s") })
		if diff := cmp.Diff(tt.want, got.Rules[policy.Ingress]); diff != "" {
			t.Errorf("%v (-want +got):\n%s", tt, diff)
		}
	}
}
