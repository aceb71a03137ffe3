package packets

import (
	"testing"
	"time"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/test/kit"
	"github.com/ringfence-io/ringfence/test/scenario"
)

// answersAlone lets client and remote speak to web, which may begin nothing itself.
const answersAlone = `red/web: {podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress, Egress], ingress: [{from: [{namespaceSelector: {}, podSelector: {matchExpressions: [{key: app, operator: In, values: [client, remote]}]}}]}]}`

// flush empties our table, and has the kernel forget what it tracks: the packets that come next begin connections, whoever sends them.
func (w *world) flush(t *testing.T) {
	t.Helper()
	for _, n := range w.nodes {
		for _, f := range iptables.Families {
			for _, do := range []string{"-F", "-X"} {
				n.command(t, "", programOf(f, w.backend), "-w", "-t", "security", do)
			}
		}
	}
	kit.Must(t, w.top.ForgetConnections())
}

// repair has every node look at its kernel, as it does with each resync.
func (w *world) repair(t *testing.T, c *scenario.Cluster) {
	t.Helper()
	for _, n := range w.nodes {
		n.sync(t, c, true)
	}
}

// begun are the connections over a protocol that the first node tracks from the address of one place to that of another.
func (w *world) begun(t *testing.T, p policy.Protocol, from, to string) (all []policy.Connection) {
	t.Helper()
	a, b := w.places[from].in(w.family), w.places[to].in(w.family)
	kit.Must(t, w.nodes[0].Do(func() error {
		return w.nodes[0].plane.Connections(t.Context(), policy.Affected{All: true}, func(c policy.Connection) {
			if c.Original.Protocol == p && c.Original.Src == a && c.Original.Dst == b {
				all = append(all, c)
			}
		})
	}))
	return all
}

// TestWhatIsAllowedGoesOnAfterAFlush: while our rules are away, the server's answer is the first packet of a live connection that the kernel sees. Policy denies what
// the server begins, so that the entry goes once the rules are back; the client, which is allowed to begin, goes on at once, and so does every other of its
// connections to the server's port. What the server does begin stays denied.
func TestWhatIsAllowedGoesOnAfterAFlush(t *testing.T) {
	kit.NeedNetfilter(t)
	for _, c := range combinations() {
		t.Run(c.String(), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, c)
			lives := w.enforcers(true)
			answers := w.cluster()
			setPolicies(t, answers, answersAlone)
			for _, network := range []string{"tcp", "udp"} {
				for _, from := range []string{"client", "remote"} {
					w.sync(t, answers)
					w.cutNow(t, lives)
					kit.Must(t, w.top.ForgetConnections())
					l := call(t, w, network, from, "web", 0)
					w.flush(t)
					if !l.carries(l.server, l.client) {
						t.Fatalf("%s from %s: without rules the server is not heard", network, from)
					}
					if all := w.begun(t, map[string]policy.Protocol{"tcp": policy.TCP, "udp": policy.UDP}[network], "web", from); len(all) != 1 || all[0].SYN {
						t.Fatalf("%s from %s: the kernel knows of %v, not of the one connection from web", network, from, all)
					}
					w.repair(t, answers)
					if cut := w.cutNow(t, lives); cut != 1 {
						t.Errorf("%s from %s: %d connections were cut, want the one that seems to come from web", network, from, cut)
					}
					if l.carries(l.server, l.client) {
						t.Errorf("%s from %s: web begins what policy denies it", network, from)
					}
					// TCP takes ever longer to repeat what the server said in vain.
					if !l.carries(l.client, l.server) || !carriesWithin(10*time.Second, l.server, l.client) {
						t.Errorf("%s from %s: a connection that is allowed does not go on", network, from)
					}
					l.hangUp() // over UDP its end has the port
					another, err := tryCall(t, w, network, from, "web", 0)
					if err != nil {
						t.Errorf("%s from %s: another connection does not pass: %v", network, from, err)
						continue
					}
					another.hangUp()
				}
			}
		})
	}
}

// TestWhatSlippedInStaysCut: client may not reach web, and did while our rules were away. The kernel has seen how that began, so that the connection is cut when the
// rules are back, and web's next word does not bring it back, though web may reach client.
func TestWhatSlippedInStaysCut(t *testing.T) {
	kit.NeedNetfilter(t)
	for _, c := range combinations() {
		t.Run(c.String(), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, c)
			lives := w.enforcers(true)
			closed := w.cluster()
			setPolicies(t, closed, fromRed)
			w.sync(t, closed)
			w.cutNow(t, lives)
			w.flush(t)
			l := call(t, w, "tcp", "client", "web", 0)
			if all := w.begun(t, policy.TCP, "client", "web"); len(all) != 1 || !all[0].SYN {
				t.Errorf("the kernel knows of %v, not of the one connection with its SYN", all)
			}
			w.repair(t, closed)
			if cut := w.cutNow(t, lives); cut != 1 {
				t.Errorf("%d connections were cut, want one", cut)
			}
			if l.carries(l.server, l.client) || l.carries(l.client, l.server) {
				t.Error("a connection that slipped in goes on")
			}
			w.othersPass(t, "tcp", "client")
		})
	}
}
