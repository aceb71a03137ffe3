package dataplane

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
)

func TestTheJumpStandsInFrontAndOnce(t *testing.T) {
	jump := string(iptables.JumpRule("FORWARD"))
	for _, c := range []struct {
		name    string
		present []string // rules of FORWARD
		seen    []int    // as Observe reports them
		want    []string // those of other programs, behind ours
	}{
		{"in an empty chain", nil, nil, nil},
		{"before another program's rules", []string{"-j LOG", "-s 10.0.0.1/32 -j ACCEPT"}, nil,
			[]string{"-j LOG", "-s 10.0.0.1/32 -j ACCEPT"}},
		{"where it is right", []string{jump, "-j LOG"}, []int{1}, []string{"-j LOG"}},
		{"from behind", []string{"-j LOG", jump}, []int{2}, []string{"-j LOG"}},
		{"instead of two", []string{jump, jump}, []int{1, 2}, nil},
		{"instead of many among others", []string{jump, "-j LOG", jump, "-s 10.0.0.1/32 -j DROP", jump}, []int{1, 3, 5},
			[]string{"-j LOG", "-s 10.0.0.1/32 -j DROP"}},
		{"instead of one with another comment", []string{"-j LOG", `-m comment --comment "an older version" -j RF-FORWARD`},
			[]int{0}, []string{"-j LOG"}},
		{"instead of one for all packets", []string{"-j LOG", `-j RF-FORWARD`}, []int{0}, []string{"-j LOG"}},
		{"instead of one for some packets", []string{"-p tcp -j RF-FORWARD"}, []int{0}, nil},
		{"instead of a goto", []string{"-g RF-FORWARD", "-j LOG"}, []int{0}, []string{"-j LOG"}},
		{"instead of one that leads elsewhere", []string{"-j RF-OTHER", jump}, []int{0, 2}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			onEach(t, func(t *testing.T, d subject) {
				for _, f := range iptables.Families {
					present := strings.ReplaceAll(strings.Join(c.present, "\n"), "10.0.0.1/32", address(f))
					input := "*security\n:RF-FORWARD - [0:0]\n:RF-OTHER - [0:0]\n"
					for line := range strings.Lines(present) {
						input += "-A FORWARD " + strings.TrimSpace(line) + "\n"
					}
					foreign(t, d, f, input+"COMMIT\n")
					seen := mustObserve(t, d).Tables[f].Jumps
					if diff := cmp.Diff(c.seen, seen["FORWARD"]); diff != "" {
						t.Errorf("%s: jumps seen (-want +got):\n%s", f, diff)
					}
					// What the plan saw may be out of date: a wrong position must not hurt anybody.
					fix := iptables.JumpFix{Family: f, Table: securityTable, Chain: "FORWARD", Rule: iptables.Rule(jump), Found: []int{7}}
					for range 2 {
						mustApply(t, d, iptables.Plan{Jumps: []iptables.JumpFix{fix}})
						want := []string{"-A FORWARD " + jump}
						for _, r := range c.want {
							want = append(want, "-A FORWARD "+strings.ReplaceAll(r, "10.0.0.1/32", address(f)))
						}
						if diff := cmp.Diff(want, rulesOf(saved(t, d, f), "FORWARD")); diff != "" {
							t.Errorf("%s: FORWARD (-want +got):\n%s", f, diff)
						}
					}
					if diff := cmp.Diff([]int{1}, mustObserve(t, d).Tables[f].Jumps["FORWARD"]); diff != "" {
						t.Errorf("%s: jumps seen afterwards (-want +got):\n%s", f, diff)
					}
				}
			})
		})
	}
}

func address(f iptables.Family) string {
	if f == iptables.IPv4 {
		return "10.0.0.1/32"
	}
	return "fd00::1/128"
}

func rulesOf(save, chain string) []string {
	var rules []string
	for line := range strings.Lines(save) {
		if strings.HasPrefix(line, fmt.Sprintf("-A %s ", chain)) {
			rules = append(rules, strings.TrimRight(line, " \n"))
		}
	}
	return rules
}
