package scenario_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/lab/oracle"
	"github.com/ringfence-io/ringfence/lab/twin"
	"github.com/ringfence-io/ringfence/test/gen"
	"github.com/ringfence-io/ringfence/test/ladder"
	"github.com/ringfence-io/ringfence/test/scenario"
	"github.com/ringfence-io/ringfence/test/trace"
)

// TestAllows holds Compile and Node.Allows to every scenario, and Compile to the problems that it must report.
func TestAllows(t *testing.T) {
	reported := map[string]bool{} // scenarios, families and nodes whose first state has been looked at
	scenario.Ask(t, func(t *testing.T, s scenario.Scenario, c *scenario.Cluster, node string) scenario.Judge {
		compiled, problems := compile.Compile(ladder.Snapshot(c.Cluster, node))
		if at := fmt.Sprint(s.Name, c.Family, node); !reported[at] {
			reported[at] = true
			var got []string
			for _, p := range problems {
				got = append(got, p.String())
			}
			if d := cmp.Diff(slices.Sorted(slices.Values(s.Problems)), s.Reported(got)); d != "" {
				t.Errorf("problems, -want +got:\n%s", d)
			}
		}
		return func(f oracle.Flow) (scenario.Verdict, error) {
			verdict := compiled.Allows(ladder.PolicyFlow(f, node))
			v := scenario.Verdict{Allowed: verdict.Allowed, Reason: verdict.Reason}
			for _, d := range verdict.WouldDeny {
				v.Noted = append(v.Noted, scenario.NoteOf(d.Ref.Kind, d.Ref.Namespace, d.Ref.Name, d.Direction.String()))
			}
			return v, nil
		}
	})
}

// TestTrace holds the rules that are rendered, as text, to every scenario: where pods share chains wherever they may and even short lists are cut down, and where
// they do not and are not.
func TestTrace(t *testing.T) {
	for _, share := range []bool{false, true} {
		t.Run(map[bool]string{false: "a chain each", true: "shared and cut chains"}[share], func(t *testing.T) {
			scenario.Ask(t, func(t *testing.T, _ scenario.Scenario, c *scenario.Cluster, node string) scenario.Judge {
				compiled, _ := compile.Compile(ladder.Snapshot(c.Cluster, node))
				options := ladder.Options
				if options.ShareAlways = share; share {
					options.ListLength = 2
				}
				j := &ladder.Judges{Node: gen.Node{Name: node, Addrs: c.NodeAddrs(node)}, Rendered: iptables.Render(compiled, options)}
				var err error
				if j.Tracer, err = trace.Parse(j.Rendered.String()); err != nil {
					t.Fatal(err)
				}
				return func(f oracle.Flow) (scenario.Verdict, error) {
					passed, points, hits, err := j.Trace(f)
					v := scenario.Verdict{Allowed: passed, Reason: strings.Join(hits, "\n")}
					for _, p := range points {
						v.Noted = append(v.Noted, scenario.NoteOf(p.Ref.Kind, p.Ref.Namespace, p.Ref.Name, p.Direction.String()))
					}
					return v, err
				}
			})
		})
	}
}

// TestNothingIsLeftOut: what the judge with a network is not asked about is what no probe can send, and each scenario says something.
func TestNothingIsLeftOut(t *testing.T) {
	seen, sent, unsent := map[string]bool{}, 0, 0
	for _, theme := range scenario.Themes() {
		for _, s := range theme.Scenarios {
			if seen[s.Name] {
				t.Errorf("two scenarios are called %q", s.Name)
			}
			seen[s.Name] = true
			for _, f := range s.Families() {
				err := s.Play(theme.Cluster(f), func(state scenario.State) {
					if len(state.Lines)+len(state.Unsent) == 0 {
						t.Errorf("%s: %s: nothing is said", s.Name, state.What)
					}
					for _, l := range state.Lines {
						sent += len(l.Services)
						if !l.IsSendable() {
							t.Errorf("%s: %q cannot be sent", s.Name, l.Text)
						}
					}
					for _, l := range state.Unsent {
						unsent += len(l.Services)
						if l.IsSendable() {
							t.Errorf("%s: %q can be sent", s.Name, l.Text)
						}
					}
				})
				if err != nil {
					t.Errorf("%s: %v", s.Name, err)
				}
			}
		}
	}
	t.Logf("%d scenarios: %d connections that can be sent, %d that cannot", len(seen), sent, unsent)
}

// TestTwins: the addresses of the actors are those that a topology gives.
func TestTwins(t *testing.T) {
	for _, c := range []*scenario.Cluster{scenario.Standard(scenario.IPv4), scenario.Shop(scenario.IPv4)} {
		for _, a := range c.Actors {
			if a.Name != "lower half" && a.Name != "metadata" && a.V6 != twin.Of(a.V4) {
				t.Errorf("%s has %s and %s", a.Name, a.V4, a.V6)
			}
		}
	}
}
