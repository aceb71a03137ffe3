package e2e

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ringfence-io/ringfence/config"
	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/lab"
	"github.com/ringfence-io/ringfence/lab/matrix"
	"github.com/ringfence-io/ringfence/lab/scene"
	"github.com/ringfence-io/ringfence/test/kit"
)

// TestWhileSomethingIsAway takes the API server and the enforcers away, one after the other and both. What was enforced stays
// enforced; what changed meanwhile is enforced once they are back.
func TestWhileSomethingIsAway(t *testing.T) {
	for _, backend := range []string{"legacy", "nft"} {
		t.Run(backend, func(t *testing.T) {
			l := start(t, lab.Options{Backend: backend})
			application(t, l)
			kit.Must(t, l.ApplyDir(kit.Context(t, patience), config.Samples, "samples/policies"))
			settle(t, l)
			// Judged by the objects of now: what the API server holds cannot be read while it is away.
			before, err := matrix.Of(kit.Context(t, patience), l, scene.Pods...)
			kit.Must(t, err)
			rules := kernel(t, l)
			unchanged := func(when string) {
				t.Helper()
				kit.Must(t, before.Measure(kit.Context(t, patience)))
				if err := before.Explain(); err != nil {
					t.Errorf("%s:\n%v", when, err)
				}
				if diff := gocmp.Diff(rules, kernel(t, l)); diff != "" {
					t.Errorf("%s, the kernel holds something else (-before +now):\n%s", when, diff)
				}
			}

			l.API.Kill()
			unchanged("while the API server is away")
			for _, n := range l.Nodes {
				n.KillEnforcer()
			}
			unchanged("while both are away")
			for _, n := range l.Nodes {
				kit.Must(t, n.StartEnforcer())
				kit.Must(t, lab.Poll(kit.Context(t, patience), func(ctx context.Context) error { return alive(ctx, n) }))
			}
			unchanged("while an enforcer has started without the API server")
			for _, n := range l.Nodes {
				if err := n.EnforcerReady(kit.Context(t, patience)); err == nil {
					t.Errorf("the enforcer of %s says that it is ready", n.Name)
				}
			}
			kit.Must(t, l.API.Resume(kit.Context(t, patience)))
			kit.Must(t, l.WaitEnforcers(kit.Context(t, patience)))
			unchanged("after everything came back")

			for _, n := range l.Nodes {
				n.KillEnforcer()
			}
			policies := l.Client.NetworkingV1().NetworkPolicies("shop")
			kit.Must(t, policies.Delete(kit.Context(t, patience), "frontend", metav1.DeleteOptions{}))
			unchanged("while the enforcers are away and a policy has changed")
			for _, n := range l.Nodes {
				kit.Must(t, n.StartEnforcer())
			}
			settle(t, l)
		})
	}
}

// alive reports whether the enforcer's process answers, ready or not.
func alive(ctx context.Context, n *lab.Node) error {
	if n.EnforcerPID() == 0 {
		return fmt.Errorf("the enforcer of %s is not running", n.Name)
	}
	return n.Get(ctx, lab.EnforcerHealth, "/healthz")
}

// TestOrderOfEvents ends in the same rules whether policies come one by one, in reverse order, or are there before the enforcer.
func TestOrderOfEvents(t *testing.T) {
	l := start(t, lab.Options{})
	application(t, l)
	kit.Must(t, l.ApplyDir(kit.Context(t, patience), config.Samples, "samples/policies"))
	settle(t, l)
	want := kernel(t, l)
	same := func(how string) {
		t.Helper()
		settle(t, l)
		// Retired sets may go a moment after the rules that named them.
		if err := lab.Poll(kit.Context(t, patience), func(context.Context) error {
			if diff := gocmp.Diff(want, kernel(t, l)); diff != "" {
				return fmt.Errorf("%s (-in order +now):\n%s", how, diff)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	}
	policies, err := l.Client.NetworkingV1().NetworkPolicies("").List(kit.Context(t, patience), metav1.ListOptions{})
	kit.Must(t, err)
	remove := func() {
		t.Helper()
		for _, p := range policies.Items {
			kit.Must(t, l.Client.NetworkingV1().NetworkPolicies(p.Namespace).Delete(kit.Context(t, patience), p.Name, metav1.DeleteOptions{}))
		}
		settle(t, l)
	}
	create := func() {
		t.Helper()
		for i := range policies.Items {
			p := policies.Items[len(policies.Items)-1-i].DeepCopy()
			p.ObjectMeta = metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name}
			_, err := l.Client.NetworkingV1().NetworkPolicies(p.Namespace).Create(kit.Context(t, patience), p, metav1.CreateOptions{})
			kit.Must(t, err)
		}
	}

	remove()
	create()
	same("after policies came in reverse order")

	remove()
	for _, n := range l.Nodes {
		n.KillEnforcer()
	}
	create()
	for _, n := range l.Nodes {
		kit.Must(t, n.StartEnforcer())
	}
	same("after policies were there before the enforcer")

	for _, n := range l.Nodes {
		kit.Must(t, n.RestartEnforcer())
	}
	kit.Must(t, l.WaitEnforcers(kit.Context(t, patience)))
	same("after a restart")
}

// kernel is all that nodes hold of ours, as their own tools print it, by node and kind, in an order that does not tell what
// was made first.
func kernel(t *testing.T, l *lab.Lab) map[string][]string {
	t.Helper()
	held := map[string][]string{}
	for _, n := range l.Nodes {
		for _, save := range []string{"iptables-legacy-save", "ip6tables-legacy-save", "iptables-nft-save", "ip6tables-nft-save"} {
			held[n.Name+" "+save] = inOrder(printed(t, n, save), func(line string) string {
				return strings.Join(strings.Fields(line)[:min(2, len(strings.Fields(line)))], " ")
			})
		}
		held[n.Name+" ipset"] = inOrder(printed(t, n, "ipset", "save"), func(line string) string { return line })
	}
	return held
}

// printed is what a tool prints that lists a node's rules or sets. It fails where an enforcer at work destroys a set between the rule that names it and the tool's
// question for the name: then it is asked again.
func printed(t *testing.T, n *lab.Node, tool string, args ...string) []byte {
	t.Helper()
	var out []byte
	kit.Must(t, lab.Poll(kit.Context(t, patience), func(ctx context.Context) (err error) {
		out, err = n.Exec(ctx, tool, args...)
		return err
	}))
	return out
}

// inOrder sorts lines by a key, and leaves out comments, which hold the time, base chains' counters, and connections that were cut, which time decides
// about, as it does about the size of their sets. Lines of the same key, such as the rules of a chain, stay in their order.
func inOrder(saved []byte, key func(string) string) []string {
	var lines []string
	for line := range strings.Lines(string(saved)) {
		line = strings.TrimSpace(line)
		ofCut := strings.HasPrefix(line, "add "+iptables.CutSet(iptables.IPv4)) || strings.HasPrefix(line, "add "+iptables.CutSet(iptables.IPv6))
		if line != "" && !strings.HasPrefix(line, "#") && !ofCut {
			line, _, _ = strings.Cut(line, " [")
			if strings.HasPrefix(line, "create "+iptables.Prefix) && strings.Contains(line, "-CUT ") {
				line, _, _ = strings.Cut(line, " hashsize ") // the kernel makes it larger with what the set has held
			}
			lines = append(lines, line)
		}
	}
	slices.SortStableFunc(lines, func(a, b string) int { return cmp.Compare(key(a), key(b)) })
	return lines
}
