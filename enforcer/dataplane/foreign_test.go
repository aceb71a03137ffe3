package dataplane

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
)

// foreignRules are other programs' rules, with counters, in every table, with names as like ours as they may be.
const foreignRules = `*filter
:INPUT DROP [3:180]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:RF_NOT-OURS - [0:0]
:KUBE-FORWARD - [0:0]
[5:300] -A INPUT -i lo -m comment --comment "RF-FORWARD is in this comment" -j ACCEPT
[1:60] -A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
[0:0] -A FORWARD -m set --match-set foreign src -j RF_NOT-OURS
[7:420] -A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
[0:0] -A RF_NOT-OURS -p tcp -m multiport --dports 80,443 -j DROP
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
[2:120] -A POSTROUTING -m comment --comment "masquerade" -j MASQUERADE
COMMIT
*mangle
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:KUBE-KUBELET-CANARY - [0:0]
[9:540] -A FORWARD -j MARK --set-xmark 0x1/0xff
COMMIT
*raw
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
[4:240] -A PREROUTING -p udp -m udp --dport 53 -j NOTRACK
COMMIT
*security
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:OTHER - [0:0]
[6:360] -A FORWARD -j OTHER
[0:0] -A FORWARD -p tcp -j OTHER
[0:0] -A OTHER -m comment --comment "RF-FORWARD" -j RETURN
COMMIT
`

// makeForeign puts other programs' rules into every table of both families and both back ends, and a set beside ours.
func makeForeign(t *testing.T) {
	t.Helper()
	run(t, "ipset", "create", "foreign", "hash:ip", "family", "inet")
	run(t, "ipset", "add", "foreign", "192.0.2.1")
	run(t, "ipset", "create", "foreign6", "hash:ip", "family", "inet6")
	run(t, "ipset", "create", "RF_NOT-OURS", "bitmap:port", "range", "0-1023")
	for _, backend := range []string{"legacy", "nft"} {
		for _, family := range []string{"iptables", "ip6tables"} {
			rules := foreignRules
			if family == "ip6tables" {
				rules = strings.ReplaceAll(rules, "--match-set foreign ", "--match-set foreign6 ")
			}
			restore := exec.Command(family+"-"+backend+"-restore", "-c")
			restore.Stdin = strings.NewReader(rules)
			if out, err := restore.CombinedOutput(); err != nil {
				t.Fatalf("%s: %v: %s", restore, err, out)
			}
		}
	}
}

// everything is what all back ends hold, with counters, and all ipsets.
func everything(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{"ipset": run(t, "ipset", "save", "-sorted")}
	for _, backend := range []string{"legacy", "nft"} {
		for _, family := range []string{"iptables", "ip6tables"} {
			name := family + "-" + backend
			all[name] = stable(run(t, name+"-save", "-c"))
		}
	}
	return all
}

// withoutOurs leaves away the lines that are about chains, jumps and sets of ours.
func withoutOurs(all map[string]string) map[string]string {
	rest := map[string]string{}
	for name, text := range all {
		for line := range strings.Lines(text) {
			if !strings.Contains(line, "RF-") || strings.Contains(line, "comment \"RF-FORWARD") || strings.Contains(line, "comment RF-FORWARD") {
				rest[name] += line
			}
		}
	}
	return rest
}

// fullPlan makes something of each kind in both families.
func fullPlan(t *testing.T, table string) iptables.Plan {
	t.Helper()
	p := iptables.Plan{Restore: map[iptables.Family]string{}}
	for _, f := range iptables.Families {
		name := map[iptables.Family]string{iptables.IPv4: "RF-v1-4A-x", iptables.IPv6: "RF-v1-6A-x"}[f]
		p.CreateSets = append(p.CreateSets, set(t, name, iptables.HashIP, f))
		p.Restore[f] = chains(table, map[string][]iptables.Rule{
			"RF-v1-DENY":   {"-j DROP"},
			"RF-FORWARD":   {"-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN", "-j RF-v1-EGRESS"},
			"RF-v1-EGRESS": {iptables.Rule("-m set --match-set " + name + " src -g RF-v1-DENY")},
			"RF-INPUT":     nil,
		})
		for _, base := range []string{"FORWARD", "INPUT"} {
			p.Jumps = append(p.Jumps, iptables.JumpFix{
				Family: f, Table: table, Chain: base,
				Rule: iptables.JumpRule(base),
			})
		}
	}
	return p
}

func TestOtherProgramsRulesStayByteForByteTheSame(t *testing.T) {
	for _, backend := range []string{NFT, Legacy} {
		for _, table := range tables {
			t.Run(backend+"/"+table, func(t *testing.T) {
				enterNamespace(t)
				makeForeign(t)
				before := everything(t)
				same := func(when string, now map[string]string) {
					t.Helper()
					if diff := cmp.Diff(before, now); diff != "" {
						t.Fatalf("%s (-before +now):\n%s", when, diff)
					}
				}
				d, err := New(t.Context(), Options{Backend: backend, Table: table})
				if err != nil {
					t.Fatal(err)
				}
				same("after the preflight", everything(t))
				mustObserve(t, d)
				same("after observing", everything(t))
				for range 2 {
					mustApply(t, d, fullPlan(t, table))
					same("after applying, ours left away", withoutOurs(everything(t)))
					got := mustObserve(t, d)
					if n := got.Tables[iptables.IPv6].Chains.Len(); n != 4 || got.Sets.Len() != 2 {
						t.Fatalf("applied, and %d chains and %d sets are there", n, got.Sets.Len())
					}
					if err := d.Cleanup(t.Context()); err != nil {
						t.Fatalf("cleaning up: %v", err)
					}
					same("after cleaning up", everything(t))
				}
			})
		}
	}
}

func TestCleanupFindsOursEverywhere(t *testing.T) {
	enterNamespace(t)
	makeForeign(t)
	before := everything(t)
	for _, backend := range []string{NFT, Legacy} {
		for _, table := range tables {
			d, err := New(t.Context(), Options{Backend: backend, Table: table})
			if err != nil {
				t.Fatal(err)
			}
			plan := fullPlan(t, table)
			if mustObserve(t, d).Sets.Len() > 0 {
				plan.CreateSets = nil // there from the round before, and in use
			}
			mustApply(t, d, plan)
			// A jump where we put none, as someone might copy it.
			run(t, "iptables-"+backend, "-w", "-t", table, "-A", "OUTPUT", "-p", "tcp", "-j", "RF-FORWARD")
		}
	}
	if err := Cleanup(t.Context(), logr.Discard()); err != nil {
		t.Fatalf("cleaning up: %v", err)
	}
	if diff := cmp.Diff(before, everything(t)); diff != "" {
		t.Errorf("after cleaning up (-before +now):\n%s", diff)
	}
}

func TestWhatIsElsewhereGoesAndWhatIsInUseStays(t *testing.T) {
	enterNamespace(t)
	old, err := New(t.Context(), Options{Backend: Legacy, Table: mangleTable})
	if err != nil {
		t.Fatal(err)
	}
	mustApply(t, old, fullPlan(t, mangleTable))
	now, err := New(t.Context(), Options{Backend: NFT})
	if err != nil {
		t.Fatal(err)
	}
	plan := fullPlan(t, securityTable)
	plan.CreateSets = nil
	mustApply(t, now, plan)
	want := mustObserve(t, now)
	mustApply(t, now, iptables.Plan{Elsewhere: true})
	if diff := cmp.Diff(want, mustObserve(t, now), addrs); diff != "" {
		t.Errorf("in use (-before +after):\n%s", diff)
	}
	if got := mustObserve(t, old).Tables[iptables.IPv4]; got.Chains.Len()+len(got.Jumps) != 0 {
		t.Errorf("left elsewhere: %v", got)
	}
}

func TestCleanupWhereNothingIsMakesNothing(t *testing.T) {
	enterNamespace(t)
	if err := Cleanup(t.Context(), logr.Logger{}); err != nil {
		t.Fatal(err)
	}
	for name, text := range everything(t) {
		if text != "" {
			t.Errorf("%s holds something:\n%s", name, text)
		}
	}
	if legacyInUse() {
		t.Error("a table of the legacy back end came into being")
	}
}

func TestCleanupNeedsTheProgramsOnlyOfABackEndInUse(t *testing.T) {
	enterNamespace(t)
	mustApply(t, newDataplane(t, NFT), fullPlan(t, securityTable))
	programs(t, "xtables-nft-multi", "iptables-nft", "ip6tables-nft")
	if err := Cleanup(t.Context(), logr.Discard()); err != nil {
		t.Errorf("the legacy back end is not in use, and yet: %v", err)
	}
	enterNamespace(t)
	mustApply(t, newDataplane(t, NFT), fullPlan(t, securityTable)) // proves that the programs of nft are found
	t.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin")
	mustApply(t, newDataplane(t, Legacy), iptables.Plan{Restore: map[iptables.Family]string{
		iptables.IPv4: chains(securityTable, map[string][]iptables.Rule{"RF-X": nil})}})
	programs(t, "xtables-nft-multi", "iptables-nft", "ip6tables-nft")
	if err := Cleanup(t.Context(), logr.Discard()); err == nil || !strings.Contains(err.Error(), "iptables-legacy-save") {
		t.Errorf("the legacy back end is in use and cannot be cleaned: %v, want an error that says so", err)
	}
}

// A table that holds nftables rules of another kind must not be taken for an empty one.
func TestATableThatIptablesCannotShowIsAnError(t *testing.T) {
	const save = "# Table `security' is incompatible, use 'nft' tool.\n"
	if _, err := parseSave([]byte(save)); err == nil {
		t.Error("parseSave took it for an empty table")
	}
	const other = "# Table `filter' is incompatible, use 'nft' tool.\n*security\n:INPUT ACCEPT [0:0]\nCOMMIT\n"
	if _, err := parseSave([]byte(other)); err != nil {
		t.Errorf("another table is no business of ours: %v", err)
	}
}
