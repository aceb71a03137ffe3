package status

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	reports "github.com/ringfence-io/ringfence/controllers/connections"
	"github.com/ringfence-io/ringfence/controllers/node/connections"
	"github.com/ringfence-io/ringfence/controllers/status"
	"github.com/ringfence-io/ringfence/test/kit"
)

// asks has the story's namespace ask for a report.
func (s *story) asks() {
	s.t.Helper()
	s.annotates(fmt.Sprintf("%q", v1alpha1.ConnectionsDenied))
}

func (s *story) annotates(value string) {
	s.t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.namespace}}
	s.patch(ns, fmt.Sprintf(`{"metadata":{"annotations":{%q:%s}}}`, v1alpha1.ConnectionsAnnotation, value))
}

// reported waits until the report of the story's namespace is as wanted.
func (s *story) reported(what string, right func(*v1alpha1.ConnectionReport) error) *v1alpha1.ConnectionReport {
	s.t.Helper()
	r := &v1alpha1.ConnectionReport{}
	kit.EventuallySucceeds(s.t, patience, what, func(ctx context.Context) error {
		*r = v1alpha1.ConnectionReport{}
		if err := s.c.Get(ctx, client.ObjectKey{Namespace: s.namespace, Name: v1alpha1.ConnectionReportName}, r); err != nil {
			return err
		}
		return right(r)
	})
	return r
}

// lists waits until the report has these connections, in any order.
func (s *story) lists(want ...string) *v1alpha1.ConnectionReport {
	s.t.Helper()
	slices.Sort(want)
	return s.reported("the report", func(r *v1alpha1.ConnectionReport) error {
		var got []string
		for _, c := range r.Status.Connections {
			got = append(got, lineOf(c))
		}
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			return fmt.Errorf("(-want +got):\n%s", diff)
		}
		return nil
	})
}

// lineOf is a connection as these tests expect it.
func lineOf(c v1alpha1.ReportedConnection) string {
	return fmt.Sprintf("%s/%s to %s/%s %s/%d %s by %s: %d, says %s",
		c.From.Namespace, c.From.Pod, c.To.Namespace, c.To.Pod, c.Protocol, c.Port, c.Verdict, c.Policy, c.Packets, strings.Join(c.Nodes, ", "))
}

// unreported waits until there is no report in the story's namespace.
func (s *story) unreported() {
	s.t.Helper()
	kit.EventuallySucceeds(s.t, patience, "no report", func(ctx context.Context) error {
		r := &v1alpha1.ConnectionReport{}
		if err := s.c.Get(ctx, client.ObjectKey{Namespace: s.namespace, Name: v1alpha1.ConnectionReportName}, r); !apierrors.IsNotFound(err) {
			return fmt.Errorf("there is one: %+v %w", r.Status, err)
		}
		return nil
	})
}

// witness is the part of a node's enforcer that reports what was denied.
type witness struct {
	*connections.Ledger
	stop func()
}

// witness starts one. It ends with the test, if not before.
func (n *node) witness() *witness {
	n.s.t.Helper()
	config := unlimited(restConfig)
	config.GroupVersion, config.APIPath, config.NegotiatedSerializer = &v1alpha1.GroupVersion, "/apis", codecs(status.Scheme()).WithoutConversion()
	c, err := rest.RESTClientFor(config)
	kit.Must(n.s.t, err)
	w := &witness{Ledger: connections.NewLedger()}
	reporter := &connections.Reporter{
		Node: n.name, Ledger: w.Ledger, Writer: connections.NewWriter(c), Owner: func() types.UID { return n.object.UID }, Nodes: func() int { return 1 },
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- reporter.Start(ctx) }()
	w.stop = func() {
		stop()
		if err, running := <-done; running {
			kit.Must(n.s.t, err)
			close(done)
		}
	}
	n.s.t.Cleanup(w.stop)
	return w
}

// reach is a connection that a policy of the one end's namespace has denied, seen once and now.
func (s *story) reach(from, to string) v1alpha1.ObservedConnection {
	return s.reachFrom(s, from, to)
}

// reachFrom is one from another namespace.
func (s *story) reachFrom(other *story, from, to string) v1alpha1.ObservedConnection {
	now := metav1.Now()
	return v1alpha1.ObservedConnection{
		Verdict: v1alpha1.ConnectionDenied, Direction: v1alpha1.ConnectionIngress,
		From:     v1alpha1.ConnectionEnd{Namespace: other.namespace, Workload: "deploy/" + from, Pod: from, Address: "10.0.0.1"},
		To:       v1alpha1.ConnectionEnd{Namespace: s.namespace, Workload: "deploy/" + to, Pod: to, Address: "10.0.0.2"},
		Protocol: "TCP", Port: 80, Policy: "NetworkPolicy " + s.namespace + "/web", Packets: 1, FirstTime: now, LastTime: now,
	}
}

// denied is what reach counts.
func (s *story) denied(packets int64) v1alpha1.ConnectionCount {
	return v1alpha1.ConnectionCount{
		Namespace: s.namespace, Policy: "NetworkPolicy " + s.namespace + "/web", Direction: v1alpha1.ConnectionIngress, Verdict: v1alpha1.ConnectionDenied,
		Packets: packets, LastTime: metav1.Now(),
	}
}

// line is what lineOf makes of reach.
func (s *story) line(from, to string, packets int, nodes ...*node) string {
	return s.lineFrom(s, from, to, "NetworkPolicy "+s.namespace+"/web", packets, nodes...)
}

func (s *story) lineFrom(other *story, from, to, policy string, packets int, nodes ...*node) string {
	var names []string
	for _, n := range nodes {
		names = append(names, n.name)
	}
	return fmt.Sprintf("%s/%s to %s/%s TCP/80 Denied by %s: %d, says %s", other.namespace, from, s.namespace, to, policy, packets, strings.Join(names, ", "))
}

// said is the object in which a node says what it has seen.
func (n *node) said(ctx context.Context) (*v1alpha1.NodeConnections, error) {
	o := &v1alpha1.NodeConnections{}
	return o, n.s.c.Get(ctx, client.ObjectKey{Name: n.name}, o)
}

// invents writes into the node's object what whoever holds its enforcer's token likes.
func (n *node) invents(status any) {
	n.s.t.Helper()
	body, err := json.Marshal(map[string]any{
		"apiVersion": v1alpha1.GroupVersion.String(), "kind": "NodeConnections", "metadata": map[string]any{"name": n.name}, "status": status,
	})
	kit.Must(n.s.t, err)
	o := &v1alpha1.NodeConnections{ObjectMeta: metav1.ObjectMeta{Name: n.name}}
	kit.Must(n.s.t, n.s.c.Patch(n.s.t.Context(), o, client.RawPatch(types.ApplyPatchType, body), client.FieldOwner("ringfence-enforcer"), client.ForceOwnership))
}

// marker has a node say something that shows, once it is in the report, that all that was said before has been taken in.
func (s *story) marker(l *witness, name string) { l.Note(s.reach(name, "marker")) }

// TestReportsAreForThoseWhoAsk: a node sees connections of two namespaces, one of which asks, then the other.
func TestReportsAreForThoseWhoAsk(t *testing.T) {
	s := begin(t)
	other := beginAt(t, s.c)
	s.pod("web", s.node)
	other.pod("web", s.node)
	startController(t, restConfig)
	s.asks()
	w := s.node.witness()
	w.Note(s.reach("client", "web"))
	w.Note(other.reach("client", "web"))
	w.Note(other.reachFrom(s, "client", "web"))
	w.Count(s.denied(7))
	w.Count(other.denied(8))

	elsewhere := other.lineFrom(s, "client", "web", "policy of namespace "+other.namespace, 1, s.node)
	r := s.lists(s.line("client", "web", 1, s.node), elsewhere)
	if r.Status.Denied != 7 || len(r.Status.Counts) != 1 || r.Status.LastTime.IsZero() || r.Status.Since.IsZero() {
		t.Errorf("the report says %+v", r.Status)
	}
	s.marker(w, "marker") // when it shows, what was said before of the other namespace has been looked at
	s.lists(s.line("client", "web", 1, s.node), elsewhere, s.line("marker", "marker", 1, s.node))
	other.unreported()

	other.annotates(`"perhaps"`) // which means nothing
	other.asks()
	own := "NetworkPolicy " + other.namespace + "/web"
	other.lists(other.line("client", "web", 1, s.node), other.lineFrom(s, "client", "web", own, 1, s.node))
	s.annotates("null")
	s.unreported()
	other.lists(other.line("client", "web", 1, s.node), other.lineFrom(s, "client", "web", own, 1, s.node))

	kit.Must(t, s.c.Delete(t.Context(), &v1alpha1.ConnectionReport{ObjectMeta: metav1.ObjectMeta{Namespace: other.namespace, Name: v1alpha1.ConnectionReportName}}))
	other.lists(other.line("client", "web", 1, s.node), other.lineFrom(s, "client", "web", own, 1, s.node)) // who deletes it gets it again
	other.annotates(`"perhaps"`)
	other.unreported()
}

// TestReportsForAllAndForNone: --connection-reports may say that all namespaces have one, whether they ask or not, or none. A controller that is told otherwise
// removes what another one has written.
func TestReportsForAllAndForNone(t *testing.T) {
	s := begin(t)
	asking := begin(t)
	asking.asks()
	s.pod("web", s.node)
	all := startReporting(t, reports.ForAll, restConfig)
	s.lists()
	asking.lists()
	s.node.witness().Note(s.reach("client", "web"))
	s.lists(s.line("client", "web", 1, s.node))
	begin(t).lists() // a namespace that comes later
	all.end()
	asked := startController(t, restConfig)
	s.unreported()
	asking.lists()
	asked.end()
	startReporting(t, reports.ForNone, restConfig)
	asking.unreported()
}

// TestARestartForgetsNothingThatWasReported: of the controller, then of the enforcer, more than once.
func TestARestartForgetsNothingThatWasReported(t *testing.T) {
	s := begin(t)
	s.pod("web", s.node)
	s.asks()
	first := startController(t, restConfig)
	w := s.node.witness()
	w.Note(s.reach("client", "web"))
	w.Count(s.denied(1000))
	before := s.lists(s.line("client", "web", 1, s.node))

	first.crash()
	second := startController(t, restConfig)
	marker := begin(t)
	marker.pod("web", marker.node)
	marker.asks()
	marker.node.witness().Note(marker.reach("client", "web"))
	marker.lists(marker.line("client", "web", 1, marker.node))
	after := s.lists(s.line("client", "web", 1, s.node))
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("after a restart of the controller (-before +after):\n%s", diff)
	}
	if got := second.Writes("/namespaces/" + s.namespace + "/"); len(got) > 0 {
		t.Errorf("since its restart the controller has written %v", got)
	}

	lines := []string{""}
	for restart := 1; restart <= 2; restart++ {
		w.stop()
		w = s.node.witness()
		w.Note(s.reach("client", "web"))
		w.Count(s.denied(10))
		lines[0] = s.line("client", "web", 1+restart, s.node)
		s.lists(slices.Clone(lines)...)
		more := fmt.Sprintf("more-%d", restart) // for the second write of this enforcer
		w.Note(s.reach(more, "web"))
		lines = append(lines, s.line(more, "web", 1, s.node))
		s.lists(slices.Clone(lines)...)
	}
	last := s.reported("the sum of what three enforcers have counted", func(r *v1alpha1.ConnectionReport) error {
		if r.Status.Denied != 1020 {
			return fmt.Errorf("%d packets were denied, want 1020", r.Status.Denied)
		}
		return nil
	})
	client := slices.IndexFunc(last.Status.Connections, func(c v1alpha1.ReportedConnection) bool { return c.From.Pod == "client" })
	if !last.Status.Since.Equal(before.Status.Since) || !last.Status.Connections[client].FirstTime.Equal(&before.Status.Connections[0].FirstTime) {
		t.Errorf("the beginning is forgotten: %+v, then %+v", before.Status, last.Status)
	}
}

// TestANodeThatIsGoneTakesItsConnectionsWithIt: its Node owns them. What is left is what other nodes have seen.
func TestANodeThatIsGoneTakesItsConnectionsWithIt(t *testing.T) {
	s := begin(t)
	b := s.newNode("b")
	s.pod("one", s.node)
	s.pod("two", b)
	s.asks()
	startController(t, restConfig)
	a, w := s.node.witness(), b.witness()
	a.Note(s.reach("client", "web"))
	a.Count(s.denied(2))
	w.Note(s.reach("client", "web"))
	w.Note(s.reach("client", "db"))
	w.Count(s.denied(3))
	s.lists(s.line("client", "web", 2, s.node, b), s.line("client", "db", 1, b))

	said, err := b.said(t.Context())
	kit.Must(t, err)
	want := []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: b.name, UID: b.object.UID}}
	if diff := cmp.Diff(want, said.OwnerReferences); diff != "" {
		t.Errorf("the owners, by which it is collected (-want +got):\n%s", diff)
	}
	w.stop()
	s.delete(b.object)
	s.delete(said) // as the garbage collector does
	r := s.lists(s.line("client", "web", 1, s.node))
	if r.Status.Denied != 2 {
		t.Errorf("%d packets are left, want the 2 that the other node has counted", r.Status.Denied)
	}
}

// TestWhatANodeSaidOfPodsThatAreGoneStays: what a node has said of pods that it ran stays, also after a restart of the controller.
func TestWhatANodeSaidOfPodsThatAreGoneStays(t *testing.T) {
	s := begin(t)
	p := s.pod("web", s.node)
	s.asks()
	first := startController(t, restConfig)
	w := s.node.witness()
	w.Note(s.reach("client", "web"))
	w.Count(s.denied(5))
	s.lists(s.line("client", "web", 1, s.node))
	s.delete(p)
	first.crash()
	startController(t, restConfig)
	w.Note(s.reach("late", "web"))
	r := s.lists(s.line("client", "web", 1, s.node), s.line("late", "web", 1, s.node))
	if r.Status.Denied != 5 {
		t.Errorf("%d packets were denied, want 5", r.Status.Denied)
	}
}

// TestPodsHaveEventsOfWhatIsDenied: at most ten at once for a namespace, only about its own pods, and none again after a restart.
func TestPodsHaveEventsOfWhatIsDenied(t *testing.T) {
	s := begin(t)
	other := beginAt(t, s.c)
	s.pod("web", s.node)
	other.pod("web", s.node)
	s.asks()
	first := startController(t, restConfig)
	w := s.node.witness()
	would := s.reach("audited", "web")
	would.Verdict = v1alpha1.ConnectionWouldDeny
	old := s.reach("long-ago", "web")
	old.FirstTime, old.LastTime = metav1.NewTime(time.Now().Add(-time.Hour)), metav1.NewTime(time.Now().Add(-time.Hour))
	w.Note(would)
	w.Note(old)
	w.Note(other.reachFrom(s, "outward", "web"))
	w.Note(s.reachFrom(other, "stranger", "web"))
	w.Note(s.reach("client", "web"))
	noted := func(ctx context.Context) (map[string]string, error) {
		var list eventsv1.EventList
		if err := s.c.List(ctx, &list); err != nil {
			return nil, err
		}
		all := map[string]string{}
		for _, e := range list.Items {
			if e.Reason == "ConnectionDenied" && (e.Regarding.Namespace == s.namespace || e.Regarding.Namespace == other.namespace) {
				all[e.Regarding.Kind+" "+e.Regarding.Namespace+"/"+e.Regarding.Name] = e.Type + " " + e.Note
			}
		}
		return all, nil
	}
	note := func(other *story, policy string) string {
		return fmt.Sprintf("Warning A connection to %s/deploy/web on TCP/80 was denied, ingress by %s. List such connections by: kubectl -n %s ringfence denied",
			other.namespace, policy, s.namespace)
	}
	want := map[string]string{
		"Pod " + s.namespace + "/client":  note(s, "NetworkPolicy "+s.namespace+"/web"),
		"Pod " + s.namespace + "/outward": note(other, "policy of namespace "+other.namespace),
	}
	kit.EventuallySucceeds(t, patience, "Events of two connections", func(ctx context.Context) error {
		got, err := noted(ctx)
		if diff := cmp.Diff(want, got); err == nil && diff != "" {
			err = fmt.Errorf("(-want +got):\n%s", diff)
		}
		return err
	})

	for i := range 40 {
		w.Note(s.reach(fmt.Sprintf("crowd-%d", i), "web"))
	}
	s.reported("all connections", func(r *v1alpha1.ConnectionReport) error {
		if len(r.Status.Connections) != 45 {
			return fmt.Errorf("%d are listed", len(r.Status.Connections))
		}
		return nil
	})
	few := func(ctx context.Context) error {
		got, err := noted(ctx)
		if err == nil && len(got) != 10 {
			err = fmt.Errorf("%d Events: %v", len(got), got)
		}
		return err
	}
	kit.EventuallySucceeds(t, patience, "ten Events in all", few)
	first.crash()
	second := startController(t, restConfig)
	s.marker(w, "outward") // whose pod has its Event: a second one of it would be a series
	s.reported("what came after the restart", func(r *v1alpha1.ConnectionReport) error {
		if len(r.Status.Connections) != 46 {
			return fmt.Errorf("%d are listed", len(r.Status.Connections))
		}
		return nil
	})
	kit.Eventually(t, patience, "the Event of it", func() bool { return len(second.Writes("/namespaces/"+s.namespace+"/events")) > 0 })
	kit.Must(t, few(t.Context()))
}

// TestALyingNodeChangesNothingOfOthers: whoever holds the token of a node's enforcer writes what he likes into its NodeConnections. Of a namespace whose pods
// the node does not run, that changes nothing but what is said to come in from there, or to go there: with the name of the node, in its share of places.
func TestALyingNodeChangesNothingOfOthers(t *testing.T) {
	s := begin(t)
	other := beginAt(t, s.c)
	liar := s.newNode("liar")
	s.pod("web", s.node)
	other.pod("web", liar)
	s.asks()
	startController(t, restConfig)
	w := s.node.witness()
	w.Note(s.reach("client", "web"))
	w.Count(s.denied(7))
	honest := s.lists(s.line("client", "web", 1, s.node))

	lie := v1alpha1.NodeConnectionsStatus{Time: metav1.Now(), Since: metav1.NewTime(time.Unix(1, 0))}
	invented := s.reach("client", "web") // the same as the other node's, of which it would be more
	invented.Packets, invented.FirstTime = math.MaxInt64, metav1.NewTime(time.Unix(1, 0))
	out := s.reach("web", "client")
	out.Direction = v1alpha1.ConnectionEgress
	lie.Connections = append(lie.Connections, invented, out)
	for i := range 100 {
		lie.Connections = append(lie.Connections, s.reach(fmt.Sprintf("invented-%d", i), "web"))
	}
	lie.Counts = []v1alpha1.ConnectionCount{s.denied(math.MaxInt64)}
	lie.Rests = []v1alpha1.NamespaceRest{{Namespace: s.namespace, ConnectionRest: v1alpha1.ConnectionRest{Connections: 99, Packets: math.MaxInt64}}}
	lie.Connections = append(lie.Connections, other.reachFrom(s, "client", "web")) // which is taken in, and so shows that the rest was looked at
	liar.invents(lie)
	marked := other.lineFrom(s, "client", "web", "policy of namespace "+other.namespace, 1, liar)
	r := s.lists(s.line("client", "web", 1, s.node), marked)
	r.Status.Connections = slices.DeleteFunc(r.Status.Connections, func(c v1alpha1.ReportedConnection) bool { return lineOf(c) == marked })
	if diff := cmp.Diff(honest.Status, r.Status, cmpopts.IgnoreFields(v1alpha1.ConnectionReportStatus{}, "LastTime")); diff != "" {
		t.Errorf("of the namespace whose pods it does not run it has changed (-before +after):\n%s", diff)
	}

	lie = v1alpha1.NodeConnectionsStatus{Time: metav1.Now()}
	for i := range v1alpha1.MaxNodeConnections {
		lie.Connections = append(lie.Connections, other.reachFrom(s, fmt.Sprintf("invented-%d", i), "web"))
	}
	liar.invents(lie)
	s.reported("the liar's share", func(r *v1alpha1.ConnectionReport) error {
		named := 0
		for _, c := range r.Status.Connections {
			if slices.Equal(c.Nodes, []string{liar.name}) {
				named++
			}
		}
		own := slices.ContainsFunc(r.Status.Connections, func(c v1alpha1.ReportedConnection) bool { return lineOf(c) == s.line("client", "web", 1, s.node) })
		if named != v1alpha1.MaxReportConnections-1 || !own || len(r.Status.Connections) != v1alpha1.MaxReportConnections || r.Status.Denied != 7 {
			return fmt.Errorf("%d of %d connections name the liar, the other node's is there: %t", named, len(r.Status.Connections), own)
		}
		return nil
	})
}

// TestNoWordsOfANodeStopAReport: what a node may write by its schema, a report can say, whatever it is. So no node keeps a namespace from reading what others saw.
func TestNoWordsOfANodeStopAReport(t *testing.T) {
	s := begin(t)
	liar := s.newNode("liar")
	s.pod("web", s.node)
	s.pod("bad", liar)
	s.asks()
	startController(t, restConfig)
	w := s.node.witness()
	w.Note(s.reach("client", "web"))
	w.Count(s.denied(7))
	s.lists(s.line("client", "web", 1, s.node))

	long := func(n int, text string) string { return strings.Repeat(text, n) }
	var connections, counts []any
	for i, text := range []string{"x", "ä", "\u202e", "\x00", "\n", "語", "\U0001F600", " ", "<", "{"} {
		end := map[string]any{"namespace": long(63, text), "workload": long(300, text), "pod": long(253, text), "address": long(64, text)}
		local := map[string]any{"namespace": s.namespace, "workload": long(300, text), "pod": long(253, text), "address": long(64, text)}
		for _, times := range []map[string]any{
			{}, {"firstTime": "0001-01-01T00:00:00Z", "lastTime": "9999-12-31T23:59:59Z"}, {"firstTime": "9999-12-31T23:59:59Z", "lastTime": "1969-12-31T23:59:59-12:00"},
		} {
			one := map[string]any{
				"verdict": "Denied", "direction": "Ingress", "from": end, "to": local, "protocol": long(16, text), "port": i, "policy": long(512, text),
				"rule": math.MinInt32, "packets": []any{int64(math.MaxInt64), int64(math.MinInt64), int64(0)}[i%3],
			}
			for name, at := range times {
				one[name] = at
			}
			connections = append(connections, one)
		}
		count := map[string]any{
			"namespace": s.namespace, "policy": long(512, text), "direction": "Egress", "verdict": "WouldDeny", "packets": []any{int64(math.MaxInt64), int64(math.MinInt64)}[i%2],
		}
		if i%3 > 0 {
			count["lastTime"] = []any{"9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z"}[i%2]
		}
		counts = append(counts, count)
	}
	for _, times := range []map[string]any{{}, {"since": "0001-01-01T00:00:00Z", "time": "9999-12-31T23:59:59Z"}} {
		said := map[string]any{"connections": connections, "counts": counts, "rests": []any{
			map[string]any{"namespace": s.namespace, "connections": int64(math.MinInt64), "packets": int64(math.MaxInt64)}}}
		for name, at := range times {
			said[name] = at
		}
		liar.invents(said)
		name := fmt.Sprintf("after-%d", len(times))
		s.marker(w, name)
		s.reported("what the other node has seen since", func(r *v1alpha1.ConnectionReport) error {
			is := func(c v1alpha1.ReportedConnection) bool { return lineOf(c) == s.line(name, "marker", 1, s.node) }
			if !slices.ContainsFunc(r.Status.Connections, is) || r.Status.Denied != 7 {
				return fmt.Errorf("it is not listed among %d connections", len(r.Status.Connections))
			}
			if !slices.ContainsFunc(r.Status.Connections, func(c v1alpha1.ReportedConnection) bool { return slices.Equal(c.Nodes, []string{liar.name}) }) {
				return fmt.Errorf("nothing of the liar is listed")
			}
			return nil
		})
	}
}
