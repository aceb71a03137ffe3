package ladder

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/test/gen"
)

// TestWhatIsNotKnownFailsClosed: while the pods of some namespaces are not known on a node, nothing is allowed there that is not allowed once they are; no
// connection is denied for certain that is allowed then; and the rules say what Allows says. What is in doubt is said of each policy.
func TestWhatIsNotKnownFailsClosed(t *testing.T) {
	var doubts, closed, spared, certain atomic.Int64
	forEachCase(t, 500, func(seed uint64) error {
		s := gen.Seed(seed)
		c := gen.New(s, gen.Options{Tiers: seed%4 != 0, Invalid: seed%3 == 0, Long: seed%4 == 2})
		random := rand.New(rand.NewPCG(seed, 9))
		flows := gen.Flows(s, c, 150)
		for _, n := range c.Nodes {
			all := Snapshot(c.Cluster, n.Name)
			all = Uncontested(all, addrsOf(all.Nodes)...)
			some := forgetting(all, random)
			full, _ := compile.Compile(all)
			j, err := judgesOf(c.Cluster, n, some)
			if err != nil {
				return err
			}
			if err := saysDoubts(some); err != nil {
				return fmt.Errorf("node %s without %v: %w", n.Name, some.Elsewhere.Unknown, err)
			}
			node := &j.Compiled
			if node.IsInDoubt() {
				doubts.Add(1)
			}
			for _, f := range flows {
				flow := PolicyFlow(f, n.Name)
				is, will, may := node.Allows(flow), full.Allows(flow), node.MayAllow(flow)
				traced, _, hits, err := j.Trace(f)
				wrong := ""
				switch {
				case err != nil || traced != is.Allowed:
					wrong = fmt.Sprintf("the rules say something else: %v, %v", hits, err)
				case is.Allowed && !will.Allowed:
					wrong = "it is allowed as long as they are not known"
				case will.Allowed && !may:
					wrong = "it is denied for certain as long as they are not known"
				case is.Allowed && !may:
					wrong = "it is allowed, and may not be"
				case will.Allowed && !is.Allowed:
					closed.Add(1)
				case !will.Allowed && may:
					spared.Add(1)
				case !will.Allowed && node.IsInDoubt():
					certain.Add(1)
				}
				if wrong != "" {
					return fmt.Errorf("%s at %s without %v: %s\nnow  %v %s\nthen %v %s\n%s",
						f, n.Name, some.Elsewhere.Unknown, wrong, is.Allowed, is.Reason, will.Allowed, will.Reason, Describe(c.Cluster))
				}
			}
		}
		return nil
	})
	t.Logf("%d nodes in doubt: %d flows are denied for it, %d may be allowed and are not, %d are denied for certain",
		doubts.Load(), closed.Load(), spared.Load(), certain.Load())
	if !t.Failed() && (doubts.Load() < 500 || closed.Load() < 500 || spared.Load() < 500 || certain.Load() < 500) {
		t.Error("the cases have become too tame")
	}
}

// forgetting is a snapshot without the pods on other nodes of some namespaces, of which it has at least one.
func forgetting(s compile.Snapshot, random *rand.Rand) compile.Snapshot {
	for ns := range s.Namespaces.All() {
		if random.IntN(3) == 0 {
			s.Elsewhere.Unknown = append(s.Elsewhere.Unknown, ns.Name)
		}
	}
	slices.Sort(s.Elsewhere.Unknown)
	for p := range s.Remote.All() {
		if slices.Contains(s.Elsewhere.Unknown, p.Namespace) {
			s.Remote = s.Remote.Without(p.Namespace, p.Name)
		}
	}
	return s
}

// saysDoubts is an error unless there is a problem with each policy that has a rule in doubt, and with no other, and unless the pods that it applies to are known
// to be in doubt, if it is enforced.
func saysDoubts(s compile.Snapshot) error {
	node, problems := compile.Compile(s)
	said, is := map[string]bool{}, map[string]bool{}
	for _, p := range problems {
		if p.Unknown {
			said[p.Ref.String()] = true
		}
	}
	var addrs []netip.Addr
	for i := range node.Policies {
		p := &node.Policies[i]
		if !p.InDoubt() {
			continue
		}
		is[p.Ref.String()] = true
		for _, e := range node.Endpoints {
			for _, d := range policy.Directions {
				if !p.Audit && slices.Contains(e.Applies[d][p.Stage], i) && slices.ContainsFunc(p.Rules[d], func(r policy.Rule) bool { return r.InDoubt }) {
					addrs = append(addrs, e.Addrs...)
				}
			}
		}
	}
	if diff := cmp.Diff(is, said); diff != "" {
		return fmt.Errorf("policies in doubt (-are +said):\n%s", diff)
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	if diff := cmp.Diff(slices.Compact(addrs), node.Concerns.InDoubt, values); diff != "" {
		return fmt.Errorf("addresses in doubt (-are +said):\n%s", diff)
	}
	return nil
}

// addrsOf are the addresses of nodes: whose one is that a pod claims too does not depend on who is known.
func addrsOf(nodes []*compile.Node) (addrs []netip.Addr) {
	for _, n := range nodes {
		addrs = append(addrs, n.Addrs...)
		for _, r := range n.Ranges {
			addrs = append(addrs, r.Addr(), r.Addr().Next())
		}
	}
	return addrs
}
