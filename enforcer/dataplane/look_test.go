package dataplane

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
)

// all are the capabilities of a node that lacks nothing.
var all = Capabilities{
	Families: both, Table: securityTable, SelfMatch: true, Log: true, OwnAddresses: true, CutLive: true, HoldCut: true, HopLimit: true,
	Guards: true,
}

// busyNode is a node that answers its first probes, or all if there is no number, by an error.
type busyNode struct {
	*node
	err   error
	times int
	asked int // how many probes there were
}

func (n *busyNode) answer(of func() error) error {
	n.asked++
	if n.times == 0 || n.asked <= n.times {
		return n.err
	}
	return of()
}

func (n *busyNode) setType(t iptables.SetType, f iptables.Family) error {
	return n.answer(func() error { return n.node.setType(t, f) })
}

func (n *busyNode) connections() error { return n.answer(n.node.connections) }

func (n *busyNode) rules(ctx context.Context, f iptables.Family, table string, rules ...string) error {
	return n.answer(func() error { return n.node.rules(ctx, f, table, rules...) })
}

// manyWordsForBusy are what the kernel and the programs say when the same may go well a moment later.
var manyWordsForBusy = map[string]error{
	"the lock":           ErrLocked,
	"the lock, wrapped":  &FamilyError{Family: iptables.IPv4, Op: "x", Err: fmt.Errorf("%w: %w", ErrLocked, context.DeadlineExceeded)},
	"EAGAIN":             fmt.Errorf("opening netlink: %w", unix.EAGAIN),
	"EBUSY":              unix.EBUSY,
	"ENOBUFS":            unix.ENOBUFS,
	"EINTR":              unix.EINTR,
	"ENOMEM":             unix.ENOMEM,
	"ETIMEDOUT":          unix.ETIMEDOUT,
	"a set in use":       &SetError{Set: "RF-PREFLIGHT-4", Op: "destroying it", Err: ErrSetInUse},
	"a program's EAGAIN": &ToolError{Tool: "iptables-restore", Stderr: "iptables-restore v1.8.9 (legacy): Resource temporarily unavailable.\n", Err: errors.New("exit status 4")},
	"a program's EBUSY":  &ToolError{Tool: "iptables-nft-restore", Stderr: "line 3: RULE_APPEND failed (Device or resource busy): rule in chain X", Err: errors.New("exit status 4")},
	"a program's words": &ToolError{Tool: "iptables-restore", Stderr: "Another app is currently holding the xtables lock; still 1s 0us time ahead", Err: errors.New(
		"exit status 4")},
	"a program that was killed": &ToolError{Tool: "iptables-restore", Err: fmt.Errorf("it has not ended: %w", context.DeadlineExceeded)},
}

func TestWhatIsBusyIsNotMissing(t *testing.T) {
	for name, err := range manyWordsForBusy {
		t.Run(name, func(t *testing.T) {
			n := &busyNode{node: wholeNode(), err: err, times: 4}
			got, findings, unsure := preflight(t.Context(), n, "")
			if diff := cmp.Diff(all, got); diff != "" || unsure {
				t.Errorf("capabilities, unsure %t (-want +got):\n%s", unsure, diff)
			}
			if diff := cmp.Diff([]string(nil), amiss(findings)); diff != "" {
				t.Errorf("findings that are not OK (-want +got):\n%s", diff)
			}
		})
	}
	for name, err := range map[string]error{
		"ENOENT": unix.ENOENT, "no such match": &ToolError{Stderr: "Couldn't load match `bpf':No such file or directory", Err: errors.New("exit status 2")},
		"refused": &ToolError{Stderr: "line 2: RULE_APPEND failed (Operation not supported): rule in chain X", Err: errors.New("exit status 4")},
		"nothing": nil,
	} {
		if isBusy(err) {
			t.Errorf("%s is taken for busy", name)
		}
	}
}

// While nobody can be asked, what a family needs is taken to be there: syncs will say. What is optional is left away.
func TestWhatStaysBusyIsNoVerdict(t *testing.T) {
	for name, err := range manyWordsForBusy {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
			defer cancel()
			n := &busyNode{node: wholeNode(), err: err}
			got, findings, unsure := preflight(ctx, n, "")
			if diff := cmp.Diff(Capabilities{Families: both, Table: securityTable, Guards: true}, got); diff != "" || !unsure {
				t.Errorf("capabilities, unsure %t (-want +got):\n%s", unsure, diff)
			}
			if n.asked > 10 {
				t.Errorf("probed %d times, after our patience had ended", n.asked)
			}
			if n.node.asked[mangleTable] {
				t.Error("the table mangle was looked at")
			}
			for _, f := range findings {
				if f.Severity == Fatal {
					t.Errorf("fatal: %s", f)
				}
			}
			if said := strings.Join(amiss(findings), "\n"); !strings.Contains(said, "it could not be asked, and will be again") {
				t.Errorf("the findings do not say why:\n%s", said)
			}
		})
	}
}

// states are looked at one after the other.
func looks(t *testing.T, first *state, p probes, n int) *state {
	t.Helper()
	for range n {
		first = first.next(t.Context(), p, "")
	}
	return first
}

func TestWhatWasBusyIsTakenUpByTheNextLook(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	n := wholeNode()
	first := inspect(ctx, &busyNode{node: n, err: ErrLocked}, "")
	if got := looks(t, first, n, 1); !cmp.Equal(all, got.capabilities) || len(amiss(got.findings())) > 0 {
		t.Errorf("capabilities %+v, findings %v", got.capabilities, amiss(got.findings()))
	}
	n.lacks = []string{"set of inet"}
	if got := looks(t, first, n, 1).capabilities.Families; !slices.Equal(got, both[1:]) {
		t.Errorf("what was taken to be there, and is not, is still among %v", got)
	}
}

func TestWhatComesIsTakenUpByALaterLook(t *testing.T) {
	for _, lacking := range []string{"set of inet", "bpf", "limit", "hl", "connections", "security", "hash:ip,port,ip", "iptables of inet6"} {
		t.Run(lacking, func(t *testing.T) {
			n := wholeNode(lacking)
			s := looks(t, inspect(t.Context(), n, ""), n, 50)
			if cmp.Equal(all, s.capabilities) {
				t.Fatal("nothing was missing")
			}
			n.lacks = nil
			s = looks(t, s, n, maxLooksBetween+1)
			if diff := cmp.Diff(all, s.capabilities); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if said := amiss(s.findings()); len(said) > 0 {
				t.Errorf("still said: %v", said)
			}
		})
	}
}

func TestWhatWasThereStays(t *testing.T) {
	n := wholeNode("bpf")
	s := inspect(t.Context(), n, "")
	n.lacks = []string{"security", "set of inet", "limit"}
	s = looks(t, s, n, maxLooksBetween)
	want := all
	want.SelfMatch = false
	if diff := cmp.Diff(want, s.capabilities); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A node that goes on lacking something is not asked about it all the time, and one that lacks nothing is not asked again at all.
func TestLooksAreCheap(t *testing.T) {
	for lacking, most := range map[string]int{"": 0, "bpf": 12} {
		n := &busyNode{node: wholeNode(lacking), times: -1}
		s := inspect(t.Context(), n, "")
		begun := n.asked
		looks(t, s, n, 120) // an hour, at every 30 s
		perPreflight := begun + len(iptables.Extensions)*len(both)
		if n.asked-begun > most*perPreflight {
			t.Errorf("lacking %q: %d probes in 120 looks", lacking, n.asked-begun)
		}
	}
}

func TestSettingsAreLookedAtAgain(t *testing.T) {
	n := wholeNode()
	n.bridged = []string{"cni0"}
	s := inspect(t.Context(), n, "")
	for _, step := range []struct {
		change func()
		name   string // of the finding that is there then
		unseen []iptables.Family
	}{
		{func() { n.sysctls["bridge/bridge-nf-call-iptables"] = "0" }, "bridge-nf-call-iptables", both[:1]},
		{func() { delete(n.sysctls, "bridge/bridge-nf-call-iptables") }, "bridge-nf-call-iptables", both[:1]},
		{func() { n.sysctls["bridge/bridge-nf-call-iptables"] = "1" }, "", nil},
		{func() { n.sysctls["bridge/bridge-nf-call-ip6tables"] = "0" }, "bridge-nf-call-ip6tables", both[1:]},
		{func() { n.bridged = nil }, "bridge-nf-call-ip6tables", nil},
		{func() { n.sysctls["bridge/bridge-nf-call-ip6tables"] = "1" }, "", nil},
		{func() { n.sysctls["ipv4/ip_forward"] = "0" }, "ip_forward", nil},
		{func() { n.sysctls["ipv4/ip_forward"] = "1" }, "", nil},
		{func() { n.virtual = "kube-proxy's link kube-ipvs0 is there" }, "IPVS", nil},
		{func() { n.virtual = "" }, "", nil},
	} {
		step.change()
		s = looks(t, s, n, 1)
		var names []string
		for _, f := range s.findings() {
			if !f.OK {
				names = append(names, f.Name)
				if f.Cost == "" || f.Remedy == "" || f.Detail == "" {
					t.Errorf("%+v says too little", f)
				}
			}
		}
		if got := strings.Join(names, ", "); got != step.name {
			t.Errorf("findings are %q, want %q", got, step.name)
		}
		if !slices.Equal(s.settings.unseen, step.unseen) {
			t.Errorf("%s: unseen are %v, want %v", step.name, s.settings.unseen, step.unseen)
		}
	}
}

// setSysctl sets one below /proc/sys of the network namespace of this thread.
func setSysctl(t *testing.T, name, value string) {
	t.Helper()
	if err := os.WriteFile("/proc/sys/"+name, []byte(value), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Of a node with a bridge and a routed pod, those addresses are named whose traffic has come to pass by our rules.
func TestALookSeesThatBridgedTrafficPassesByOurRules(t *testing.T) {
	enterNamespace(t)
	run(t, "ip", "link", "add", "br9", "type", "bridge")
	run(t, "ip", "link", "set", "br9", "up")
	run(t, "ip", "link", "set", "lo", "up")
	for i, port := range []string{"port9", "routed9"} {
		run(t, "ip", "link", "add", port, "type", "veth", "peer", "name", fmt.Sprintf("pod%d", i))
		run(t, "ip", "link", "set", port, "up")
	}
	run(t, "ip", "link", "set", "port9", "master", "br9")
	run(t, "ip", "addr", "add", "10.1.0.1/24", "dev", "br9")
	run(t, "ip", "addr", "add", "fd01::1/64", "dev", "br9", "nodad")
	run(t, "ip", "route", "add", "10.2.0.2/32", "dev", "routed9")
	setSysctl(t, "net/bridge/bridge-nf-call-iptables", "1")
	setSysctl(t, "net/bridge/bridge-nf-call-ip6tables", "1")
	d := newDataplane(t, NFT)
	addrs := []netip.Addr{netip.MustParseAddr("10.1.0.2"), netip.MustParseAddr("fd01::2"), netip.MustParseAddr("10.2.0.2")}
	nowhere := netip.MustParseAddr("192.0.2.1") // on a bridge on which the node has no address
	for _, step := range []struct {
		four, six string
		want      []netip.Addr
	}{
		{"1", "1", nil}, {"0", "1", addrs[:1]}, {"0", "0", addrs[:2]}, {"1", "0", addrs[1:2]}, {"1", "1", nil},
	} {
		setSysctl(t, "net/bridge/bridge-nf-call-iptables", step.four)
		setSysctl(t, "net/bridge/bridge-nf-call-ip6tables", step.six)
		d.Look(t.Context())
		got, err := d.Unseen(append(addrs, nowhere))
		if step.four == "0" {
			step.want = append(slices.Clone(step.want), nowhere)
		}
		if err != nil || !slices.Equal(got, step.want) {
			t.Errorf("IPv4 %s, IPv6 %s: unseen are %v, %v, want %v", step.four, step.six, got, err, step.want)
		}
		if said := strings.Contains(strings.Join(amiss(d.Findings()), "\n"), "bridge-nf-call-"); said != (step.want != nil) {
			t.Errorf("IPv4 %s, IPv6 %s: findings are %v", step.four, step.six, amiss(d.Findings()))
		}
	}
}

func TestIPVSIsFound(t *testing.T) {
	enterNamespace(t)
	d := newDataplane(t, NFT)
	named := func() bool {
		return slices.ContainsFunc(d.Findings(), func(f Finding) bool { return f.Name == "IPVS" && !f.OK && f.Severity == Degraded })
	}
	if named() {
		t.Errorf("found where there is none: %v", amiss(d.Findings()))
	}
	run(t, "ip", "link", "add", ipvsLink, "type", "bridge")
	d.Look(t.Context())
	if !named() {
		t.Errorf("not found: %v", amiss(d.Findings()))
	}
	run(t, "ip", "link", "del", ipvsLink)
	d.Look(t.Context())
	if named() {
		t.Errorf("found after it has gone: %v", amiss(d.Findings()))
	}
}

// What the kernel shows of IPVS, as net/netfilter/ipvs/ip_vs_ctl.c prints it.
func TestVirtualServicesAreCounted(t *testing.T) {
	const none = "IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n  -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n"
	const three = none +
		"TCP  0A600001:01BB rr  \n  -> AC120002:192B      Masq    1      0          0         \n" +
		"UDP  0A60000A:0035 rr  \n  -> 0AF40003:0035      Masq    1      0          0         \n" +
		"FWM  00000001 wlc  \n"
	for text, want := range map[string]int{"": 0, none: 0, three: 3} {
		if got := ipvsServices(text); got != want {
			t.Errorf("%d virtual services, want %d, in:\n%s", got, want, text)
		}
	}
}

// Another program may have made a base chain of our table's at a priority of its own: iptables takes it for none, and no jump can stand there.
func TestATableWhoseBaseChainIsAnothersIsNotChosen(t *testing.T) {
	enterNamespace(t)
	run(t, "nft", "add table ip security; add chain ip security FORWARD { type filter hook forward priority 7; }")
	d := newDataplane(t, NFT)
	if got := d.Capabilities(); got.Table != mangleTable || len(got.Families) != 2 {
		t.Errorf("chose %s for %v, want mangle for both", got.Table, got.Families)
	}
	if said := strings.Join(amiss(d.Findings()), "\n"); !strings.Contains(said, "table security is missing or off (degraded): inet: ") {
		t.Errorf("the findings do not say it:\n%s", said)
	}
	mustApply(t, d, fullPlan(t, mangleTable))
	if text := run(t, "nft", "list", "table", "ip", "security"); strings.Contains(text, "RF-") {
		t.Errorf("left in security:\n%s", text)
	}
}

// The preflight under a lock that somebody holds for longer than we wait: both families are enforced as soon as it is free.
func TestAPreflightUnderAHeldLock(t *testing.T) {
	enterNamespace(t)
	lock := t.TempDir() + "/lock"
	t.Setenv("XTABLES_LOCKFILE", lock)
	release := holdLock(t, lock)
	free, err := findTools(Legacy, Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	d := &Dataplane{tools: free}
	d.state.Store(inspect(ctx, &kernelProbes{tools: free}, ""))
	if got := d.Capabilities(); len(got.Families) != 2 || got.Table != securityTable || got.SelfMatch {
		t.Errorf("while it is held: %+v, %v", got, amiss(d.Findings()))
	}
	release()
	d.Look(t.Context())
	if diff := cmp.Diff(all, d.Capabilities()); diff != "" {
		t.Errorf("when it is free (-want +got):\n%s", diff)
	}
	mustApply(t, d, fullPlan(t, securityTable))
}
