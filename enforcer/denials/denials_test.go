package denials

import (
	"context"
	"errors"
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
	"github.com/ringfence-io/ringfence/enforcer/ruleset"
)

const group = 4210

var (
	web   = netip.MustParseAddr("10.0.0.1")
	db    = netip.MustParseAddr("10.0.0.2")
	world = netip.MustParseAddr("2001:db8::1")
)

// cluster has two pods, and counts how often it is asked.
type cluster struct{ asked int }

func (c *cluster) PodsAt(addrs ...netip.Addr) []string {
	c.asked++
	names := make([]string, len(addrs))
	for i, a := range addrs {
		names[i] = map[netip.Addr]string{web: "team-a/web", db: "team-a/db"}[a]
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

func point(id string, name string, d policy.Direction, index int, audit bool) ruleset.Point {
	return ruleset.Point{ID: id, Ref: policy.Ref{Kind: "NetworkPolicy", Namespace: "team-a", Name: name}, Direction: d, Index: index, Audit: audit}
}

func points(all ...ruleset.Point) map[string]ruleset.Point {
	byID := map[string]ruleset.Point{}
	for _, p := range all {
		byID[p.ID] = p
	}
	return byID
}

func TestDescribe(t *testing.T) {
	everyone := point("id", "web-deny", policy.Ingress, -1, false)
	for _, c := range []struct {
		name   string
		packet dataplane.Packet
		point  ruleset.Point
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
			ruleset.Point{ID: "id", Ref: policy.Ref{Kind: "ClusterNetworkPolicy", Name: "wall"}, Direction: policy.Egress, Index: 0, Audit: true},
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
			"a rule that is gone", dataplane.Packet{ID: "old", Src: web, Dst: db, Protocol: policy.SCTP, DstPort: 1}, ruleset.Point{},
			`"msg":"denied, or would be","policy":"unknown","id":"old","src":"team-a/web","srcIP":"10.0.0.1","srcPort":0,` +
				`"dst":"team-a/db","dstIP":"10.0.0.2","dstPort":1,"protocol":"SCTP","in":"","out":"","length":0}`,
		},
	} {
		var l log
		pods := (&cluster{}).PodsAt(c.packet.Src, c.packet.Dst)
		msg, fields := describe(c.packet, c.point, c.point.ID != "", pods[0], pods[1])
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
		j.SetPoints(nil)
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
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- j.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
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

func TestNamesAreRememberedForAMoment(t *testing.T) {
	var n names
	c := &cluster{}
	at := time.Unix(1000, 0)
	for _, step := range []struct {
		after time.Duration
		addrs []netip.Addr
		want  []string
		asked int
	}{
		{0, []netip.Addr{web, db}, []string{"team-a/web", "team-a/db"}, 1},
		{0, []netip.Addr{db, web}, []string{"team-a/db", "team-a/web"}, 1},
		{0, []netip.Addr{web, world}, []string{"team-a/web", ""}, 2},
		{nameLife, []netip.Addr{world, {}}, []string{"", ""}, 2},
		{1, []netip.Addr{web, db}, []string{"team-a/web", "team-a/db"}, 3},
	} {
		at = at.Add(step.after)
		got := n.of(c, at, step.addrs...)
		if diff := cmp.Diff(step.want, got); diff != "" || c.asked != step.asked {
			t.Errorf("%v: asked %d times, want %d (-want +got):\n%s", step.addrs, c.asked, step.asked, diff)
		}
	}
}
