package iptables

import (
	"reflect"
	"testing"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// Whatever a plan does is a change, and counts under its noun.
func TestChangesAreThoseOfThePlan(t *testing.T) {
	two := []SetEntries{{Entries: make([]Entry, 1)}, {Entries: make([]Entry, 2)}}
	one := map[string]struct {
		plan Plan
		want policy.Changes
	}{
		"CreateSets":  {Plan{CreateSets: make([]Set, 2)}, policy.Changes{Sets: 2}},
		"Close":       {Plan{Close: two}, policy.Changes{Removed: 3}},
		"AddEntries":  {Plan{AddEntries: two}, policy.Changes{Added: 3}},
		"Restore":     {Plan{Restore: map[Family]string{IPv4: "x"}}, policy.Changes{Tables: 1}},
		"Jumps":       {Plan{Jumps: []JumpFix{{Found: []int{2}}}}, policy.Changes{Jumps: 1}},
		"Guards":      {Plan{Guards: make([]Guard, 1)}, policy.Changes{Others: 1}},
		"Unguard":     {Plan{Unguard: []string{"a"}}, policy.Changes{Others: 1}},
		"Inward":      {Plan{Inward: &Inward{}}, policy.Changes{Others: 1}},
		"Elsewhere":   {Plan{Elsewhere: true}, policy.Changes{Others: 1}},
		"DelEntries":  {Plan{DelEntries: two}, policy.Changes{Removed: 3}},
		"Open":        {Plan{Open: two}, policy.Changes{Opened: 3}},
		"DestroySets": {Plan{DestroySets: make([]SetRef, 2)}, policy.Changes{Sets: 2}},
	}
	for _, field := range reflect.VisibleFields(reflect.TypeFor[Plan]()) {
		tt, ok := one[field.Name]
		if !ok {
			t.Errorf("nothing is said of %s", field.Name)
			continue
		}
		got := tt.plan.Changes()
		if got.String() != tt.plan.String() || got.Empty() || tt.plan.Empty() {
			t.Errorf("%s: the changes are %q, empty %t, want %q", field.Name, got, got.Empty(), tt.plan)
		}
		if got.Text = nil; got != tt.want {
			t.Errorf("%s: %+v, want %+v", field.Name, got, tt.want)
		}
	}
	if got := (Plan{}).Changes(); got != (policy.Changes{}) || !got.Empty() || got.String() != "" {
		t.Errorf("of an empty plan: %+v", got)
	}
	away := Plan{Jumps: []JumpFix{{Found: []int{1, 2}}, {}}}
	if got := away.Changes(); !got.WereAway || got.Jumps != 2 {
		t.Errorf("where a jump was away: %+v", got)
	}
}
