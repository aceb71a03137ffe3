package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringfence-io/ringfence/lab/host"
)

const (
	// interval is how long after a packet the next one is sent: how exactly the moment of a change is known.
	interval = 250 * time.Microsecond
	// quiet is for how long nothing may have arrived for a flow to count as closed.
	quiet = 50 * time.Millisecond
)

// watch sees the moments at which a flow opens and closes, by sending a packet all the time, each as a new connection.
//
// One goroutine sends, one receives. The mutex guards what they share.
type watch struct {
	packet   []byte
	out, in  int // sockets
	stop     chan struct{}
	all      sync.WaitGroup
	mu       sync.Mutex
	sent     []time.Time // by number of the packet
	passed   []bool
	lastGood int       // the number of the last packet that passed, -1 if there is none
	silentAt time.Time // when nothing had arrived for as long as quiet, for the last time
	failed   error
}

// watchFlow starts to send from one host to another. The source address may be any.
func watchFlow(from, to *host.Host, src, dst netip.AddrPort) (*watch, error) {
	w := &watch{packet: datagram(src, dst, make([]byte, 8)), out: -1, in: -1, stop: make(chan struct{}), lastGood: -1}
	err := errors.Join(
		from.Do(func() (err error) {
			w.out, err = socket(unix.SOCK_RAW, unix.IPPROTO_RAW, netip.AddrPortFrom(netip.IPv4Unspecified(), 0))
			if err != nil {
				return err
			}
			return connect(w.out, netip.AddrPortFrom(dst.Addr(), 0))
		}),
		to.Do(func() (err error) {
			w.in, err = socket(unix.SOCK_DGRAM, unix.IPPROTO_UDP, dst)
			if err != nil {
				return err
			}
			return errors.Join(
				unix.SetsockoptInt(w.in, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20),
				unix.SetsockoptTimeval(w.in, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: int64(quiet / time.Microsecond)}),
			)
		}),
	)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("watching %s -> %s: %w", src, dst, err), w.close())
	}
	w.all.Go(w.send)
	w.all.Go(w.receive)
	return w, nil
}

func (w *watch) close() error {
	close(w.stop)
	w.all.Wait()
	for _, fd := range []int{w.out, w.in} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	return w.failed
}

func (w *watch) stopped() bool {
	select {
	case <-w.stop:
		return true
	default:
		return false
	}
}

func (w *watch) send() {
	for n := 0; !w.stopped(); n++ {
		setSourcePort(w.packet, port(n))
		binary.BigEndian.PutUint64(w.packet[28:], uint64(n))
		w.mu.Lock()
		w.sent, w.passed = append(w.sent, time.Now()), append(w.passed, false)
		w.mu.Unlock()
		if _, err := unix.Write(w.out, w.packet); err != nil {
			w.mu.Lock()
			w.failed = errors.Join(w.failed, fmt.Errorf("sending: %w", err))
			w.mu.Unlock()
			return
		}
		time.Sleep(interval)
	}
}

func (w *watch) receive() {
	buf := make([]byte, 64)
	for !w.stopped() {
		n, err := unix.Read(w.in, buf)
		if err != nil || n != 8 {
			w.mu.Lock()
			w.silentAt = time.Now()
			w.mu.Unlock()
			continue
		}
		number := int(binary.BigEndian.Uint64(buf))
		w.mu.Lock()
		w.passed[number] = true
		w.lastGood = max(w.lastGood, number)
		w.mu.Unlock()
	}
}

// count is how many packets have been sent.
func (w *watch) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.sent)
}

// since says how many packets were sent from a number on, and how many of these have not arrived. The last ones may be on their way, and do not count.
func (w *watch) since(number int) (sent, missing int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := number; i < len(w.sent) && time.Since(w.sent[i]) > quiet; i++ {
		if sent++; !w.passed[i] {
			missing++
		}
	}
	return sent, missing
}

// opened waits for the flow, which must be closed, to open, and returns how long after since the first packet that passed was sent.
func (w *watch) opened(ctx context.Context, since time.Time) (time.Duration, error) {
	var took time.Duration
	err := w.wait(ctx, "open", func() bool {
		if w.lastGood < 0 || w.sent[w.lastGood].Before(since) {
			return false
		}
		for i := w.lastGood; i >= 0 && w.sent[i].After(since); i-- {
			if w.passed[i] {
				took = w.sent[i].Sub(since)
			}
		}
		return true
	})
	return took, err
}

// closed waits for the flow, which must be open, to close, and returns how long after since the first packet was sent that was followed
// by none that passed.
func (w *watch) closed(ctx context.Context, since time.Time) (time.Duration, error) {
	var took time.Duration
	err := w.wait(ctx, "close", func() bool {
		next := w.lastGood + 1
		if next == len(w.sent) || w.sent[next].Before(since) || w.silentAt.Before(w.sent[next].Add(quiet)) {
			return false
		}
		took = w.sent[next].Sub(since)
		return true
	})
	return took, err
}

// wait asks, with the mutex held, until done.
func (w *watch) wait(ctx context.Context, what string, done func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		w.mu.Lock()
		ok, failed := done(), w.failed
		w.mu.Unlock()
		if ok || failed != nil {
			return failed
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting for the flow to %s: %w", what, ctx.Err())
		}
	}
}
