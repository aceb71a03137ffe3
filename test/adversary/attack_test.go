package adversary

import (
	"fmt"
	mathrand "math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/ringfence-io/ringfence/enforcer/dataplane"
	"github.com/ringfence-io/ringfence/lab/probe"
	"github.com/ringfence-io/ringfence/lab/topology"
	"github.com/ringfence-io/ringfence/test/kit"
)

// attack is one row of the table. What is expected of each is the same: nothing arrives.
type attack struct {
	name string
	// finding is the one that it belongs to: A1 to A8, or "own" for further ones.
	finding string
	duels   []duel
	// sockets and raw are how a pod without any right sends, and one with NET_RAW. Where there is no such way, noSockets says why.
	sockets, raw func(*bout)
	noSockets    string
	// without says why the attack cannot work in a combination even where nothing is enforced: it is left out there.
	without []exception
	// node changes a setting of the attacker's node as its administrator might have done.
	node []setting
	// services is set where it needs a Service.
	services bool
	// untracked is set where connection tracking, which a Service switches on, holds it back by itself.
	untracked bool
	// steals is set where the attack is to bring a packet of friend's, to guarded, to the attacker.
	steals bool
	// poisons is set where others believe afterwards what is not so. What steals does so too.
	poisons bool
}

// duel is who attacks whom. Policy forbids that anything arrives, but for the control port.
type duel struct{ from, to string }

func (d duel) String() string { return d.from + " to " + d.to }

var (
	// near are pods of one node: one may not send, or the other may not receive.
	near = []duel{{"shut", "bare"}, {"open", "guarded"}}
	// remote are ends of another node, and outside of the cluster.
	remote = []duel{{"open", "far"}, {"shut", "outside"}}
	// home is the attacker's own node.
	home = []duel{{"shut", "n1"}}

	everywhere = slices.Concat(near, remote, home)
)

// exception is a combination, and duels in it, in which an attack cannot work, or cannot be made.
type exception struct {
	why   string
	holds func(combination, duel) bool
	// absent is set where there is nothing to try: what the attack is made of is not there, or the network is another combination's.
	absent bool
}

// exception is the one that holds, or nil.
func (a attack) exception(c combination, d duel) *exception {
	var found *exception
	for i := range a.without {
		if e := &a.without[i]; e.holds(c, d) && (found == nil || e.absent) {
			found = e
		}
	}
	return found
}

// setting is a sysctl of a node, and what it is otherwise. LINK stands for the interface that the attacker's packets to other networks come in on.
type setting struct{ name, value, usual string }

// attacks is the table.
func attacks() []attack {
	return slices.Concat(
		linkLocalAttacks, secondAddressAttacks, sourceAttacks(), tagAttacks, groupAttacks, discoveryAttacks(), neighbourAttacks, goneAttacks(),
		nodeAttacks, frameAttacks(), tunnelAttacks(), fragmentAttacks, conntrackAttacks, serviceAttacks, protocolAttacks(),
	)
}

// TestTable holds the table to its form.
func TestTable(t *testing.T) {
	seen := map[string]bool{}
	for _, a := range attacks() {
		switch {
		case seen[a.name]:
			t.Errorf("two attacks are called %q", a.name)
		case a.sockets == nil && a.raw == nil:
			t.Errorf("%s: nobody can do it", a.name)
		case (a.sockets == nil) != (a.noSockets != ""):
			t.Errorf("%s: it has a way without rights, or a reason why not", a.name)
		case len(a.duels) == 0 || a.finding == "":
			t.Errorf("%s: it has no duels, or no finding", a.name)
		}
		seen[a.name] = true
	}
	for i := 1; i <= 7; i++ { // the eighth is an allow that does not hold, and a node's further addresses
		if f := fmt.Sprintf("A%d", i); !slices.ContainsFunc(attacks(), func(a attack) bool { return a.finding == f }) {
			t.Errorf("no attack belongs to %s", f)
		}
	}
}

// TestAttacks runs the table where policy is enforced. Nothing arrives.
func TestAttacks(t *testing.T) {
	kit.NeedNetfilter(t)
	var tally tally
	t.Cleanup(func() { t.Log(tally.String()) })
	for _, c := range combinations(dataplane.Legacy, dataplane.NFT) {
		t.Run(c.String(), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, c)
			w.makeServices(t)
			w.enforce(t)
			w.run(t, &tally, true)
		})
	}
}

// TestAttacksWork runs the table where nothing is enforced. Each attack arrives, on each combination that it makes sense on; where the table
// says that it cannot, nothing does.
func TestAttacksWork(t *testing.T) {
	kit.NeedNetfilter(t)
	var tally tally
	t.Cleanup(func() { t.Log(tally.String()) })
	for _, c := range combinations(dataplane.NFT) {
		t.Run(c.String(), func(t *testing.T) {
			t.Parallel()
			newWorld(t, c).run(t, &tally, false)
		})
	}
}

// run runs the table once, or as often as is asked for.
func (w *world) run(t *testing.T, tally *tally, enforced bool) {
	n := repeats(t)
	for i := range n {
		all := attacks()
		if i > 0 {
			mathrand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		}
		// What needs no Service comes first: they stay.
		slices.SortStableFunc(all, func(a, b attack) int { return order(a) - order(b) })
		for _, a := range all {
			for _, d := range a.duels {
				e := a.exception(w.combination, d)
				if e != nil && (enforced || e.absent) || a.untracked && w.services && !enforced {
					tally.leftOut()
					continue
				}
				for _, way := range []struct {
					rights probe.Rights
					send   func(*bout)
				}{{probe.Sockets, a.sockets}, {probe.NetRaw, a.raw}} {
					if way.send == nil {
						continue
					}
					t.Run(fmt.Sprintf("%s/%s/%s", a.name, d, way.rights), func(t *testing.T) {
						if a.services {
							w.makeServices(t)
						}
						tally.add(w.attack(t, a, d, way.rights, way.send, i > 0, expected(enforced, e)))
					})
				}
			}
		}
	}
}

// outcome is what is expected of an attack.
type outcome uint8

const (
	arrives outcome = iota
	stopped         // by what is enforced
	barred          // by the kernel itself
)

func expected(enforced bool, e *exception) outcome {
	switch {
	case enforced:
		return stopped
	case e != nil:
		return barred
	}
	return arrives
}

func order(a attack) int {
	if a.services {
		return 1
	}
	return 0
}

// attack runs one attack, and returns how many packets have arrived. Some race against their victim, which says meanwhile what is so: where they are to
// work, they are tried up to three times, and where they are stopped once.
func (w *world) attack(t *testing.T, a attack, d duel, r probe.Rights, way func(*bout), long bool, want outcome) int {
	node := w.parties["n1"].host
	for _, s := range a.node {
		name := strings.ReplaceAll(s.name, "LINK", w.top.GatewayLink(w.parties[d.from].pod))
		kit.Must(t, node.Sysctl(name, s.value))
		defer func() { kit.Must(t, node.Sysctl(name, s.usual)) }()
	}
	if a.steals || a.poisons {
		defer w.heal(t)
	}
	tries := 1
	if want == arrives {
		tries = 3
	}
	var arrived [][]byte
	for ; tries > 0 && len(arrived) == 0; tries-- {
		arrived = w.try(t, a, newBout(w, d.from, d.to, long), r, way, want)
	}
	switch {
	case want == barred && len(arrived) > 0:
		t.Errorf("%d packets have arrived, and the table says that the attack cannot work here", len(arrived))
	case want == stopped && len(arrived) > 0:
		t.Errorf("%d packets have arrived, the first is % x", len(arrived), arrived[0])
	case want == arrives && len(arrived) == 0:
		t.Error("nothing has arrived: the attack does not work, and proves nothing")
	}
	return len(arrived)
}

// try runs one attack once, and returns what has arrived: at the victim, or at the attacker who steals.
func (w *world) try(t *testing.T, a attack, b *bout, r probe.Rights, way func(*bout), want outcome) [][]byte {
	t.Helper()
	if a.steals {
		w.pass(t, w.parties["friend"], w.parties["guarded"]) // both know each other
	}
	w.control(t, a, b) // the way is open, and neighbours are known
	judge := b.to
	if a.steals {
		judge = b.from
	}
	judge.sniffer.Forget()
	if err := b.send(r, way); err != nil {
		if want == barred {
			return nil
		}
		t.Fatalf("sending: %v", err)
	}
	w.control(t, a, b)
	if a.steals {
		to := w.parties["guarded"]
		b.marker = w.deliver(t, w.parties["friend"], to, netip.AddrPortFrom(w.in(to.addr), attackPort), to, b.from)
	}
	return judge.sniffer.Carrying(b.marker)
}

// control has a packet that is allowed pass, the way of the attack's. Of a pod that may send nothing, friend sends it; a stolen address is no way.
func (w *world) control(t *testing.T, a attack, b *bout) {
	t.Helper()
	from, to := b.from, b.to
	switch {
	case slices.Contains([]string{"gone", "done", "old"}, from.name):
		from = w.parties["friend"]
	case a.steals:
		to = w.parties["bare"]
	}
	w.pass(t, from, to)
}

// tally counts attacks.
type tally struct {
	mu                        sync.Mutex
	tried, worked, out, total int
}

func (c *tally) add(arrived int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tried++
	c.total += arrived
	if arrived > 0 {
		c.worked++
	}
}

func (c *tally) leftOut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out++
}

func (c *tally) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return fmt.Sprintf("%d attacks tried, %d arrived with %d packets; %d duels left out where they cannot work even with nothing enforced", c.tried, c.worked, c.total, c.out)
}

// The reasons why an attack cannot work somewhere.

func where(why string, holds func(combination, duel) bool) exception {
	return exception{why: why, holds: holds}
}

func absent(why string, holds func(combination, duel) bool) exception {
	return exception{why: why, holds: holds, absent: true}
}

func isNear(d duel) bool { return !isRemote(d) && d.to != "n1" }

func isRemote(d duel) bool { return slices.Contains([]string{"far", "remote", "n2", "outside"}, d.to) }

var (
	sameAsIPv6 = absent("the network is the same as in the combination with IPv6", func(c combination, _ duel) bool { return c.stack == ipv4 })

	onARoute = where("a routed pod's frames end at its node, which sends on by IP alone", func(c combination, d duel) bool {
		return c.kind == topology.Routed && isNear(d)
	})
	withoutIPv6 = absent("the cluster has no IPv6 addresses", func(c combination, _ duel) bool { return c.stack != ipv6 })
	withoutIPv4 = absent("it is about IPv4, and in an IPv6 cluster the same as in an IPv4 one", func(c combination, _ duel) bool { return c.stack == ipv6 })
)
