package packets

import (
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ringfence-io/ringfence/enforcer/dataplane"
	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/lab/probe"
	"github.com/ringfence-io/ringfence/lab/topology"
)

const (
	takeovers      = 16 // of both nodes, besides those by processes that are killed
	takeoverKills  = 16 // of enforcers while they take over
	ownLayout      = "1"
	anotherLayout  = "2"
	layoutVariable = "github.com/ringfence-io/ringfence/enforcer/iptables.layout"
)

// anotherVersion builds this test program as one of another layout.
var anotherVersion = sync.OnceValues(func() (string, error) {
	path := filepath.Join(programs, "packets-layout-"+anotherLayout)
	out, err := exec.Command("go", "test", "-c", "-o", path, "-ldflags", "-X "+layoutVariable+"="+anotherLayout, ".").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("building a program of another layout: %w: %s", err, out)
	}
	return path, nil
})

// otherBackend is the one that backend is not.
func otherBackend(backend string) string {
	if backend == dataplane.Legacy {
		return dataplane.NFT
	}
	return dataplane.Legacy
}

// TestNoVerdictIsWrongWhileVersionsTakeOver lets enforcers of two versions take over from each other, again and again, while policies change: versions with
// different layouts of chains, on the same back end of iptables; one that changes the back end; and both at once. Some are killed while they take over,
// and then one or the other goes on. Not one of the probes that run all the time, of allowed and of denied connections, sees anything of it, and after
// each takeover nothing of the version before is left.
func TestNoVerdictIsWrongWhileVersionsTakeOver(t *testing.T) {
	needRoot(t)
	other, err := anotherVersion()
	must(t, err)
	legacy := combination{dataplane.Legacy, topology.Bridged, iptables.IPv4} // both families are probed
	nft := combination{dataplane.NFT, topology.Routed, iptables.IPv4}
	for _, tt := range []struct {
		what string
		combination
		next func(version) version
	}{
		{"another layout", legacy, func(v version) version { return version{other, anotherLayout, v.backend} }},
		{"another layout", nft, func(v version) version { return version{other, anotherLayout, v.backend} }},
		{"another back end", legacy, func(v version) version { return version{v.program, v.layout, otherBackend(v.backend)} }},
		{"another layout and back end", nft, func(v version) version { return version{other, anotherLayout, otherBackend(v.backend)} }},
	} {
		t.Run(tt.what+"/"+tt.combination.String(), func(t *testing.T) {
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			w := newWorld(t, tt.combination)
			w.listenInBothFamilies(t)
			f := newFire(t, w, seed)
			f.apply(0)
			f.holdCut()
			watch, err := probe.Watch(watched(t, w), rate)
			must(t, err)
			versions := []version{f.version, tt.next(f.version)}
			stop := f.disturb()
			for i := 1; i <= takeovers; i++ {
				f.takeOver(i, versions)
			}
			stop()
			report, err := watch.Stop(20 * time.Second)
			must(t, err)
			f.stillCut()

			t.Logf("%d takeovers of two nodes each, %d kills: %s", takeovers, f.killed, report)
			if f.killed < takeoverKills {
				t.Errorf("killed %d enforcers, want %d", f.killed, takeoverKills)
			}
			if len(report.Wrong) > 0 {
				t.Errorf("%d wrong verdicts", len(report.Wrong))
			}
			if report.Rate() < 1000 || report.Answered == 0 || report.Silent == 0 {
				t.Errorf("too few probes to say anything: %s", report)
			}
			f.endAt(takeovers)
		})
	}
}

// takeOver ends both enforcers and has the versions' next one take over from them, to another change's state. Some are killed meanwhile, and followed by any of
// the versions, which is killed too before it is the next one's turn again.
func (f *fire) takeOver(change int, versions []version) {
	f.t.Helper()
	begin := time.Now()
	next := versions[change%len(versions)]
	for i := range f.processes {
		f.restart(i, next, change)
	}
	for f.killed*takeovers < takeoverKills*change {
		i := f.rng.IntN(len(f.processes))
		for _, v := range []version{versions[f.rng.IntN(len(versions))], next} {
			time.Sleep(time.Duration(f.rng.Int64N(int64(2 * f.took))))
			f.restart(i, v, change)
			f.killed++
		}
		begin = time.Now()
	}
	for _, p := range f.processes {
		p.wait(f.t, change)
	}
	f.took = (9*f.took + time.Since(begin)) / 10
	for _, p := range f.processes {
		f.nothingButOf(p.node, next)
	}
}

// restart kills a process and has a version go on in its place.
func (f *fire) restart(i int, v version, change int) {
	f.t.Helper()
	p := f.processes[i]
	p.kill(f.t, f.rng.IntN(2) == 0)
	f.version = v
	f.processes[i] = f.start(p.node)
	f.processes[i].send(f.t, change)
}

// ofAllLayouts are the names that have no layout.
var ofAllLayouts = []string{"RF-FORWARD", "RF-INPUT", "RF-4-CUT", "RF-6-CUT"}

// nothingButOf wants every chain and set of ours on a node to be of a version, and in no other place than its.
func (f *fire) nothingButOf(n *node, v version) {
	f.t.Helper()
	own := "RF-v" + v.layout + "-"
	found := 0
	look := func(where, name string) {
		switch {
		case !strings.HasPrefix(name, iptables.Prefix) || slices.Contains(ofAllLayouts, name):
		case strings.HasPrefix(name, own):
			found++
		default:
			f.t.Errorf("%s, after layout %s on %s has taken over: %s holds %s", n.name, v.layout, v.backend, where, name)
		}
	}
	for _, name := range strings.Fields(n.command(f.t, "", "ipset", "list", "-n")) {
		look("ipset", name)
	}
	for _, family := range iptables.Families {
		for line := range strings.Lines(n.command(f.t, "", programOf(family, v.backend)+"-save", "-t", "security")) {
			if chain, ok := strings.CutPrefix(line, ":"); ok {
				look(programOf(family, v.backend), strings.Fields(chain)[0])
			}
		}
		elsewhere := programOf(family, otherBackend(v.backend))
		if text := n.command(f.t, "", elsewhere+"-save"); strings.Contains(text, iptables.Prefix) {
			f.t.Errorf("%s, after layout %s on %s has taken over, %s still holds\n%s", n.name, v.layout, v.backend, elsewhere, text)
		}
	}
	if found == 0 {
		f.t.Errorf("%s, after layout %s on %s has taken over: nothing of it is there", n.name, v.layout, v.backend)
	}
}

// heldOff is a connection that was cut before the first takeover.
const heldOff = "192.0.2.1,tcp:9,192.0.2.2"

func (f *fire) holdCut() {
	for _, n := range f.w.nodes {
		n.command(f.t, "", "ipset", "add", "RF-4-CUT", heldOff, "timeout", "36000")
	}
}

// stillCut wants connections that were cut before to be held off still.
func (f *fire) stillCut() {
	f.t.Helper()
	for _, n := range f.w.nodes {
		if list := n.command(f.t, "", "ipset", "list", "RF-4-CUT"); !strings.Contains(list, "\n"+heldOff+" ") {
			f.t.Errorf("%s: a connection that was cut is no longer held off:\n%s", n.name, list)
		}
	}
}

// TestDyingInATakeoverOpensAndClosesNothing has one layout begin to take over from another, by enforcers that die after one step each. After one step the other
// one takes over again, by such steps, after two the next time, and so on until it is done before. What holds all the time holds after each step.
func TestDyingInATakeoverOpensAndClosesNothing(t *testing.T) {
	needRoot(t)
	other, err := anotherVersion()
	must(t, err)
	for _, c := range []combination{{dataplane.Legacy, topology.Routed, iptables.IPv4}, {dataplane.NFT, topology.Routed, iptables.IPv6}} {
		t.Run(c.String(), func(t *testing.T) {
			t.Parallel()
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			w := newWorld(t, c)
			f := newFire(t, w, seed)
			f.apply(0)
			for _, p := range f.processes {
				p.kill(t, true)
			}
			own := f.version
			seen := map[string]int{}
			// steps takes so many towards a version, all if negative, and reports whether there was one left to take.
			steps := func(v version, change, most int) bool {
				for i := 0; i != most; i++ {
					f.version = v
					died := f.oneStep(change)
					if len(died) == 0 {
						return false
					}
					for _, s := range died {
						seen[s]++
					}
					must(t, w.top.ForgetConnections())
					w.check(t, watchedLines)
					if t.Failed() {
						t.Fatalf("after %v of layout %s", died, v.layout)
					}
				}
				return true
			}
			for n := 1; steps(version{other, anotherLayout, c.backend}, 25*n, n); n++ {
				steps(own, 25*n, -1)
				for _, p := range w.nodes {
					f.nothingButOf(p, own)
				}
			}
			for _, p := range w.nodes {
				f.nothingButOf(p, f.version)
			}
			t.Logf("died after %v", seen)
			for _, k := range []string{"creating sets", "restoring inet", "restoring inet6", "destroying sets"} {
				if seen[k] == 0 {
					t.Errorf("never died after %s", k)
				}
			}
		})
	}
}

// oneStep has a mortal enforcer of the version take one step on each node, and names the steps, none if all has been done.
func (f *fire) oneStep(change int) []string {
	f.t.Helper()
	var steps []string
	for _, n := range f.w.nodes {
		cmd := f.command(n, true)
		cmd.Stdin = strings.NewReader(fmt.Sprintln(change))
		out, err := cmd.Output()
		if err != nil {
			f.t.Fatalf("%s: %v: %s", n.name, err, out)
		}
		if step := strings.TrimSpace(string(out)); step != fmt.Sprint(change) {
			steps = append(steps, step)
		}
	}
	return steps
}
