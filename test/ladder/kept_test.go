package ladder

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// TestAKeptRendererGivesWhatRenderGives: whatever has happened to a cluster, the ruleset of a Renderer that has seen all of it is that of one which has seen
// nothing, and the plan from one of its rulesets to the next is that between copies of them.
func TestAKeptRendererGivesWhatRenderGives(t *testing.T) {
	const clusters, steps = 60, 60
	forEachCase(t, clusters, func(seed uint64) error {
		h := &renderings{history: NewHistory(seed), random: rand.New(rand.NewPCG(seed, 5)), options: Options}
		h.options.ListLength = int(seed / 4 % 4)
		_, h.present = h.history.Next()
		for step := range steps {
			what := h.goOn()
			if err := h.check(); err != nil {
				return fmt.Errorf("step %d, %s: %w", step, what, err)
			}
		}
		return nil
	})
}

// renderings are those of a node that has seen all that happens to a cluster, one thing after the other.
type renderings struct {
	history  *History
	present  compile.Snapshot
	random   *rand.Rand
	options  iptables.Options
	compiler compile.Compiler
	renderer iptables.Renderer
	held     iptables.Ruleset
	copied   iptables.Ruleset // of held, as it was when it was made
}

// goOn has something happen, and says what.
func (h *renderings) goOn() (what string) {
	switch h.random.IntN(20) {
	case 0:
		return h.changeOptions()
	case 1:
		for range 20 {
			_, h.present = h.history.Next()
		}
		return "much at once"
	}
	what, h.present = h.history.Next()
	return what
}

func (h *renderings) changeOptions() string {
	o := &h.options
	switch h.random.IntN(8) {
	case 0:
		o.LogDenied = !o.LogDenied
	case 1:
		o.NFLogGroup = []uint16{0, 1, 4210}[h.random.IntN(3)]
	case 2:
		o.ShareAlways = !o.ShareAlways
	case 3:
		o.HoldCut = !o.HoldCut
	case 4:
		o.SelfMatch = !o.SelfMatch
	case 5:
		o.Families = iptables.Families[:1+h.random.IntN(2)]
	case 6:
		o.ListLength = h.random.IntN(5)
	case 7:
		o.NamedRules = h.random.IntN(4)
	}
	return fmt.Sprintf("options are %+v", *o)
}

// check renders the present.
func (h *renderings) check() error {
	node, _ := h.compiler.Compile(h.present)
	node.LinkLocalHeld = h.random.IntN(2) == 0
	ids := slices.DeleteFunc(slices.Sorted(node.Sets.Keys()), func(id policy.SetID) bool { return node.Sets.Get(id).Kind != policy.Addresses })
	if len(ids) > 0 && h.random.IntN(10) == 0 {
		node.Shut = ids[h.random.IntN(len(ids))] // which rules may name: then it has another name there too
	}
	want, got := iptables.Render(node, h.options), h.renderer.Render(node, h.options, h.held)
	if diff := differ(want, got); diff != "" {
		return fmt.Errorf("the ruleset (-want +got):\n%s", diff)
	}
	if diff := differ(h.copied, h.held); diff != "" {
		return fmt.Errorf("somebody has written to the last ruleset (-was +is):\n%s", diff)
	}
	copied := unshared(got)
	if diff := differ(iptables.Diff(copied, h.copied), iptables.Diff(got, h.held)); diff != "" {
		return fmt.Errorf("the plan (-want +got):\n%s", diff)
	}
	h.held, h.copied = got, copied
	return nil
}

// differ is what go-cmp says of two values that differ. It takes a hundred times as long as finding out whether they do.
func differ[T any](want, got T) string {
	if reflect.DeepEqual(want, got) {
		return ""
	}
	if diff := gocmp.Diff(want, got, comparers); diff != "" {
		return diff
	}
	return "one has an empty list where the other has none"
}

// unshared is a copy that shares nothing with r but texts.
func unshared(r iptables.Ruleset) iptables.Ruleset {
	sets := r.Sets.Content()
	for name, s := range sets {
		sets[name] = s.Holding(s.Entries())
	}
	r.Sets, r.Points, r.Guards, r.Tables = policy.MapOf(sets), policy.MapOf(r.Points.Content()), maps.Clone(r.Guards), maps.Clone(r.Tables)
	for f, table := range r.Tables {
		chains := table.Chains.Content()
		for name, rules := range chains {
			chains[name] = slices.Clone(rules)
		}
		table.Jumps, table.Chains = maps.Clone(table.Jumps), policy.MapOf(chains)
		r.Tables[f] = table
	}
	return r
}
