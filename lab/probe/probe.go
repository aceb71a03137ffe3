// Package probe finds out which packets pass between hosts, by sending them.
//
// A server answers with its identity, so that an answer proves not only that something answered but who. TCP
// and UDP run over the kernel's own sockets. SCTP runs over raw sockets, because many kernels filter SCTP
// without having sockets for it: an INIT that connection tracking accepts as a new association, answered
// by an INIT ACK. ICMP is the echo that every kernel answers. A protocol that no kernel knows runs over raw sockets
// too.
//
// Silence is never proof at once: a loaded machine is slow. How long to wait depends on what is expected,
// see [Expect]; the verdict never depends on it.
//
// [Dial] asks once about one flow. [Watch] asks thousands of times per second, each time with a source port
// that is new, and so as a new connection, about flows whose verdict must not change meanwhile.
package probe

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/lab/host"
)

// Flow is a connection to try.
type Flow struct {
	// Protocol is TCP, UDP, SCTP, ICMP, which stands for ICMPv6 between IPv6 addresses, or Experimental.
	Protocol policy.Protocol
	// Src is the address to send from. With the zero address, the kernel's routes decide.
	Src netip.Addr
	Dst netip.Addr
	// Port is the destination port of a protocol that has ports.
	Port uint16
}

// Experimental is a protocol without ports that no kernel knows (RFC 3692): one of those that policy cannot name.
const Experimental policy.Protocol = 253

// String reads "tcp 10.0.0.1 -> 10.0.0.2:80".
func (f Flow) String() string {
	src := "?"
	if f.Src.IsValid() {
		src = f.Src.String()
	}
	if !f.hasPorts() {
		return fmt.Sprintf("%s %s -> %s", f.protocol(), src, f.Dst)
	}
	return fmt.Sprintf("%s %s -> %s", f.protocol(), src, f.dst())
}

func (f Flow) dst() netip.AddrPort { return netip.AddrPortFrom(f.Dst, f.Port) }
func (f Flow) icmp() bool          { return f.Protocol == policy.ICMP || f.Protocol == policy.ICMPv6 }
func (f Flow) hasPorts() bool      { return !f.icmp() && f.Protocol != Experimental }

// protocol is the number that the packets carry.
func (f Flow) protocol() policy.Protocol {
	if f.Protocol == policy.ICMP && f.Dst.Is6() {
		return policy.ICMPv6
	}
	return f.Protocol
}

// Outcome is what became of a flow.
type Outcome uint8

// The outcomes.
const (
	TimedOut Outcome = iota // nothing came back: what a dropped packet looks like
	Reached                 // the destination answered
	Refused                 // the packet passed, and nobody listens: a TCP reset, an ICMP port unreachable
	Failed                  // neither: see Result.Err
)

// String is the outcome in a word or two.
func (o Outcome) String() string {
	return [...]string{"timed out", "reached", "refused", "failed"}[o]
}

// Result is the answer to a probe.
type Result struct {
	Outcome Outcome
	// Identity is the name of the host whose server answered, empty for ICMP.
	Identity string
	// Err says why a probe failed, as when there is no route.
	Err error
}

// String is the result as a test prints it.
func (r Result) String() string {
	switch {
	case r.Err != nil:
		return fmt.Sprintf("%s: %v", r.Outcome, r.Err)
	case r.Identity != "":
		return fmt.Sprintf("%s %s", r.Outcome, r.Identity)
	}
	return r.Outcome.String()
}

// Patience says how long to wait for an answer.
type Patience struct {
	// Timeout ends the probe.
	Timeout time.Duration
	// Retry is the time to the second attempt; the time to each further one doubles. Every attempt is a new
	// connection, and the earlier ones are still listened to.
	Retry time.Duration
}

// Expect is the patience that suits an expectation. Where an answer is due, it may take its time, and only a
// wrong denial is slow; where none is due, two attempts within some hundred milliseconds suffice.
func Expect(allowed bool) Patience {
	if allowed {
		return Patience{Timeout: 10 * time.Second, Retry: 250 * time.Millisecond}
	}
	return Patience{Timeout: 400 * time.Millisecond, Retry: 150 * time.Millisecond}
}

// Dial tries a flow from inside h. It may be called hundreds of times at once; no thread waits for the
// answer.
func Dial(h *host.Host, f Flow, p Patience) Result {
	var attempts sync.WaitGroup
	defer attempts.Wait() // none outlives the call
	ctx, cancel := context.WithTimeout(context.Background(), p.Timeout)
	defer cancel()
	results := make(chan Result)
	start := func() {
		attempts.Go(func() {
			r := attempt(ctx, h, f)
			select {
			case results <- r:
			case <-ctx.Done():
			}
		})
	}
	start()
	wait := p.Retry
	retry := time.NewTimer(wait)
	defer retry.Stop()
	last := Result{Outcome: TimedOut}
	for {
		select {
		case r := <-results:
			if r.Outcome == Reached || r.Outcome == Refused {
				return r
			}
			// A failure may pass, as when a neighbour has not been resolved yet. Silence is reported by
			// the deadline alone.
			last = r
		case <-retry.C:
			wait *= 2
			retry.Reset(wait)
			start()
		case <-ctx.Done():
			return last
		}
	}
}

func attempt(ctx context.Context, h *host.Host, f Flow) Result {
	var name string
	var err error
	switch f.protocol() {
	case policy.TCP:
		name, err = dialTCP(ctx, h, f)
	case policy.UDP:
		name, err = dialUDP(ctx, h, f)
	case policy.SCTP, policy.ICMP, policy.ICMPv6, Experimental:
		name, err = dialRaw(ctx, h, f)
	default:
		err = fmt.Errorf("probing protocol %s is not supported", f.Protocol)
	}
	switch {
	case err == nil:
		return Result{Outcome: Reached, Identity: name}
	case errors.Is(err, syscall.ECONNREFUSED):
		return Result{Outcome: Refused}
	case errors.Is(err, os.ErrDeadlineExceeded), ctx.Err() != nil:
		return Result{Outcome: TimedOut}
	}
	return Result{Outcome: Failed, Err: fmt.Errorf("probing %s: %w", f, err)}
}
