package ladder

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ringfence-io/ringfence/lab/oracle"
	"github.com/ringfence-io/ringfence/test/gen"
)

// A run is repeated with the seed that it printed: go test ./test/ladder -ladder.seed=N, or LADDER_SEED=N.
// Case i of a run has seed N+i, so that -ladder.seed=<seed of the case> -ladder.clusters=1 is that case alone.
var (
	seedFlag     = flag.Uint64("ladder.seed", 0, "seed of the first random case; 0 draws one, or takes LADDER_SEED")
	clustersFlag = flag.Int("ladder.clusters", 2000, "how many random clusters the judges are compared on")
	eventsFlag   = flag.Int("ladder.events", 6000, "how many random events a compiler follows")
	flowsFlag    = flag.Int("ladder.flows", 80, "how many random flows per cluster")
)

// seed is the run's first seed, printed.
func seed(t testing.TB) uint64 {
	t.Helper()
	s := *seedFlag
	if s == 0 {
		if text := os.Getenv("LADDER_SEED"); text != "" {
			var err error
			if s, err = strconv.ParseUint(text, 10, 64); err != nil {
				t.Fatalf("reading LADDER_SEED: %v", err)
			}
		}
	}
	if s == 0 {
		s = uint64(time.Now().UnixNano()) % 1e12
	}
	t.Logf("seed %d (repeat with -ladder.seed=%d)", s, s)
	return s
}

// newCase is the case of a seed with its flows. One in three has objects that the API server would refuse, one in two tiers, one in four long lists of rules.
func newCase(seed uint64, flows int) (gen.Case, []oracle.Flow) {
	s := gen.Seed(seed)
	c := gen.New(s, gen.Options{Invalid: seed%3 == 0, Tiers: seed%2 == 0, Closed: seed%5 < 2, Claims: seed%7 < 3, Long: seed%4 == 2})
	return c, gen.Flows(s, c, flows)
}

// forEachCase runs check on n cases, in parallel, until one fails.
func forEachCase(t *testing.T, n int, check func(seed uint64) error) {
	t.Helper()
	first := seed(t)
	var next, failed atomic.Int64
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for failed.Load() == 0 {
				i := next.Add(1) - 1
				if i >= int64(n) {
					return
				}
				if err := check(first + uint64(i)); err != nil && failed.Add(1) == 1 {
					t.Errorf("seed %d (-ladder.seed=%d -ladder.clusters=1):\n%v", first+uint64(i), first+uint64(i), err)
				}
			}
		})
	}
	wg.Wait()
}

// TestJudgesAgree: the oracle, Node.Allows and the tracer say the same of every flow at every node, and the nodes together
// say what the oracle says of the whole cluster.
func TestJudgesAgree(t *testing.T) {
	var mu sync.Mutex
	var all judged
	forEachCase(t, *clustersFlag, func(seed uint64) error {
		c, flows := newCase(seed, *flowsFlag)
		j, err := compareJudges(c, flows)
		mu.Lock()
		defer mu.Unlock()
		all.opinions, all.denied, all.ports, all.runs = all.opinions+j.opinions, all.denied+j.denied, all.ports+j.ports, all.runs+j.runs
		return err
	})
	t.Logf("%d flows judged at a node by three judges each, %d of them denied; %d were led to the rules for some ports of a long list, %d to a run of one",
		all.opinions, all.denied, all.ports, all.runs)
	want := *clustersFlag * *flowsFlag
	if !t.Failed() && (all.opinions < want || all.denied < want/20 || all.ports < want/200 || all.runs < want/200) {
		t.Errorf("%+v: the cases have become too tame", all)
	}
}

// judged are how many opinions there were: those that denied, and those about packets that were led to a part of a long list.
type judged struct{ opinions, denied, ports, runs int }

var inPorts, inRun = regexp.MustCompile(` -g RF-v1-[EI]P-`), regexp.MustCompile(` -g RF-v1-[EI]U-`)

// compareJudges counts the opinions; a difference is an error, with the smallest case that shows it.
func compareJudges(c gen.Case, flows []oracle.Flow) (all judged, err error) {
	everywhere := make([]bool, len(flows))
	for i := range everywhere {
		everywhere[i] = true
	}
	for _, node := range c.Nodes {
		j, err := NewJudges(c.Cluster, node)
		if err != nil {
			return all, err
		}
		for i, f := range flows {
			o := j.Judge(f)
			all.opinions++
			if !o.Allows {
				all.denied++
				everywhere[i] = false
			}
			if slices.ContainsFunc(o.TraceHits, inPorts.MatchString) {
				all.ports++
			}
			if slices.ContainsFunc(o.TraceHits, inRun.MatchString) {
				all.runs++
			}
			if !o.Agreed() {
				return all, explain(c, f)
			}
		}
	}
	for i, f := range flows {
		if whole, reason := c.Cluster.Allowed(f); whole != everywhere[i] {
			return all, fmt.Errorf("%s: the oracle says %v of the whole cluster (%s), and all nodes together say %v\n%s",
				f, whole, reason, everywhere[i], Describe(c.Cluster))
		}
	}
	return all, nil
}

// explain shows a difference about a flow in the smallest case that has it.
func explain(c gen.Case, f oracle.Flow) error {
	differs := func(c gen.Case) bool {
		d, err := Differences(c, []oracle.Flow{f})
		return err != nil || len(d) > 0
	}
	c = Minimise(c, differs)
	differences, err := Differences(c, []oracle.Flow{f})
	if err != nil {
		return err
	}
	if len(differences) == 0 {
		return fmt.Errorf("a difference about %s came once and did not come again: something depends on more than its arguments", f)
	}
	return fmt.Errorf("the judges differ on %s\n%s", differences[0], Describe(c.Cluster))
}
