package dataplane

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// endOf has these addresses, or any.
func endOf(addrs ...string) (e policy.End) {
	for _, a := range addrs {
		if a == "any" {
			return policy.End{Any: true}
		}
		e.Addrs = append(e.Addrs, netip.MustParseAddr(a))
	}
	return e
}

func between(all ...policy.End) (a policy.Affected) {
	for i := 0; i < len(all); i += 2 {
		a.Between = append(a.Between, policy.Between{Sources: all[i], Destinations: all[i+1]})
	}
	return a
}

func (w walk) String() string {
	switch {
	case w.addr.IsValid() && w.side == bySource:
		return "from " + w.addr.String()
	case w.addr.IsValid():
		return "to " + w.addr.String()
	}
	return fmt.Sprint("all of family ", uint8(w.family))
}

func TestConnectionsAreShownByTheWalksThatTakeLeast(t *testing.T) {
	four := func(f iptables.Family, _ side) bool { return f == iptables.IPv4 }
	both := func(iptables.Family, side) bool { return true }
	sourcesOnly := func(_ iptables.Family, s side) bool { return s == bySource }
	seven := endOf("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.7")
	for _, c := range []struct {
		name     string
		affected policy.Affected
		filters  func(iptables.Family, side) bool
		tracked  [2]int
		want     string
	}{
		{"everything", policy.Affected{All: true}, both, [2]int{500_000, 0}, "all of family 0"},
		{"one address at either end", between(endOf("10.0.0.1"), endOf("any"), endOf("any"), endOf("10.0.0.1")), four, [2]int{500_000, 0},
			"from 10.0.0.1, to 10.0.0.1"},
		{"the end with fewer", between(seven, endOf("10.1.0.1")), four, [2]int{500_000, 0}, "to 10.1.0.1"},
		{"an address that is shown already", between(endOf("10.0.0.1"), endOf("any"), endOf("10.0.0.1", "10.0.0.2"), endOf("10.1.0.1")), four,
			[2]int{500_000, 0}, "from 10.0.0.1, from 10.0.0.2"},
		{"many addresses", between(seven, endOf("any")), four, [2]int{500_000, 0}, "all of family 0"},
		{"few connections", between(endOf("10.0.0.1", "10.0.0.2"), endOf("any")), four, [2]int{1000, 0}, "all of family 0"},
		{"nobody knows how many", between(endOf("10.0.0.1"), endOf("any")), four, [2]int{}, "from 10.0.0.1"},
		{"the kernel filters by sources alone", between(seven, endOf("10.1.0.1"), endOf("10.0.0.1"), endOf("any")), sourcesOnly, [2]int{500_000, 0},
			"all of family 0"},
		{"one source of many destinations, by sources alone", between(endOf("10.0.0.1"), endOf("10.1.0.1")), sourcesOnly, [2]int{500_000, 0}, "from 10.0.0.1"},
		{"IPv6, which it does not filter", between(endOf("fd00::1"), endOf("any")), four, [2]int{500_000, 1000}, "all of family 6"},
		{"mostly IPv6", between(endOf("fd00::1"), endOf("any")), four, [2]int{1000, 500_000}, "all of family 0"},
		{"IPv6, which it does", between(endOf("fd00::1"), endOf("any")), both, [2]int{1000, 500_000}, "from fd00::1"},
		{"both families", between(endOf("10.0.0.1", "fd00::1"), endOf("any")), four, [2]int{500_000, 1000}, "from 10.0.0.1, all of family 6"},
		{"ends of different families", between(endOf("10.0.0.1"), endOf("fd00::1")), both, [2]int{500_000, 1000}, ""},
		{"none", policy.Affected{}, both, [2]int{500_000, 0}, ""},
	} {
		var got []string
		tracked := map[iptables.Family]int{iptables.IPv4: c.tracked[0], iptables.IPv6: c.tracked[1]}
		for _, w := range walks(c.affected, iptables.Families[:], tracked, c.filters) {
			got = append(got, w.String())
		}
		if text := strings.Join(got, ", "); text != c.want {
			t.Errorf("%s: %s, want %s", c.name, text, c.want)
		}
	}
}

// TestWalksShowEachAffectedConnection: whatever the kernel filters by.
func TestWalksShowEachAffectedConnection(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	addr := func() netip.Addr {
		if random.IntN(2) == 0 {
			return netip.AddrFrom4([4]byte{10, 0, 0, byte(random.IntN(6))})
		}
		return netip.AddrFrom16([16]byte{0xfd, 15: byte(random.IntN(6))})
	}
	end := func() (e policy.End) {
		for range random.IntN(4) {
			e.Addrs = append(e.Addrs, addr())
		}
		slices.SortFunc(e.Addrs, netip.Addr.Compare)
		e.Addrs = slices.Compact(e.Addrs)
		if len(e.Addrs) == 0 {
			e.Any = random.IntN(2) == 0
		}
		return e
	}
	narrow := 0
	for range 20_000 {
		var a policy.Affected
		for range random.IntN(4) {
			a.Between = append(a.Between, policy.Between{Sources: end(), Destinations: end()})
		}
		can := map[iptables.Family][2]bool{}
		for _, f := range iptables.Families {
			can[f] = [2]bool{random.IntN(3) > 0, random.IntN(3) > 0}
		}
		tracked := map[iptables.Family]int{iptables.IPv4: random.IntN(1_000_000), iptables.IPv6: random.IntN(1_000_000)}
		chosen := walks(a, iptables.Families[:], tracked, func(f iptables.Family, s side) bool { return can[f][s] })
		for range 40 {
			src, dst := addr(), addr()
			if src.Is4() != dst.Is4() {
				continue
			}
			shown := slices.ContainsFunc(chosen, func(w walk) bool {
				switch {
				case w.family != 0 && w.family != iptables.FamilyOf(src):
					return false
				case !w.addr.IsValid():
					return true
				case !can[w.family][w.side]:
					t.Fatalf("%s: the kernel does not filter so", w)
				}
				return w.addr == [...]netip.Addr{bySource: src, byDestination: dst}[w.side]
			})
			if a.Has(src, dst) && !shown {
				t.Fatalf("%+v: %s to %s is not shown by %v", a, src, dst, chosen)
			}
			if !shown {
				narrow++
			}
		}
	}
	if narrow < 10_000 {
		t.Errorf("%d connections are not shown: nothing is left out", narrow)
	}
}

// shownBy are the tuples of the connections that the kernel shows, without those of other zones.
func shownBy(t *testing.T, d *Dataplane, a policy.Affected) (all []policy.Connection) {
	t.Helper()
	if err := d.Connections(t.Context(), a, func(c policy.Connection) { all = append(all, c) }); err != nil {
		t.Fatal(err)
	}
	return all
}

// TestAffectedConnectionsAreShown: the kernel shows each, by whichever end it is asked, translated or not, and of IPv4 no others.
func TestAffectedConnectionsAreShown(t *testing.T) {
	enterNamespace(t)
	d := newDataplane(t, NFT)
	track(t, trackedEntries...)
	var many []string
	for i := range 600 { // far more than one message, and so many that a walk takes less than showing them
		many = append(many, fmt.Sprintf("-p tcp -s 10.9.%d.%d -d 10.9.100.1 --sport 40000 --dport 80 --state ESTABLISHED -t 5000", i/250, i%250+1))
	}
	trackAll(t, many...)
	all := shownBy(t, d, policy.Affected{All: true})
	if want := len(trackedEntries) + len(many); len(all) != want {
		t.Fatalf("%d are shown, want %d", len(all), want)
	}
	addrs := map[netip.Addr]bool{netip.MustParseAddr("10.0.0.77"): true}
	for _, c := range all {
		if src, dst := c.Ends(); src.As16()[14] == 0 {
			addrs[src], addrs[dst] = true, true
		}
	}
	for a := range addrs {
		of, rest := endOf(a.String()), endOf("any")
		for name, affected := range map[string]policy.Affected{"from": between(of, rest), "to": between(rest, of)} {
			want, got := map[string]int{}, map[string]int{}
			for _, c := range all {
				if affected.Has(c.Ends()) {
					want[text(c)]++
				}
			}
			shown := shownBy(t, d, affected)
			for _, c := range shown {
				if affected.Has(c.Ends()) {
					got[text(c)]++
				} else if a.Is4() && d.filters.can(iptables.IPv4, bySource) && d.filters.can(iptables.IPv4, byDestination) {
					t.Errorf("%s %s: %s is shown too", name, a, text(c))
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s %s (-want +got):\n%s", name, a, diff)
			}
		}
	}
}

func trackAll(t *testing.T, lines ...string) {
	t.Helper()
	command := exec.Command("conntrack", "--load-file", "-")
	for i := range lines {
		lines[i] = "-I " + lines[i]
	}
	command.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("conntrack -I of %d: %v: %s", len(lines), err, out)
	}
}

// TestFiltersAreTriedOnTheKernel: what a kernel of today filters by, and that the entry which it was tried on is gone.
func TestFiltersAreTriedOnTheKernel(t *testing.T) {
	enterNamespace(t)
	d := newDataplane(t, NFT)
	track(t, trackedEntries...)
	for _, f := range iptables.Families {
		found, err := tryFilters(d.exchange, f)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("family %d: by source %t, by destination %t", f, found[bySource], found[byDestination])
		if f == iptables.IPv4 && !found[bySource] {
			t.Error("Linux filters by IPv4 sources since 5.8, and this one is said not to")
		}
	}
	if left := shownBy(t, d, policy.Affected{All: true}); len(left) != len(trackedEntries) {
		t.Errorf("%d entries are there, want %d", len(left), len(trackedEntries))
	}
}

// kernels that filter otherwise than they are asked to, by what they show of all that there is.
var kernels = map[string]func(asked netip.Addr, s side, c policy.Connection) bool{
	"shows everything": func(netip.Addr, side, policy.Connection) bool { return true },
	"shows nothing":    func(netip.Addr, side, policy.Connection) bool { return false },
	"shows the others": func(asked netip.Addr, s side, c policy.Connection) bool {
		src, dst := c.Ends()
		return asked != [...]netip.Addr{bySource: src, byDestination: dst}[s]
	},
}

// TestAKernelThatFiltersOtherwiseIsNotBelieved: and each affected connection is shown all the same.
func TestAKernelThatFiltersOtherwiseIsNotBelieved(t *testing.T) {
	enterNamespace(t)
	for name, shows := range kernels {
		d := newDataplane(t, NFT)
		d.exchange = pretending(t, shows)
		track(t, "-p tcp -s 10.0.0.1 -d 10.0.0.2 --sport 40000 --dport 80 --state ESTABLISHED -t 5000 -u SEEN_REPLY,ASSURED")
		for _, affected := range []policy.Affected{{All: true}, between(endOf("10.0.0.1"), endOf("any")), between(endOf("any"), endOf("10.0.0.2"))} {
			if got := tupleTexts(shownBy(t, d, affected)); len(got) != 1 {
				t.Errorf("a kernel that %s: %v", name, got)
			}
		}
		if got := d.filters.tried[iptables.IPv4]; len(got) != 2 || slices.Contains(slices.Collect(maps.Values(got)), true) {
			t.Errorf("a kernel that %s is said to filter: %v", name, got)
		}
		if out, err := exec.Command("conntrack", "-F").CombinedOutput(); err != nil {
			t.Fatalf("conntrack -F: %v: %s", err, out)
		}
	}
}

// pretending answers a filtered dump by another filter.
func pretending(t *testing.T, shows func(netip.Addr, side, policy.Connection) bool) exchange {
	return func(r *nl.NetlinkRequest, visit func([]byte) bool) error {
		asked, s, filtered := filterOf(t, r)
		if !filtered {
			return askKernel(r, visit)
		}
		c, err := openTracking(askKernel)
		if err != nil {
			return err
		}
		defer c.close()
		return askKernel(c.request(nl.IPCTNL_MSG_CT_GET, unix.NLM_F_DUMP, unix.AF_INET), func(raw []byte) bool {
			one, err := connectionOf(raw)
			return err == nil && (!shows(asked, s, one) || visit(raw))
		})
	}
}

// filterOf reads which address a dump is asked for.
func filterOf(t *testing.T, r *nl.NetlinkRequest) (asked netip.Addr, s side, filtered bool) {
	t.Helper()
	raw := r.Serialize()[unix.SizeofNlMsghdr+nl.SizeofNfgenmsg:]
	if flags, err := find(attrFilter, raw); err != nil || flags == nil {
		return asked, s, false
	}
	s = bySource
	tuple, err := find(nl.CTA_TUPLE_ORIG, raw)
	if tuple == nil {
		s = byDestination
		tuple, err = find(nl.CTA_TUPLE_REPLY, raw)
	}
	var read policy.Tuple
	var zone uint16
	if err != nil || readTuple(tuple, &read, &zone) != nil {
		t.Fatalf("a filter that cannot be read: %v", err)
	}
	return read.Src, s, true
}

// TestRelatedConnectionsAreShown: those that belong to another, and since Linux 5.15 no others.
func TestRelatedConnectionsAreShown(t *testing.T) {
	enterNamespace(t)
	d := newDataplane(t, NFT)
	track(t, trackedEntries...)
	c, err := openTracking(askKernel)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	master := connections(t, d)[3].Original
	data := policy.Tuple{Protocol: policy.TCP, Src: master.Src, Dst: master.Dst, SrcPort: 40020, DstPort: 20000}
	r := c.request(nl.IPCTNL_MSG_CT_NEW, unix.NLM_F_CREATE|unix.NLM_F_ACK, unix.AF_INET)
	replies := policy.Tuple{Protocol: policy.TCP, Src: data.Dst, Dst: data.Src, SrcPort: data.DstPort, DstPort: data.SrcPort}
	for kind, tuple := range map[int]policy.Tuple{nl.CTA_TUPLE_ORIG: data, nl.CTA_TUPLE_REPLY: replies, attrTupleMaster: master} {
		r.AddData(tupleAttr(kind, tuple))
	}
	r.AddData(uint32Attr(nl.CTA_TIMEOUT, 1000))
	if _, err := r.Execute(unix.NETLINK_NETFILTER, 0); err != nil {
		t.Fatal(err)
	}
	var shown []policy.Connection
	if err := d.Related(t.Context(), func(c policy.Connection) { shown = append(shown, c) }); err != nil {
		t.Fatal(err)
	}
	if len(shown) != 1 || shown[0].Original != data || shown[0].Master != master {
		t.Errorf("%v are shown, want %s of %s", tupleTexts(shown), data, master)
	}
}
