package dataplane

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

func TestTheFakeTakesThePlansStepsInOrder(t *testing.T) {
	d := NewFake(Capabilities{})
	plan := fullPlan(t, securityTable)
	mustApply(t, d, plan)
	plan.AddEntries = []iptables.SetEntries{entries(t, plan.CreateSets[0], "10.0.0.1")}
	plan.DelEntries = []iptables.SetEntries{entries(t, plan.CreateSets[1], "fd00::1")}
	plan.CreateSets = []iptables.Set{set(t, "RF-v1-4A-new", iptables.HashIP, iptables.IPv4)}
	plan.DestroySets, plan.Elsewhere = refs("RF-v1-4A-new"), true
	var got []Step
	d.Before = func(s Step) error {
		got = append(got, s)
		return nil
	}
	mustApply(t, d, plan)
	want := []Step{
		{CreateSet, iptables.IPv4, "RF-v1-4A-new"},
		{AddEntries, iptables.IPv4, "RF-v1-4A-x"},
		{Restore, iptables.IPv4, ""}, {Restore, iptables.IPv6, ""},
		{FixJump, iptables.IPv4, "FORWARD"}, {FixJump, iptables.IPv4, "INPUT"},
		{FixJump, iptables.IPv6, "FORWARD"}, {FixJump, iptables.IPv6, "INPUT"},
		{Kind: Elsewhere},
		{DelEntries, iptables.IPv6, "RF-v1-6A-x"},
		{DestroySet, iptables.IPv4, "RF-v1-4A-new"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
}

func TestTheFakeFailsWhereItIsTold(t *testing.T) {
	broken := errors.New("broken")
	for _, c := range []struct {
		at    StepKind
		four  int // chains of IPv4 afterwards
		jumps int // of IPv4
		sets  int
	}{
		{CreateSet, 0, 0, 1}, {Restore, 0, 0, 2}, {FixJump, 4, 0, 2},
	} {
		t.Run(string(c.at), func(t *testing.T) {
			d := NewFake(Capabilities{})
			d.Before = func(s Step) error {
				if s.Kind == c.at && s.Family == iptables.IPv4 {
					return broken
				}
				return nil
			}
			err := d.Apply(t.Context(), fullPlan(t, securityTable))
			if !errors.Is(err, broken) {
				t.Errorf("the error is %v", err)
			}
			got := mustObserve(t, d)
			four, six := got.Tables[iptables.IPv4], got.Tables[iptables.IPv6]
			if four.Chains.Len() != c.four || len(four.Jumps) != c.jumps || got.Sets.Len() != c.sets {
				t.Errorf("%d chains and %d jumps of IPv4, %d sets; want %d, %d, %d",
					four.Chains.Len(), len(four.Jumps), got.Sets.Len(), c.four, c.jumps, c.sets)
			}
			if six.Chains.Len() != 4 || len(six.Jumps) != 2 {
				t.Errorf("IPv6 has %d chains and %d jumps, want 4 and 2", six.Chains.Len(), len(six.Jumps))
			}
		})
	}
}

// refusals are inputs that iptables-restore takes nothing of. Each runs on the real programs too: the fake is no
// more lenient than they are.
func TestRestoreRefuses(t *testing.T) {
	long := strings.Repeat("x", 300)
	for name, body := range map[string]string{
		"a jump to nowhere":                  "-A RF-A -j RF-NOWHERE",
		"a rule in no chain":                 "-A RF-NOWHERE -j RETURN",
		"a set that is missing":              "-A RF-A -m set --match-set RF-v1-4A-none src -j RETURN",
		"a set of the other family":          "-A RF-A -m set --match-set RF-v1-6A-x src -j RETURN",
		"a chain's name beyond 28 bytes":     ":RF-" + long[:26] + " - [0:0]",
		"removing a chain with rules":        "-A RF-A -j RETURN\n-X RF-A",
		"removing a chain that is jumped to": ":RF-B - [0:0]\n-A RF-A -j RF-B\n-X RF-B",
		"removing a chain that is missing":   "-X RF-NOWHERE",
		"deleting a rule that is missing":    "-D RF-A -j RETURN",
		"inserting beyond the end":           "-I RF-A 3 -j RETURN",
		"no command":                         "frobnicate RF-A",
	} {
		t.Run(name, func(t *testing.T) {
			onEach(t, func(t *testing.T, d subject) {
				mustApply(t, d, iptables.Plan{CreateSets: []iptables.Set{set(t, "RF-v1-6A-x", iptables.HashIP, iptables.IPv6)}})
				input := "*security\n:RF-A - [0:0]\n" + body + "\nCOMMIT\n"
				err := d.Apply(t.Context(), iptables.Plan{Restore: map[iptables.Family]string{iptables.IPv4: input}})
				var tool *ToolError
				if !errors.As(err, &tool) {
					t.Fatalf("the error is %v, want a ToolError", err)
				}
				if got := mustObserve(t, d).Tables[iptables.IPv4].Chains; got.Len() != 0 {
					t.Errorf("something was taken all the same: %v", got)
				}
			})
		})
	}
}

// The programs cut a longer comment short without a word, and the rule reads back different for ever. The fake is stricter.
func TestTheFakeRefusesACommentThatWouldBeCut(t *testing.T) {
	for length, ok := range map[int]bool{255: true, 256: false} {
		rule := iptables.Rule(`-m comment --comment "` + strings.Repeat("x", length) + `" -j RETURN`)
		err := NewFake(Capabilities{}).Restore(iptables.IPv4, chains(securityTable, map[string][]iptables.Rule{"RF-A": {rule}}))
		if (err == nil) != ok {
			t.Errorf("a comment of %d bytes: %v", length, err)
		}
	}
}

func TestAnObservationIsACopy(t *testing.T) {
	d := NewFake(Capabilities{})
	plan := fullPlan(t, securityTable)
	was := entry(t, "10.0.0.1")
	plan.CreateSets[0] = plan.CreateSets[0].Holding([]iptables.Entry{was})
	mustApply(t, d, plan)
	r := mustObserve(t, d)
	r.Tables[iptables.IPv4].Chains.Get("RF-v1-DENY")[0] = "-j ACCEPT"
	for list := range r.Sets.Get("RF-v1-4A-x").Members.Lists() {
		list[0].Addr = policy.AddrOf(netip.MustParseAddr("10.0.0.2"))
	}
	got := mustObserve(t, d)
	if got.Tables[iptables.IPv4].Chains.Get("RF-v1-DENY")[0] != "-j DROP" || got.Sets.Get("RF-v1-4A-x").Entries()[0] != was {
		t.Error("writing to an observation changes the fake")
	}
}
