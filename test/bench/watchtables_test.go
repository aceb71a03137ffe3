package bench

import (
	"context"
	"fmt"
	"testing"

	"github.com/ringfence-io/ringfence/test/kit"
	"github.com/ringfence-io/ringfence/test/watchcost"
)

// sliceSizes are how many pods a slice has.
var sliceSizes = []int{100, 1000}

const sliceChanges = 40

// sliceFound is what was found of slices with some clients.
type sliceFound struct {
	pods, clients int
	alone, cpu    float64 // ms of the API server for each write, while nobody watches and while the clients do
	bytes         float64 // for each event
}

// slices measures what a write of a slice costs.
func (w *watchRun) slices(ctx context.Context, b *testing.B, n int) {
	b.Helper()
	for _, pods := range sliceSizes {
		s, err := w.cluster.Publish(ctx, 10, pods)
		kit.Must(b, err)
		found := &sliceFound{pods: pods, clients: n}
		alone, err := w.cluster.CostOfSlices(ctx, w.cluster.Nobody(), s, sliceChanges, watchPause)
		kit.Must(b, err)
		f, err := w.cluster.Open(ctx, n, func(int) []watchcost.Target { return []watchcost.Target{watchcost.PodSlices()} })
		kit.Must(b, err)
		cost, err := w.cluster.CostOfSlices(ctx, f, s, sliceChanges, watchPause)
		f.Close()
		kit.Must(b, err)
		kit.Must(b, s.Remove(ctx))
		found.alone, found.cpu = ms(alone.CPU)/sliceChanges, ms(cost.CPU)/sliceChanges
		found.bytes = float64(cost.Received) / float64(cost.Events)
		w.slice = append(w.slice, found)
	}
}

// perHeard is what one event costs the API server for each client that hears of it, in µs: what it takes with the clients and not without, by as many.
func (w *watchRun) perHeard(f *watchFound) float64 {
	return 1000 * (f.cpu.median() - w.base.median()) / float64(f.clients) / (f.heard.median() / 100)
}

// tables prints what was found; n is the largest number of clients.
func (w *watchRun) tables(n int) {
	t := tableOf("What an event of a pod costs: "+w.cluster.String()+fmt.Sprintf("; with nobody watching, %s ms", w.base.text("%.2f")),
		"clients", "each watches", "of 100 events it hears", "bytes for each", "CPU ms of the API server for an event", "CPU µs for each client that hears it")
	for _, f := range w.found {
		bytes, each := "", "" // of so few events, what goes on beside them would be most
		if f.heard.median() >= 0.4 {
			bytes, each = fmt.Sprintf("%.0f", f.bytes.median()), fmt.Sprintf("%.1f", w.perHeard(f))
		}
		t.add(fmt.Sprint(f.clients), f.sort.name, fmt.Sprintf("%.2f", f.heard.median()), bytes, f.cpu.text("%.2f"), each)
	}
	t = tableOf("What a slice costs that a controller writes",
		"clients", "pods of the slice", "bytes of an event", "CPU ms for a write, nobody watching", "with the clients", "CPU µs for each client")
	for _, f := range w.slice {
		t.add(fmt.Sprint(f.clients), fmt.Sprint(f.pods), fmt.Sprintf("%.0f", f.bytes), fmt.Sprintf("%.2f", f.alone), fmt.Sprintf("%.2f", f.cpu),
			fmt.Sprintf("%.1f", 1000*(f.cpu-f.alone)/float64(f.clients)))
	}
	t = tableOf("What watches cost while nothing happens",
		"clients", "each watches", "watches", "connections", "CPU ms to open a watch", "KB of live memory a client", "KB resident a client",
		"bytes a second a client", "bookmarks a minute and watch", "CPU µs a second and watch")
	quiet := w.quiet.CPU.Seconds() / w.quiet.Wall.Seconds()
	for _, f := range w.found {
		if f.clients != n {
			continue
		}
		watches := float64(f.open.Watches)
		cells := []string{
			fmt.Sprint(f.clients), f.sort.name, fmt.Sprint(f.open.Watches), fmt.Sprint(f.open.Connections), fmt.Sprintf("%.2f", ms(f.open.CPU)/watches),
			fmt.Sprintf("%.0f", f.live/1000), fmt.Sprintf("%.0f", f.rss/1000),
		}
		if seconds := f.idle.Wall.Seconds(); seconds > 0 {
			cells = append(cells, fmt.Sprintf("%.1f", float64(f.idle.Received+f.idle.Sent)/seconds/float64(n)),
				fmt.Sprintf("%.2f", float64(f.idle.Bookmarks)/seconds*60/watches), fmt.Sprintf("%.1f", 1e6*(f.idle.CPU.Seconds()/seconds-quiet)/watches))
		}
		t.add(cells...)
	}
	w.project(n)
}

// large is the cluster that is counted to: a stated churn, with all that a pod's life writes.
var large = struct{ nodes, namespaces, podsASecond, reach int }{fiveThousand, 2000, 50, 40}

// project counts what the enforcers of a large cluster would cost, from what an event and a watch cost here.
func (w *watchRun) project(n int) {
	events := float64(large.podsASecond * watchcost.PodEvents)
	t := tableOf(fmt.Sprintf("What %d enforcers would cost, with %d pods a second that come and go (%.0f events), %d namespaces: from %d clients here",
		large.nodes, large.podsASecond, events, large.namespaces, n),
		"each watches", "events a second it hears", "MB a second of all", "cores for events", "cores for idle watches", "GB of live memory")
	var all, own, many *watchFound
	for _, f := range w.found {
		if f.clients == n {
			switch f.sort.name {
			case watchSorts[0].name:
				all = f
			case watchSorts[2].name:
				own = f
			case watchSorts[len(watchSorts)-1].name:
				many = f
			}
		}
	}
	nodes, quiet := float64(large.nodes), w.quiet.CPU.Seconds()/w.quiet.Wall.Seconds()
	idle := func(f *watchFound) float64 { return (f.idle.CPU.Seconds()/f.idle.Wall.Seconds() - quiet) / float64(n) }
	row := func(name string, heard, each, idle, live float64) {
		t.add(name, fmt.Sprintf("%.2f", heard), fmt.Sprintf("%.1f", heard*nodes*all.bytes.median()/1e6),
			fmt.Sprintf("%.2f", heard*nodes*each/1e6), fmt.Sprintf("%.2f", idle*nodes), fmt.Sprintf("%.1f", live*nodes/1e9))
	}
	atNode := float64(large.podsASecond*watchcost.PodNodeEvents) / nodes
	row("all pods", events, w.perHeard(all), idle(all), all.live)
	row("own node", atNode, w.perHeard(many), idle(own), own.live)
	const measured = 20 // namespaces
	for _, reach := range []int{measured, large.reach} {
		more := float64(reach) / measured
		row(fmt.Sprintf("own node, %d namespaces", reach), atNode+events*float64(reach)/float64(large.namespaces), w.perHeard(many),
			idle(own)+(idle(many)-idle(own))*more, own.live+(many.live-own.live)*more)
	}
}
