package ladder

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/lab/oracle"
	"github.com/ringfence-io/ringfence/test/gen"
)

// TestWhatDoesNotNarrowDeniesNothing: connections are not looked at after a change that policy.Narrows says may deny none. One policy gets a rule, loses it,
// comes or goes; and pods' labels stay as they are, since what leaves a set says so by itself.
func TestWhatDoesNotNarrowDeniesNothing(t *testing.T) {
	var narrows, widens atomic.Int64
	forEachCase(t, 600, func(seed uint64) error {
		s := gen.Seed(seed)
		c := gen.New(s, gen.Options{})
		if len(c.Cluster.Policies) == 0 {
			return nil
		}
		i := int(seed) % len(c.Cluster.Policies)
		richer, fewer := c.Cluster, c.Cluster
		richer.Policies = replaced(c.Cluster.Policies, i, withRule(c.Cluster.Policies[i], gen.Policy(s, c, gen.Options{}, "more")))
		fewer.Policies = slices.Delete(slices.Clone(c.Cluster.Policies), i, i+1)
		flows := gen.Flows(s, c, 80)
		for _, node := range c.Nodes {
			for _, pair := range [][2]oracle.Cluster{{c.Cluster, richer}, {richer, c.Cluster}, {c.Cluster, fewer}, {fewer, c.Cluster}} {
				before, after := nodeOf(pair[0], node.Name), nodeOf(pair[1], node.Name)
				if policy.Narrows(before, after) {
					narrows.Add(1)
					continue
				}
				widens.Add(1)
				for _, f := range flows {
					was, is := before.Allows(PolicyFlow(f, node.Name)), after.Allows(PolicyFlow(f, node.Name))
					if was.Allowed && !is.Allowed {
						return fmt.Errorf("%s at %s: was allowed (%s), is denied (%s), and nothing was said to narrow\nbefore:\n%s\nafter:\n%s",
							f, node.Name, was.Reason, is.Reason, Describe(pair[0]), Describe(pair[1]))
					}
				}
			}
		}
		return nil
	})
	if narrows.Load() == 0 || widens.Load() == 0 {
		t.Errorf("%d changes narrow and %d do not: one of them is not tried", narrows.Load(), widens.Load())
	}
}
