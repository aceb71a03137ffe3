// Package passing says which connections of some pods of this node pass.
//
//	kernel ── the connections that it tracks, now and then ──> those that were not there before, by their ends ──> a Witness
//
// Its counterpart is package denials. It reports, and decides nothing: enforcement goes on as if it were not there, whatever fails here.
//
// Invariants:
//   - looks take at most one part in [share] of one processor, however many connections there are, and none where no namespace asks for them;
//   - a connection counts once, however often it is seen, as long as there are not very many;
//   - nothing here waits for a packet, and no packet waits for anything here.
//
// A connection that begins and is forgotten between two looks is not seen. The kernel remembers one of TCP for two minutes after it has ended, or ten seconds
// after a reset (linux/net/netfilter/nf_conntrack_proto_tcp.c), and one of UDP for half a minute to two.
package passing

import (
	"cmp"
	"context"
	"encoding/binary"
	"hash/maphash"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/ringfence-io/ringfence/enforcer/dataplane"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

const (
	// pause is between two looks at least: shorter than the kernel remembers any connection.
	pause = 9 * time.Second
	// share is how many times as long as the last look the pause after it lasts at least: looks take half a percent of a processor.
	share = 200
	// maxRemembered are the connections that are known to have been seen, in 8 bytes each. Where there are more, some count at each look.
	maxRemembered = 1 << 17
	// maxFlows are how many kinds of connections are told of, at each look.
	maxFlows = 1 << 12
	// maxAsked are how many addresses that no known pod has are asked about at a look: half of what may be asked at all, since the log of denied packets asks
	// too. The others wait for the next look, up to maxWaiting of them.
	maxAsked   = 8
	maxWaiting = 1 << 8
)

// Source is the kernel.
type Source interface {
	// Connections shows each connection that is affected to visit, and may show others.
	Connections(ctx context.Context, affected policy.Affected, visit func(policy.Connection)) error
	// Addresses are the node's own.
	Addresses(ctx context.Context) ([]netip.Addr, error)
}

var (
	_ Source = (*dataplane.Dataplane)(nil)
	_ Source = (*dataplane.Fake)(nil)
)

// Pods know whose an address is.
type Pods interface {
	// PodsAt are the known pods that hold the addresses, zero for an address that none holds.
	PodsAt(addrs ...netip.Addr) []policy.PodName
	// Named has write called with the pods that hold the addresses, now or later, once that has been asked.
	Named(write func(pods []policy.PodName), addrs ...netip.Addr)
}

// asked are the pods of this node that connections are looked for, by their addresses.
type asked map[netip.Addr]policy.PodName

// namespaces are those of the pods, sorted.
func (a asked) namespaces() []string {
	in := map[string]bool{}
	for _, pod := range a {
		in[pod.Namespace] = true
	}
	return slices.Sorted(maps.Keys(in))
}

// Sight are connections of a pod of this node that pass, and that no look has seen before.
type Sight struct {
	At        time.Time
	Direction policy.Direction // at the end that is a pod of this node
	Src, Dst  End
	Protocol  policy.Protocol
	Port      uint16 // of Dst, 0 of a protocol without ports
	Number    int
}

// End is one end of a connection, and its pod if anybody knows that.
type End struct {
	Addr netip.Addr
	Pod  policy.PodName
}

// Witness hears of what passes. It is called from several goroutines.
type Witness interface {
	// Passed takes connections of one kind.
	Passed(Sight)
	// Looks takes the namespaces that connections are looked for, whenever others ask, and once at the start.
	Looks(namespaces []string)
}

var lookSeconds = prometheus.NewHistogram(prometheus.HistogramOpts{
	Name:    "ringfence_allowed_look_duration_seconds",
	Help:    "Time to read which connections the kernel tracks, for namespaces that ask for those that are allowed.",
	Buckets: prometheus.ExponentialBuckets(0.0001, 4, 9),
})

// Metrics are what an enforcer says of the looks.
func Metrics() []prometheus.Collector { return []prometheus.Collector{lookSeconds} }

// seed makes numbers of connections that nobody foresees.
var seed = maphash.MakeSeed()

// Watcher looks at the connections of the pods that ask for it. Start runs it, and Ask says meanwhile which pods these are.
type Watcher struct {
	Source  Source
	Pods    Pods
	Witness Witness
	Log     logr.Logger

	mu    sync.Mutex
	asked asked
	news  chan struct{} // receives when others are asked for; made when it is needed

	seen    []uint64     // connections of the last look, ascending
	waiting map[flow]int // connections that wait for the names of their ends
	failed  string       // the error that the log has already
}

// Ask says whose connections are looked for from now on: those of some pods of this node, by their addresses. It may be called at any time.
func (w *Watcher) Ask(pods map[netip.Addr]policy.PodName) {
	w.mu.Lock()
	same := maps.Equal(w.asked, pods)
	w.asked = pods
	w.mu.Unlock()
	if same {
		return
	}
	select {
	case w.changed() <- struct{}{}:
	default: // it is known
	}
}

func (w *Watcher) changed() chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.news == nil {
		w.news = make(chan struct{}, 1)
	}
	return w.news
}

func (w *Watcher) current() asked {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.asked
}

// Start runs until ctx ends. It never fails: what cannot be read is logged, and tried again.
func (w *Watcher) Start(ctx context.Context) error {
	var told []string
	due, isTold := time.NewTimer(pause), false
	defer due.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.changed():
		case <-due.C:
			due.Reset(max(pause, share*w.look(ctx, w.current())))
		}
		if namespaces := w.current().namespaces(); !isTold || !slices.Equal(told, namespaces) {
			told, isTold = namespaces, true
			w.Witness.Looks(namespaces)
		}
	}
}

// flow is what connections have in common of which one thing is said.
type flow struct {
	src, dst netip.Addr
	protocol policy.Protocol
	port     uint16
	at       policy.Direction
}

// look looks once, and returns how long that took.
func (w *Watcher) look(ctx context.Context, pods asked) time.Duration {
	if len(pods) == 0 {
		w.seen, w.waiting = nil, nil
		return 0
	}
	began := time.Now()
	found, seen, err := w.read(ctx, pods)
	if err == nil {
		w.seen, w.failed = seen, ""
		w.tell(pods, found, began)
	} else if ctx.Err() == nil && err.Error() != w.failed {
		w.failed = err.Error()
		w.Log.Error(err, "connections that pass could not be listed, it will be tried again; enforcement goes on")
	}
	took := time.Since(began)
	lookSeconds.Observe(took.Seconds())
	return took
}

// read are the connections that were not there at the last look, by what they have in common, and all that are there now.
func (w *Watcher) read(ctx context.Context, pods asked) (found map[flow]int, seen []uint64, err error) {
	own, err := w.Source.Addresses(ctx)
	if err != nil {
		return nil, nil, err
	}
	here, anywhere := policy.End{Addrs: slices.SortedFunc(maps.Keys(pods), netip.Addr.Compare)}, policy.End{Any: true}
	affected := policy.Affected{Between: []policy.Between{{Sources: here, Destinations: anywhere}, {Sources: anywhere, Destinations: here}}}
	isOwn := map[netip.Addr]bool{}
	for _, a := range own {
		isOwn[a] = true
	}
	found = map[flow]int{}
	now := map[uint64]bool{}
	err = w.Source.Connections(ctx, affected, func(c policy.Connection) {
		flows := flowsOf(pods, &c)
		if len(flows) == 0 || isOwn[c.Original.Src] {
			return
		}
		one := id(&c)
		if now[one] {
			return // it was shown twice
		}
		if _, before := slices.BinarySearch(w.seen, one); !before {
			for _, f := range flows {
				if _, is := found[f]; !is && len(found) >= maxFlows {
					return // it is new at the next look too
				}
				found[f]++
			}
		}
		if len(now) < maxRemembered {
			now[one] = true
		}
	})
	return found, slices.Sorted(maps.Keys(now)), err
}

// flowsOf are the directions in which a connection is one of pods that ask: the policies of its ends in them have let it pass. What has begun and had no answer
// may have been denied at the other end: of TCP it does not count.
func flowsOf(pods asked, c *policy.Connection) []flow {
	if c.Zone != 0 || c.Master != (policy.Tuple{}) || c.Original.Protocol == policy.TCP && !c.Answered {
		return nil
	}
	var all []flow
	src, dst := c.Ends()
	f := flow{src: src, dst: dst, protocol: c.Original.Protocol, port: c.Reply.SrcPort}
	if _, is := pods[src]; is {
		f.at = policy.Egress
		all = append(all, f)
	}
	if _, is := pods[dst]; is {
		f.at = policy.Ingress
		all = append(all, f)
	}
	return all
}

// id tells a connection from others. That the kernel gives it is not enough where one ends and another one begins.
func id(c *policy.Connection) uint64 {
	var text [2*16 + 2*2 + 1 + 4]byte
	src, dst := c.Original.Src.As16(), c.Original.Dst.As16()
	n := copy(text[:], src[:])
	n += copy(text[n:], dst[:])
	text[n] = byte(c.Original.Protocol)
	binary.NativeEndian.PutUint16(text[n+1:], c.Original.SrcPort|c.Original.ICMPID)
	binary.NativeEndian.PutUint16(text[n+3:], c.Original.DstPort)
	binary.NativeEndian.PutUint32(text[n+5:], c.ID)
	return maphash.Bytes(seed, text[:])
}

// tell tells the witness of connections, those of which there are most first. Of those whose other end has no known pod few are asked about, and others wait.
func (w *Watcher) tell(pods asked, found map[flow]int, at time.Time) {
	for f, number := range w.waiting {
		found[f] += number
	}
	w.waiting = map[flow]int{}
	flows := slices.SortedFunc(maps.Keys(found), func(a, b flow) int { return cmp.Or(cmp.Compare(found[b], found[a]), a.compare(b)) })
	remotes := make([]netip.Addr, len(flows))
	for i, f := range flows {
		remotes[i] = f.remote()
	}
	asks := 0
	for i, pod := range w.Pods.PodsAt(remotes...) {
		f := flows[i]
		switch {
		case pod != policy.PodName{}:
			w.Witness.Passed(f.sight(pods, pod, found[f], at))
		case asks < maxAsked:
			asks++
			w.Pods.Named(func(named []policy.PodName) { w.Witness.Passed(f.sight(pods, named[0], found[f], at)) }, f.remote())
		case len(w.waiting) < maxWaiting:
			w.waiting[f] = found[f]
		default:
			w.Witness.Passed(f.sight(pods, policy.PodName{}, found[f], at))
		}
	}
}

// remote is the end that is not the pod at which the connection was seen.
func (f flow) remote() netip.Addr {
	if f.at == policy.Egress {
		return f.dst
	}
	return f.src
}

func (f flow) compare(g flow) int {
	return cmp.Or(f.src.Compare(g.src), f.dst.Compare(g.dst), cmp.Compare(f.protocol, g.protocol), cmp.Compare(f.port, g.port), cmp.Compare(f.at, g.at))
}

func (f flow) sight(pods asked, remote policy.PodName, number int, at time.Time) Sight {
	s := Sight{At: at, Direction: f.at, Src: End{Addr: f.src}, Dst: End{Addr: f.dst}, Protocol: f.protocol, Port: f.port, Number: number}
	if f.at == policy.Egress {
		s.Src.Pod, s.Dst.Pod = pods[f.src], remote
	} else {
		s.Src.Pod, s.Dst.Pod = remote, pods[f.dst]
	}
	return s
}
