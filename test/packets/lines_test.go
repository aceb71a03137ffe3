package packets

import (
	"net/netip"
	"sync"
	"testing"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/lab/host"
	"github.com/ringfence-io/ringfence/lab/oracle"
	"github.com/ringfence-io/ringfence/lab/probe"
	"github.com/ringfence-io/ringfence/test/kit"
	"github.com/ringfence-io/ringfence/test/scenario"
)

// outcomes are what becomes of the connections of a line.
var outcomes = map[scenario.Verb]probe.Outcome{
	scenario.Reaches: probe.Reached, scenario.WouldNotReach: probe.Reached, scenario.DoesNotReach: probe.TimedOut, scenario.IsRefused: probe.Refused,
}

// listening are the ports on which every place listens, over every protocol.
var listening = []uint16{80, 81, 82, 90}

// protocolOf is a protocol of lines. ICMP stands for ICMPv6 too.
func protocolOf(p oracle.Protocol) policy.Protocol { return policy.Protocol(p) }

// place is where an actor is.
type place struct {
	scenario.Actor
	host *host.Host // that answers
}

func (p place) in(f iptables.Family) netip.Addr { return p.In(scenario.Family(f)) }

// expectation is one flow of a line.
type expectation struct {
	line string
	from *host.Host
	flow probe.Flow
	want probe.Result
}

// expectations are the flows of a line.
func (w *world) expectations(t *testing.T, line string) []expectation {
	t.Helper()
	lines, err := w.cluster().ParseLines([]string{line})
	kit.Must(t, err)
	return w.expected(t, lines[0])
}

func (w *world) expected(t *testing.T, l scenario.Line) []expectation {
	t.Helper()
	from, to := w.place(t, l.From.Name), w.place(t, l.To.Name)
	var all []expectation
	for _, s := range l.Services {
		e := expectation{line: l.Text, from: from.host, want: probe.Result{Outcome: outcomes[l.Verb]}}
		e.flow = probe.Flow{Protocol: protocolOf(s.Protocol), Src: from.in(w.family), Dst: to.in(w.family), Port: s.Port}
		if e.want.Outcome == probe.Reached && e.flow.Protocol != policy.ICMP {
			e.want.Identity = to.host.Name()
		}
		all = append(all, e)
	}
	return all
}

func (w *world) place(t *testing.T, name string) place {
	t.Helper()
	p, ok := w.places[name]
	if !ok {
		t.Fatalf("no place: %q", name)
	}
	return p
}

// check probes all lines.
func (w *world) check(t *testing.T, lines []string) {
	t.Helper()
	all, err := w.cluster().ParseLines(lines)
	kit.Must(t, err)
	w.checkLines(t, all)
}

// checkLines probes all lines, first those that deny: a connection that is allowed makes its way back an established one, and a
// protocol without ports has only one connection between two hosts.
func (w *world) checkLines(t *testing.T, lines []scenario.Line) {
	t.Helper()
	var denied, answered []expectation
	for _, l := range lines {
		if l.Verb.Passes() {
			answered = append(answered, w.expected(t, l)...)
		} else {
			denied = append(denied, w.expected(t, l)...)
		}
	}
	checkAll(t, denied)
	checkAll(t, answered)
}

// checkAll probes all expectations at once.
func checkAll(t *testing.T, all []expectation) {
	t.Helper()
	var wg sync.WaitGroup
	for _, e := range all {
		wg.Go(func() {
			if got := probe.Dial(e.from, e.flow, probe.Expect(e.want.Outcome != probe.TimedOut)); got != e.want {
				t.Errorf("%s: %s: got %s, want %s", e.line, e.flow, got, e.want)
			}
		})
	}
	wg.Wait()
}
