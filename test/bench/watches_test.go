package bench

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ringfence-io/ringfence/lab/host"
	"github.com/ringfence-io/ringfence/test/kit"
	"github.com/ringfence-io/ringfence/test/watchcost"
)

// Environment variables: how many clients watch, as in "10,100,1000", the largest last; how many pods the cluster has; and how many seconds idle watches
// are looked at.
const (
	watchClients = "WATCH_CLIENTS"
	watchPods    = "WATCH_PODS"
	watchIdle    = "WATCH_IDLE"
)

const (
	watchNodes      = 1000
	watchNamespaces = 200
	watchRounds     = 3                     // of churn, for each sort of watch and number of clients
	watchRoundPods  = 10                    // that come and go in each
	watchPause      = 50 * time.Millisecond // between writes
	watchPatience   = 50 * time.Minute
)

// watchSort is a way to hear of pods. All else that an enforcer watches is watched beside it.
type watchSort struct {
	name string
	pods func(client int) []watchcost.Target
	rest bool // what it costs while nothing happens is measured too, which takes a while
}

// watchSorts are those that are compared. With namespaces, each client has others than its neighbour.
var watchSorts = []watchSort{
	{"all pods", func(int) []watchcost.Target { return []watchcost.Target{watchcost.Pods()} }, true},
	{"all pods, metadata only", func(int) []watchcost.Target { return []watchcost.Target{watchcost.PodsMetadata()} }, false},
	{"own node", ownAnd(0), true},
	{"own node, 1 namespace", ownAnd(1), false},
	{"own node, 5 namespaces", ownAnd(5), false},
	{"own node, 20 namespaces", ownAnd(20), true},
}

// ownAnd are the pods of the client's node and of some namespaces.
func ownAnd(namespaces int) func(client int) []watchcost.Target {
	return func(client int) []watchcost.Target {
		targets := []watchcost.Target{watchcost.PodsAt(client % watchNodes)}
		for i := range namespaces {
			targets = append(targets, watchcost.PodsOf((client*namespaces+i)%watchNamespaces))
		}
		return targets
	}
}

// targets are all that a client watches.
func (s watchSort) targets(client int) []watchcost.Target {
	return append(watchcost.Others(client%watchNodes), s.pods(client)...)
}

// watchFound is what was found of one sort with some clients.
type watchFound struct {
	sort    watchSort
	clients int
	open    watchcost.Cost
	live    float64 // bytes of the API server's memory for each client, garbage collected
	rss     float64 // likewise resident
	cpu     sample  // ms of the API server for each event in the cluster
	heard   sample  // events that come to a client, of 100 in the cluster
	bytes   sample  // for each event that a client hears of; none if none hears of any
	idle    watchcost.Cost
}

// BenchmarkWatches measures what watching enforcers cost an API server. It fails if a client hears of anything but what it watches.
func BenchmarkWatches(b *testing.B) {
	kit.NeedNetfilter(b)
	ctx, cancel := context.WithTimeout(b.Context(), watchPatience)
	defer cancel()
	counts := watchNumbers(b, watchClients, "100")
	size := watchcost.Size{Nodes: watchNodes, Namespaces: watchNamespaces, Pods: watchNumbers(b, watchPods, "2000")[0]}
	began := time.Now()
	c, err := watchcost.Start(ctx, size, host.RunPrefix(hostPrefix)+"watches", b.TempDir())
	defer func() { kit.Must(b, c.Close()) }()
	kit.Must(b, err)
	b.Logf("%s were there after %s", size, time.Since(began).Round(time.Second))

	readings(b, c)
	w := watchRun{cluster: c, idle: time.Duration(watchNumbers(b, watchIdle, "70")[0]) * time.Second}
	for _, n := range counts {
		for _, sort := range watchSorts {
			w.measure(ctx, b, sort, n, sort.rest && n == counts[len(counts)-1])
		}
		w.slices(ctx, b, n)
	}
	w.alone(ctx, b)
	w.tables(counts[len(counts)-1])
}

func watchNumbers(b *testing.B, name, otherwise string) []int {
	b.Helper()
	text := os.Getenv(name)
	if text == "" {
		text = otherwise
	}
	var numbers []int
	for _, field := range strings.Split(text, ",") {
		n, err := strconv.Atoi(field)
		if err != nil || n <= 0 {
			b.Fatalf("%s is %q: give numbers, as in %s", name, text, otherwise)
		}
		numbers = append(numbers, n)
	}
	return numbers
}

// readings measures what it takes to read all that is there, once.
func readings(b *testing.B, c *watchcost.Cluster) {
	b.Helper()
	t := tableOf("What it takes to read what is there, for one client: "+c.String(),
		"what", "how", "KB on the wire", "CPU ms of the API server")
	for _, row := range []struct {
		name   string
		target watchcost.Target
		times  int
	}{
		{"all pods", watchcost.Pods(), 5},
		{"all pods, metadata only", watchcost.PodsMetadata(), 5},
		{"pods of a node", watchcost.PodsAt(7), 100},
		{"pods of a namespace", watchcost.PodsOf(7), 100},
	} {
		for _, streamed := range []bool{true, false} {
			how := map[bool]string{true: "streamed (WatchList)", false: "a list, compressed if large"}[streamed]
			_, cost, err := c.CostOfReading(row.times, row.target, streamed)
			kit.Must(b, err)
			t.add(row.name, how, fmt.Sprintf("%.1f", float64(cost.Received)/1000/float64(row.times)),
				fmt.Sprintf("%.1f", ms(cost.CPU)/float64(row.times)))
		}
	}
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// watchRun is what was found.
type watchRun struct {
	cluster *watchcost.Cluster
	idle    time.Duration
	base    sample         // ms of the API server for each event, while nobody watches
	quiet   watchcost.Cost // nobody watches, and nothing happens
	found   []*watchFound
	slice   []*sliceFound
}

// measure finds out all about one sort with n clients. In turns with it, the same is done while nobody watches.
func (w *watchRun) measure(ctx context.Context, b *testing.B, sort watchSort, n int, idle bool) {
	b.Helper()
	found := &watchFound{sort: sort, clients: n}
	w.churn(ctx, b, w.cluster.Nobody(), &watchFound{})
	before, err := w.cluster.Memory(ctx)
	kit.Must(b, err)
	f := w.cluster.Nobody()
	defer func() { f.Close() }()
	found.open, err = w.cluster.Cost(f, func() (err error) {
		f, err = w.cluster.Open(ctx, n, sort.targets)
		return err
	})
	kit.Must(b, err)
	found.open.Count = f.Count()
	for range watchRounds {
		w.churn(ctx, b, f, found)
	}
	after, err := w.cluster.Memory(ctx)
	kit.Must(b, err)
	found.live, found.rss = float64(after.Live-before.Live)/float64(n), float64(after.Resident-before.Resident)/float64(n)
	if idle {
		found.idle = w.rest(ctx, b, f)
	}
	w.found = append(w.found, found)
	b.Logf("%s, %d clients: %v ms an event, %v bytes", sort.name, n, found.cpu, found.bytes)
}

// churn does one round, and adds what it cost.
func (w *watchRun) churn(ctx context.Context, b *testing.B, f *watchcost.Fleet, found *watchFound) {
	b.Helper()
	round, cost, err := w.cluster.CostOfChurn(ctx, f, watchRoundPods, watchPause)
	kit.Must(b, err)
	events := float64(round.Events())
	if found.clients == 0 {
		w.base = append(w.base, ms(cost.CPU)/events)
		return
	}
	found.cpu = append(found.cpu, ms(cost.CPU)/events)
	found.heard = append(found.heard, 100*float64(cost.Events)/float64(found.clients)/events)
	if cost.Events > 0 {
		found.bytes = append(found.bytes, float64(cost.Received)/float64(cost.Events))
	}
}

// rest is what it costs while nothing happens.
func (w *watchRun) rest(ctx context.Context, b *testing.B, f *watchcost.Fleet) watchcost.Cost {
	b.Helper()
	cost, err := w.cluster.Cost(f, func() error {
		select {
		case <-time.After(w.idle):
			return f.Err()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
	kit.Must(b, err)
	return cost
}

// alone is what it costs while nobody watches, and nothing happens.
func (w *watchRun) alone(ctx context.Context, b *testing.B) {
	b.Helper()
	w.quiet = w.rest(ctx, b, w.cluster.Nobody())
}
