package kubectl

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/test/kit"
)

// What is recommended for the sample application, once it is enforced in the place of all policies, allows what was seen and nothing else. Asked again, nothing
// more is needed.
func TestTheRecommendedPoliciesOfTheSampleHoldWhatWasSeen(t *testing.T) {
	application := []string{"-f", samples + "/application", "-f", "testdata/recommend/report.yaml", "-f", "testdata/recommend/dns.yaml"}
	printed, _ := run(t, append([]string{"recommend", "-n", "shop"}, application...)...)
	if golden := filepath.Join("testdata", "recommend-sample.txt"); *update {
		kit.Must(t, os.WriteFile(golden, []byte(printed), 0o644)) //nolint:gosec // it is for everybody to read
	}
	want, err := os.ReadFile(filepath.Join("testdata", "recommend-sample.txt"))
	kit.Must(t, err)
	if diff := cmp.Diff(string(want), printed); diff != "" {
		t.Errorf("it prints (-want +got; write it by -update):\n%s", diff)
	}
	file := filepath.Join(t.TempDir(), "recommended.yaml")
	kit.Must(t, os.WriteFile(file, []byte(strings.ReplaceAll(printed, "mode: Audit", "mode: Enforce")), 0o600))
	for question, want := range map[string]int{
		"shop/frontend shop/backend:8080": exitYes, "shop/backend shop/database:5432": exitYes, "monitoring/prometheus shop/frontend:9113": exitYes,
		"shop/frontend kube-system/coredns:53/udp": exitYes, "shop/frontend kube-system/coredns:53/tcp": exitYes, "203.0.113.9 shop/frontend:8080": exitYes,
		"shop/frontend shop/database:5432": exitNo, "shop/backend shop/frontend:8080": exitNo, "shop/frontend shop/backend:9100": exitNo,
		"monitoring/prometheus shop/backend:9100": exitNo, "outsider/visitor shop/database:5432": exitNo, "203.0.113.10 shop/frontend:8080": exitNo,
		"shop/database kube-system/coredns:53/udp": exitNo, "shop/backend outside:443": exitNo, "outsider/visitor shop/frontend:8080": exitNo,
	} {
		args := append(append([]string{"why"}, strings.Fields(question)...), application...)
		if got, status := run(t, append(args, "-f", file)...); status != want {
			t.Errorf("%s: the exit status is %d, want %d:\n%s", question, status, want, got)
		}
	}
	if again, _ := run(t, append([]string{"recommend", "-n", "shop", "-f", file}, application...)...); !strings.Contains(again, "# No policy is needed: ") {
		t.Errorf("asked again, it prints\n%s", again)
	}
}

// liveShop is a cluster in which web was seen to reach the DNS and db.
func liveShop() []client.Object {
	since := before(time.Hour)
	made := func(namespace, name, app, address string) *corev1.Pod {
		return &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{"app": app}},
			Spec:       corev1.PodSpec{NodeName: "n1"}, Status: corev1.PodStatus{PodIP: address},
		}
	}
	seen := func(to v1alpha1.ConnectionEnd, protocol string, port int32, ago time.Duration) v1alpha1.ReportedConnection {
		return v1alpha1.ReportedConnection{Nodes: []string{"n1"}, ObservedConnection: v1alpha1.ObservedConnection{
			Verdict: v1alpha1.ConnectionAllowed, Direction: v1alpha1.ConnectionEgress,
			From: v1alpha1.ConnectionEnd{Namespace: "shop", Workload: "web", Pod: "web", Address: "10.244.0.1"}, To: to,
			Protocol: protocol, Port: port, Packets: 1, FirstTime: since, LastTime: before(ago),
		}}
	}
	dns := made("kube-system", "dns", "dns", "10.244.0.3")
	dns.Labels["k8s-app"] = "kube-dns"
	return []client.Object{
		made("shop", "web", "web", "10.244.0.1"), made("shop", "db", "db", "10.244.0.2"), dns,
		reportIn("shop", v1alpha1.ConnectionReportStatus{AllowedSince: &since, Connections: []v1alpha1.ReportedConnection{
			seen(v1alpha1.ConnectionEnd{Namespace: "shop", Workload: "db"}, "TCP", 5432, time.Minute),
			seen(v1alpha1.ConnectionEnd{Address: "10.244.0.3"}, "UDP", 53, time.Minute),
			seen(v1alpha1.ConnectionEnd{Namespace: "kube-system", Workload: "dns", Pod: "dns"}, "UDP", 5353, time.Minute),
			seen(v1alpha1.ConnectionEnd{Address: "203.0.113.7"}, "TCP", 443, 48*time.Hour),
		}}),
	}
}

func TestRecommendInACluster(t *testing.T) {
	c := clusterOf(t, liveShop()...)
	forbidden := interceptor.NewClient(c, interceptor.Funcs{List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, options ...client.ListOption) error {
		var o client.ListOptions
		o.ApplyOptions(options)
		if _, ok := list.(*corev1.PodList); ok && o.Namespace != "shop" {
			return apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "", errors.New("no right"))
		}
		return c.List(ctx, list, options...)
	}})
	broken := interceptor.NewClient(c, interceptor.Funcs{Get: func(context.Context, client.WithWatch, client.ObjectKey, client.Object, ...client.GetOption) error {
		return errors.New("connection refused")
	}})
	for name, tt := range map[string]struct {
		client client.WithWatch
		args   []string
		want   int
		has    []string
		lacks  []string
	}{
		"by who may read everything": {c, []string{"-n", "shop"}, exitYes, []string{"name: ringfence-web", "name: ringfence-db", "app: dns", "port: 53\n"}, []string{"203.0.113.7", "Not read"}},
		"all that is listed":         {c, []string{"-n", "shop", "--since", "0"}, exitYes, []string{"203.0.113.7/32"}, nil},
		"by who may read one namespace": {forbidden, []string{"-n", "shop"}, exitYes, []string{
			"Not read: pods of namespace kube-system", "# - You may not list the pods of namespace kube-system", "metadata.name: kube-system", "cidr: 10.244.0.3/32",
		}, []string{"Not read: pods of all namespaces", "app: dns"}},
		"no report":       {c, []string{"-n", "other"}, exitTrouble, []string{"error: there is no ConnectionReport in namespace other: have one written by kubectl annotate --overwrite namespace other policy.ringfence.io/connections=all"}, nil},
		"no answer":       {broken, []string{"-n", "shop"}, exitTrouble, []string{"error: reading the ConnectionReport shop/connections: connection refused"}, nil},
		"an unknown form": {c, []string{"-o", "svg"}, exitTrouble, []string{`error: --output "svg" is not known here`}, nil},
		"a time to come":  {c, []string{"--since", "-1h"}, exitTrouble, []string{"error: --since -1h0m0s is no time ago"}, nil},
	} {
		got, status := runIn(t, tt.client, append([]string{"recommend"}, tt.args...)...)
		if status != tt.want {
			t.Errorf("%s: the exit status is %d, want %d", name, status, tt.want)
		}
		for _, text := range tt.has {
			if !strings.Contains(got, text) {
				t.Errorf("%s: %q is not in\n%s", name, text, got)
			}
		}
		for _, text := range tt.lacks {
			if strings.Contains(got, text) {
				t.Errorf("%s: %q is in\n%s", name, text, got)
			}
		}
	}
	empty := clusterOf(t, reportIn("shop", v1alpha1.ConnectionReportStatus{}))
	if got, status := runIn(t, empty, "recommend", "-n", "shop"); status != exitTrouble || !strings.Contains(got, "error: no pod of namespace shop is known that") {
		t.Errorf("without pods the exit status is %d, printed is\n%s", status, got)
	}
}

// A policy that exists and is added to is printed without what the API server writes into it, and keeps its mode.
func TestRecommendAddsToAPolicy(t *testing.T) {
	old := &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "ringfence-web", UID: "u", Generation: 3, Annotations: map[string]string{
			v1alpha1.ModeAnnotation: "Audit", corev1.LastAppliedConfigAnnotation: "{}",
		}},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}, PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress},
		},
	}
	got, _ := runIn(t, clusterOf(t, append(liveShop(), old)...), "recommend", "-n", "shop")
	for _, text := range []string{"uid:", "generation:", "last-applied", "resourceVersion"} {
		if strings.Contains(got, text) {
			t.Errorf("%q is in\n%s", text, got)
		}
	}
	if !strings.Contains(got, "policyTypes:\n  - Egress\n  - Ingress\n") {
		t.Errorf("printed is\n%s", got)
	}
}

// Whatever stands in a report, it does not end a comment.
func TestComment(t *testing.T) {
	long := strings.Repeat("word ", 30)
	got := comment("- ", "a\nkind: Secret\x00\u2028b\t"+long)
	for line := range strings.Lines(got) {
		if !strings.HasPrefix(line, "# ") || len(line) > commentWidth+1 {
			t.Errorf("%q is a line of\n%s", line, got)
		}
	}
	if want := "# - a kind: Secret b word "; !strings.HasPrefix(got, want) {
		t.Errorf("%q does not begin with %q", got, want)
	}
}
