package bench

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	nodereport "github.com/ringfence-io/ringfence/controllers/node/report"
	"github.com/ringfence-io/ringfence/lab/host"
	"github.com/ringfence-io/ringfence/test/kit"
	"github.com/ringfence-io/ringfence/test/scale"
)

// statusNodes is the environment variable with the sizes of the clusters, as in "250,1000": multiples of 50, the larger one last.
const statusNodes = "STATUS_NODES"

const (
	statusPatience = 20 * time.Minute
	quietHeartbeat = 20 * time.Second
	quietTime      = 65 * time.Second
	fiveThousand   = 5000
)

// statusSeries says how often each change is made.
type statusSeries struct{ few, namespace, everyone, burst int }

// statusRun is what was found in the cluster of one size.
type statusRun struct {
	size                         scale.Size
	began, restarted, quiet, few statusPhase
	namespace, everyone, burst   statusPhase
	largestNode, largestPolicy   int
	largestPossible              int
}

// statusPhase is what was found of one sort of change, or while something else went on.
type statusPhase struct {
	scale.Cost        // the sum over all changes
	took       sample // ms to Programmed
	perChange  int    // nodes concerned by a change
	strangers  int    // nodes that wrote and were not concerned, of all changes
	changes    int
	peak       int // memory of the controller until then
}

// BenchmarkStatus measures what truthful status costs: a real API server, the real controller, and a real reporter for each node. It fails if a
// node writes that is not concerned, or if anything but signs of life is written while nothing changes.
func BenchmarkStatus(b *testing.B) {
	kit.NeedNetfilter(b)
	var runs []*statusRun
	for _, nodes := range sizesOf(b, statusNodes, cmp.Or(os.Getenv(statusNodes), "250,1000")) {
		series := statusSeries{few: 10, namespace: 10, everyone: 3, burst: 50}
		if nodes >= 1000 {
			series = statusSeries{few: 50, namespace: 50, everyone: 5, burst: 200}
		}
		r := &statusRun{size: scale.OfNodes(nodes)}
		runs = append(runs, r)
		b.Run(fmt.Sprintf("nodes=%d", nodes), func(b *testing.B) {
			r.measure(b, series)
			b.ReportMetric(0, "ns/op")
		})
	}
	for _, r := range runs {
		r.tables()
	}
	if b.Failed() {
		return // what is in the tables may not be all
	}
	large := runs[len(runs)-1]
	for name, phase := range map[string]statusPhase{"few": large.few, "namespace": large.namespace, "everyone": large.everyone} {
		report(b, name, map[string]float64{
			"p50-ms": phase.took.median(), "p99-ms": phase.took.quantile(0.99),
			"node-writes": phase.per(float64(phase.Nodes.Sum().Requests)), "controller-writes": phase.per(float64(phase.Says().Requests))})
	}
	extrapolate(runs)
}

// sizesOf reads the sizes of clusters from the text of an environment variable.
func sizesOf(b *testing.B, name, text string) []int {
	b.Helper()
	var sizes []int
	for _, field := range strings.Split(text, ",") {
		n, err := strconv.Atoi(field)
		if err != nil || n <= 0 || n%50 != 0 {
			b.Fatalf("%s is %q: give multiples of 50, as in 250,1000", name, text)
		}
		sizes = append(sizes, n)
	}
	return sizes
}

// measure finds out everything. What it costs to change the policy for all pods comes last: it may be more than a small machine stands.
func (r *statusRun) measure(b *testing.B, series statusSeries) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), statusPatience)
	defer cancel()
	path, err := program()
	kit.Must(b, err)
	began := time.Now()
	c, err := scale.Start(ctx, r.size, path, host.RunPrefix(hostPrefix)+"status", b.TempDir())
	defer func() {
		if b.Failed() {
			log, _ := os.ReadFile(c.ControllerLog())
			b.Logf("the controller:\n%s", log)
		}
		kit.Must(b, c.Close())
	}()
	kit.Must(b, err)
	b.Logf("%s were there after %s", r.size, time.Since(began).Round(time.Second))

	const none = time.Hour // a heartbeat so long that no sign of life is among what is counted
	kit.Must(b, c.StartEnforcers(ctx, none))
	cost, err := c.Begin(ctx)
	kit.Must(b, err)
	r.began.add(scale.Change{Cost: cost})
	cost, err = c.Restart(ctx)
	kit.Must(b, err)
	r.restarted.add(scale.Change{Cost: cost})
	if says := cost.Says(); says != (scale.Count{}) {
		b.Errorf("a restart of the controller causes writes: %+v", cost.Controller)
	}
	r.changeSome(ctx, b, c, series)
	r.largestNode, r.largestPolicy, err = c.Largest(ctx)
	kit.Must(b, err)
	r.largestPossible, err = c.LargestPossible(ctx)
	kit.Must(b, err)
	r.watchQuiet(ctx, b, c)
	c.StopEnforcers()
	kit.Must(b, c.StartEnforcers(ctx, none))
	kit.Must(b, c.Settle(ctx))
	r.repeat(b, &r.everyone, series.everyone, func(int) (scale.Change, error) { return c.ChangeEveryone(ctx) })
}

// repeat makes a change many times, by do.
func (r *statusRun) repeat(b *testing.B, phase *statusPhase, times int, do func(i int) (scale.Change, error)) {
	b.Helper()
	for i := range times {
		change, err := do(i)
		kit.Must(b, err)
		onlyConcerned(b, change)
		phase.add(change)
		phase.took = append(phase.took, milliseconds(change.Took))
	}
}

// changeSome changes policies for some pods, one after the other, and then makes some at once.
func (r *statusRun) changeSome(ctx context.Context, b *testing.B, c *scale.Cluster, series statusSeries) {
	b.Helper()
	r.repeat(b, &r.few, series.few, func(i int) (scale.Change, error) { return c.ChangeFew(ctx, i%r.size.Namespaces) })
	r.repeat(b, &r.namespace, series.namespace, func(i int) (scale.Change, error) { return c.ChangeNamespace(ctx, i%r.size.Namespaces) })
	change, took, err := c.Burst(ctx, series.burst)
	kit.Must(b, err)
	onlyConcerned(b, change)
	r.burst.add(change)
	r.burst.changes = series.burst
	for _, d := range took {
		r.burst.took = append(r.burst.took, milliseconds(d))
	}
}

func onlyConcerned(b *testing.B, c scale.Change) {
	b.Helper()
	if len(c.Strangers) > 0 {
		b.Errorf("%d nodes wrote that are not concerned: %v", len(c.Strangers), c.Strangers)
	}
	if len(c.Nodes) != c.Concerned {
		b.Errorf("%d nodes wrote, and %d are concerned", len(c.Nodes), c.Concerned)
	}
}

// watchQuiet starts the enforcers anew, with a heartbeat that comes often enough to be counted, and has nothing happen.
func (r *statusRun) watchQuiet(ctx context.Context, b *testing.B, c *scale.Cluster) {
	b.Helper()
	c.StopEnforcers()
	kit.Must(b, c.StartEnforcers(ctx, quietHeartbeat))
	cost, err := c.Quiet(ctx, quietTime)
	kit.Must(b, err)
	r.quiet.add(scale.Change{Cost: cost})
	if says := cost.Says(); says != (scale.Count{}) {
		b.Errorf("the controller writes in a quiet cluster: %+v", cost.Controller)
	}
	if cost.News > 0 {
		b.Errorf("%d reports in a quiet cluster came before a heartbeat was due", cost.News)
	}
	if len(cost.Nodes) != r.size.Nodes {
		b.Errorf("%d nodes of %d gave a sign of life", len(cost.Nodes), r.size.Nodes)
	}
}

// add adds a change.
func (p *statusPhase) add(c scale.Change) {
	if p.changes == 0 {
		p.Nodes, p.Controller = scale.Counts{}, scale.Counts{}
	}
	p.Nodes.Add(c.Nodes)
	p.Controller.Add(c.Controller)
	p.News += c.News
	p.Wall += c.Wall
	p.Server += c.Server
	p.Use.CPU += c.Use.CPU
	p.Use.Now, p.peak = c.Use.Now, max(p.peak, c.Use.Peak)
	p.perChange = c.Concerned
	p.strangers += len(c.Strangers)
	p.changes++
}

// per is a sum's share of one change.
func (p *statusPhase) per(sum float64) float64 { return sum / float64(p.changes) }

func kb[N int | int64 | float64](bytes N) float64 { return float64(bytes) / 1000 }

// tables prints what was found.
func (r *statusRun) tables() {
	writes := tableOf("What one change of a policy writes: "+r.size.String()+" (bodies; a KB is 1,000 bytes; mean)",
		"change", "changes", "nodes concerned", "NodeEnforcements", "by others", "refused", "KB sent", "KB answered",
		"statuses", "KB", "new PolicyEnforcements", "KB", "Events", "KB", "KB that the controller is told")
	times := tableOf("From a write to the API to Programmed=True at its generation, in ms, and CPU of a change: "+r.size.String(),
		"change", "p50", "p99", "longest", "CPU ms of the controller", "of the API server and etcd")
	for _, row := range []struct {
		name  string
		phase *statusPhase
	}{
		{"NetworkPolicy for an application", &r.few}, {"NetworkPolicy for a namespace", &r.namespace},
		{"ClusterNetworkPolicy for all pods", &r.everyone}, {"new NetworkPolicies at once", &r.burst},
	} {
		p := row.phase
		if p.changes == 0 {
			continue // the run has failed before
		}
		nodes := p.Nodes.Sum()
		cells := []string{row.name, fmt.Sprint(p.changes), fmt.Sprint(p.perChange), p.text("%.1f", nodes.Requests), fmt.Sprint(p.strangers), fmt.Sprint(nodes.Refused),
			p.text("%.1f", nodes.Sent/1000), p.text("%.1f", nodes.Received/1000)}
		for _, sort := range []string{scale.Statuses, scale.Enforcements, scale.Events} {
			count := p.Controller[sort]
			cells = append(cells, p.text("%.2f", count.Requests), fmt.Sprintf("%.1f", p.per(kb(count.Sent))))
		}
		writes.add(append(cells, fmt.Sprintf("%.1f", p.per(kb(p.Controller[scale.Reads].Received))))...)
		times.add(row.name, fmt.Sprintf("%.0f", p.took.median()), fmt.Sprintf("%.0f", p.took.quantile(0.99)), fmt.Sprintf("%.0f", p.took.quantile(1)),
			fmt.Sprintf("%.0f", p.per(milliseconds(p.Use.CPU))), fmt.Sprintf("%.0f", p.per(milliseconds(p.Server))))
	}
	own := tableOf("The controller: "+r.size.String(), "", "after s", "CPU s", "peak MB (VmHWM)", "now MB (VmRSS)", "writes", "KB sent", "KB read")
	for _, row := range []struct {
		name  string
		phase *statusPhase
	}{
		{"first start, all policies and nodes there", &r.began}, {"restart", &r.restarted}, {"all changes above", r.all()},
		{fmt.Sprintf("%s of quiet, heartbeat %s", quietTime, quietHeartbeat), &r.quiet},
	} {
		p := row.phase
		if p.changes == 0 {
			continue
		}
		own.add(row.name, fmt.Sprintf("%.1f", p.Wall.Seconds()), fmt.Sprintf("%.2f", p.Use.CPU.Seconds()), fmt.Sprintf("%.1f", mb(p.peak)),
			fmt.Sprintf("%.1f", mb(p.Use.Now)), fmt.Sprint(p.Says().Requests), fmt.Sprintf("%.0f", kb(p.Says().Sent)),
			fmt.Sprintf("%.0f", kb(p.Controller[scale.Reads].Received)))
	}
	if r.quiet.changes == 0 {
		return
	}
	quiet := tableOf("A quiet cluster: "+r.size.String(), "s", "signs of life", "other reports", "writes of the controller", "its lease",
		"signs of life a second", "KB sent a second", "KB answered a second", "CPU of the API server and etcd, %")
	nodes, seconds := r.quiet.Nodes.Sum(), r.quiet.Wall.Seconds()
	quiet.add(fmt.Sprintf("%.0f", seconds), fmt.Sprint(nodes.Requests), fmt.Sprint(r.quiet.News), fmt.Sprint(r.quiet.Says().Requests),
		fmt.Sprint(r.quiet.Controller[scale.Leases].Requests), fmt.Sprintf("%.1f", float64(nodes.Requests)/seconds), fmt.Sprintf("%.1f", kb(nodes.Sent)/seconds),
		fmt.Sprintf("%.1f", kb(nodes.Received)/seconds), fmt.Sprintf("%.0f", 100*r.quiet.Server.Seconds()/seconds))
	sizes := tableOf("Largest objects, in bytes of JSON as stored", "cluster", "NodeEnforcement", "with all its lists full", "PolicyEnforcement")
	sizes.add(r.size.String(), fmt.Sprint(r.largestNode), fmt.Sprint(r.largestPossible), fmt.Sprint(r.largestPolicy))
}

// text is a sum's share of one change.
func (p *statusPhase) text(format string, sum int64) string {
	return fmt.Sprintf(format, p.per(float64(sum)))
}

// all is the sum of all changes.
func (r *statusRun) all() *statusPhase {
	sum := &statusPhase{}
	for _, p := range []*statusPhase{&r.few, &r.namespace, &r.everyone, &r.burst} {
		sum.add(scale.Change{Cost: p.Cost})
		sum.peak = max(sum.peak, p.peak)
	}
	return sum
}

// extrapolate says what 5,000 nodes would cost, with as many policies and pods to a node: from the large cluster what is in proportion to its nodes,
// and from both what also has a part that is not.
func extrapolate(runs []*statusRun) {
	large := runs[len(runs)-1]
	factor := fiveThousand / float64(large.size.Nodes)
	t := tableOf(fmt.Sprintf("What 5,000 nodes would cost: %s, as follows from the above", scale.OfNodes(fiveThousand)), "what", "figure", "from")
	beats := large.quiet.Nodes.Sum()
	// A sign of life comes after one to one and a half heartbeats.
	rate := fiveThousand / (1.25 * nodereport.DefaultHeartbeat.Seconds())
	sent, answered := kb(beats.Sent)/float64(beats.Requests), kb(beats.Received)/float64(beats.Requests)
	server := large.quiet.Server.Seconds() / float64(beats.Requests)
	t.add("signs of life a second", fmt.Sprintf("%.0f", rate),
		fmt.Sprintf("heartbeat %s, which each node draws out by up to a half", nodereport.DefaultHeartbeat))
	t.add("  KB a second sent, answered", fmt.Sprintf("%.0f, %.0f", rate*sent, rate*answered), fmt.Sprintf("%.2f and %.2f KB each", sent, answered))
	told := kb(large.quiet.Controller[scale.Reads].Received) / float64(beats.Requests)
	t.add("  KB a second that the controller is told", fmt.Sprintf("%.0f", rate*told), fmt.Sprintf("%.2f KB each", told))
	t.add("  cores of the API server and etcd", fmt.Sprintf("%.2f", rate*server), fmt.Sprintf("%.1f ms each", 1000*server))
	t.add("  cores of the controller", fmt.Sprintf("%.3f", rate*large.quiet.Use.CPU.Seconds()/float64(beats.Requests)), "likewise")
	e := large.everyone
	nodes, says := e.Nodes.Sum(), e.Says()
	t.add("a change of a policy for all pods: NodeEnforcements", fmt.Sprintf("%.0f", factor*e.per(float64(nodes.Requests))), "one to a node")
	t.add("  KB sent, answered", fmt.Sprintf("%.0f, %.0f", factor*e.per(kb(nodes.Sent)), factor*e.per(kb(nodes.Received))), "in proportion")
	t.add("  KB that the controller is told", fmt.Sprintf("%.0f", factor*e.per(kb(e.Controller[scale.Reads].Received))), "in proportion")
	t.add("  writes of the controller", fmt.Sprintf("%.1f", e.per(float64(says.Requests))), "as many, or one more for each second that it takes")
	t.add("  CPU s of the API server and etcd", fmt.Sprintf("%.1f", factor*e.per(e.Server.Seconds())), "in proportion")
	t.add("  CPU s of the controller", fmt.Sprintf("%.2f", factor*e.per(e.Use.CPU.Seconds())), "in proportion")
	if len(runs) > 1 {
		small := runs[0]
		per := (mb(large.peak()) - mb(small.peak())) / float64(large.size.Nodes-small.size.Nodes)
		t.add("memory of the controller, peak MB", fmt.Sprintf("%.0f", mb(large.peak())+per*float64(fiveThousand-large.size.Nodes)),
			fmt.Sprintf("%.0f MB with %d nodes, %.0f MB with %d, on a line", mb(small.peak()), small.size.Nodes, mb(large.peak()), large.size.Nodes))
	}
}

// peak is the most memory that the controller has held.
func (r *statusRun) peak() int {
	return max(r.began.peak, r.restarted.peak, r.all().peak, r.quiet.peak)
}
