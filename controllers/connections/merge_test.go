package connections

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/internal/testapi"
)

var noon = time.Date(2030, 1, 2, 12, 0, 0, 0, time.UTC)

// seen are packets to a pod of shop from one of far, seconds before noon, with changes.
func seen(packets int64, ago int, with ...func(*v1alpha1.ObservedConnection)) v1alpha1.ObservedConnection {
	at := before(ago)
	o := v1alpha1.ObservedConnection{
		Verdict: v1alpha1.ConnectionDenied, Direction: v1alpha1.ConnectionIngress, From: end("far", "front"), To: end("shop", "web"), Protocol: "TCP", Port: 80,
		Policy: "NetworkPolicy shop/wall", Packets: packets, FirstTime: at, LastTime: at,
	}
	for _, change := range with {
		change(&o)
	}
	return o
}

func before(seconds int) metav1.Time {
	return metav1.NewTime(noon.Add(-time.Duration(seconds) * time.Second))
}

func end(namespace, workload string) v1alpha1.ConnectionEnd {
	return v1alpha1.ConnectionEnd{Namespace: namespace, Workload: "deploy/" + workload, Pod: workload + "-1", Address: "10.0.0.1"}
}

func port(n int) func(*v1alpha1.ObservedConnection) {
	return func(o *v1alpha1.ObservedConnection) { o.Port = int32(n) }
}

func says(node string, all ...v1alpha1.ObservedConnection) said {
	return said{node, &v1alpha1.NodeConnectionsStatus{Time: before(0), Since: before(1000), Connections: all}}
}

// by is a connection as a report lists it.
func by(o v1alpha1.ObservedConnection, nodes ...string) v1alpha1.ReportedConnection {
	return v1alpha1.ReportedConnection{ObservedConnection: o, Nodes: nodes}
}

// everywhere are nodes that run pods of all namespaces.
func everywhere(string, string) bool { return true }

// runs are the namespaces of which each node runs pods.
func runs(of map[string][]string) func(node, namespace string) bool {
	return func(node, namespace string) bool { return slices.Contains(of[node], namespace) }
}

func TestNodesTogetherMakeAReport(t *testing.T) {
	other := end("far", "front")
	other.Pod = "front-2"
	one := says("n1", seen(2, 10), seen(1, 30, port(81)))
	one.status.Counts = []v1alpha1.ConnectionCount{count("shop", "wall", v1alpha1.ConnectionDenied, 5), count("far", "own", v1alpha1.ConnectionDenied, 50)}
	one.status.Rests = []v1alpha1.NamespaceRest{{Namespace: "shop", ConnectionRest: v1alpha1.ConnectionRest{Connections: 1, Packets: 9}}, {Namespace: "far"}}
	two := says("n2", seen(3, 5, func(o *v1alpha1.ObservedConnection) { o.From, o.FirstTime = other, before(60) }))
	two.status.Since = before(2000)
	two.status.Counts = []v1alpha1.ConnectionCount{count("shop", "wall", v1alpha1.ConnectionDenied, 6), count("shop", "wall", v1alpha1.ConnectionWouldDeny, 7)}
	two.status.Rests = []v1alpha1.NamespaceRest{{Namespace: "shop", ConnectionRest: v1alpha1.ConnectionRest{Connections: 2, Packets: 4}}}
	since, last := before(2000), before(5)
	want := v1alpha1.ConnectionReportStatus{
		Denied: 11, WouldDeny: 7, Since: &since, LastTime: &last, Rest: v1alpha1.ConnectionRest{Connections: 3, Packets: 13},
		Connections: []v1alpha1.ReportedConnection{
			by(seen(5, 5, func(o *v1alpha1.ObservedConnection) { o.From, o.FirstTime = other, before(60) }), "n1", "n2"), by(seen(1, 30, port(81)), "n1"),
		},
		Counts: []v1alpha1.ConnectionCount{count("shop", "wall", v1alpha1.ConnectionDenied, 11), count("shop", "wall", v1alpha1.ConnectionWouldDeny, 7)},
	}
	if diff := cmp.Diff(want, merge("shop", []said{one, two}, everywhere, noon)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func count(namespace, name string, v v1alpha1.ConnectionVerdict, packets int64) v1alpha1.ConnectionCount {
	return v1alpha1.ConnectionCount{
		Namespace: namespace, Policy: "NetworkPolicy " + namespace + "/" + name, Direction: v1alpha1.ConnectionIngress, Verdict: v, Packets: packets,
	}
}

// Those at the other end read that they were denied, where to and by whom, and no policy's name.
func TestTheOtherEndReadsNoPolicyOfOthers(t *testing.T) {
	rule := int32(3)
	o := seen(1, 0, func(o *v1alpha1.ObservedConnection) { o.Rule = &rule })
	s := says("n1", o)
	s.status.Counts = []v1alpha1.ConnectionCount{count("shop", "wall", v1alpha1.ConnectionDenied, 1)}
	s.status.Rests = []v1alpha1.NamespaceRest{{Namespace: "shop", ConnectionRest: v1alpha1.ConnectionRest{Connections: 1, Packets: 1}}}
	want := o
	want.Policy, want.Rule = "policy of namespace shop", nil
	got := merge("far", []said{s}, runs(map[string][]string{"n1": {"shop"}}), noon)
	if diff := cmp.Diff([]v1alpha1.ReportedConnection{by(want, "n1")}, got.Connections); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if text, _ := json.Marshal(got); strings.Contains(string(text), "wall") || len(got.Counts) > 0 || got.Rest.Packets > 0 {
		t.Errorf("the other end reads %s", text)
	}
	if got := merge("third", []said{s}, everywhere, noon); len(got.Connections) > 0 {
		t.Errorf("a third namespace reads %+v", got.Connections)
	}
}

func TestANodeIsBelievedAboutItsOwnPodsAlone(t *testing.T) {
	leaves := seen(1, 0, func(o *v1alpha1.ObservedConnection) {
		o.Direction, o.From, o.To = v1alpha1.ConnectionEgress, end("shop", "web"), end("far", "front")
	})
	s := says("n1", seen(1, 0), leaves)
	s.status.Counts = []v1alpha1.ConnectionCount{count("shop", "wall", v1alpha1.ConnectionDenied, 1)}
	s.status.Rests = []v1alpha1.NamespaceRest{{Namespace: "shop", ConnectionRest: v1alpha1.ConnectionRest{Connections: 1, Packets: 1}}}
	for _, node := range [][]string{nil, {"far"}} {
		if got := merge("shop", []said{s}, runs(map[string][]string{"n1": node, "n2": {"shop"}}), noon); !cmp.Equal(got, v1alpha1.ConnectionReportStatus{}) {
			t.Errorf("of a node that runs pods of %q: %+v", node, got)
		}
	}
	if got := merge("shop", []said{s}, runs(map[string][]string{"n1": {"shop"}}), noon); len(got.Connections) != 2 || got.Denied != 1 || got.Rest.Packets != 1 {
		t.Errorf("of a node that runs pods of it: %+v", got)
	}
}

// A pod that is gone does not take with it what was seen of it: whoever was named in the report before is believed still.
func TestANodeIsBelievedAboutPodsThatItHasRun(t *testing.T) {
	r := &Reports{Runs: runs(map[string][]string{"n1": {"shop"}})}
	report := &v1alpha1.ConnectionReport{Status: v1alpha1.ConnectionReportStatus{Connections: []v1alpha1.ReportedConnection{by(seen(1, 0), "n2", "n3")}}}
	for _, c := range []struct {
		before *v1alpha1.ConnectionReport
		node   string
		of     string
		want   bool
	}{
		{nil, "n1", "shop", true}, {nil, "n2", "shop", false}, {report, "n2", "shop", true}, {report, "n3", "shop", true},
		{report, "n4", "shop", false}, {report, "n2", "far", false}, {report, "n1", "far", false},
	} {
		if got := r.runs(c.before)(c.node, c.of); got != c.want {
			t.Errorf("%s is believed about %s: %t, with a report: %t", c.node, c.of, got, c.before != nil)
		}
	}
}

// lies is what the worst of nodes may say of shop: all that the API server takes.
func lies(node string) said {
	s := says(node)
	for i := range v1alpha1.MaxNodeConnections {
		o := seen(math.MaxInt64, -1_000_000, port(i%150), func(o *v1alpha1.ObservedConnection) { // some of them twice
			o.From = v1alpha1.ConnectionEnd{Namespace: "a\x1b[2J\n", Workload: strings.Repeat("\n", 300), Pod: strings.Repeat("ü", 253), Address: "<script>"}
			o.Policy, o.Protocol = strings.Repeat("\u202e", 512), "\x00"
		})
		if i%7 == 0 {
			o.Packets = math.MinInt64
		}
		s.status.Connections = append(s.status.Connections, o)
		s.status.Counts = append(s.status.Counts, v1alpha1.ConnectionCount{
			Namespace: "shop", Policy: fmt.Sprintf("x\n%d", i/2), Direction: v1alpha1.ConnectionEgress, Verdict: v1alpha1.ConnectionDenied,
			Packets: []int64{math.MaxInt64, math.MinInt64}[i%2],
		})
	}
	s.status.Rests = []v1alpha1.NamespaceRest{{Namespace: "shop", ConnectionRest: v1alpha1.ConnectionRest{Connections: math.MaxInt64, Packets: math.MinInt64}}}
	s.status.Since = metav1.NewTime(time.Date(0, 1, 1, 0, 0, 0, 0, time.FixedZone("", 24*3600-60)))
	return s
}

func TestALiarTakesItsShareAndIsNamed(t *testing.T) {
	honest := says("n1")
	for i := range 80 {
		honest.status.Connections = append(honest.status.Connections, seen(1, i, port(1000+i)))
		honest.status.Counts = append(honest.status.Counts, count("shop", fmt.Sprint(i), v1alpha1.ConnectionDenied, 1))
	}
	for _, liars := range [][]said{{lies("liar")}, {lies("a-liar")}} {
		got := merge("shop", append(liars, honest), everywhere, noon)
		sane(t, got)
		by, lied := map[string]int{}, 0
		for _, c := range got.Connections {
			for _, n := range c.Nodes {
				by[n]++
			}
			if strings.HasSuffix(c.From.Address, "script>") {
				lied++
			}
			if c.Port >= 1000 && (c.Packets != 1 || c.Policy != "NetworkPolicy shop/wall") {
				t.Errorf("the liar changes what an honest node says: %+v", c)
			}
		}
		if by["n1"] != 50 || by[liars[0].node] != 50 || lied != 50 {
			t.Errorf("of 100 places: %v, %d with lies", by, lied)
		}
		counts := 0
		for _, c := range got.Counts {
			if strings.HasPrefix(c.Policy, "NetworkPolicy shop/") {
				counts++
			}
		}
		if counts != 80 || len(got.Counts) != 80+100 {
			t.Errorf("%d of 80 honest counts, %d in all", counts, len(got.Counts))
		}
	}
}

// Fifty liars leave an honest node its part.
func TestManyLiars(t *testing.T) {
	all := []said{says("n", seen(1, 0, port(1000)), seen(1, 1, port(1001)), seen(1, 2, port(1002)))}
	for i := range 50 {
		s := says(fmt.Sprint("liar-", i))
		for j := range 200 {
			s.status.Connections = append(s.status.Connections, seen(5, -1, func(o *v1alpha1.ObservedConnection) { o.From.Workload = fmt.Sprint(i, j) }))
		}
		all = append(all, s)
	}
	got, honest := merge("shop", all, everywhere, noon), 0
	for _, c := range got.Connections {
		if slices.Contains(c.Nodes, "n") {
			honest++
		}
	}
	if sane(t, got); honest < 1 || len(got.Connections) != v1alpha1.MaxReportConnections {
		t.Errorf("%d of an honest node among %d", honest, len(got.Connections))
	}
	if want := int64(50*200 + 3 - v1alpha1.MaxReportConnections); got.Rest.Connections != want {
		t.Errorf("%d are not listed, want %d", got.Rest.Connections, want)
	}
}

// A node that speaks of 5,000 namespaces says nothing of those that it has no pods of.
func TestALiarAboutManyNamespaces(t *testing.T) {
	s := says("liar")
	for i := range 5000 {
		s.status.Connections = append(s.status.Connections, seen(1, 0, func(o *v1alpha1.ObservedConnection) { o.To = end(fmt.Sprint("ns-", i), "web") }))
	}
	only := runs(map[string][]string{"liar": {"own"}})
	for _, namespace := range []string{"shop", "ns-7", "far"} {
		if got := merge(namespace, []said{s}, only, noon); !cmp.Equal(got, v1alpha1.ConnectionReportStatus{}) {
			t.Errorf("%s reads %+v", namespace, got)
		}
	}
}

// A connection that many nodes have seen names five of them.
func TestFiveNodesAreNamed(t *testing.T) {
	var all []said
	for i := range 20 {
		all = append(all, says(fmt.Sprintf("n%02d", i), seen(1, i)))
	}
	got := merge("shop", all, everywhere, noon)
	if diff := cmp.Diff([]v1alpha1.ReportedConnection{by(seen(20, 0, func(o *v1alpha1.ObservedConnection) { o.FirstTime = before(19) }),
		"n00", "n01", "n02", "n03", "n04")}, got.Connections); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// What a report says depends on what nodes say, not on who is asked first.
func TestTheOrderOfNodesDoesNotMatter(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var all []said
	for i := range 30 {
		s := says(fmt.Sprint("n", i))
		for range 20 {
			s.status.Connections = append(s.status.Connections, seen(random.Int64N(5), random.IntN(3), port(random.IntN(40)), func(o *v1alpha1.ObservedConnection) {
				o.From.Pod = fmt.Sprint("front-", random.IntN(9))
			}))
			s.status.Counts = append(s.status.Counts, count("shop", fmt.Sprint(random.IntN(300)), v1alpha1.ConnectionDenied, random.Int64N(5)))
		}
		all = append(all, s)
	}
	want := merge("shop", all, everywhere, noon)
	for range 20 {
		random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		if diff := cmp.Diff(want, merge("shop", all, everywhere, noon)); diff != "" {
			t.Fatalf("(-before +after):\n%s", diff)
		}
	}
}

// sane checks what holds for each report, whatever nodes say.
func sane(t *testing.T, s v1alpha1.ConnectionReportStatus) {
	t.Helper()
	_, violations := testapi.SchemaOf(t, "connectionreports").Violations(t, v1alpha1.ConnectionReport{Status: s})
	for _, v := range violations {
		t.Errorf("against the schema: %s", v)
	}
	harmless := func(text string) {
		if strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("the report has the text %q", text)
		}
	}
	keys := map[string]bool{}
	for _, c := range s.Connections {
		for _, text := range []string{c.From.Namespace, c.From.Workload, c.From.Pod, c.From.Address, c.To.Namespace, c.To.Workload, c.To.Pod, c.To.Address,
			c.Policy, c.Protocol} {
			harmless(text)
		}
		if c.Packets < 0 || c.LastTime.After(noon) || c.FirstTime.After(noon) || len(c.Nodes) == 0 || keys[connectionKey(c)] {
			t.Errorf("the report has %+v", c)
		}
		keys[connectionKey(c)] = true
	}
	for _, c := range s.Counts {
		if harmless(c.Policy); c.Packets < 0 {
			t.Errorf("the report counts %+v", c)
		}
	}
	if s.Denied < 0 || s.WouldDeny < 0 || s.Rest.Connections < 0 || s.Rest.Packets < 0 || s.Since != nil && s.Since.After(noon) {
		t.Errorf("the report sums up to %d, %d and %+v, since %s", s.Denied, s.WouldDeny, s.Rest, s.Since)
	}
}

// Whatever the API server takes of a node, the API server takes what becomes of it.
func FuzzMerge(f *testing.F) {
	schema := testapi.SchemaOf(f, "nodeconnections")
	seed := func(all ...said) {
		text, err := json.Marshal([]v1alpha1.NodeConnectionsStatus{*all[0].status, *all[len(all)-1].status})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	leaves := seen(1, 0, func(o *v1alpha1.ObservedConnection) { o.Direction = v1alpha1.ConnectionEgress })
	seed(says("a", seen(1, 2), seen(3, 4)), says("b", seen(5, 0), leaves))
	counts := says("a")
	counts.status.Counts = []v1alpha1.ConnectionCount{count("shop", "wall", v1alpha1.ConnectionDenied, math.MaxInt64), count("shop", "w", v1alpha1.ConnectionWouldDeny, -1)}
	counts.status.Rests = []v1alpha1.NamespaceRest{{Namespace: "shop", ConnectionRest: v1alpha1.ConnectionRest{Connections: math.MaxInt64, Packets: 1}}}
	seed(counts, counts)
	f.Add(`[{"since": "0000-01-01T00:00:00+23:59"}, {"since": "9999-12-31T23:59:59-23:59"}]`)
	f.Add(`[{"connections": [{"verdict": "Denied", "direction": "Egress", "from": {"namespace": "shop"}, "to": {}, "packets": -9, "firstTime": "0000-01-01T00:00:00+23:59"}]}]`)
	f.Add(`[{"connections": [{"verdict": "WouldDeny", "direction": "Ingress", "from": {"namespace": "a"}, "to": {"namespace": "shop"}, "rule": -5}]}]`)
	f.Fuzz(func(t *testing.T, text string) {
		var statuses []v1alpha1.NodeConnectionsStatus
		var texts []json.RawMessage
		if json.Unmarshal([]byte(text), &statuses) != nil || json.Unmarshal([]byte(text), &texts) != nil || len(statuses) > 10 {
			return // no statuses
		}
		var all []said
		for i := range statuses {
			if _, violations := schema.Violations(t, map[string]any{"status": texts[i]}); len(violations) > 0 {
				return // the API server takes no such object
			}
			all = append(all, said{fmt.Sprint("n", i), &statuses[i]})
		}
		got := merge("shop", all, everywhere, noon)
		sane(t, got)
		slices.Reverse(all)
		if diff := cmp.Diff(got, merge("shop", all, everywhere, noon), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("in another order (-got +then):\n%s", diff)
		}
		if got := merge("shop", all, func(string, string) bool { return false }, noon); !cmp.Equal(got, v1alpha1.ConnectionReportStatus{}) {
			t.Errorf("nodes that run nothing are believed: %+v", got)
		}
	})
}

func passed(o *v1alpha1.ObservedConnection) { o.Verdict, o.Policy = v1alpha1.ConnectionAllowed, "" }

// What passes is in the report of the namespace whose pod's node has seen it, and in no other: that asks for itself.
func TestWhatPassesIsReported(t *testing.T) {
	one, two := says("n1", seen(2, 10, passed)), says("n2", seen(3, 5, passed))
	one.status.Watched = []v1alpha1.WatchedNamespace{{Namespace: "far", Since: before(900)}, {Namespace: "shop", Since: before(100)}}
	two.status.Watched = []v1alpha1.WatchedNamespace{{Namespace: "shop", Since: before(300)}}
	all := []said{one, two}
	report := merge("shop", all, everywhere, noon)
	want := []v1alpha1.ReportedConnection{by(seen(5, 5, passed, func(o *v1alpha1.ObservedConnection) { o.FirstTime = before(10) }), "n1", "n2")}
	if diff := cmp.Diff(want, report.Connections); diff != "" || report.Denied+report.WouldDeny != 0 {
		t.Errorf("%d denied, %d would be (-want +got):\n%s", report.Denied, report.WouldDeny, diff)
	}
	if since := before(300); !report.AllowedSince.Equal(&since) {
		t.Errorf("allowed since %v, want %v", report.AllowedSince, since)
	}
	if report := merge("far", all, everywhere, noon); len(report.Connections) > 0 || report.AllowedSince.IsZero() {
		t.Errorf("the other end's report is %+v", report)
	}
	if report := merge("shop", all, runs(map[string][]string{"n1": {"far"}}), noon); report.AllowedSince != nil || len(report.Connections) > 0 {
		t.Errorf("nodes without pods of the namespace are believed: %+v", report)
	}
}

func TestWhatPassesTakesNoPlacesOfWhatIsDenied(t *testing.T) {
	for _, c := range []struct{ denied, allowed, wantDenied, wantAllowed int }{{1, 150, 1, 99}, {150, 1, 99, 1}, {150, 150, 50, 50}, {10, 20, 10, 20}} {
		one := says("n1")
		for i := range c.denied {
			one.status.Connections = append(one.status.Connections, seen(1, 0, port(i)))
		}
		for i := range c.allowed {
			one.status.Connections = append(one.status.Connections, seen(1, 0, port(i), passed))
		}
		report := merge("shop", []said{one}, everywhere, noon)
		allowed := 0
		for _, o := range report.Connections {
			if o.Verdict == v1alpha1.ConnectionAllowed {
				allowed++
			}
		}
		if denied := len(report.Connections) - allowed; denied != c.wantDenied || allowed != c.wantAllowed {
			t.Errorf("of %d denied and %d allowed %d and %d are listed", c.denied, c.allowed, denied, allowed)
		}
		if want := int64(c.denied + c.allowed - len(report.Connections)); report.Rest.Connections != want {
			t.Errorf("%d are not listed, want %d", report.Rest.Connections, want)
		}
	}
}
