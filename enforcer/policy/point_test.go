package policy

import (
	"strings"
	"testing"
)

// What is written is read back, and nothing is read that was not written like that.
func TestLabelsAreReadAsTheyAreWritten(t *testing.T) {
	for _, object := range []string{
		"NetworkPolicy team-a/web", "ClusterNetworkPolicy wall", "NetworkPolicy team-a/a,b", "NetworkPolicy a/egress", "unknown pod",
		"NetworkPolicy team-a/" + strings.Repeat("x", 200) + "..", "denied: x ingress", "source check of a/b", "x [1]", "é",
	} {
		for _, direction := range Directions {
			for _, index := range []int{-1, 0, 2, 17, 100_000} {
				for _, audit := range []bool{false, true} {
					want := Label{Audit: audit, Object: object, Direction: direction, Index: index}
					if got, ok := ParseLabel(want.String()); !ok || got != want {
						t.Errorf("%q is read as %+v, %t, want %+v", want, got, ok, want)
					}
				}
			}
		}
	}
	for _, text := range []string{
		"", "denied: ", "denied: ingress", "denied:  ingress", "denied: NetworkPolicy a/b", "denied: x sideways", "denied: x ingress[", "denied: x ingress[]",
		"denied: x ingress[-1]", "denied: x ingress[+1]", "denied: x ingress[01]", "denied: x ingress[1]]", "denied: x ingress[1", "denied: x ingress ",
		"would deny: x", "Denied: x ingress", "x ingress", "would deny x ingress", "denied: x ingress[99999999999999999999]",
	} {
		if got, ok := ParseLabel(text); ok {
			t.Errorf("%q is read as %+v", text, got)
		}
	}
	for want, l := range map[string]Label{
		"would deny: NetworkPolicy team-a/web ingress": {true, "NetworkPolicy team-a/web", Ingress, -1},
		"denied: ClusterNetworkPolicy wall egress[2]":  {false, "ClusterNetworkPolicy wall", Egress, 2},
	} {
		if l.String() != want {
			t.Errorf("%+v is written as %q, want %q", l, l, want)
		}
	}
}
