package packets

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ringfence-io/ringfence/lab/oracle"
	"github.com/ringfence-io/ringfence/test/kit"
	"github.com/ringfence-io/ringfence/test/scenario"
)

// TestPackets runs every scenario on every combination. The scenarios of a combination that play in the same cluster share one network, one after the
// other, so that each is also a change from the policies of the one before.
func TestPackets(t *testing.T) {
	kit.NeedNetfilter(t)
	themes, count := scenario.Themes(), 0
	for _, theme := range themes {
		count += len(theme.Scenarios)
	}
	t.Logf("%d scenarios on %d combinations", count, len(combinations()))
	for _, c := range combinations() {
		t.Run(c.String(), func(t *testing.T) {
			t.Parallel()
			worlds := map[string]*world{}
			for _, theme := range themes {
				name := theme.Cluster(scenario.Family(c.family)).Name
				if worlds[name] == nil {
					worlds[name] = newWorldOf(t, c, theme.Cluster)
					worlds[name].listenFor(t, themes)
				}
				for _, s := range theme.Scenarios {
					if slices.Contains(s.Families(), scenario.Family(c.family)) {
						t.Run(s.Name, func(t *testing.T) { play(t, worlds[name], s) })
					}
				}
			}
		})
	}
}

func play(t *testing.T, w *world, s scenario.Scenario) {
	states := 0
	err := s.Play(w.cluster(), func(state scenario.State) {
		if state.What != "" {
			t.Log(state.What)
		}
		problems := w.apply(t, state.Cluster)
		if states++; states == 1 {
			if d := cmp.Diff(slices.Sorted(slices.Values(s.Problems)), s.Reported(problems)); d != "" {
				t.Errorf("problems, -want +got:\n%s", d)
			}
		}
		if s.NeighboursForgotten {
			for _, p := range w.pods {
				kit.Must(t, p.ForgetNeighbours())
			}
		}
		w.checkLines(t, state.Lines)
	})
	kit.Must(t, err)
	if want := 1 + len(s.Then); states != want {
		t.Errorf("%d states were tried, want %d", states, want)
	}
}

// listenFor has every actor answer what a line of the themes says that it answers.
func (w *world) listenFor(t *testing.T, themes []scenario.Theme) {
	t.Helper()
	type socket struct {
		actor    string
		protocol oracle.Protocol
		port     uint16
	}
	open, refusing := map[socket]bool{}, map[socket]bool{}
	c := w.cluster()
	for _, theme := range themes {
		if theme.Cluster(c.Family).Name != c.Name {
			continue
		}
		for _, s := range theme.Scenarios {
			lines := slices.Clone(s.Lines)
			for _, step := range s.Then {
				lines = append(lines, step.Lines...)
			}
			all, err := c.ParseLines(lines)
			kit.Must(t, err)
			for _, l := range all {
				for _, service := range l.Services {
					at := socket{l.To.Name, service.Protocol, service.Port}
					switch {
					case l.To.Role == scenario.Virtual || service.Port == 0 || slices.Contains(listening, service.Port):
					case l.Verb == scenario.IsRefused:
						refusing[at] = true
					case l.Verb.Passes():
						open[at] = true
					}
				}
			}
		}
	}
	for s := range open {
		if refusing[s] {
			t.Fatalf("%v is said to answer, and to refuse", s)
		}
		listenOn(t, w.place(t, s.actor).host, protocolOf(s.protocol), w.place(t, s.actor).in(w.family), s.port)
	}
}

// setPolicies gives the cluster other policies than it has had.
func setPolicies(t *testing.T, c *scenario.Cluster, objects string) {
	t.Helper()
	c.Withdraw()
	kit.Must(t, c.Apply(objects))
}
