package connections

import (
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer/passing"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

func passed(o *v1alpha1.ObservedConnection) { o.Verdict, o.Policy = v1alpha1.ConnectionAllowed, "" }

func TestWhatPassesIsNoted(t *testing.T) {
	l := NewLedger()
	s := passing.Sight{
		At: noon, Direction: policy.Egress, Protocol: policy.UDP, Port: 53, Number: 3,
		Src: passing.End{Addr: netip.MustParseAddr("10.0.0.1"), Pod: policy.PodName{Namespace: "shop", Name: "web-1", Workload: "deploy/web"}},
		Dst: passing.End{Addr: netip.MustParseAddr("192.0.2.1")},
	}
	l.Passed(s)
	s.Number, s.At = 2, noon.Add(time.Minute)
	l.Passed(s)
	want := []v1alpha1.ObservedConnection{{
		Verdict: v1alpha1.ConnectionAllowed, Direction: v1alpha1.ConnectionEgress,
		From:     v1alpha1.ConnectionEnd{Namespace: "shop", Workload: "deploy/web", Pod: "web-1", Address: "10.0.0.1"},
		To:       v1alpha1.ConnectionEnd{Address: "192.0.2.1"},
		Protocol: "UDP", Port: 53, Packets: 5, FirstTime: metav1.NewTime(noon), LastTime: metav1.NewTime(noon.Add(time.Minute)),
	}}
	if diff := cmp.Diff(want, l.take(noon).Connections); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Connections that pass are many where nobody has anything to hide. They take no place of one that was denied, nor the other way round, but for places that
// nobody else wants.
func TestWhatPassesTakesNoPlacesOfWhatIsDenied(t *testing.T) {
	numbers := func(s v1alpha1.NodeConnectionsStatus) (denied, allowed int) {
		for _, o := range listedOf(s, "shop") {
			if o.Verdict == v1alpha1.ConnectionAllowed {
				allowed++
			} else {
				denied++
			}
		}
		return denied, allowed
	}
	for _, c := range []struct{ denied, allowed, wantDenied, wantAllowed int }{
		{1, 500, 1, v1alpha1.MaxReportConnections - 1},
		{500, 1, v1alpha1.MaxReportConnections - 1, 1},
		{500, 500, v1alpha1.MaxReportConnections / 2, v1alpha1.MaxReportConnections / 2},
	} {
		for _, deniedFirst := range []bool{true, false} {
			l := NewLedger()
			add := [2]func(){
				func() {
					for i := range c.denied {
						l.Note(seen("shop", i, port(i)))
					}
				},
				func() {
					for i := range c.allowed {
						l.Note(seen("shop", i, port(i), passed))
					}
				},
			}
			if !deniedFirst {
				slices.Reverse(add[:])
			}
			add[0]()
			add[1]()
			s := l.take(noon)
			within(t, s)
			if denied, allowed := numbers(s); denied != c.wantDenied || allowed != c.wantAllowed {
				t.Errorf("of %d denied and %d allowed, denied first: %t, %d and %d are listed, want %d and %d",
					c.denied, c.allowed, deniedFirst, denied, allowed, c.wantDenied, c.wantAllowed)
			}
		}
	}
}

func TestSinceWhenANamespaceIsWatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := metav1.Now()
		l := NewLedger()
		l.Looks([]string{"shop"})
		if _, news := l.pending(); !news {
			t.Error("that a namespace is watched is no news")
		}
		first := l.take(noon)
		l.Looks([]string{"shop"})
		if some, _ := l.pending(); some {
			t.Error("that a namespace is watched still is news")
		}
		time.Sleep(time.Hour)
		later := metav1.Now()
		l.Looks([]string{"other", "shop"})
		want := []v1alpha1.WatchedNamespace{{Namespace: "other", Since: later}, {Namespace: "shop", Since: begin}}
		if diff := cmp.Diff(want, l.take(noon).Watched); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		// After a restart it is since when it was before, whether that is known before or after what is watched.
		for _, restoredFirst := range []bool{true, false} {
			next := NewLedger()
			if restoredFirst {
				next.Restore(&first)
			}
			next.Looks([]string{"other", "shop"})
			if !restoredFirst {
				next.Restore(&first)
			}
			if diff := cmp.Diff(want, next.take(noon).Watched); diff != "" {
				t.Errorf("restored first: %t (-want +got):\n%s", restoredFirst, diff)
			}
			next.Looks(nil)
			next.Looks([]string{"shop"})
			if got := next.take(noon).Watched; got[0].Since != later {
				t.Errorf("one that is watched again is since %v, want %v", got, later)
			}
		}
	})
}
