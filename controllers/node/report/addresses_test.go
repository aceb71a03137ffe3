package report

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/internal/testapi"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

func TestWhatAReportSaysOfAddresses(t *testing.T) {
	if got := AddressTroubles(policy.Concerns{}); got != nil {
		t.Errorf("of addresses that are all well it says %+v", got)
	}
	mine := v1alpha1.AddressTrouble{Address: "10.0.0.1", Message: "3 pods are shown with 10.0.0.1: it is taken for that of Pod shop/mine on node n1, which is on this node; " +
		"another is Pod shop/thief on node n3, and 1 more"}
	theirs := v1alpha1.AddressTrouble{Address: "10.0.0.2", Message: "3 pods are shown with 10.0.0.2: it is taken for that of Pod shop/theirs on node n2; " +
		"another is Pod shop/thief on node n3, and 1 more"}
	bad := v1alpha1.AddressTrouble{Message: "Pod shop/bad0 on node n2 is shown with an address that none can have: it is left out of everything"}
	want := &v1alpha1.AddressTroubles{Contested: 1, ContestedElsewhere: 1, Impossible: 1, Named: []v1alpha1.AddressTrouble{mine, theirs, bad}}
	if diff := cmp.Diff(want, AddressTroubles(testapi.Contested(1, 1, 1))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, c := range [][3]int{{1000, 1000, 1000}, {1000, 0, 2}, {2, 0, 1000}, {0, 0, 1000}, {1000, 0, 0}} {
		got := AddressTroubles(testapi.Contested(c[0], c[1], c[2]))
		if len(got.Named) != v1alpha1.MaxAddressTroubles || int(got.Contested) != c[0] || int(got.Impossible) != c[2] {
			t.Errorf("of %v it names %d, and counts %+v", c, len(got.Named), got)
		}
	}
	long := testapi.Contested(1, 0, 0)
	for _, o := range []*policy.Owner{&long.Contested.First[0].Holder, &long.Contested.First[0].Other} {
		o.Ref.Namespace, o.Ref.Name, o.Node = strings.Repeat("s", 63), strings.Repeat("p", 253), strings.Repeat("n", 253)
	}
	if text := AddressTroubles(long).Named[0].Message; len(text) > maxTroubleMessage {
		t.Errorf("a message has %d bytes", len(text))
	}
}
