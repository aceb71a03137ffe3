package ladder

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/ringfence-io/ringfence/enforcer/dataplane"
	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/lab/oracle"
	"github.com/ringfence-io/ringfence/test/gen"
	"github.com/ringfence-io/ringfence/test/trace"
)

// TestDiffApplies: the plan from any ruleset to any other leads there, and once there, nothing is left to do.
func TestDiffApplies(t *testing.T) {
	forEachCase(t, 300, func(seed uint64) error {
		a, _ := newCase(seed, 0)
		b, _ := newCase(seed+1<<40, 0)
		return checkDiff(Rendered(a.Cluster, "node1"), Rendered(b.Cluster, "node1"))
	})
}

// noPolicy is a node on which no policy isolates anybody.
var noPolicy policy.Node

// strangers are entries that no case has.
var strangers = map[iptables.Family]netip.Prefix{
	iptables.IPv4: netip.MustParsePrefix("198.51.100.1/32"),
	iptables.IPv6: netip.MustParsePrefix("2001:db8:ffff::1/128"),
}

// checkDiff takes a kernel from nothing to a, to b, and back to nothing that is enforced.
func checkDiff(a, b iptables.Ruleset) error {
	kernel := dataplane.NewFake(dataplane.Capabilities{})
	for _, want := range []iptables.Ruleset{a, b, iptables.Render(noPolicy, Options)} {
		have, err := kernel.Observe(context.Background())
		if err != nil {
			return err
		}
		plan := iptables.Diff(want, have)
		if err := kernel.Apply(context.Background(), plan); err != nil {
			return fmt.Errorf("applying\n%s\nto\n%s\n%w", plan, have, err)
		}
		if have, err = kernel.Observe(context.Background()); err != nil {
			return err
		}
		if diff := cmp.Diff(want.String(), have.String()); diff != "" {
			return fmt.Errorf("after the plan\n%s\nthe kernel holds (-want +got):\n%s", plan, diff)
		}
		if rest := iptables.Diff(want, have); !rest.Empty() {
			return fmt.Errorf("the diff of what was just applied is\n%s", rest)
		}
	}
	return nil
}

// TestDiffRepairs: whatever is missing, added or changed in the kernel, one plan mends it.
func TestDiffRepairs(t *testing.T) {
	forEachCase(t, 300, func(seed uint64) error {
		c, _ := newCase(seed, 0)
		want := Rendered(c.Cluster, "node1")
		kernel := dataplane.NewFake(dataplane.Capabilities{})
		if err := reach(kernel, want); err != nil {
			return err
		}
		damage := tamper(want, rand.New(rand.NewPCG(seed, 1)))
		if err := kernel.Apply(context.Background(), damage); err != nil {
			return fmt.Errorf("doing damage\n%s\n%w", damage, err)
		}
		for _, f := range iptables.Families {
			inFront := []string{"-j ACCEPT", "-j RF-FORWARD", "-s " + strangers[f].String() + " -j RF-FORWARD"}[seed%3]
			if err := kernel.Restore(f, "*security\n-I FORWARD 1 "+inFront+"\nCOMMIT\n"); err != nil {
				return fmt.Errorf("putting a rule in front: %w", err)
			}
		}
		if err := reach(kernel, want); err != nil {
			return fmt.Errorf("after the damage\n%s\n%w", damage, err)
		}
		return nil
	})
}

func reach(kernel *dataplane.Fake, want iptables.Ruleset) error {
	have, err := kernel.Observe(context.Background())
	if err != nil {
		return err
	}
	plan := iptables.Diff(want, have)
	if err := kernel.Apply(context.Background(), plan); err != nil {
		return fmt.Errorf("applying\n%s\n%w", plan, err)
	}
	if have, err = kernel.Observe(context.Background()); err != nil {
		return err
	}
	if diff := cmp.Diff(want.String(), have.String()); diff != "" {
		return fmt.Errorf("after the plan\n%s\nthe kernel holds (-want +got):\n%s", plan, diff)
	}
	return nil
}

// tamper is a plan that breaks some of a ruleset: rules and chains gone, moved or added, set entries gone, turned or added.
func tamper(r iptables.Ruleset, random *rand.Rand) iptables.Plan {
	some := func() bool { return random.IntN(3) == 0 }
	p := iptables.Plan{Restore: map[iptables.Family]string{}}
	for f, t := range r.Tables {
		text := "*" + t.Name + "\n:RF-FOREIGN - [0:0]\n-A RF-FOREIGN -j RETURN\n"
		for _, name := range slices.Sorted(t.Chains.Keys()) {
			rules := slices.Clone(t.Chains.Get(name))
			switch random.IntN(4) {
			case 0:
				continue
			case 1:
				random.Shuffle(len(rules), func(i, j int) { rules[i], rules[j] = rules[j], rules[i] })
			case 2:
				rules = rules[:len(rules)/2]
			case 3:
				rules = append(rules, "-j RETURN")
			}
			text += ":" + name + " - [0:0]\n"
			for _, rule := range rules {
				text += "-A " + name + " " + string(rule) + "\n"
			}
		}
		p.Restore[f] = text + "COMMIT\n"
	}
	for _, name := range slices.Sorted(r.Sets.Keys()) {
		s := r.Sets.Get(name)
		if s.Type.Timed() {
			continue // what it holds is no part of a ruleset, and not looked at
		}
		add := iptables.SetEntries{Set: name, Type: s.Type, Family: s.Family}
		del := add
		for e := range s.All() {
			switch {
			case s.Type == iptables.HashNet && some():
				e.NoMatch = !e.NoMatch
				add.Entries = append(add.Entries, e)
			case some():
				del.Entries = append(del.Entries, e)
			}
		}
		if some() {
			stranger := iptables.Entry{Prefix: policy.PrefixOf(strangers[s.Family])}
			if s.Type == iptables.HashIPPort {
				stranger.Protocol, stranger.Port = 6, 4444
			}
			add.Entries = append(add.Entries, stranger)
		}
		p.AddEntries, p.DelEntries = append(p.AddEntries, add), append(p.DelEntries, del)
	}
	return p
}

// TestPolicyChangesAreAtomic: while policies change, and pods do not, each packet meets the old policy or the new one, between
// any two steps of the plan.
func TestPolicyChangesAreAtomic(t *testing.T) {
	forEachCase(t, 80, func(seed uint64) error {
		s := gen.Seed(seed)
		c := gen.New(s, gen.Options{})
		before := c.Cluster
		c.Cluster.Policies = gen.Policies(s, c, gen.Options{})
		after := c.Cluster
		c.Cluster.Policies = slices.Concat(before.Policies, after.Policies)
		flows := gen.Flows(s, c, 30)
		for _, node := range c.Nodes {
			if err := checkAtomic(before, after, node, flows); err != nil {
				return fmt.Errorf("node %s: %w\nbefore:\n%s\nafter:\n%s", node.Name, err, Describe(before), Describe(after))
			}
		}
		return nil
	})
}

func checkAtomic(before, after oracle.Cluster, node gen.Node, flows []oracle.Flow) error {
	old, err := NewJudges(before, node)
	if err != nil {
		return err
	}
	next, err := NewJudges(after, node)
	if err != nil {
		return err
	}
	kernel := dataplane.NewFake(dataplane.Capabilities{})
	if err := reach(kernel, old.Rendered); err != nil {
		return err
	}
	var wrong error
	kernel.Before = func(step dataplane.Step) error {
		now, err := kernel.Observe(context.Background())
		if err != nil {
			return err
		}
		tracer, err := trace.Parse(now.String())
		if err != nil {
			return err
		}
		meanwhile := &Judges{Node: node, Tracer: tracer}
		for _, f := range flows {
			was, _, _, _ := old.Trace(f)
			willBe, _, _, _ := next.Trace(f)
			is, _, hits, err := meanwhile.Trace(f)
			if err != nil || was == willBe && is != was {
				wrong = fmt.Errorf("before step %v: %s is allowed=%v, and by the old and the new policy it is %v: %q %v\n%s", step, f, is, was, hits, err, now)
			}
		}
		return nil
	}
	return errors.Join(reach(kernel, next.Rendered), wrong)
}

// TestAPodIsOpenOnceItsPolicyIsInForce: where unknown addresses are closed, a pod that comes or goes meets, between any two steps of the plan, the old
// verdict or the new one: nothing, or what policy says. Never is it known without its policy.
func TestAPodIsOpenOnceItsPolicyIsInForce(t *testing.T) {
	var came atomic.Int64
	forEachCase(t, 40, func(seed uint64) error {
		s := gen.Seed(seed)
		c := gen.New(s, gen.Options{Tiers: seed%2 == 0, Closed: true})
		if shareAddresses(c.Cluster) {
			return nil
		}
		flows, tried := gen.Flows(s, c, 60), 0
		for i, p := range c.Cluster.Pods {
			node := c.Nodes[slices.IndexFunc(c.Nodes, func(n gen.Node) bool { return n.Name == p.Spec.NodeName })]
			closes := func(a netip.Addr) bool {
				return holds(p, a) && slices.ContainsFunc(c.Cluster.Closed[node.Name], func(r netip.Prefix) bool { return r.Contains(a) })
			}
			its := slices.DeleteFunc(slices.Clone(flows), func(f oracle.Flow) bool { return !closes(f.Src) && !closes(f.Dst) })
			if len(its) == 0 || tried == 2 {
				continue
			}
			tried++
			came.Add(1)
			without := c.Cluster
			without.Pods = slices.Delete(slices.Clone(c.Cluster.Pods), i, i+1)
			for _, way := range [][2]oracle.Cluster{{without, c.Cluster}, {c.Cluster, without}} {
				if err := checkAtomic(way[0], way[1], node, its); err != nil {
					return fmt.Errorf("node %s, pod %s/%s: %w\nbefore:\n%s\nafter:\n%s", node.Name, p.Namespace, p.Name, err, Describe(way[0]), Describe(way[1]))
				}
			}
		}
		return nil
	})
	if !t.Failed() && came.Load() < 20 {
		t.Errorf("%d pods have come and gone: the cases have become too tame", came.Load())
	}
}

func holds(p *corev1.Pod, a netip.Addr) bool {
	return slices.ContainsFunc(p.Status.PodIPs, func(ip corev1.PodIP) bool { return ip.IP == a.String() })
}
