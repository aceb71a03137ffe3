package dataplane

import (
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// track has the kernel track connections, one for each line of arguments of conntrack -I.
func track(t *testing.T, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if out, err := exec.Command("conntrack", append([]string{"-I"}, strings.Fields(line)...)...).CombinedOutput(); err != nil {
			t.Fatalf("conntrack -I %s: %v: %s", line, err, out)
		}
	}
}

func connections(t *testing.T, d *Dataplane) (all []policy.Connection) {
	t.Helper()
	if err := d.Connections(t.Context(), policy.Affected{All: true}, func(c policy.Connection) { all = append(all, c) }); err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(all, func(a, b policy.Connection) int { return strings.Compare(text(a), text(b)) })
	return all
}

func text(c policy.Connection) string {
	icmp := ""
	if c.Original.ICMPType != 0 {
		icmp = fmt.Sprintf(" type %d id %d", c.Original.ICMPType, c.Original.ICMPID)
	}
	return fmt.Sprintf("%s, %s%s, zone %d", c.Original, c.Reply, icmp, c.Zone)
}

func tupleTexts(all []policy.Connection) (lines []string) {
	for _, c := range all {
		lines = append(lines, text(c))
	}
	return lines
}

// trackedEntries are connections of every protocol, in both families, with and without address translation.
var trackedEntries = []string{
	"-p tcp -s 10.0.0.1 -d 10.0.0.2 --sport 40000 --dport 80 --state ESTABLISHED -t 5000 -u SEEN_REPLY,ASSURED",
	"-p udp -s 10.0.0.1 -d 10.96.0.1 --sport 40001 --dport 53 -r 10.0.0.3 -q 172.18.0.1 --reply-port-src 5353 --reply-port-dst 61000 -t 1000 -u SEEN_REPLY",
	"-p sctp -s 10.0.0.1 -d 10.0.0.2 --sport 40002 --dport 80 --state ESTABLISHED --orig-vtag 1 --reply-vtag 2 -t 1000",
	"-p icmp -s 10.0.0.1 -d 10.0.0.2 --icmp-type 8 --icmp-code 0 --icmp-id 7 -t 1000",
	"-p icmpv6 -s fd00::1 -d fd00::2 --icmpv6-type 128 --icmpv6-code 0 --icmpv6-id 7 -t 1000",
	"-p tcp -s fd00::1 -d fd00::2 --sport 40000 --dport 80 --state ESTABLISHED -t 5000 -u SEEN_REPLY,ASSURED",
	"-p tcp -s 10.0.0.1 -d 10.0.0.2 --sport 40000 --dport 80 --state ESTABLISHED -t 5000 -w 5",
}

func TestLiveConnectionsAreReadAndCut(t *testing.T) {
	enterNamespace(t)
	d := newDataplane(t, NFT)
	entries := slices.Clone(trackedEntries)
	entries[5] = strings.Replace(entries[5], "-t 5000", "-t 5", 1) // which is about to be forgotten
	track(t, entries...)
	all := connections(t, d)
	if diff := cmp.Diff([]string{
		"icmp 10.0.0.1 -> 10.0.0.2, icmp 10.0.0.2 -> 10.0.0.1 type 8 id 7, zone 0",
		"ipv6-icmp fd00::1 -> fd00::2, ipv6-icmp fd00::2 -> fd00::1 type 128 id 7, zone 0",
		"sctp 10.0.0.1:40002 -> 10.0.0.2:80, sctp 10.0.0.2:80 -> 10.0.0.1:40002, zone 0",
		"tcp 10.0.0.1:40000 -> 10.0.0.2:80, tcp 10.0.0.2:80 -> 10.0.0.1:40000, zone 0",
		"tcp 10.0.0.1:40000 -> 10.0.0.2:80, tcp 10.0.0.2:80 -> 10.0.0.1:40000, zone 5",
		"tcp [fd00::1]:40000 -> [fd00::2]:80, tcp [fd00::2]:80 -> [fd00::1]:40000, zone 0",
		"udp 10.0.0.1:40001 -> 10.96.0.1:53, udp 10.0.0.3:5353 -> 172.18.0.1:61000, zone 0",
	}, tupleTexts(all)); diff != "" {
		t.Fatalf("live connections (-want +got):\n%s", diff)
	}
	for _, c := range all {
		if c.ID == 0 || c.Left <= 0 || c.Left > 5000*time.Second {
			t.Errorf("%s has the ID %d and %s left", text(c), c.ID, c.Left)
		}
		if c.SYN {
			t.Errorf("%s: nobody has seen a SYN", text(c))
		}
	}

	mustApply(t, d, iptables.Plan{CreateSets: cutSets()})
	ours := slices.DeleteFunc(slices.Clone(all), func(c policy.Connection) bool { return c.Zone != 0 })
	others := ours[0]
	others.ID++ // one that has taken its place
	if n, err := d.Cut(t.Context(), []policy.Connection{others}, true); n != 0 || err != nil {
		t.Errorf("cut %d, and %v, where another connection has the same tuple", n, err)
	}
	if n, err := d.Cut(t.Context(), ours, true); n != len(ours) || err != nil {
		t.Errorf("cut %d of %d: %v", n, len(ours), err)
	}
	if diff := cmp.Diff([]string{"tcp 10.0.0.1:40000 -> 10.0.0.2:80, tcp 10.0.0.2:80 -> 10.0.0.1:40000, zone 5"}, tupleTexts(connections(t, d))); diff != "" {
		t.Errorf("what is left (-want +got):\n%s", diff)
	}
	if n, err := d.Cut(t.Context(), ours, true); n != 0 || err != nil {
		t.Errorf("cut %d that were gone: %v", n, err)
	}

	// What comes back of each is held off, for as long as the connection would have been remembered and for ten seconds at least.
	held := heldEntries(t)
	for want, least := range map[string]int{
		"10.0.0.1,tcp:40000,10.0.0.2": 4900, "172.18.0.1,udp:61000,10.0.0.3": 890, "10.0.0.1,sctp:40002,10.0.0.2": 890, "fd00::1,tcp:40000,fd00::2": 5,
	} {
		if held[want] < least || held[want] > least+120 {
			t.Errorf("%s is held for %d s, want about %d", want, held[want], least)
		}
	}
	if len(held) != 4 {
		t.Errorf("held are %v", held)
	}

	// Unless that is not asked for.
	track(t, "-p tcp -s 10.0.0.1 -d 10.0.0.2 --sport 40009 --dport 80 --state ESTABLISHED -t 5000 -u SEEN_REPLY,ASSURED")
	forgotten := slices.DeleteFunc(connections(t, d), func(c policy.Connection) bool { return c.Original.SrcPort != 40009 })
	if n, err := d.Cut(t.Context(), forgotten, false); n != 1 || err != nil {
		t.Errorf("cut %d of one that is not held off: %v", n, err)
	}
	if held := heldEntries(t); len(held) != 4 {
		t.Errorf("held are %v", held)
	}

	// They are no part of the ruleset.
	want := iptables.Ruleset{Sets: policy.MapOf(map[string]iptables.Set{})}
	for _, s := range cutSets() {
		want.Sets = want.Sets.With(s.Name, s)
	}
	if p := iptables.Diff(want, mustObserve(t, d)); !p.Empty() {
		t.Errorf("they differ from what is wanted:\n%s", p)
	}
	if err := d.Cleanup(t.Context()); err != nil {
		t.Fatal(err)
	}
	if sets := mustObserve(t, d).Sets; sets.Len() > 0 {
		t.Errorf("the cleanup has left %v", sets)
	}
}

func cutSets() (sets []iptables.Set) {
	for _, f := range iptables.Families {
		sets = append(sets, iptables.Set{Name: iptables.CutSet(f), Type: iptables.HashIPPortIP, Family: f})
	}
	return sets
}

// heldEntries are what the sets of connections that were cut hold, with the seconds that each has left.
func heldEntries(t *testing.T) map[string]int {
	t.Helper()
	out, err := exec.Command("ipset", "save").CombinedOutput()
	if err != nil {
		t.Fatalf("ipset save: %v: %s", err, out)
	}
	held := map[string]int{}
	for line := range strings.Lines(string(out)) {
		var set, entry string
		var left int
		if n, _ := fmt.Sscanf(line, "add %s %s timeout %d", &set, &entry, &left); n == 3 {
			held[entry] = left
		}
	}
	return held
}

func TestTheNodesOwnAddresses(t *testing.T) {
	enterNamespace(t)
	d := newDataplane(t, NFT)
	for _, args := range []string{"link set lo up", "addr add 172.18.0.1/24 dev lo", "addr add fd00::1/64 dev lo"} {
		if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", args, err, out)
		}
	}
	got, err := d.Addresses(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"127.0.0.1", "::1", "172.18.0.1", "fd00::1"} {
		if !slices.Contains(got, netip.MustParseAddr(want)) {
			t.Errorf("%s is not among %v", want, got)
		}
	}
}

func TestListingConnectionsEndsWithItsContext(t *testing.T) {
	enterNamespace(t)
	d := newDataplane(t, NFT)
	track(t, trackedEntries...)
	ctx, cancel := context.WithCancel(t.Context())
	seen := 0
	if err := d.Connections(ctx, policy.Affected{All: true}, func(policy.Connection) { seen++; cancel() }); err == nil || seen != 1 {
		t.Errorf("%d connections were shown after the end: %v", seen, err)
	}
}

// TestMalformedConnectionsAreRefused: what the kernel would never send ends in an error, not in a panic.
func TestMalformedConnectionsAreRefused(t *testing.T) {
	for name, raw := range map[string][]byte{
		"empty":                        {},
		"a header alone":               make([]byte, 4),
		"half an attribute":            {0, 0, 0, 0, 8, 0},
		"longer than the message":      {0, 0, 0, 0, 200, 0, 1, 0},
		"shorter than itself":          {0, 0, 0, 0, 2, 0, 1, 0},
		"a tuple with half an address": {0, 0, 0, 0, 12, 0, 1, 0x80, 8, 0, 1, 0x80, 200, 0, 1, 0},
	} {
		if c, err := connectionOf(raw); err == nil {
			t.Errorf("%s: read as %v", name, c)
		}
	}
}

// However long connection tracking remembers a connection, what is held off of it comes free in the end: of TCP, whose SYN is not held off, after a day.
func TestWhatIsHeldOffComesFree(t *testing.T) {
	enterNamespace(t)
	d := newDataplane(t, NFT)
	track(t,
		"-p tcp -s 10.0.0.1 -d 10.0.0.2 --sport 40000 --dport 80 --state ESTABLISHED -t 432000 -u SEEN_REPLY,ASSURED",
		"-p udp -s 10.0.0.1 -d 10.0.0.2 --sport 40001 --dport 53 -t 432000 -u SEEN_REPLY,ASSURED",
		"-p sctp -s 10.0.0.1 -d 10.0.0.2 --sport 40002 --dport 80 --state ESTABLISHED --orig-vtag 1 --reply-vtag 2 -t 432000",
	)
	mustApply(t, d, iptables.Plan{CreateSets: cutSets()})
	if n, err := d.Cut(t.Context(), connections(t, d), true); n != 3 || err != nil {
		t.Fatalf("cut %d: %v", n, err)
	}
	held := heldEntries(t)
	for entry, most := range map[string]int{
		"10.0.0.1,tcp:40000,10.0.0.2": 86400, "10.0.0.1,udp:40001,10.0.0.2": 900, "10.0.0.1,sctp:40002,10.0.0.2": 900,
	} {
		if held[entry] > most || held[entry] < most-60 {
			t.Errorf("%s is held off for %d s, want %d", entry, held[entry], most)
		}
	}
}
