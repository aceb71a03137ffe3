package packets

import (
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/lab/host"
	"github.com/ringfence-io/ringfence/lab/probe"
	"github.com/ringfence-io/ringfence/lab/topology"
	"github.com/ringfence-io/ringfence/test/kit"
)

// A line states what becomes of connections:
//
//	client reaches web                           over every protocol: TCP, UDP and SCTP to port 80, ICMP echo, and one without a name
//	client does not reach web on tcp/81 udp/81   each times out; a refusal would be an answer
//	client is refused by web on tcp/99           the packet arrives, nobody listens, and the client is told so
//
// Ends are pods, the nodes n1 and n2, places outside of the cluster, services, and IPv4 addresses that are among those.

// verbs are the middle of lines, longest first.
var verbs = []struct {
	text string
	want probe.Outcome
}{
	{" does not reach ", probe.TimedOut},
	{" is refused by ", probe.Refused},
	{" reaches ", probe.Reached},
}

// everyProtocol stands for a line without "on".
const everyProtocol = "tcp/80 udp/80 sctp/80 icmp other"

var protocolNames = map[string]policy.Protocol{
	"tcp": policy.TCP, "udp": policy.UDP, "sctp": policy.SCTP, "icmp": policy.ICMP, "other": probe.Experimental,
}

// listening are the ports on which every place listens, over every protocol.
var listening = []uint16{80, 81, 82, 90}

// place is an end of a line.
type place struct {
	host *host.Host // that answers
	addr netip.Addr // IPv4
	v6   netip.Addr // its twin, if not set
}

func (p place) in(f iptables.Family) netip.Addr {
	switch {
	case f == iptables.IPv4:
		return p.addr
	case p.v6.IsValid():
		return p.v6
	}
	return topology.Twin(p.addr)
}

// expectation is one flow of a line.
type expectation struct {
	line string
	from *host.Host
	flow probe.Flow
	want probe.Result
}

func (w *world) expectations(t *testing.T, line string) []expectation {
	t.Helper()
	for _, v := range verbs {
		src, rest, ok := strings.Cut(line, v.text)
		if !ok {
			continue
		}
		dst, on, _ := strings.Cut(rest, " on ")
		if on == "" {
			on = everyProtocol
		}
		from, to := w.place(t, src), w.place(t, dst)
		var all []expectation
		for _, service := range strings.Fields(on) {
			e := expectation{line: line, from: from.host, want: probe.Result{Outcome: v.want}}
			e.flow = flowTo(t, service)
			e.flow.Src, e.flow.Dst = from.in(w.family), to.in(w.family)
			if v.want == probe.Reached && e.flow.Protocol != policy.ICMP {
				e.want.Identity = to.host.Name()
			}
			all = append(all, e)
		}
		return all
	}
	t.Fatalf("no line: %q", line)
	return nil
}

// flowTo reads "tcp/80" or "icmp".
func flowTo(t *testing.T, service string) probe.Flow {
	t.Helper()
	name, number, ported := strings.Cut(service, "/")
	f := probe.Flow{Protocol: protocolNames[name]}
	if ported {
		port, err := strconv.ParseUint(number, 10, 16)
		kit.Must(t, err)
		f.Port = uint16(port)
	}
	if f.Protocol == 0 {
		t.Fatalf("no protocol: %q", service)
	}
	return f
}

func (w *world) place(t *testing.T, name string) place {
	t.Helper()
	p, ok := w.places[name]
	if !ok {
		t.Fatalf("no place: %q", name)
	}
	return p
}

// check probes all lines, first those that deny: a connection that is allowed makes its way back an established one, and a
// protocol without ports has only one connection between two hosts.
func (w *world) check(t *testing.T, lines []string) {
	t.Helper()
	var denied, answered []expectation
	for _, line := range lines {
		for _, e := range w.expectations(t, line) {
			if e.want.Outcome == probe.TimedOut {
				denied = append(denied, e)
			} else {
				answered = append(answered, e)
			}
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
