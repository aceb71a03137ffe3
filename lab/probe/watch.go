package probe

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/lab/host"
)

// Watched is a flow whose verdict must not change while it is watched. Its source address must be given.
type Watched struct {
	Host    *host.Host // which sends
	Flow    Flow
	Allowed bool
}

// Report is what a [Watcher] has seen.
type Report struct {
	Probes  int
	Elapsed time.Duration
	// Answered counts the probes of allowed flows that were answered, Silent those of denied flows that were
	// not. Together with Wrong they make up Probes.
	Answered, Silent int
	Wrong            []Wrong
}

// Rate is the number of probes per second.
func (r Report) Rate() float64 { return float64(r.Probes) / r.Elapsed.Seconds() }

// String is one line, and one more for each of the first few wrong verdicts.
func (r Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d probes, %.0f per second: %d answered, %d silent, %d wrong", r.Probes, r.Rate(), r.Answered, r.Silent, len(r.Wrong))
	for i, w := range r.Wrong {
		if i == 10 {
			b.WriteString("\n...")
			break
		}
		b.WriteString("\n" + w.String())
	}
	return b.String()
}

// Wrong is a probe with the wrong verdict: an allowed one that nothing answered, or a denied one that was.
type Wrong struct {
	Flow     Flow
	Allowed  bool
	SrcPort  uint16
	Sent     time.Time
	Answered time.Time // zero if never
}

// String is the wrong verdict in a sentence.
func (w Wrong) String() string {
	if w.Allowed {
		return fmt.Sprintf("%s: allowed %s from port %d got no answer", w.Sent.Format(stamp), w.Flow, w.SrcPort)
	}
	return fmt.Sprintf("%s: denied %s from port %d was answered after %s",
		w.Sent.Format(stamp), w.Flow, w.SrcPort, w.Answered.Sub(w.Sent))
}

const stamp = "15:04:05.000000"

// Watcher sends probes over and over. Each is a single packet that opens a connection from a source port
// that the flow has not used before, and none is sent twice: one wrong verdict, however short, is seen.
//
// One goroutine sends, and one per socket receives. The mutex guards what they share.
type Watcher struct {
	flows   []Watched
	first   uint32 // of the source ports
	sockets map[socketKey]*net.IPConn
	stop    chan struct{}
	sending sync.WaitGroup
	reading sync.WaitGroup

	mu      sync.Mutex
	pending map[probeKey]sent
	allowed int // pending probes of allowed flows
	report  Report
	err     error
}

type socketKey struct {
	host     *host.Host
	protocol policy.Protocol
	addr     netip.Addr
}

// probeKey is what an answer says about the probe that it belongs to.
type probeKey struct {
	protocol         policy.Protocol
	src, dst         netip.Addr
	srcPort, dstPort uint16
}

type sent struct {
	flow int // index in Watcher.flows
	at   time.Time
}

// Watch starts to send rate probes per second, the flows taking turns, until [Watcher.Stop].
func Watch(flows []Watched, rate int) (*Watcher, error) { return watch(flows, rate, math.MaxInt) }

// Once sends one packet of each flow, in their order, at a rate of so many per second. It waits until every allowed one is answered or
// grace is over.
func Once(flows []Watched, rate int, grace time.Duration) (Report, error) {
	return Times(1, flows, rate, grace)
}

// Times sends so many packets of each flow, the flows taking turns. It waits like [Once].
func Times(times int, flows []Watched, rate int, grace time.Duration) (Report, error) {
	w, err := watch(flows, rate, times*len(flows))
	if err != nil {
		return Report{}, err
	}
	w.sending.Wait()
	return w.Stop(grace)
}

// watch sends so many probes at most.
func watch(flows []Watched, rate, limit int) (*Watcher, error) {
	w := &Watcher{
		flows:   flows,
		first:   rawPorts.Load(),
		sockets: map[socketKey]*net.IPConn{},
		stop:    make(chan struct{}),
		pending: map[probeKey]sent{},
	}
	for _, f := range flows {
		if err := w.open(f); err != nil {
			return nil, errors.Join(err, w.close())
		}
	}
	for k, c := range w.sockets {
		w.reading.Go(func() { w.receive(k, c) })
	}
	w.sending.Go(func() { w.send(rate, limit) })
	return w, nil
}

func (w *Watcher) open(f Watched) error {
	k := socketOf(f)
	if w.sockets[k] != nil {
		return nil
	}
	return f.Host.Do(func() error {
		c, err := listenRaw(k.protocol, k.addr)
		if err != nil {
			return fmt.Errorf("watching %s: %w", f.Flow, err)
		}
		w.sockets[k] = c
		return nil
	})
}

// Stop ends the sending, waits until every allowed probe is answered or grace is over, and reports.
func (w *Watcher) Stop(grace time.Duration) (Report, error) {
	close(w.stop)
	w.sending.Wait()
	for deadline := time.Now().Add(grace); w.outstanding() > 0 && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond)
	}
	err := w.close()
	w.reading.Wait()

	for k, s := range w.pending {
		w.settle(k, s)
	}
	slices.SortFunc(w.report.Wrong, func(a, b Wrong) int { return a.Sent.Compare(b.Sent) })
	return w.report, errors.Join(w.err, err)
}

// Report is what has been seen so far, without the probes that still wait for an answer.
func (w *Watcher) Report() Report {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.report
	r.Wrong = append([]Wrong(nil), r.Wrong...)
	return r
}

func (w *Watcher) outstanding() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.allowed
}

func (w *Watcher) close() error {
	var errs []error
	for _, c := range w.sockets {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// send keeps to the rate on average: after a moment without a processor it catches up.
func (w *Watcher) send(rate, limit int) {
	start, n := time.Now(), 0
	defer func() {
		w.mu.Lock()
		w.report.Probes, w.report.Elapsed = n, time.Since(start)
		w.mu.Unlock()
		// The next watcher goes on from here: what one has opened, nodes take for established for a while.
		rawPorts.Add(uint32(n/len(w.flows)) + 1)
	}()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for n < limit {
		select {
		case <-w.stop:
			return
		case <-tick.C:
		}
		for due := min(limit, int(time.Since(start).Seconds()*float64(rate))); n < due; n++ {
			w.sendOne(n%len(w.flows), rawPort(w.first+uint32(n/len(w.flows))+1))
		}
	}
}

func (w *Watcher) sendOne(i int, port uint16) {
	f := w.flows[i]
	k := keyOf(f.Flow, port)
	w.mu.Lock()
	if old, ok := w.pending[k]; ok {
		// The ports have been used up. A denied probe that got no answer for so long gets none.
		w.settle(k, old)
	}
	w.pending[k] = sent{i, time.Now()}
	if f.Allowed {
		w.allowed++
	}
	w.mu.Unlock()
	_, err := w.sockets[socketOf(f)].WriteTo(firstPacket(f.Flow, port), &net.IPAddr{IP: f.Flow.Dst.AsSlice()})
	if err != nil {
		w.mu.Lock()
		w.err = cmp.Or(w.err, fmt.Errorf("sending %s: %w", f.Flow, err)) // the first says enough
		w.mu.Unlock()
	}
}

// settle counts a probe that will not be answered.
func (w *Watcher) settle(k probeKey, s sent) {
	delete(w.pending, k)
	f := w.flows[s.flow]
	if !f.Allowed {
		w.report.Silent++
		return
	}
	w.allowed--
	w.report.Wrong = append(w.report.Wrong, Wrong{Flow: f.Flow, Allowed: true, SrcPort: k.srcPort, Sent: s.at})
}

func (w *Watcher) receive(k socketKey, c *net.IPConn) {
	buf := make([]byte, 2048)
	for {
		n, from, err := c.ReadFromIP(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error for some earlier packet
		}
		a, ok := parseAnswer(k.protocol, buf[:n])
		src, _ := netip.AddrFromSlice(from.IP)
		if ok {
			w.answered(probeKey{k.protocol, k.addr, src.Unmap(), a.dstPort, a.srcPort})
		}
	}
}

func (w *Watcher) answered(k probeKey) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s, ok := w.pending[k]
	if !ok {
		return // a second answer, or none of ours
	}
	delete(w.pending, k)
	f := w.flows[s.flow]
	if f.Allowed {
		w.allowed--
		w.report.Answered++
		return
	}
	w.report.Wrong = append(w.report.Wrong, Wrong{Flow: f.Flow, SrcPort: k.srcPort, Sent: s.at, Answered: time.Now()})
}

func socketOf(f Watched) socketKey { return socketKey{f.Host, f.Flow.protocol(), f.Flow.Src} }

// keyOf is the key that the answer to a probe will have.
func keyOf(f Flow, port uint16) probeKey {
	k := probeKey{f.protocol(), f.Src, f.Dst, port, f.Port}
	if !f.hasPorts() {
		k.dstPort = 0
	}
	return k
}
