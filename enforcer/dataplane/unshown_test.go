package dataplane

import (
	"errors"
	"net"
	"os/exec"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
)

// clampMSS puts the usual clamp of the MSS into a base chain of both families, as nft does it: a rule that iptables cannot show.
func clampMSS(t *testing.T, table, chain string) {
	t.Helper()
	for _, family := range []string{"ip", "ip6"} {
		run(t, "nft", "add", "rule", family, table, chain, "tcp", "flags", "syn", "tcp", "option", "maxseg", "size", "set", "rt", "mtu")
	}
}

// baseChains makes the table with its base chains, as iptables-nft has them.
func baseChains(t *testing.T, table string) {
	t.Helper()
	for _, name := range []string{"iptables-nft-restore", "ip6tables-nft-restore"} {
		restore := exec.Command(name, "--noflush")
		restore.Stdin = strings.NewReader("*" + table + "\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n")
		if out, err := restore.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", name, err, out)
		}
	}
}

// native is what nft shows of other programs' rules, which must stay as they are.
func native(t *testing.T) string {
	t.Helper()
	var rest []string
	for line := range strings.Lines(run(t, "nft", "list", "ruleset")) {
		if strings.Contains(line, "maxseg") || strings.Contains(line, "@others") {
			rest = append(rest, line)
		}
	}
	return strings.Join(rest, "")
}

// One native rule of nft in the table mangle, the usual clamp of the MSS, and each sync failed for good.
func TestANativeRuleInAnotherTableStopsNothing(t *testing.T) {
	for _, backend := range []string{NFT, Legacy} {
		t.Run(backend, func(t *testing.T) {
			enterNamespace(t)
			baseChains(t, mangleTable)
			clampMSS(t, mangleTable, "FORWARD")
			before := native(t)
			d := newDataplane(t, backend)
			plan := fullPlan(t, securityTable)
			plan.Elsewhere = true
			mustApply(t, d, plan)
			if _, err := d.Counts(t.Context()); err != nil {
				t.Errorf("counting: %v", err)
			}
			if _, enforced, err := Counted(t.Context(), iptables.OwnLayout, logr.Discard()); err != nil || !enforced {
				t.Errorf("counting without a Dataplane: enforced %t, %v", enforced, err)
			}
			if err := d.Cleanup(t.Context()); err != nil {
				t.Errorf("cleaning up: %v", err)
			}
			if got := mustObserve(t, d); got.Tables[iptables.IPv4].Chains.Len()+len(got.Tables[iptables.IPv6].Jumps) != 0 {
				t.Errorf("left: %v", got)
			}
			if diff := cmp.Diff(before, native(t)); diff != "" {
				t.Errorf("other programs' rules (-before +after):\n%s", diff)
			}
		})
	}
}

// What an earlier run has left in a table goes, though another program has put a rule beside it that iptables cannot show.
func TestWhatIsLeftBesideANativeRuleGoes(t *testing.T) {
	for _, place := range []string{"in front", "behind"} {
		t.Run(place, func(t *testing.T) {
			enterNamespace(t)
			old, err := New(t.Context(), Options{Backend: NFT, Table: mangleTable})
			if err != nil {
				t.Fatal(err)
			}
			mustApply(t, old, fullPlan(t, mangleTable))
			if place == "in front" {
				run(t, "nft", "insert", "rule", "ip", "mangle", "FORWARD", "tcp", "flags", "syn", "tcp", "option", "maxseg", "size", "set", "rt", "mtu")
			} else {
				clampMSS(t, mangleTable, "FORWARD")
			}
			before := native(t)
			now := newDataplane(t, NFT)
			plan := fullPlan(t, securityTable)
			plan.CreateSets, plan.Elsewhere = nil, true
			mustApply(t, now, plan)
			if text := run(t, "nft", "list", "table", "ip", "mangle"); strings.Contains(text, "RF-") {
				t.Errorf("left in mangle:\n%s", text)
			}
			if diff := cmp.Diff(before, native(t)); diff != "" {
				t.Errorf("other programs' rules (-before +after):\n%s", diff)
			}
			if got := mustObserve(t, now); got.Tables[iptables.IPv4].Chains.Len() != 4 {
				t.Errorf("in force: %v", got.Tables[iptables.IPv4])
			}
		})
	}
}

// In our own table, security or mangle, a native rule of another program stops us as little: what is ours reads back as it was written, and is repaired.
func TestOurTableIsReadAndRepairedBesideANativeRule(t *testing.T) {
	for _, table := range tables {
		for name, place := range map[string]func(*testing.T){
			"behind our jump": func(t *testing.T) { clampMSS(t, table, "FORWARD") },
			"in front of it": func(t *testing.T) {
				for _, family := range []string{"ip", "ip6"} {
					run(t, "nft", "insert", "rule", family, table, "FORWARD", "tcp", "flags", "syn", "tcp", "option", "maxseg", "size", "set", "rt", "mtu")
				}
			},
			"in a chain of its own": func(t *testing.T) {
				for _, family := range []string{"ip", "ip6"} {
					run(t, "nft", "add", "chain", family, table, "others")
				}
				clampMSS(t, table, "others")
			},
			"in OUTPUT, in INPUT and in FORWARD": func(t *testing.T) {
				for _, base := range hookChains {
					for _, family := range []string{"ip", "ip6"} {
						run(t, "nft", "add", "rule", family, table, base, "tcp", "option", "maxseg", "size", "1-500", "drop")
					}
				}
			},
			"in a chain of ours": func(t *testing.T) { clampMSS(t, table, "RF-FORWARD") },
			"and a copy of our jump": func(t *testing.T) {
				for _, family := range []string{"ip", "ip6"} {
					run(t, "nft", "insert", "rule", family, table, "FORWARD", "jump", "RF-FORWARD")
				}
				clampMSS(t, table, "FORWARD")
			},
		} {
			t.Run(table+"/"+name, func(t *testing.T) {
				enterNamespace(t)
				d, err := New(t.Context(), Options{Backend: NFT, Table: table})
				if err != nil {
					t.Fatal(err)
				}
				mustApply(t, d, fullPlan(t, table))
				want := mustObserve(t, d)
				baseChains(t, table)
				place(t)
				before := strings.ReplaceAll(native(t), "\n", "")
				if name == "in a chain of ours" {
					before = ""
				}
				mustApply(t, d, iptables.Diff(want, mustObserve(t, d)))
				got := mustObserve(t, d)
				if diff := cmp.Diff(want, got, addrs); diff != "" {
					t.Errorf("after a repair (-want +got):\n%s", diff)
				}
				if p := iptables.Diff(want, got); !p.Empty() {
					t.Errorf("there is something to repair again: %s", p)
				}
				if diff := cmp.Diff(before, strings.ReplaceAll(native(t), "\n", "")); diff != "" {
					t.Errorf("other programs' rules (-before +after):\n%s", diff)
				}

				// A change comes through, and damage is seen.
				changed := mustObserve(t, d)
				for _, f := range iptables.Families {
					one := changed.Tables[f]
					one.Chains = one.Chains.With("RF-v1-DENY", []iptables.Rule{"-p tcp -m tcp --dport 80 -j DROP", "-p sctp -m multiport --dports 81 -j DROP"})
					one.Chains = one.Chains.With("RF-INPUT", []iptables.Rule{"-j RF-v1-DENY"})
					changed.Tables[f] = one
				}
				mustApply(t, d, iptables.Diff(changed, mustObserve(t, d)))
				mustApply(t, d, iptables.Diff(want, mustObserve(t, d)))
				run(t, "ip6tables-nft", "-t", table, "-D", "RF-v1-EGRESS", "1")
				mustApply(t, d, iptables.Diff(want, mustObserve(t, d)))
				if diff := cmp.Diff(want, mustObserve(t, d), addrs); diff != "" {
					t.Errorf("changed there and back (-want +got):\n%s", diff)
				}
				if err := d.Cleanup(t.Context()); err != nil {
					t.Errorf("cleaning up: %v", err)
				}
				if text := run(t, "nft", "list", "ruleset"); strings.Contains(text, "RF-") {
					t.Errorf("left:\n%s", text)
				}
			})
		}
	}
}

func TestCountsAreReadBesideANativeRule(t *testing.T) {
	enterNamespace(t)
	d := newDataplane(t, NFT)
	const chain = "RF-v1-IW-aaaaaaaaaaaaaaaa"
	mustApply(t, d, iptables.Plan{Restore: map[iptables.Family]string{iptables.IPv4: chains(securityTable, map[string][]iptables.Rule{
		chain:      {`-m comment --comment "would deny: NetworkPolicy a/-c 9 9 b ingress"`, "-j RETURN"},
		"RF-INPUT": {"-j " + chain},
	})}})
	run(t, "iptables-nft", "-t", "security", "-I", "INPUT", "-j", "RF-INPUT")
	run(t, "ip", "link", "set", "lo", "up")
	c, err := net.Dial("udp", "127.0.0.1:9")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("counted")); err != nil {
		t.Fatal(err)
	}
	baseChains(t, securityTable)
	plain, err := d.Counts(t.Context())
	if err != nil || plain["aaaaaaaaaaaaaaaa"] == 0 {
		t.Fatalf("counted %v: %v", plain, err)
	}
	clampMSS(t, securityTable, "FORWARD")
	if got, err := d.Counts(t.Context()); err != nil || !cmp.Equal(plain, got) {
		t.Errorf("beside the native rule: %v, %v, want %v", got, err, plain)
	}
}

// The kubelet's hint stands in mangle, where the clamp stands too.
func TestTheKubeletsHintIsSeenBesideANativeRule(t *testing.T) {
	enterNamespace(t)
	run(t, "iptables-legacy", "-w", "-A", "INPUT", "-j", "ACCEPT")
	baseChains(t, mangleTable)
	run(t, "iptables-nft", "-t", "mangle", "-N", "KUBE-IPTABLES-HINT")
	clampMSS(t, mangleTable, "FORWARD")
	if d := newDataplane(t, Auto); d.Backend() != NFT {
		t.Errorf("chose %s, and the kubelet uses nft", d.Backend())
	}
}

func TestRulesThatCannotBeShownAreCounted(t *testing.T) {
	enterNamespace(t)
	run(t, "iptables-legacy", "-w", "-A", "INPUT", "-j", "ACCEPT")
	baseChains(t, "filter")
	clampMSS(t, "filter", "FORWARD")
	if d := newDataplane(t, Auto); d.Backend() != NFT {
		t.Errorf("chose %s, and nft has two rules against one", d.Backend())
	}
}

// A comment may hold line breaks, and iptables-save prints them as they are.
func TestACommentOfSeveralLinesStopsNothing(t *testing.T) {
	for _, backend := range []string{NFT, Legacy} {
		t.Run(backend, func(t *testing.T) {
			enterNamespace(t)
			d := newDataplane(t, backend)
			mustApply(t, d, fullPlan(t, securityTable))
			want := mustObserve(t, d)
			for _, table := range []string{"filter", "mangle", "security"} {
				run(t, "iptables-"+backend, "-w", "-t", table, "-A", "FORWARD", "-m", "comment", "--comment", "first\n*mangle\n-A RF-FORWARD -j \"DROP\"\nfrobnicate", "-j", "RETURN")
			}
			mustApply(t, d, iptables.Plan{Elsewhere: true})
			if diff := cmp.Diff(want, mustObserve(t, d), addrs); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if _, _, err := Counted(t.Context(), iptables.OwnLayout, logr.Discard()); err != nil {
				t.Errorf("counting: %v", err)
			}
		})
	}
}

// A table may be switched off as a whole, with everything still in it.
func TestATableThatIsSwitchedOffIsSaid(t *testing.T) {
	enterNamespace(t)
	d := newDataplane(t, NFT)
	mustApply(t, d, fullPlan(t, securityTable))
	want := mustObserve(t, d)
	run(t, "nft", "add table ip security { flags dormant; }")
	got, err := d.Observe(t.Context())
	if !errors.Is(err, errDormant) || len(got.Tables) != 1 || got.Tables[iptables.IPv6].Chains.Len() == 0 {
		t.Errorf("observed %v and %v, want IPv6 alone, and why", got.Tables, err)
	}
	run(t, "nft", "add table ip security")
	if diff := cmp.Diff(want, mustObserve(t, d), addrs); diff != "" {
		t.Errorf("switched on again (-want +got):\n%s", diff)
	}
}
