package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/ringfence-io/ringfence/lab"
	"github.com/ringfence-io/ringfence/lab/cni"
	"github.com/ringfence-io/ringfence/lab/probe"
	"github.com/ringfence-io/ringfence/test/kit"
)

// How hostile it gets. A variable of the environment says otherwise, for a run that takes its time.
const (
	killsVariable   = "RINGFENCE_KILLS"           // how many enforcers are killed, on each back end
	lockVariable    = "RINGFENCE_LOCK_HELD"       // how long another program holds the xtables lock
	awayVariable    = "RINGFENCE_API_AWAY"        // how long the API server is away
	resyncVariable  = "RINGFENCE_RESYNC_INTERVAL" // of the enforcers whose tables are flushed
	defaultKills    = 20
	defaultLockHeld = 7 * time.Second // one run of iptables-restore gives up waiting after 5 s and is repeated
	defaultAPIAway  = 10 * time.Second
	defaultResync   = 2 * time.Second
	conditionsRate  = 1000 // probes per second, of each back end
	conditionsGrace = 20 * time.Second

	// The programs of this test stop to hear of a namespace soon after policies have stopped to name it, and one of them has another layout.
	conditionsKept   = time.Second
	conditionsFlags  = "-X github.com/ringfence-io/ringfence/internal/cli.kept="
	conditionsLayout = " -X github.com/ringfence-io/ringfence/internal/cli.layout=2"
)

// repairTime is what the repair of damage may take beyond the resync interval: it is a sync. Where a start takes longer, so may that.
const repairTime = 3 * time.Second

// condition is what happens to a cluster while its verdicts are watched.
type condition struct {
	name     string
	backends string // in which it can happen
	// disturb returns when it is over, and says what it has done.
	disturb func(t *testing.T, s *stage) string
	// mends is how long verdicts may be wrong at a time.
	mends func(s *stage) time.Duration
}

// never is how long verdicts may be wrong when enforcers can help it.
func never(*stage) time.Duration { return 0 }

var conditions = []condition{
	{"policy churn", "legacy nft", policyChurn, never},
	{"pod churn", "legacy nft", podChurn, never},
	{"namespaces reached and left", "legacy nft", reachedAndLeft, never},
	{"SIGKILLs at random moments", "legacy nft", kills, never},
	{"upgrade and downgrade", "legacy nft", upgrades, never},
	{"back-end switch", "legacy nft", switches, never},
	{"foreign flush of every table", "legacy nft", flushes, func(s *stage) time.Duration { return s.repair }},
	{"xtables lock held", "legacy", lockHeld, never}, // iptables-nft takes no lock
	{"API server away, restarts", "legacy nft", apiAway, never},
}

func killCount(t *testing.T) int {
	return fromEnv(t, killsVariable, defaultKills, strconv.Atoi)
}

func resyncInterval(t *testing.T) time.Duration {
	return fromEnv(t, resyncVariable, defaultResync, time.ParseDuration)
}

// fromEnv is what a variable of the environment says, or what holds without it.
func fromEnv[T any](t *testing.T, variable string, without T, parse func(string) (T, error)) T {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return without
	}
	value, err := parse(text)
	if err != nil {
		t.Fatalf("%s: %v", variable, err)
	}
	return value
}

// TestNoVerdictIsWrongWhateverHappens opens new connections all the time, between pods of one node and of two, and takes the cluster from one
// condition to the next. A flow has one verdict in every state that policies and pods pass through: any other is wrong. A flush by somebody else is
// the only damage that enforcers cannot help: it lasts until the next resync, and no longer. After each condition the nodes hold to the letter what they
// held before the first.
//
// Each probe is one packet that opens a connection, never sent again, and its answer may take its time: a busy machine makes no verdict wrong.
func TestNoVerdictIsWrongWhateverHappens(t *testing.T) {
	kit.NeedRoot(t)
	program, next := build(t, "program", conditionsFlags+conditionsKept.String()), build(t, "layout-2", conditionsFlags+conditionsKept.String()+conditionsLayout)
	var mu sync.Mutex
	var rows []row
	t.Run("on", func(t *testing.T) {
		for _, on := range []struct {
			kind    cni.Kind
			backend string
		}{{cni.Bridge, "legacy"}, {cni.PTP, "nft"}} {
			t.Run(on.backend, func(t *testing.T) {
				t.Parallel()
				s := newStage(t, lab.Options{CNI: on.kind, Backend: on.backend, Controller: true}, program, next)
				for _, c := range conditions {
					if !strings.Contains(c.backends, on.backend) {
						continue
					}
					t.Run(c.name, func(t *testing.T) {
						r := s.undergo(t, c)
						mu.Lock()
						defer mu.Unlock()
						rows = append(rows, r)
					})
				}
			})
		}
	})
	t.Logf("wrong verdicts while\n%s", tableOf(rows))
}

// build builds a program with flags for the linker.
func build(t *testing.T, name, flags string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ringfence-"+name)
	build := exec.CommandContext(t.Context(), "go", "build", "-ldflags", flags, "-o", path, "github.com/ringfence-io/ringfence")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building ringfence with %s: %v\n%s", flags, err, out)
	}
	return path
}

// row is what was seen under a condition.
type row struct {
	condition, backend, done string
	lasted                   time.Duration
	report                   probe.Report
	open, closed             int
	longest, mends           time.Duration
}

// undergo watches the flows from before a condition until the cluster is as it was, and judges what it has seen.
func (s *stage) undergo(t *testing.T, c condition) row {
	t.Helper()
	for _, n := range s.lab.Nodes {
		n.SetEnforcer(s.program, s.backend)
	}
	if s.broken {
		s.restartAll(t)
		s.home(t)
	}
	t.Cleanup(func() { s.broken = t.Failed() })
	began := time.Now()
	watch, err := probe.Watch(s.flows(), conditionsRate)
	kit.Must(t, err)
	stop := sync.OnceValues(func() (probe.Report, error) { return watch.Stop(conditionsGrace) })
	t.Cleanup(func() { _, _ = stop() }) // of a test that has failed before
	done := c.disturb(t, s)
	s.home(t)
	r := row{condition: c.name, backend: s.backend, done: done, lasted: time.Since(began), mends: c.mends(s)}
	r.report, err = stop()
	kit.Must(t, err)
	for _, wrong := range r.report.Wrong {
		if wrong.Allowed {
			r.closed++
		} else {
			r.open++
		}
	}
	r.longest = longestWrong(r.report.Wrong)
	t.Logf("%s, from %s on: %s", done, began.Format(time.StampMicro), r.report)
	if r.longest > r.mends || r.mends == 0 && len(r.report.Wrong) > 0 {
		t.Errorf("verdicts were wrong for %s, %s is the most", r.longest, r.mends)
	}
	if r.mends > 0 && r.open == 0 {
		t.Error("no verdict was ever wrong: the damage was none, or was not watched")
	}
	if r.report.Rate() < conditionsRate*5/6 || r.report.Answered == 0 || r.report.Silent == 0 {
		t.Errorf("too few probes to say anything: %s", r.report)
	}
	return r
}

// apart is what parts one stretch of wrong verdicts from the next. Each flow is probed many times in it, so that a stretch is never said to be
// shorter than it was.
const apart = 500 * time.Millisecond

// longestWrong is how long verdicts, which are in their order, were wrong at a time: from the first of a stretch to its last.
func longestWrong(wrong []probe.Wrong) time.Duration {
	var longest time.Duration
	first := 0
	for i, w := range wrong {
		if i > 0 && w.Sent.Sub(wrong[i-1].Sent) > apart {
			first = i
		}
		longest = max(longest, w.Sent.Sub(wrong[first].Sent))
	}
	return longest
}

func TestLongestWrong(t *testing.T) {
	for _, tt := range []struct {
		name string
		at   []time.Duration
		want time.Duration
	}{
		{"none is no time", nil, 0},
		{"one alone has no length", []time.Duration{time.Second}, 0},
		{"a stretch is as long as from its first to its last", []time.Duration{0, apart, 2 * apart}, 2 * apart},
		{"right verdicts part stretches", []time.Duration{0, apart, 3 * apart, 4 * apart, 4*apart + 1}, apart + 1},
		{"the first may be the longest", []time.Duration{0, apart, 3 * apart}, apart},
	} {
		t.Run(tt.name, func(t *testing.T) {
			began, wrong := time.Now(), []probe.Wrong(nil)
			for _, at := range tt.at {
				wrong = append(wrong, probe.Wrong{Sent: began.Add(at)})
			}
			if got := longestWrong(wrong); got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
}

// tableOf prints rows for people.
func tableOf(rows []row) string {
	var text strings.Builder
	out := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "CONDITION\tBACK END\tDONE\tLASTED\tPROBES/S\tALLOWED\tDENIED\tWRONG OPEN\tWRONG CLOSED\tLONGEST\tAT MOST")
	for _, r := range rows {
		fmt.Fprintf(out, "%s\t%s\t%s\t%s\t%.0f\t%d\t%d\t%d\t%d\t%s\t%s\n", r.condition, r.backend, r.done, r.lasted.Round(100*time.Millisecond), r.report.Rate(),
			r.report.Answered+r.closed, r.report.Silent+r.open, r.open, r.closed, r.longest.Round(time.Millisecond), r.mends.Round(time.Millisecond))
	}
	_ = out.Flush() // into memory
	return text.String()
}
