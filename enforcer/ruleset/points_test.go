package ruleset

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

func TestPointOfChain(t *testing.T) {
	const id = "abcdefghijklmn27"
	for chain, want := range map[string]*Point{
		"RF-IW-" + id:            {ID: id, Direction: policy.Ingress, Index: -1, Audit: true},
		"RF-EW-" + id:            {ID: id, Direction: policy.Egress, Index: -1, Audit: true},
		"RF-IL-" + id:            {ID: id, Direction: policy.Ingress, Index: -1},
		"RF-EL-" + id:            {ID: id, Direction: policy.Egress, Index: -1},
		"RF-IG-" + id:            nil, // a group
		"RF-IW-" + id[1:]:        nil,
		"RF-IW-" + id + "a":      nil,
		"RF-IW-ABCDEFGHIJKLMN27": nil,
		"RF-IW-abcdefgh1jklmn27": nil, // base 32 has no 1
		"XX-IW-" + id:            nil,
		"RF-W-" + id:             nil,
		"RF-FORWARD":             nil,
		"":                       nil,
	} {
		got, ok := PointOfChain(chain)
		if ok != (want != nil) {
			t.Errorf("%q: a point: %v", chain, ok)
		}
		if want != nil && ok {
			if diff := cmp.Diff(*want, got); diff != "" {
				t.Errorf("%q (-want +got):\n%s", chain, diff)
			}
		}
	}
}
