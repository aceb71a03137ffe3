package kubectl

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/internal/source"
	"github.com/ringfence-io/ringfence/test/kit"
)

// clusterOf is a cluster with these objects.
func clusterOf(t *testing.T, objects ...client.Object) client.WithWatch {
	t.Helper()
	scheme, err := source.Scheme()
	kit.Must(t, err)
	return fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).Build()
}

// runIn runs a command line about a cluster.
func runIn(t *testing.T, c client.WithWatch, args ...string) (string, int) {
	t.Helper()
	return runCommand(t, newCommand(&options{given: c}), args...)
}

func before(d time.Duration) metav1.Time { return metav1.NewTime(time.Now().Add(-d)) }

// scan is what somebody in another namespace tried.
func scan() v1alpha1.ReportedConnection {
	rule := int32(1)
	return v1alpha1.ReportedConnection{
		Nodes: []string{"n1"},
		ObservedConnection: v1alpha1.ObservedConnection{
			Verdict: v1alpha1.ConnectionDenied, Direction: v1alpha1.ConnectionIngress,
			From:     v1alpha1.ConnectionEnd{Namespace: "lab", Workload: "deploy/scanner", Pod: "scanner-7d9f-x2x9p", Address: "10.244.1.9"},
			To:       v1alpha1.ConnectionEnd{Namespace: "shop", Workload: "database-0", Pod: "database-0", Address: "10.244.1.4"},
			Protocol: "TCP", Port: 5432, Policy: "NetworkPolicy shop/database", Rule: &rule, Packets: 12, FirstTime: before(time.Hour), LastTime: before(15 * time.Minute),
		},
	}
}

func reportIn(namespace string, s v1alpha1.ConnectionReportStatus) *v1alpha1.ConnectionReport {
	return &v1alpha1.ConnectionReport{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: v1alpha1.ConnectionReportName}, Status: s}
}

// shopAndLab are two namespaces, of which one has tried to reach the other.
func shopAndLab() []client.Object {
	audit := v1alpha1.ReportedConnection{ObservedConnection: v1alpha1.ObservedConnection{
		Verdict: v1alpha1.ConnectionWouldDeny, Direction: v1alpha1.ConnectionEgress,
		From: v1alpha1.ConnectionEnd{Namespace: "shop", Workload: "deploy/web", Pod: "web-1-a"}, To: v1alpha1.ConnectionEnd{Address: "203.0.113.9"},
		Protocol: "ICMP", Policy: "NetworkPolicy shop/egress", Packets: 3, FirstTime: before(time.Hour), LastTime: before(30 * time.Minute),
	}}
	mirrored := scan()
	mirrored.Policy, mirrored.Rule = "policy of namespace shop", nil
	return []client.Object{
		reportIn("shop", v1alpha1.ConnectionReportStatus{
			Connections: []v1alpha1.ReportedConnection{scan(), audit}, Rest: v1alpha1.ConnectionRest{Connections: 7, Packets: 70},
			Counts: []v1alpha1.ConnectionCount{{
				Namespace: "shop", Policy: "NetworkPolicy shop/database", Direction: v1alpha1.ConnectionIngress, Verdict: v1alpha1.ConnectionDenied, Packets: 1000,
			}},
		}),
		reportIn("lab", v1alpha1.ConnectionReportStatus{Connections: []v1alpha1.ReportedConnection{mirrored}}),
	}
}

func TestDenied(t *testing.T) {
	c := clusterOf(t, shopAndLab()...)
	for name, tt := range map[string]struct {
		args  []string
		want  int
		lines []string
	}{
		"one namespace": {[]string{"-n", "shop"}, exitNo, []string{
			"LAST FROM TO PORT VERDICT BY PACKETS FIRST",
			"15m lab/deploy/scanner (scanner-7d9f-x2x9p) shop/database-0 tcp/5432 DENIED NetworkPolicy shop/database ingress[1] 12 60m",
			"30m shop/deploy/web (web-1-a) 203.0.113.9 icmp would deny NetworkPolicy shop/egress egress 3 60m",
			"7 more connections of 70 packets were seen, and are not listed any more.",
			"ALL PACKETS VERDICT BY", "1000 DENIED NetworkPolicy shop/database ingress",
		}},
		"the other end": {[]string{"-n", "lab"}, exitNo, []string{
			"LAST FROM TO PORT VERDICT BY PACKETS FIRST",
			"15m lab/deploy/scanner (scanner-7d9f-x2x9p) shop/database-0 tcp/5432 DENIED policy of namespace shop ingress 12 60m",
		}},
		"some time": {[]string{"-n", "lab", "--since", "1m"}, exitYes, []string{"No connection is listed that was denied."}},
		"nothing was asked for": {[]string{"-n", "other"}, exitTrouble, []string{
			"error: there is no ConnectionReport in namespace other: have one written by kubectl annotate namespace other " +
				"policy.ringfence.io/connections=denied, and ask again once something was denied",
		}},
		"files":  {[]string{"-f", "x"}, exitTrouble, []string{"error: files do not say what was denied: leave --filename out"}},
		"follow": {[]string{"--follow", "-o", "json"}, exitTrouble, []string{"error: --follow prints text alone: leave --output out"}},
	} {
		got, status := runIn(t, c, append([]string{"denied"}, tt.args...)...)
		if status != tt.want {
			t.Errorf("%s: the exit status is %d, want %d", name, status, tt.want)
		}
		if want := strings.Join(tt.lines, "\n"); words(got) != want {
			t.Errorf("%s: printed is\n%s\nwant\n%s", name, words(got), want)
		}
	}
	all, _ := runIn(t, c, "denied", "-A")
	if n := strings.Count(all, "scanner-7d9f"); n != 1 || !strings.Contains(all, "shop/database ingress[1]") {
		t.Errorf("of all namespaces it stands there %d times:\n%s", n, all)
	}
}

// words are the lines of a text that are not empty, with one space between words.
func words(text string) string {
	var lines []string
	for line := range strings.Lines(text) {
		if fields := strings.Fields(line); len(fields) > 0 {
			lines = append(lines, strings.Join(fields, " "))
		}
	}
	return strings.Join(lines, "\n")
}

// page is written and read at the same time.
type page struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (p *page) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.Write(b)
}

func (p *page) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

// Whoever follows is shown what there is, and what comes, each once.
func TestDeniedFollows(t *testing.T) {
	c := clusterOf(t, shopAndLab()...)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	out := &page{}
	root := newCommand(&options{given: c})
	root.SetOut(out)
	root.SetArgs([]string{"denied", "-n", "shop", "--follow"})
	ended := make(chan error, 1)
	go func() { ended <- root.ExecuteContext(ctx) }()
	lines := func() int { return strings.Count(out.String(), "\n") }
	kit.Eventually(t, time.Minute, "what there is", func() bool { return lines() == 2 })
	again := scan()
	again.LastTime, again.Packets = metav1.NewTime(time.Now()), 13
	kit.Eventually(t, time.Minute, "what comes", func() bool {
		r := reportIn("shop", v1alpha1.ConnectionReportStatus{})
		kit.Must(t, c.Get(ctx, client.ObjectKeyFromObject(r), r))
		r.Status.Connections[0] = again
		kit.Must(t, c.Update(ctx, r))
		return lines() > 2
	})
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if got := out.String(); lines() != 3 || !strings.HasSuffix(got, "  DENIED  lab/deploy/scanner (scanner-7d9f-x2x9p) to shop/database-0  tcp/5432  "+
		"by NetworkPolicy shop/database ingress[1]  13 packets\n") {
		t.Errorf("printed is\n%s", got)
	}
}

func TestAudit(t *testing.T) {
	policies := func(namespace string, names ...string) (all []client.Object) {
		for _, name := range names {
			all = append(all, &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}})
		}
		return all
	}
	namespace := func(name, mode string) client.Object {
		return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{v1alpha1.ModeAnnotation: mode}}}
	}
	since := before(3 * time.Hour)
	counted := func(namespace, policy string, packets int64, last time.Duration) v1alpha1.ConnectionCount {
		return v1alpha1.ConnectionCount{Namespace: namespace, Policy: policy, Direction: v1alpha1.ConnectionIngress, Verdict: v1alpha1.ConnectionWouldDeny,
			Packets: packets, LastTime: before(last)}
	}
	enforced := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "enforced",
		Annotations: map[string]string{v1alpha1.ModeAnnotation: "Enforce"}}}
	objects := append(policies("shop", "noisy", "quiet", "never"), enforced, namespace("shop", "Audit"), namespace("lab", "Audit"), namespace("far", "Audit"))
	objects = append(objects, policies("lab", "uncounted")...)
	objects = append(objects, policies("far", "by-nodes")...)
	objects = append(objects,
		&v1alpha1.ClusterNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "wall"}, Spec: v1alpha1.ClusterNetworkPolicySpec{Mode: v1alpha1.Audit}},
		&v1alpha1.ClusterNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "enforced"}, Spec: v1alpha1.ClusterNetworkPolicySpec{Mode: v1alpha1.Enforce}},
		&v1alpha1.NamespaceIsolation{ObjectMeta: metav1.ObjectMeta{Name: "tenants"}, Spec: v1alpha1.NamespaceIsolationSpec{Mode: v1alpha1.Audit}},
		reportIn("shop", v1alpha1.ConnectionReportStatus{Since: &since, Counts: []v1alpha1.ConnectionCount{
			counted("shop", "NetworkPolicy shop/noisy", 12, 10*time.Minute), counted("shop", "NetworkPolicy shop/quiet", 5, 2*time.Hour),
		}}),
		&v1alpha1.NodeConnections{ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Status: v1alpha1.NodeConnectionsStatus{Since: since, Counts: []v1alpha1.ConnectionCount{
			counted("", "ClusterNetworkPolicy wall", 1, 15*time.Minute), counted("far", "NetworkPolicy far/by-nodes", 2, 15*time.Minute),
		}}},
		&v1alpha1.NodeConnections{ObjectMeta: metav1.ObjectMeta{Name: "n2"}, Status: v1alpha1.NodeConnectionsStatus{Since: before(time.Hour), Counts: []v1alpha1.ConnectionCount{
			counted("", "ClusterNetworkPolicy wall", 2, 11*time.Minute),
		}}},
	)
	c := clusterOf(t, objects...)
	got, status := runIn(t, c, "audit", "-A")
	want := `POLICY WOULD DENY LAST COUNTED FOR CLEAN
ClusterNetworkPolicy wall 3 11m 3h no
NamespaceIsolation tenants 0 never 3h yes
NetworkPolicy far/by-nodes 2 15m 3h no
NetworkPolicy lab/uncounted ? ? - not known
NetworkPolicy shop/never 0 never 3h yes
NetworkPolicy shop/noisy 12 10m 3h no
NetworkPolicy shop/quiet 5 120m 3h yes
Clean is what would have denied nothing for 60m.
What is not known is counted once its namespace asks for it: kubectl annotate namespace NAMESPACE policy.ringfence.io/connections=denied`
	if words(got) != want || status != exitNo {
		t.Errorf("the exit status is %d, printed is\n%s\nwant\n%s", status, words(got), want)
	}
	if got, status := runIn(t, c, "audit", "-n", "shop", "--clean-after", "5m", "-o", "json"); status != exitYes || !strings.Contains(got, `"packets": 12`) {
		t.Errorf("the exit status is %d, printed is\n%s", status, got)
	}
	if got, status := runIn(t, clusterOf(t), "audit", "-A"); status != exitYes || got != "No policy is in mode Audit.\n" {
		t.Errorf("the exit status is %d, printed is %q", status, got)
	}
}
