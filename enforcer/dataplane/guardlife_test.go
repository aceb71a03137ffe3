package dataplane

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/lab/host"
	"github.com/ringfence-io/ringfence/lab/probe"
	"github.com/ringfence-io/ringfence/test/kit"
)

// enforce makes what the kernel holds what is wanted.
func enforce(t *testing.T, d *Dataplane, want iptables.Ruleset) {
	t.Helper()
	mustApply(t, d, iptables.Diff(want, mustObserve(t, d)))
	if diff := cmp.Diff("", iptables.Diff(want, mustObserve(t, d)).String()); diff != "" {
		t.Fatalf("the kernel holds something else (-want +got):\n%s", diff)
	}
}

// from is a frame of the pod's with a source and a marker, to another host.
func (j *judged) from(src string, marker []byte) probe.Frame {
	a := netip.MustParseAddr(src)
	dst := netip.MustParseAddr("10.0.0.9")
	if a.Is6() {
		dst = netip.MustParseAddr("fd00::9")
	}
	return j.frame(probe.UDP(netip.AddrPortFrom(a, 1), netip.AddrPortFrom(dst, 2), marker))
}

// passes reports whether a packet from a source passes. Behind it goes one whose source does for certain.
func (j *judged) passes(src, certain string) bool {
	j.t.Helper()
	j.behind.Forget()
	first, last := j.from(src, j.marker()), j.from(certain, j.marker())
	for _, f := range []probe.Frame{first, last} {
		if err := j.pod.Send(f); err != nil {
			j.t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(j.t.Context(), 20*time.Second)
	defer cancel()
	if err := j.behind.Wait(ctx, last.Payload); err != nil {
		j.t.Fatalf("a packet from %s does not pass: %v", certain, err)
	}
	return len(j.behind.Carrying(first.Payload)) > 0
}

func (j *judged) link(addrs ...string) policy.Link {
	return policy.Link{Name: judgedLink, Index: j.index, Namespace: "ns", Pod: "a", Addrs: kit.Addrs(addrs...)}
}

// TestGuardsOutliveTheProcess: what one process has written holds without it, and the next takes it over as it is.
func TestGuardsOutliveTheProcess(t *testing.T) {
	j := newJudged(t, 1)
	want := linkNode(j.link("10.0.0.1"))
	enforce(t, newDataplane(t, NFT), want)
	if j.passes("10.0.0.2", "10.0.0.1") {
		t.Error("another source passes")
	}
	for _, backend := range []string{NFT, Legacy} { // whatever back end iptables has
		next := newDataplane(t, backend)
		found := mustObserve(t, next)
		if diff := cmp.Diff(want.Guards[judgedLink].Digest, found.Guards[judgedLink].Digest); diff != "" {
			t.Errorf("the next process, with %s, would write the guard anew:\n%s", backend, diff)
		}
		for _, l := range mustLinks(t, next).Links {
			if l.Guarded != (l.Name == judgedLink) {
				t.Errorf("the next process sees that a pod has had the link %s: %t", l.Name, l.Guarded)
			}
		}
		if j.passes("10.0.0.2", "10.0.0.1") {
			t.Error("another source passes")
		}
	}
}

// TestGuardsChangeWithoutAGap: while guards are written anew, and by one process after the other, not one packet from another source passes, and none from the
// pod's own is lost.
func TestGuardsChangeWithoutAGap(t *testing.T) {
	j := newJudged(t, 1)
	d := newDataplane(t, NFT)
	enforce(t, d, linkNode(j.link("10.0.0.1")))
	j.behind.Forget()
	const rounds, perRound = 20, 100
	own, foreign := []byte("its own packet"), []byte("another's packet")
	sending, stop := context.WithCancel(t.Context())
	sent := make(chan int, 1)
	failed := make(chan error, 1)
	go func() {
		n := 0
		for ; sending.Err() == nil || n < rounds*perRound; n++ {
			if err := errors.Join(j.pod.Send(j.from("10.0.0.2", foreign)), j.pod.Send(j.from("10.0.0.1", binary.BigEndian.AppendUint32(own, uint32(n))))); err != nil {
				failed <- err
				break
			}
			if n%100 == 0 {
				j.behind.Carrying(nil) // so that no buffer flows over
			}
		}
		sent <- n
	}()
	for i := range rounds {
		link := j.link("10.0.0.1", fmt.Sprintf("10.0.1.%d", i))
		if i%5 == 4 {
			d = newDataplane(t, NFT)
		}
		if i%3 == 2 {
			link.Pod = "b"
		}
		mustApply(t, d, iptables.Diff(linkNode(link), mustObserve(t, d)))
	}
	stop()
	n := <-sent
	select {
	case err := <-failed:
		t.Fatal(err)
	default:
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := j.behind.Wait(ctx, binary.BigEndian.AppendUint32(own, uint32(n-1))); err != nil {
		t.Fatal(err)
	}
	if got := len(j.behind.Carrying(own)); got != n {
		t.Errorf("%d of %d packets from the pod's own address have passed", got, n)
	}
	if got := len(j.behind.Carrying(foreign)); got != 0 {
		t.Errorf("%d of %d packets from another address have passed", got, n)
	}
}

// TestALinkMadeAnewIsHeld: under the same name, as some plugins do; the kernel may have kept the chain of the one before.
func TestALinkMadeAnewIsHeld(t *testing.T) {
	j := newJudged(t, 1)
	d := newDataplane(t, NFT)
	enforce(t, d, linkNode(j.link("10.0.0.1")))
	run(t, "ip", "link", "del", judgedLink)
	pod, err := host.New(host.RunPrefix(hostPrefix) + "again")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pod.Close() })
	wire(t, judgedLink, pod, "eth0")
	run(t, "ip", "link", "set", judgedLink, "master", "br0")
	if j.mac, err = pod.HardwareAddr("eth0"); err != nil {
		t.Fatal(err)
	}
	if err := pod.Do(func() (err error) { j.pod, err = probe.OpenLink("eth0"); return err }); err != nil {
		t.Fatal(err)
	}
	i, err := net.InterfaceByName(judgedLink)
	if err != nil {
		t.Fatal(err)
	}
	j.index = i.Index
	enforce(t, d, linkNode(j.link("10.0.0.3")))
	for src, want := range map[string]bool{"10.0.0.1": false, "10.0.0.2": false, "10.0.0.3": true} {
		if got := j.passes(src, "10.0.0.3"); got != want {
			t.Errorf("a packet from %s passes: %t, want %t", src, got, want)
		}
	}
}

// TestALinkThatVanishesHoldsUpNobody: between the plan and its application links go, are made anew as others, and are there: those hold.
func TestALinkThatVanishesHoldsUpNobody(t *testing.T) {
	j := newJudged(t, 1)
	d := newDataplane(t, NFT)
	links := []policy.Link{j.link("10.0.0.1")}
	for i := range 3 * perTransaction {
		l := policy.Link{Name: fmt.Sprintf("v%d", i), Index: 1000 + i, Namespace: "ns", Pod: fmt.Sprint("p", i), Addrs: kit.Addrs("10.0.2.1")}
		if i%2 == 0 {
			run(t, "ip", "link", "add", l.Name, "type", "veth", "peer", "name", l.Name+"p")
		}
		links = append(links, l)
	}
	want := linkNode(links...)
	plan := iptables.Diff(want, mustObserve(t, d))
	for i := range 3 * perTransaction {
		if i%4 == 0 {
			run(t, "ip", "link", "del", fmt.Sprintf("v%d", i))
		}
	}
	if err := d.Apply(t.Context(), plan); err != nil {
		t.Fatalf("links that are gone are an error: %v", err)
	}
	found := mustObserve(t, d)
	for i, l := range links {
		if there := i == 0 || (i-1)%4 == 2; there && found.Guards[l.Name].Digest != want.Guards[l.Name].Digest {
			t.Errorf("%s is there, and has no guard", l.Name)
		}
	}
	if j.passes("10.0.0.2", "10.0.0.1") {
		t.Error("another source passes")
	}
	rest := iptables.Diff(linkNode(links[0]), found)
	mustApply(t, d, rest)
	if left := mustObserve(t, d).Guards; len(left) != 1 {
		t.Errorf("%d guards are left, want that of the one pod", len(left))
	}
}

// TestAsManyGuardsAsANodeHasPods: 250 are written, read back and taken away, and what one pod's change writes is one.
func TestAsManyGuardsAsANodeHasPods(t *testing.T) {
	enterNamespace(t)
	d := newDataplane(t, NFT)
	const pods = 250
	var links []policy.Link
	for i := range pods {
		name := fmt.Sprintf("v%d", i)
		run(t, "ip", "link", "add", name, "type", "veth", "peer", "name", name+"p")
		links = append(links, policy.Link{
			Name: name, Index: i, Namespace: "ns", Pod: name, Bridged: i%2 == 0, Isolated: i%4 == 0, MAC: "macmac",
			Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, byte(i), 1}), netip.AddrFrom16([16]byte{0xfd, 15: byte(i)})},
		})
	}
	began := time.Now()
	enforce(t, d, linkNode(links...))
	t.Logf("%d guards are written and read back in %s", pods, time.Since(began))
	links[7].Addrs = links[7].Addrs[:1]
	if p := iptables.Diff(linkNode(links...), mustObserve(t, d)); len(p.Guards) != 1 || p.Guards[0].Link != "v7" || len(p.Unguard) > 0 {
		t.Errorf("for one pod's change %d guards are written and %d taken away", len(p.Guards), len(p.Unguard))
	}
	enforce(t, d, linkNode(links...))
	enforce(t, d, linkNode())
	if list := run(t, "nft", "list", "ruleset"); strings.Contains(list, "in-v") || strings.Contains(list, "no-v") || strings.Contains(list, "nd-v") {
		t.Errorf("what is left:\n%s", list)
	}
}

// TestCleanupRemovesGuards, and no table of others.
func TestCleanupRemovesGuards(t *testing.T) {
	for _, backend := range []string{NFT, Legacy} {
		t.Run(backend, func(t *testing.T) {
			j := newJudged(t, 1)
			run(t, "nft", "add", "table", "netdev", "other")
			run(t, "nft", "add", "table", "bridge", "other")
			before := run(t, "nft", "list", "ruleset")
			d := newDataplane(t, backend)
			link := j.link("10.0.0.1")
			link.Bridged, link.MAC = true, string(j.mac)
			enforce(t, d, linkNode(link))
			for _, family := range []string{"netdev", "bridge"} {
				run(t, "nft", "list", "table", family, iptables.GuardTable)
			}
			if j.passes("10.0.0.2", "10.0.0.1") {
				t.Error("another source passes")
			}
			for range 2 { // nothing to do is no error
				if err := d.Cleanup(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			after := run(t, "nft", "list", "ruleset")
			if strings.Contains(after, iptables.GuardTable) || !strings.Contains(after, "table netdev other") || !strings.Contains(after, "table bridge other") {
				t.Errorf("before:\n%s\nafter:\n%s", before, after)
			}
			if !j.passes("10.0.0.2", "10.0.0.1") {
				t.Error("a packet does not pass though nothing is there to hold it")
			}
		})
	}
}

// TestWhatGuardsForbidIsCountedAndSampled: by the point of the pod, whether it is dropped or, in audit mode, goes on. What somebody else writes anew does not
// lose what was counted.
func TestWhatGuardsForbidIsCountedAndSampled(t *testing.T) {
	const group = 5 // linkNode's
	for _, audit := range []bool{false, true} {
		t.Run(fmt.Sprintf("audit %t", audit), func(t *testing.T) {
			n := newRouted(t)
			d := newDataplane(t, NFT)
			i, err := net.InterfaceByName("src")
			if err != nil {
				t.Fatal(err)
			}
			mac, err := n.node.HardwareAddr("src")
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range iptables.Families { // what finds neighbours is held too
				run(t, "ip", "-n", n.src.Name(), "neigh", "replace", ends[f][0].Prev().String(), "lladdr", mac.String(), "nud", "permanent", "dev", "eth0")
			}
			render := func(addrs ...string) iptables.Ruleset {
				return iptables.Render(policy.Node{
					Links:        []policy.Link{{Name: "src", Index: i.Index, Namespace: "shop", Pod: "web", Addrs: kit.Addrs(addrs...)}},
					AuditSources: audit,
				}, iptables.Options{Families: iptables.Families[:], Table: securityTable, Guards: true, NFLogGroup: group})
			}
			want := render("10.1.0.77")
			enforce(t, d, want)
			id := want.Guards["src"].Point
			if p := want.Points.Get(id); p.Audit != audit || p.Ref.Namespace != "shop" || p.Ref.Name != "web" || p.Direction != policy.Egress {
				t.Errorf("the point is %+v", p)
			}
			samples := make(chan Packet, 100)
			n.read(t, d, group, func(p Packet) { samples <- p })
			counted := func() uint64 {
				t.Helper()
				counts, err := d.Counts(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				return counts[id]
			}
			for round := range 3 {
				before := counted()
				for _, f := range iptables.Families {
					n.send(t, f, probe.Experimental, []byte("not its own"))
				}
				for missing := map[netip.Addr]bool{ends[iptables.IPv4][0]: true, ends[iptables.IPv6][0]: true}; len(missing) > 0; {
					select {
					case p := <-samples:
						if p.ID == id && p.In == "src" && p.Out == "" && p.Protocol == probe.Experimental {
							delete(missing, p.Src)
						}
					case <-time.After(20 * time.Second):
						t.Fatalf("in round %d no sample came of what was sent from %v", round, missing)
					}
				}
				if after := counted(); after < before+2 {
					t.Errorf("in round %d the count goes from %d to %d, and two packets were sent", round, before, after)
				}
				enforce(t, d, render("10.1.0.77", fmt.Sprintf("10.1.0.%d", 80+round))) // its rules begin at 0
			}
		})
	}
}
