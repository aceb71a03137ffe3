package denials

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/google/go-cmp/cmp"

	"github.com/ringfence-io/ringfence/enforcer/dataplane"
	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/test/kit"
)

const group = 4210

var (
	web   = netip.MustParseAddr("10.0.0.1")
	db    = netip.MustParseAddr("10.0.0.2")
	world = netip.MustParseAddr("2001:db8::1")
)

// cluster has two pods.
type cluster struct{}

func (c *cluster) Named(write func([]policy.PodName), addrs ...netip.Addr) { write(c.podsAt(addrs...)) }

func (*cluster) podsAt(addrs ...netip.Addr) []policy.PodName {
	names := make([]policy.PodName, len(addrs))
	for i, a := range addrs {
		names[i] = map[netip.Addr]policy.PodName{web: {Namespace: "team-a", Name: "web"}, db: {Namespace: "team-a", Name: "db"}}[a]
	}
	return names
}

// log keeps the lines that are written.
type log struct {
	mu    sync.Mutex
	lines []string
}

func (l *log) logger() logr.Logger {
	return funcr.NewJSON(func(line string) {
		l.mu.Lock()
		defer l.mu.Unlock()
		line = strings.TrimPrefix(line, `{"logger":"","level":0,`)
		l.lines = append(l.lines, strings.TrimPrefix(line, `{"logger":"",`))
	}, funcr.Options{})
}

// take empties the log.
func (l *log) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := l.lines
	l.lines = nil
	return lines
}

func point(id string, name string, d policy.Direction, index int, audit bool) policy.Point {
	return policy.Point{ID: id, Ref: policy.Ref{Kind: "NetworkPolicy", Namespace: "team-a", Name: name}, Direction: d, Index: index, Audit: audit}
}

func points(all ...policy.Point) policy.Map[string, policy.Point] {
	byID := map[string]policy.Point{}
	for _, p := range all {
		byID[p.ID] = p
	}
	return policy.MapOf(byID)
}

func TestDescribe(t *testing.T) {
	everyone := point("id", "web-deny", policy.Ingress, -1, false)
	for _, c := range []struct {
		name   string
		packet dataplane.Packet
		point  policy.Point
		want   string
	}{
		{
			"a SYN that was denied by default",
			dataplane.Packet{Src: web, Dst: db, Protocol: policy.TCP, SrcPort: 40000, DstPort: 80, TCPFlags: 2, In: "veth1", Out: "veth2", Length: 60},
			everyone,
			`"msg":"denied","policy":"NetworkPolicy team-a/web-deny","direction":"ingress","src":"team-a/web","srcIP":"10.0.0.1","srcPort":40000,` +
				`"dst":"team-a/db","dstIP":"10.0.0.2","dstPort":80,"protocol":"TCP","tcpFlags":"SYN","in":"veth1","out":"veth2","length":60}`,
		}, {
			"a datagram from outside that a rule in audit mode would deny",
			dataplane.Packet{Src: world, Dst: db, Protocol: policy.UDP, SrcPort: 53, DstPort: 1, Length: 100, Lost: 3},
			policy.Point{ID: "id", Ref: policy.Ref{Kind: "ClusterNetworkPolicy", Name: "wall"}, Direction: policy.Egress, Index: 0, Audit: true},
			`"msg":"would be denied","policy":"ClusterNetworkPolicy wall","rule":0,"direction":"egress","src":"","srcIP":"2001:db8::1","srcPort":53,` +
				`"dst":"team-a/db","dstIP":"10.0.0.2","dstPort":1,"protocol":"UDP","in":"","out":"","length":100,"lostBefore":3}`,
		}, {
			"a ping", dataplane.Packet{Src: web, Dst: db, Protocol: policy.ICMPv6, ICMPType: 128}, everyone,
			`"msg":"denied","policy":"NetworkPolicy team-a/web-deny","direction":"ingress","src":"team-a/web","srcIP":"10.0.0.1",` +
				`"dst":"team-a/db","dstIP":"10.0.0.2","protocol":"ICMPv6","icmpType":128,"icmpCode":0,"in":"","out":"","length":0}`,
		}, {
			"a protocol without a name", dataplane.Packet{Src: web, Dst: db, Protocol: 47}, everyone,
			`"msg":"denied","policy":"NetworkPolicy team-a/web-deny","direction":"ingress","src":"team-a/web","srcIP":"10.0.0.1",` +
				`"dst":"team-a/db","dstIP":"10.0.0.2","protocol":"47","in":"","out":"","length":0}`,
		}, {
			"what could not be read", dataplane.Packet{}, everyone,
			`"msg":"denied","policy":"NetworkPolicy team-a/web-deny","direction":"ingress","src":"","dst":"","protocol":"0","in":"","out":"","length":0}`,
		}, {
			"a rule that is gone", dataplane.Packet{ID: "old", Src: web, Dst: db, Protocol: policy.SCTP, DstPort: 1}, policy.Point{},
			`"msg":"denied, or would be","policy":"unknown","id":"old","src":"team-a/web","srcIP":"10.0.0.1","srcPort":0,` +
				`"dst":"team-a/db","dstIP":"10.0.0.2","dstPort":1,"protocol":"SCTP","in":"","out":"","length":0}`,
		},
	} {
		var l log
		pods := (&cluster{}).podsAt(c.packet.Src, c.packet.Dst)
		msg, fields := describe(c.packet, c.point, c.point.ID != "", pods[0].String(), pods[1].String())
		l.logger().Info(msg, fields...)
		if diff := cmp.Diff([]string{c.want}, l.take()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

// messages are what of the lines is said of which policy.
func messages(lines []string) []string {
	var short []string
	for _, line := range lines {
		line, _, _ = strings.Cut(line, `,"direction"`)
		line, _, _ = strings.Cut(line, `,"src"`)
		short = append(short, line)
	}
	return short
}

func TestEachSampleIsALineOfThePolicyThatItIsOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kernel, l := dataplane.NewFake(dataplane.Capabilities{}), &log{}
		j := &Journal{Source: kernel, Pods: &cluster{}, Log: l.logger(), Group: group, Interval: time.Hour}
		run(t, j)
		emit := func(ids ...string) {
			t.Helper()
			for _, id := range ids {
				if !kernel.Emit(group, dataplane.Packet{ID: id, Src: web, Dst: db}) {
					t.Fatal("nobody reads")
				}
			}
		}
		j.SetPoints(points(point("a", "one", policy.Ingress, -1, false), point("b", "two", policy.Ingress, -1, true)))
		emit("a", "b") // one packet, of two points
		j.SetPoints(points(point("c", "three", policy.Ingress, -1, false)))
		j.SetPoints(points(point("c", "three", policy.Ingress, -1, false))) // a sync that changes nothing
		emit("a", "c")
		j.SetPoints(policy.Map[string, policy.Point]{})
		emit("a", "c")
		want := []string{
			`"msg":"denied","policy":"NetworkPolicy team-a/one"`, `"msg":"would be denied","policy":"NetworkPolicy team-a/two"`,
			`"msg":"denied","policy":"NetworkPolicy team-a/one"`, `"msg":"denied","policy":"NetworkPolicy team-a/three"`,
			`"msg":"denied, or would be","policy":"unknown","id":"a"`, `"msg":"denied","policy":"NetworkPolicy team-a/three"`,
		}
		if diff := cmp.Diff(want, messages(l.take())); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// run starts a journal in the test's bubble, and returns when it waits.
func run(t *testing.T, j *Journal) {
	t.Helper()
	kit.Start(t, "the journal", j.Start)
	synctest.Wait()
}

// faulty fails with each of its errors, and is a kernel then.
type faulty struct {
	*dataplane.Fake
	errs  []error
	tries []time.Time
}

func (f *faulty) Denied(ctx context.Context, group uint16, handle func(dataplane.Packet)) error {
	f.tries = append(f.tries, time.Now())
	if len(f.errs) > 0 {
		err := f.errs[0]
		f.errs = f.errs[1:]
		return err
	}
	return f.Fake.Denied(ctx, group, handle)
}

func TestAReadingThatFailsIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		taken := &dataplane.LogGroupError{Group: group, Owner: "77", Err: errors.New("operation not permitted")}
		kernel := &faulty{Fake: dataplane.NewFake(dataplane.Capabilities{}), errs: []error{taken, taken, taken, errors.New("broken")}}
		l := &log{}
		begun := time.Now()
		run(t, &Journal{Source: kernel, Pods: &cluster{}, Log: l.logger(), Group: group, Interval: time.Hour})
		time.Sleep(time.Minute) // of the bubble's clock
		if !kernel.Emit(group, dataplane.Packet{ID: "x"}) {
			t.Fatal("nobody reads")
		}
		var after []time.Duration
		for _, at := range kernel.tries {
			after = append(after, at.Sub(begun))
		}
		want := []time.Duration{0, time.Second, 3 * time.Second, 7 * time.Second, 15 * time.Second}
		if diff := cmp.Diff(want, after); diff != "" {
			t.Errorf("tried after (-want +got):\n%s", diff)
		}
		said := l.take()
		if len(said) != 3 || !strings.Contains(said[0], "--nflog-group") || !strings.Contains(said[1], "broken") {
			t.Errorf("want each trouble said once, and the packet:\n%s", strings.Join(said, "\n"))
		}
	})
}

func TestWithoutAGroupNothingIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kernel := dataplane.NewFake(dataplane.Capabilities{})
		run(t, &Journal{Source: kernel, Pods: &cluster{}, Log: logr.Discard(), Interval: time.Hour})
		if kernel.Emit(0, dataplane.Packet{}) {
			t.Error("group 0 is read")
		}
	})
}

// A tenant with a thousand audited policies has a thousand points, each of which the kernel samples ten times a second. Other tenants' lines are written all the
// same, and the log stays small.
func TestOneTenantsSamplesLeaveRoomForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kernel, l := dataplane.NewFake(dataplane.Capabilities{}), &log{}
		j := &Journal{Source: kernel, Pods: &cluster{}, Log: l.logger(), Group: group, Interval: time.Hour}
		run(t, j)
		all := []policy.Point{}
		for i := range 1000 {
			all = append(all, point(fmt.Sprintf("h%015d", i), fmt.Sprint("hostile", i), policy.Egress, -1, true))
		}
		quiet := point("quiet", "quiet", policy.Ingress, -1, false)
		quiet.Ref.Namespace = "team-b"
		wide := policy.Point{ID: "wide", Ref: policy.Ref{Kind: "ClusterNetworkPolicy", Name: "wall"}, Direction: policy.Ingress, Index: 0}
		j.SetPoints(points(append(all, quiet, wide)...))
		const seconds = 30
		for second := range seconds {
			for tick := range 10 {
				for i := range 1000 {
					kernel.Emit(group, dataplane.Packet{ID: all[i].ID, Src: web, Dst: netip.AddrFrom4([4]byte{1, byte(second), byte(tick), byte(i)})})
				}
				time.Sleep(100 * time.Millisecond) // of the bubble's clock
			}
			kernel.Emit(group, dataplane.Packet{ID: "quiet", Src: world, Dst: db})
			kernel.Emit(group, dataplane.Packet{ID: "wide", Src: world, Dst: db})
		}
		count := map[string]int{}
		for _, line := range messages(l.take()) {
			switch {
			case strings.Contains(line, "team-a/hostile"):
				count["hostile"]++
			case strings.Contains(line, "team-b/quiet"):
				count["quiet"]++
			case strings.Contains(line, "wall"):
				count["wide"]++
			}
		}
		if count["quiet"] != seconds || count["wide"] != seconds {
			t.Errorf("of one line a second of others are left: %v", count)
		}
		if n := count["hostile"]; n == 0 || n > seconds*shareRate+shareBurst {
			t.Errorf("the tenant wrote %d lines in %d seconds", n, seconds)
		}
	})
}

// One who floods a pod does not hide the others who try to reach it.
func TestOneRemoteEndLeavesRoomForOthers(t *testing.T) {
	s, now := newShares(), time.Unix(1000, 0)
	flood, seen := netip.MustParseAddr("10.9.9.9"), 0
	for range 60 { // seconds
		for range 1000 {
			s.take(now, "a", flood)
			now = now.Add(time.Millisecond)
		}
		for i := range 3 {
			if _, why := s.take(now, "a", netip.AddrFrom4([4]byte{10, 1, 1, byte(i)})); why == "" {
				seen++
			}
		}
	}
	if seen < 100 {
		t.Errorf("of 180 other attempts %d have a line", seen)
	}
}

func TestSharesAreBounded(t *testing.T) {
	s, now := newShares(), time.Unix(1000, 0)
	lines := 0
	for i := range 200_000 {
		if _, why := s.take(now, fmt.Sprint("pod ", i%50_000), web); why == "" {
			lines++
		}
		now = now.Add(100 * time.Microsecond)
	}
	if len(s.by) > maxShares+1 {
		t.Errorf("there are %d shares", len(s.by))
	}
	if most := 20*nodeRate + nodeBurst; lines > most {
		t.Errorf("%d lines in 20 seconds, want %d at most", lines, most)
	}
	before := uint64(0)
	now = now.Add(time.Minute)
	for range 1000 {
		s.take(now, "a", web)
	}
	if before, _ = s.take(now.Add(time.Minute), "a", web); before < 900 {
		t.Errorf("a line says that %d were left out before it, of some 980", before)
	}
}

// Names in lines are data: none ends a line or begins another.
func TestNoTextOfATenantForgesALine(t *testing.T) {
	forged := "x\"}\n{\"msg\":\"denied\",\"policy\":\"NetworkPolicy team-b/forged\"\x1b[2J"
	p := dataplane.Packet{ID: forged, Src: web, Dst: db, In: forged, Out: forged}
	for _, known := range []bool{true, false} {
		l := &log{}
		msg, fields := describe(p, point("id", forged, policy.Ingress, 0, false), known, forged, forged)
		l.logger().Info(msg, fields...)
		for _, line := range l.take() {
			if strings.ContainsAny(line, "\n\x1b") || strings.Contains(line, `"policy":"NetworkPolicy team-b/forged"`) {
				t.Errorf("a line reads %q", line)
			}
		}
	}
}
