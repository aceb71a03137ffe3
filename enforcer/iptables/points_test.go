package iptables

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

func TestPointOfChain(t *testing.T) {
	const id = "abcdefghijklmn27"
	for chain, want := range map[string]*policy.Point{
		"RF-v1-IW-" + id:            {ID: id, Direction: policy.Ingress, Index: -1, Audit: true},
		"RF-v1-EW-" + id:            {ID: id, Direction: policy.Egress, Index: -1, Audit: true},
		"RF-v1-IL-" + id:            {ID: id, Direction: policy.Ingress, Index: -1},
		"RF-v1-EL-" + id:            {ID: id, Direction: policy.Egress, Index: -1},
		"RF-v1-IG-" + id:            nil, // a group
		"RF-v1-IW-" + id[1:]:        nil,
		"RF-v1-IW-" + id + "a":      nil,
		"RF-v1-IW-ABCDEFGHIJKLMN27": nil,
		"RF-v1-IW-abcdefgh1jklmn27": nil, // base 32 has no 1
		"XX-v1-IW-" + id:            nil,
		"RF-v1-W-" + id:             nil,
		"RF-IW-" + id:               nil, // of a version before there were layouts
		"RF-v2-IW-" + id:            nil,
		"RF-v11-IW-" + id:           nil,
		"RF-v1-v2-IW-" + id:         nil,
		"RF-FORWARD":                nil,
		"":                          nil,
	} {
		got, ok := OwnLayout.PointOfChain(chain)
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

func TestObjectOfComment(t *testing.T) {
	two := 2
	for comment, want := range map[string]struct {
		object string
		rule   *int
	}{
		"would deny: NetworkPolicy team-a/web ingress":         {"NetworkPolicy team-a/web", nil},
		"denied: ClusterNetworkPolicy wall egress[2]":          {"ClusterNetworkPolicy wall", &two},
		"denied: NetworkPolicy team-a/a-very-lon.. ingress[2]": {"NetworkPolicy team-a/a-very-lon..", &two},
		"would deny: NetworkPolicy team-a/egress ingress":      {"NetworkPolicy team-a/egress", nil},
		"somebody else's words":                                {"somebody else's words", nil},
		"":                                                     {"unknown", nil},
	} {
		object, rule := ObjectOfComment(comment)
		if object != want.object || !cmp.Equal(rule, want.rule) {
			t.Errorf("%q: %q, %v", comment, object, rule)
		}
	}
}
