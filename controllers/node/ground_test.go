package node

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/cached"
	"github.com/ringfence-io/ringfence/controllers/internal/testapi"
	"github.com/ringfence-io/ringfence/controllers/node/report"
	"github.com/ringfence-io/ringfence/controllers/status"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// terrain is a Ground that says what a test has it say.
type terrain struct {
	found  Looked
	unseen []netip.Addr
	err    error
	looks  int
}

func (g *terrain) Look(context.Context) Looked {
	g.looks++
	return g.found
}

func (g *terrain) Unseen(addrs []netip.Addr) ([]netip.Addr, error) {
	return slices.DeleteFunc(slices.Clone(addrs), func(a netip.Addr) bool { return !slices.Contains(g.unseen, a) }), g.err
}

var (
	bridged4, bridged6 = netip.MustParseAddr("10.1.0.2"), netip.MustParseAddr("fd01::2")
	routed             = netip.MustParseAddr("10.2.0.2")
)

const bridgedPod, routedPod = 7, 8

// syncOf is what a sync says that is about these policies and pods.
func syncOf(objects []policy.Object, pods ...uint64) report.Synced {
	return report.Synced{
		Report: testapi.Report(objects, pods...), ResourceVersions: map[string]string{testapi.KindOfPolicy: "10"}, At: time.Unix(1000, 0),
	}
}

func failed(s report.Synced, text string) report.Synced {
	s.Err = errors.New(text)
	return s
}

// passedMessage is what the status of a policy says of a node where packets pass no rule.
const passedMessage = "packets between pods of one bridge pass no rule there"

// onGround is what a sync says of a bridged and a routed pod, on such a ground.
func onGround(g *grounds) report.Synced {
	s := syncOf([]policy.Object{testapi.Object("web", 1)}, bridgedPod, routedPod)
	s.Report.Concerns.Addrs = map[uint64][]netip.Addr{bridgedPod: {bridged4, bridged6}, routedPod: {routed}}
	s.Facts = g.facts
	s.Unpoliced, s.Bridges = g.unpoliced(s.Report.Concerns)
	return s
}

// verdictOn is what a controller says of a policy that selects these pods, by the node's report.
func verdictOn(t *testing.T, a *report.Account, pods ...uint64) metav1.Condition {
	t.Helper()
	text, err := json.Marshal(a.Status())
	if err != nil {
		t.Fatal(err)
	}
	var written v1alpha1.NodeEnforcement
	if err := json.Unmarshal(text, &written.Status); err != nil {
		t.Fatal(err)
	}
	entry, err := cached.ReportToEntry(&written)
	if err != nil {
		t.Fatal(err)
	}
	verdict := status.Judge(status.PolicyCase{
		Resource: testapi.KindOfPolicy, Generation: 1, Mode: v1alpha1.Enforce, Since: "10",
		Nodes: map[string]*status.NodeCase{"a": {Pods: pods, Report: entry.(*cached.ReportEntry), Heard: true}},
	}, nil)
	return *meta.FindStatusCondition(verdict.Conditions, v1alpha1.ProgrammedCondition)
}

// valueOf is the sum of a metric's values.
func valueOf(t *testing.T, c prometheus.Collector, name string) (sum float64) {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(c)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name {
				sum += m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

func TestPodsWhosePacketsPassNoRuleAreNotProgrammed(t *testing.T) {
	for name, unseen := range map[string]netip.Addr{"IPv4": bridged4, "IPv6": bridged6} {
		t.Run(name, func(t *testing.T) {
			a := report.NewAccount(v1alpha1.NodeEnforcementStatus{Families: []v1alpha1.Family{v1alpha1.IPv4, v1alpha1.IPv6}})
			kernel := &terrain{}
			g := &grounds{Ground: kernel}
			a.Note(onGround(g))
			if got := verdictOn(t, a, bridgedPod, routedPod); got.Status != metav1.ConditionTrue {
				t.Errorf("as it should be: %+v", got)
			}
			if meta.FindStatusCondition(a.Status().Conditions, v1alpha1.BridgesPolicedCondition) != nil {
				t.Error("a node that has never been otherwise says so")
			}

			kernel.unseen = []netip.Addr{unseen}
			if !a.Note(onGround(g)) {
				t.Error("it is not worth a report")
			}
			got := verdictOn(t, a, bridgedPod)
			if got.Status != metav1.ConditionFalse || got.Reason != v1alpha1.NodesFailingReason ||
				!strings.Contains(got.Message, passedMessage) {
				t.Errorf("a policy that selects the bridged pod: %+v", got)
			}
			said := meta.FindStatusCondition(a.Status().Conditions, v1alpha1.BridgesPolicedCondition)
			if !strings.Contains(said.Message, name) || !strings.Contains(said.Message, "passes no policy") || !strings.Contains(said.Message, unseen.String()) {
				t.Errorf("the node says of itself: %+v", said)
			}
			if got := verdictOn(t, a, bridgedPod, routedPod); got.Status != metav1.ConditionFalse {
				t.Errorf("one that selects both: %+v", got)
			}
			if got := verdictOn(t, a, routedPod); got.Status != metav1.ConditionTrue {
				t.Errorf("one that selects the routed pod: %+v", got)
			}
			if got := valueOf(t, unpolicedPods, "ringfence_unpoliced_pods"); got != 1 {
				t.Errorf("the metric says %v pods", got)
			}
			a.Note(failed(onGround(g), "no"))
			if got := verdictOn(t, a, bridgedPod); got.Status != metav1.ConditionFalse {
				t.Errorf("after a sync that failed: %+v", got)
			}

			kernel.unseen = nil
			if !a.Note(onGround(g)) {
				t.Error("that it is over is not worth a report")
			}
			if got := verdictOn(t, a, bridgedPod, routedPod); got.Status != metav1.ConditionTrue {
				t.Errorf("after it was mended: %+v", got)
			}
			if !meta.IsStatusConditionTrue(a.Status().Conditions, v1alpha1.BridgesPolicedCondition) {
				t.Errorf("conditions are %v", a.Status().Conditions)
			}
		})
	}
}

// If it cannot be told which pods are on a bridge, none is claimed.
func TestWhatIsNotKnownOfBridgesIsNotClaimed(t *testing.T) {
	a, g := report.NewAccount(v1alpha1.NodeEnforcementStatus{Families: []v1alpha1.Family{v1alpha1.IPv4, v1alpha1.IPv6}}), &grounds{Ground: &terrain{err: errors.New("no links")}}
	a.Note(onGround(g))
	if got := verdictOn(t, a, routedPod); got.Status != metav1.ConditionFalse || !strings.Contains(got.Message, passedMessage) {
		t.Errorf("%+v", got)
	}
}

func TestWhatALookFindsIsSaid(t *testing.T) {
	var lines []string
	ctx := log.IntoContext(t.Context(), funcr.New(func(_, args string) { lines = append(lines, args) }, funcr.Options{}))
	finding := func(name, detail string) v1alpha1.Finding {
		return v1alpha1.Finding{Name: name, Severity: "degraded", Detail: detail, Cost: "something", Remedy: "mend it"}
	}
	kernel := &terrain{}
	g := &grounds{Ground: kernel}
	a := report.NewAccount(v1alpha1.NodeEnforcementStatus{BootID: "boot", Families: []v1alpha1.Family{v1alpha1.IPv6}})
	step := func(worth bool, findings ...v1alpha1.Finding) {
		t.Helper()
		kernel.found = Looked{Facts: v1alpha1.NodeEnforcementStatus{
			Table: "security", Families: []v1alpha1.Family{v1alpha1.IPv4, v1alpha1.IPv6}, Findings: findings,
		}}
		lines = nil
		if _, due := g.look(ctx, 0); !due {
			t.Fatal("it was not due")
		}
		if got := a.Note(onGround(g)); got != worth {
			t.Errorf("%v: worth a report: %t", findings, got)
		}
		if len(a.Status().Findings) != len(findings) || len(a.Status().Families) != 2 || a.Status().Table != "security" || a.Status().BootID != "boot" {
			t.Errorf("the account says %+v", a.Status())
		}
		if got := valueOf(t, findingsNow, "ringfence_findings"); got != float64(len(findings)) {
			t.Errorf("%v: the metric says %v", findings, got)
		}
	}
	step(true)
	step(false)
	step(true, finding("IPVS", "it is there"))
	if len(lines) != 1 || !strings.Contains(lines[0], "IPVS") || !strings.Contains(lines[0], "mend it") {
		t.Errorf("the log says %q", lines)
	}
	step(false, finding("IPVS", "it is there"))
	if len(lines) != 0 {
		t.Errorf("the log repeats it: %q", lines)
	}
	step(true, finding("IPVS", "it is there"), finding("bridge-nf-call-iptables", "it is 0"))
	step(true)
	if len(lines) != 2 || !strings.Contains(lines[0], "does not lack it any more") {
		t.Errorf("the log says %q", lines)
	}
}

func TestALookIsOnceAResync(t *testing.T) {
	kernel := &terrain{}
	g := &grounds{Ground: kernel}
	for range 100 {
		g.look(t.Context(), time.Hour)
	}
	if kernel.looks != 1 {
		t.Errorf("looked %d times", kernel.looks)
	}
	g, kernel.found.Unsure = &grounds{Ground: kernel}, true
	for range 3 {
		g.look(t.Context(), time.Hour)
	}
	kernel.found.Unsure = false
	for range 3 {
		g.look(t.Context(), time.Hour)
	}
	if kernel.looks != 5 {
		t.Errorf("looked %d times in all: again as long as something could not be asked, and once more", kernel.looks)
	}
	if _, due := (&grounds{}).look(t.Context(), 0); due {
		t.Error("without a ground it was due")
	}
}
