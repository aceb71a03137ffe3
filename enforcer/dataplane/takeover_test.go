package dataplane

import (
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
)

// beforeLayouts is what a node held under the version before names had a layout: chains of both families, then sets.
const beforeLayouts = "testdata/before-layouts.txt"

// install writes a text like that of beforeLayouts into the kernel, as that version would have.
func install(t *testing.T, backend, text string) {
	t.Helper()
	at := strings.Index(text, "create ")
	feed(t, text[at:], "ipset", "restore")
	four, six, _ := strings.Cut(text[:at], "# inet6\n")
	feed(t, four, "iptables-"+backend+"-restore", "--noflush", "-w")
	feed(t, six, "ip6tables-"+backend+"-restore", "--noflush", "-w")
}

func feed(t *testing.T, input string, command ...string) {
	t.Helper()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(command, " "), err, out)
	}
}

// withoutTimeout finds the sets of connections that were cut: without a timeout ipset would not make them as we do.
var withoutTimeout = regexp.MustCompile(`(?m)^create (\S+) hash:ip,port,ip .*$`)

func TestWhatAVersionWithoutLayoutsHasLeftIsReplaced(t *testing.T) {
	text, err := os.ReadFile(beforeLayouts)
	if err != nil {
		t.Fatal(err)
	}
	for _, backend := range []string{NFT, Legacy} {
		t.Run(backend, func(t *testing.T) {
			enterNamespace(t)
			install(t, backend, withoutTimeout.ReplaceAllString(string(text), "$0 timeout 10"))
			run(t, "ipset", "add", "RF-4-CUT", "10.0.0.1,tcp:80,10.0.0.2", "timeout", "1000")

			if _, enforced, err := Counted(t.Context(), iptables.OwnLayout, logr.Discard()); !enforced || err == nil || !strings.Contains(err.Error(), "the chain RF-DENY") {
				t.Errorf("counted: enforced %v, %v, want an error that names a chain of the other version", enforced, err)
			}
			d := newDataplane(t, backend)
			want := iptables.Render(tiered(t), iptables.Options{Families: iptables.Families[:], Table: securityTable, SelfMatch: true, HoldCut: true})
			have := mustObserve(t, d)
			if have.Tables[iptables.IPv4].Chains.Len() < 10 || have.Sets.Len() < 10 {
				t.Fatalf("%d chains and %d sets were found of what was left", have.Tables[iptables.IPv4].Chains.Len(), have.Sets.Len())
			}
			plan := iptables.Diff(want, have)
			if len(plan.Jumps) > 0 {
				t.Errorf("the jumps are changed: %v", plan.Jumps)
			}
			mustApply(t, d, plan)
			if diff := cmp.Diff(want.String(), mustObserve(t, d).String()); diff != "" {
				t.Errorf("after the takeover (-want +got):\n%s", diff)
			}
			if _, enforced, err := Counted(t.Context(), iptables.OwnLayout, logr.Discard()); !enforced || err != nil {
				t.Errorf("counted after the takeover: enforced %v, %v", enforced, err)
			}
			if list := run(t, "ipset", "list", "RF-4-CUT"); !strings.Contains(list, "10.0.0.1,tcp:80,10.0.0.2 timeout ") {
				t.Errorf("a connection that was cut is no longer held off:\n%s", list)
			}
		})
	}
}

// What sets of another layout hold means something to their version alone: it is not read, whatever their type.
func TestSetsOfAnotherLayoutAreNotReadAndGo(t *testing.T) {
	enterNamespace(t)
	d := newDataplane(t, NFT)
	for _, command := range []string{
		"create RF-v7-4A-x hash:ip", "add RF-v7-4A-x 10.0.0.1",
		"create RF-4A-x hash:ip", "add RF-4A-x 10.0.0.1",
		"create RF-v7-M hash:ip,port,net family inet6", "add RF-v7-M fd00::1,tcp:80,fd00::/64",
		"create RF-v7-L list:set", "add RF-v7-L RF-v7-4A-x",
		"create RF-v7-B bitmap:port range 0-100", "add RF-v7-B 80",
	} {
		run(t, append([]string{"ipset"}, strings.Fields(command)...)...)
	}
	have := mustObserve(t, d)
	want := map[string]iptables.Set{
		"RF-v7-4A-x": {Type: iptables.HashIP, Family: iptables.IPv4},
		"RF-4A-x":    {Type: iptables.HashIP, Family: iptables.IPv4},
		"RF-v7-M":    {Type: "hash:ip,port,net", Family: iptables.IPv6},
		"RF-v7-L":    {Type: "list:set"},
		"RF-v7-B":    {Type: "bitmap:port"},
	}
	for name, s := range want {
		s.Name = name
		want[name] = s
	}
	if diff := cmp.Diff(want, have.Sets.Content()); diff != "" {
		t.Errorf("found (-want +got):\n%s", diff)
	}
	mustApply(t, d, iptables.Diff(iptables.Ruleset{}, have)) // the list, too, which refers to one that comes before it
	if left := mustObserve(t, d).Sets; left.Len() > 0 {
		t.Errorf("left: %v", slices.Sorted(left.Keys()))
	}
}

// A probe that is killed leaves its chain, and the set that this refers to, wherever it was probing. The next preflight must not take that for a kernel
// that cannot match sets, not in that place and not in another; what is left goes with the first plan.
func TestAProbeThatWasKilledDoesNotSpoilTheNext(t *testing.T) {
	for _, tt := range []struct{ killed, next backendTable }{
		{backendTable{NFT, securityTable}, backendTable{NFT, securityTable}},
		{backendTable{NFT, securityTable}, backendTable{NFT, mangleTable}},
		{backendTable{NFT, securityTable}, backendTable{Legacy, securityTable}},
		{backendTable{Legacy, mangleTable}, backendTable{NFT, securityTable}},
	} {
		killed, next := tt.killed, tt.next
		t.Run(killed.backend+" "+killed.table+", then "+next.backend+" "+next.table, func(t *testing.T) {
			enterNamespace(t)
			for f, program := range map[iptables.Family]string{iptables.IPv4: "iptables-", iptables.IPv6: "ip6tables-"} {
				run(t, "ipset", "create", probeSet(f), "hash:ip", "family", f.String())
				feed(t, chains(killed.table, map[string][]iptables.Rule{
					probeChain: {iptables.Rule("-m set --match-set " + probeSet(f) + " src -j RETURN")},
				}), program+killed.backend+"-restore", "--noflush", "-w")
			}
			d, err := New(t.Context(), Options{Backend: next.backend, Table: next.table})
			if err != nil {
				t.Fatal(err)
			}
			if c := d.Capabilities(); len(c.Families) != 2 {
				t.Errorf("only %v would be enforced: %v", c.Families, d.Findings())
			}
			plan := iptables.Diff(iptables.Ruleset{}, mustObserve(t, d))
			plan.Elsewhere = true
			mustApply(t, d, plan)
			for name, text := range everything(t) {
				if strings.Contains(text, iptables.Prefix) {
					t.Errorf("%s:\n%s", name, text)
				}
			}
		})
	}
}
