// Package podnames finds out for the log which pod has an address.
//
// A node that hears of the pods that its policies can name knows few of those that are denied: these are mostly of namespaces that no policy names. So the API
// server is asked for the pod of an address, and a line waits for the answer, for a moment.
//
//	known pods ──> names ──────────────────> a line
//	   └ none ───> a question, few a second ──┘ waits for [Patience] at most
//
// Invariants:
//   - lines are written in the order in which they came, each once, and no later than [Patience] after that;
//   - what waits is bounded: where many lines come, they are written without the names that are not there;
//   - whatever packets come, one node asks [Rate] times a second at the most, and one question at a time, and all nodes together [ClusterRate] times: an API
//     server looks at all pods for each. A question that may not be asked now is not asked, and its line does not wait;
//   - what it was told is forgotten soon, since an address comes to another pod.
//
// It knows nothing of policies and packets.
package podnames

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

const (
	// Patience is how long a line waits for names.
	Patience = 500 * time.Millisecond
	// Rate is how many questions a node asks a second, in the long run.
	Rate = 2
	// ClusterRate is how many all nodes may ask: each has the same share of that. With 100,000 pods one question may take 20 ms of an API server's processor,
	// and whoever can send to pods of many nodes can have all these ask.
	ClusterRate = 20
	// Burst is how many a node asks at once, after some quiet.
	Burst = 10
	// ClusterBurst is how many all nodes may ask at once. Each may ask one.
	ClusterBurst = 500

	knownLife  = time.Second      // for which it is not looked again whether a pod is known: that is a walk over all known pods
	namedLife  = 30 * time.Second // for which the API server's answer counts
	noneLife   = 10 * time.Second // likewise, if it has no such pod: one may be about to get the address
	failedLife = 10 * time.Second // for which nothing is asked, after a question that failed

	maxAsked   = 16   // questions that wait
	maxWaiting = 512  // lines that wait; from half as many on they do not any more
	maxNames   = 1024 // that are remembered
)

// Asker knows all pods of the cluster.
type Asker interface {
	// PodAt is the pod that has an address, zero if none has.
	PodAt(ctx context.Context, a netip.Addr) (policy.PodName, error)
}

// Names finds the names of pods by their addresses. Named may be called from any goroutine. Without an Asker, the pods that are known are all.
type Names struct {
	Asker Asker

	known func(...netip.Addr) []policy.PodName
	nodes func() int
	lines chan *line
	asked chan *answer
	hurry chan struct{} // receives when so much waits that nothing is to wait any more
	ended chan struct{} // closed at the end

	sending sync.RWMutex // held for reading by who sends a line

	mu      sync.Mutex
	answers map[netip.Addr]*answer
	failed  time.Time // when the last question failed, zero if it did not
	limit   *rate.Limiter
}

var _ manager.LeaderElectionRunnable = (*Names)(nil)

// New makes Names of what knows some pods: known returns a name for each address, zero for one that no pod has which it knows. nodes is how many nodes the
// cluster has, at the most.
func New(known func(...netip.Addr) []policy.PodName, nodes func() int) *Names {
	return &Names{
		known: known, nodes: nodes, limit: rate.NewLimiter(Rate, Burst),
		lines: make(chan *line, maxWaiting), asked: make(chan *answer, maxAsked), hurry: make(chan struct{}, 1), ended: make(chan struct{}),
		answers: map[netip.Addr]*answer{},
	}
}

// answer is what is known of an address.
type answer struct {
	addr netip.Addr
	done chan struct{} // closed once there is something to read
	name policy.PodName
	till time.Time // for which it counts; zero before there is an answer
}

func (a *answer) there() bool {
	select {
	case <-a.done:
		return true
	default:
		return false
	}
}

// line is what is to be written.
type line struct {
	answers []*answer // nil for an address that is not asked about
	write   func(pods []policy.PodName)
	till    time.Time // for which it may wait
}

// names are those that are there.
func (l *line) names() []policy.PodName {
	names := make([]policy.PodName, len(l.answers))
	for i, a := range l.answers {
		if a != nil && a.there() {
			names[i] = a.name
		}
	}
	return names
}

// Named has write called with the names of the pods that have these addresses, zero where no pod has one, or nobody can tell in time.
// It is called now or a little later, in the order of the calls of Named. Where nobody is to be asked, it is called now.
func (n *Names) Named(write func(pods []policy.PodName), addrs ...netip.Addr) {
	now := time.Now()
	l := &line{answers: n.lookUp(now, addrs), write: write, till: now.Add(Patience)}
	if n.Asker == nil {
		write(l.names())
		return
	}
	if !n.send(l) {
		write(l.names())
		return
	}
	if len(n.lines) > maxWaiting/2 {
		select {
		case n.hurry <- struct{}{}:
		default: // it hurries already
		}
	}
}

// send has a line be written by [Names.Start], or reports that this has ended.
func (n *Names) send(l *line) bool {
	n.sending.RLock()
	defer n.sending.RUnlock()
	select {
	case <-n.ended:
		return false
	default:
	}
	select {
	case n.lines <- l:
		return true
	case <-n.ended:
		return false
	}
}

// lookUp finds what is known of addresses, and asks for the rest.
func (n *Names) lookUp(now time.Time, addrs []netip.Addr) []*answer {
	n.mu.Lock()
	defer n.mu.Unlock()
	found := make([]*answer, len(addrs))
	var looked []netip.Addr
	for i, a := range addrs {
		if found[i] = n.remembered(now, a); found[i] == nil && a.IsValid() {
			looked = append(looked, a)
		}
	}
	if len(looked) == 0 {
		return found
	}
	n.forget(now)
	for i, name := range n.known(looked...) {
		n.learn(now, looked[i], name)
	}
	for i, a := range addrs {
		if found[i] == nil && a.IsValid() {
			found[i] = n.answers[a]
		}
	}
	return found
}

// remembered is what is known of an address, nil if nothing is or that is too old.
func (n *Names) remembered(now time.Time, a netip.Addr) *answer {
	if one := n.answers[a]; one != nil && (one.till.IsZero() || now.Before(one.till)) {
		return one
	}
	return nil
}

// learn notes the name of a pod that is known here. If none is, it asks.
func (n *Names) learn(now time.Time, a netip.Addr, name policy.PodName) {
	one := &answer{addr: a, name: name, done: make(chan struct{})}
	n.answers[a] = one
	ask := name == (policy.PodName{}) && n.Asker != nil && mayBePods(a)
	switch {
	case ask && (now.Sub(n.failed) < failedLife || !n.mayAsk()):
		lookups.WithLabelValues(notAsked).Inc()
	case ask:
		select {
		case n.asked <- one:
			return
		default: // more than can be asked
			lookups.WithLabelValues(notAsked).Inc()
		}
	}
	one.till = now.Add(knownLife)
	close(one.done)
}

// mayAsk reports whether a question may be asked now, which counts as one.
func (n *Names) mayAsk() bool {
	nodes := max(n.nodes(), 1)
	n.limit.SetLimit(min(Rate, rate.Limit(ClusterRate)/rate.Limit(nodes)))
	n.limit.SetBurst(max(1, min(Burst, ClusterBurst/nodes)))
	return n.limit.Allow()
}

// mayBePods reports whether a pod of another node may have an address.
func mayBePods(a netip.Addr) bool {
	return a.IsGlobalUnicast() // neither link-local, nor loopback, nor for many
}

// forget forgets what counts no more, and everything else that is there if that is too much.
func (n *Names) forget(now time.Time) {
	if len(n.answers) < maxNames {
		return
	}
	for _, all := range []bool{false, true} {
		for a, one := range n.answers {
			if !one.till.IsZero() && (all || !now.Before(one.till)) {
				delete(n.answers, a)
			}
		}
		if len(n.answers) < maxNames/2 {
			return
		}
	}
}

// NeedLeaderElection is false: each node has its log.
func (*Names) NeedLeaderElection() bool { return false }

// Start asks and writes until ctx ends.
func (n *Names) Start(ctx context.Context) error {
	var running sync.WaitGroup
	running.Go(func() { n.ask(ctx) })
	defer running.Wait()
	defer n.end()
	for {
		select {
		case <-ctx.Done():
			return nil
		case l := <-n.lines:
			n.await(ctx, l)
			l.write(l.names())
		}
	}
}

// end writes what waits.
func (n *Names) end() {
	close(n.ended)
	n.sending.Lock() // until all who have not seen the end have sent
	defer n.sending.Unlock()
	for {
		select {
		case l := <-n.lines:
			l.write(l.names())
		default:
			return
		}
	}
}

// await returns when all names of a line are there, or it has waited for long enough.
func (n *Names) await(ctx context.Context, l *line) {
	for _, a := range l.answers {
		left := time.Until(l.till)
		if a == nil || a.there() || left <= 0 || len(n.lines) > maxWaiting/2 {
			continue
		}
		timer := time.NewTimer(left)
		select {
		case <-a.done:
		case <-timer.C:
		case <-n.hurry:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// ask asks one question after the other.
func (n *Names) ask(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case one := <-n.asked:
			name, err := n.Asker.PodAt(ctx, one.addr)
			n.note(one, name, err)
		}
	}
}

// note notes an answer.
func (n *Names) note(one *answer, name policy.PodName, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	now, result, life := time.Now(), found, namedLife
	switch {
	case err != nil:
		n.failed, result, life = now, failed, failedLife
	case name == (policy.PodName{}):
		result, life = none, noneLife
	}
	lookups.WithLabelValues(result).Inc()
	one.name, one.till = name, now.Add(life)
	close(one.done)
}
