package connections

import (
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/internal/testapi"
	"github.com/ringfence-io/ringfence/enforcer/dataplane"
	"github.com/ringfence-io/ringfence/enforcer/denials"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

func sample(with ...func(*denials.Sample)) denials.Sample {
	s := denials.Sample{
		At:     noon,
		Point:  policy.Point{Ref: policy.Ref{Kind: "NetworkPolicy", Namespace: "shop", Name: "wall"}, Direction: policy.Ingress, Index: -1},
		Packet: dataplane.Packet{Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("2001:db8::1"), Protocol: policy.TCP, SrcPort: 40000, DstPort: 80},
		Src:    policy.PodName{Namespace: "far", Name: "front-1", Workload: "deploy/front"},
		Dst:    policy.PodName{Namespace: "shop", Name: "web-1", Workload: "deploy/web"},
	}
	for _, change := range with {
		change(&s)
	}
	return s
}

func TestASampleIsAConnection(t *testing.T) {
	first := int32(0)
	front := v1alpha1.ConnectionEnd{Namespace: "far", Workload: "deploy/front", Pod: "front-1", Address: "10.0.0.1"}
	web := v1alpha1.ConnectionEnd{Namespace: "shop", Workload: "deploy/web", Pod: "web-1", Address: "2001:db8::1"}
	plain := seen("shop", 0, from(front), func(o *v1alpha1.ObservedConnection) { o.To = web })
	with := func(change func(*v1alpha1.ObservedConnection)) []v1alpha1.ObservedConnection {
		o := plain
		change(&o)
		return []v1alpha1.ObservedConnection{o}
	}
	for _, c := range []struct {
		name   string
		change func(*denials.Sample)
		want   []v1alpha1.ObservedConnection
	}{
		{"from a pod to a pod", func(*denials.Sample) {}, with(func(*v1alpha1.ObservedConnection) {})},
		{"of a rule in mode Audit", func(s *denials.Sample) { s.Point.Audit, s.Point.Index = true, 0 }, with(func(o *v1alpha1.ObservedConnection) {
			o.Verdict, o.Rule = v1alpha1.ConnectionWouldDeny, &first
		})},
		{"that leaves", func(s *denials.Sample) { s.Point.Direction = policy.Egress }, with(func(o *v1alpha1.ObservedConnection) {
			o.Direction = v1alpha1.ConnectionEgress
		})},
		{"from nobody's address", func(s *denials.Sample) { s.Src = policy.PodName{} }, with(func(o *v1alpha1.ObservedConnection) {
			o.From = v1alpha1.ConnectionEnd{Address: "10.0.0.1"}
		})},
		{"of a protocol without ports", func(s *denials.Sample) { s.Packet.Protocol, s.Packet.DstPort = 47, 0 }, with(func(o *v1alpha1.ObservedConnection) {
			o.Protocol, o.Port = "47", 0
		})},
		{"whose pod here nobody knows", func(s *denials.Sample) { s.Dst = policy.PodName{} }, nil},
		{"whose packet cannot be read", func(s *denials.Sample) { s.Packet = dataplane.Packet{} }, with(func(o *v1alpha1.ObservedConnection) {
			o.Protocol, o.Port, o.From.Address, o.To.Address = "0", 0, "", ""
		})},
	} {
		l := NewLedger()
		l.Saw(sample(c.change))
		if diff := cmp.Diff(c.want, l.take(noon).Connections); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

func TestWhatIsCountedIsAdded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLedger()
		wall := policy.Ref{Kind: "NetworkPolicy", Namespace: "shop", Name: "wall"}
		first := metav1.Now()
		l.Counted([]denials.Growth{{Ref: wall, Packets: 3}, {Ref: wall, Audit: true, Packets: 1}, {Ref: wall, Direction: policy.Egress, Packets: 2}})
		time.Sleep(time.Minute)
		last := metav1.Now()
		l.Counted([]denials.Growth{{Ref: wall, Packets: 4}, {Ref: policy.Ref{Kind: "ClusterNetworkPolicy", Name: "wide"}, Packets: 5}})
		of := func(ref policy.Ref, d v1alpha1.ConnectionDirection, v v1alpha1.ConnectionVerdict, packets int64, last metav1.Time) v1alpha1.ConnectionCount {
			return v1alpha1.ConnectionCount{Namespace: ref.Namespace, Policy: ref.String(), Direction: d, Verdict: v, Packets: packets, LastTime: last}
		}
		want := []v1alpha1.ConnectionCount{
			of(policy.Ref{Kind: "ClusterNetworkPolicy", Name: "wide"}, v1alpha1.ConnectionIngress, v1alpha1.ConnectionDenied, 5, last),
			of(wall, v1alpha1.ConnectionEgress, v1alpha1.ConnectionDenied, 2, first),
			of(wall, v1alpha1.ConnectionIngress, v1alpha1.ConnectionDenied, 7, last),
			of(wall, v1alpha1.ConnectionIngress, v1alpha1.ConnectionWouldDeny, 1, first),
		}
		if diff := cmp.Diff(want, l.take(noon).Counts); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// What a pod names as its owner, and who isolates it, is text that tenants write, of any length: the node's object has to stay one that the API server takes.
func TestNoTextOfATenantBreaksTheObject(t *testing.T) {
	var names []string
	for range 500 {
		names = append(names, strings.Repeat("n", 200))
	}
	for _, text := range []string{strings.Repeat("x", 100_000), "a\nb\x1b[2J\x00", "\xff\xfe", strings.Repeat("ü", 5000), "\n", strings.Join(names, ", ")} {
		l := NewLedger()
		l.Saw(sample(func(s *denials.Sample) { s.Src.Workload, s.Dst.Workload, s.Point.Ref.Name = text, text, text }))
		l.Counted([]denials.Growth{{Ref: policy.Ref{Kind: "NetworkPolicy", Namespace: "shop", Name: text}, Packets: 1}})
		s := l.take(noon)
		size, violations := testapi.SchemaOf(t, "nodeconnections").Violations(t, v1alpha1.NodeConnections{Status: s})
		if len(violations) > 0 || size > 4000 || len(s.Connections) != 1 {
			t.Errorf("of a text of %d bytes: %d bytes, %d connections, %q", len(text), size, len(s.Connections), violations)
		}
		o := s.Connections[0]
		for _, got := range []string{o.From.Workload, o.To.Workload, o.Policy, s.Counts[0].Policy} {
			if got == "" || strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Errorf("%.30q became %.30q", text, got)
			}
		}
	}
}
