package denials

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ringfence-io/ringfence/enforcer/dataplane"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// meter is a kernel with counters that a test sets.
type meter struct {
	*dataplane.Fake
	mu     sync.Mutex
	totals map[string]uint64
	broken bool
	reads  int
}

func (m *meter) Counts(context.Context) (map[string]uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reads++
	if m.broken {
		return nil, errors.New("locked")
	}
	return maps.Clone(m.totals), nil
}

func (m *meter) hit(id string, n uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.totals[id] += n
}

func (m *meter) remove(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.totals, id)
}

func (m *meter) breaks(broken bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.broken = broken
}

func (m *meter) readings() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.reads
}

// witness keeps what it hears.
type witness struct {
	mu     sync.Mutex
	saw    []Sample
	counts map[string]uint64 // by the policy's name, direction and mode
	calls  int
}

func (w *witness) Saw(s Sample) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.saw = append(w.saw, s)
}

func (w *witness) Counted(all []Growth) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls++
	for _, g := range all {
		w.counts[nameOf(g.Ref, g.Direction, g.Audit)] += g.Packets
	}
}

func nameOf(ref policy.Ref, d policy.Direction, audit bool) string {
	return fmt.Sprintf("%s %s, audit %t", ref, d, audit)
}

func (w *witness) total(p policy.Point) uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.counts[nameOf(p.Ref, p.Direction, p.Audit)]
}

const interval = 30 * time.Second

// hearing is a journal at work with a witness.
type hearing struct {
	*Journal
	*meter
	*witness
	*log
}

func heard(t *testing.T, first ...policy.Point) *hearing {
	t.Helper()
	h := &hearing{
		meter: &meter{Fake: dataplane.NewFake(dataplane.Capabilities{}), totals: map[string]uint64{}}, witness: &witness{counts: map[string]uint64{}}, log: &log{},
	}
	for _, p := range first {
		h.totals[p.ID] = 1000 // of an earlier run
	}
	h.Journal = &Journal{Source: h.meter, Pods: &cluster{}, Log: h.logger(), Group: group, Interval: interval, Witness: h.witness}
	run(t, h.Journal)
	h.SetPoints(points(first...))
	return h
}

// denies has the kernel deny packets, of which one is sampled.
func (h *hearing) denies(t *testing.T, p policy.Point, n uint64) {
	t.Helper()
	h.hit(p.ID, n)
	if !h.Emit(group, dataplane.Packet{ID: p.ID, Src: web, Dst: db, Protocol: policy.TCP, DstPort: 80}) {
		t.Fatal("nobody reads")
	}
}

func (h *hearing) counted(t *testing.T, when string, p policy.Point, want uint64) {
	t.Helper()
	if got := h.total(p); got != want {
		t.Errorf("%s: %d packets of %s are counted, want %d", when, got, p.ID, want)
	}
}

func passes(d time.Duration) {
	time.Sleep(d) // of the bubble's clock
	synctest.Wait()
}

var (
	enforced = point("e", "enforced", policy.Ingress, 2, false)
	audited  = point("a", "audited", policy.Egress, -1, true)
)

func TestAWitnessSeesEachLineOfAKnownPoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := heard(t, enforced, audited)
		begun := time.Now()
		h.denies(t, enforced, 1)
		h.SetPoints(points(audited))
		h.denies(t, enforced, 1) // on its way still
		passes(time.Second)
		h.denies(t, audited, 1)
		h.denies(t, point("unknown", "x", policy.Ingress, -1, false), 1)
		if lines := h.take(); len(lines) != 4 {
			t.Errorf("%d lines, want 4", len(lines))
		}
		packet := func(p policy.Point, after time.Duration) Sample {
			return Sample{
				At: begun.Add(after), Point: p, Packet: dataplane.Packet{ID: p.ID, Src: web, Dst: db, Protocol: policy.TCP, DstPort: 80},
				Src: policy.PodName{Namespace: "team-a", Name: "web"}, Dst: policy.PodName{Namespace: "team-a", Name: "db"},
			}
		}
		want := []Sample{packet(enforced, 0), packet(enforced, 0), packet(audited, time.Second)}
		if diff := cmp.Diff(want, h.saw, cmp.Comparer(func(a, b dataplane.Packet) bool { return a == b })); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		for range 1000 { // of these most have no line
			h.denies(t, audited, 1)
		}
		if lines := len(h.take()); lines != len(h.saw)-3 || lines > shareBurst {
			t.Errorf("it saw %d, of %d lines", len(h.saw)-3, lines)
		}
	})
}

func TestNothingIsReadWhileNothingHappens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := heard(t, enforced)
		passes(time.Hour)
		if h.readings() != 1 || h.calls > 0 {
			t.Errorf("%d readings, %d calls", h.readings(), h.calls)
		}
		h.denies(t, enforced, 5)
		passes(countSoon)
		h.hit(enforced.ID, 2) // of the same burst, which the kernel's limit leaves out of the samples
		passes(time.Hour)
		if h.readings() > 3 {
			t.Errorf("%d readings after one packet, want two", h.readings()-1)
		}
		h.counted(t, "after one sample", enforced, 7)
	})
}

func TestWhatGrowsIsCountedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := heard(t, enforced, audited)
		h.denies(t, enforced, 7)
		passes(countSoon)
		h.counted(t, "soon after a sample", enforced, 7)
		h.hit(enforced.ID, 2) // not sampled any more
		passes(interval)
		h.counted(t, "with the interval after that", enforced, 9)
		h.hit(audited.ID, 3)
		passes(interval)
		h.counted(t, "with the interval, as something is audited", audited, 3)

		h.SetPoints(points(enforced))
		h.remove(audited.ID)
		h.denies(t, enforced, 1)
		passes(interval)
		passes(time.Hour)
		h.hit(audited.ID, 2000) // it comes back: its rules are in the kernel before anybody says so
		h.denies(t, enforced, 1)
		passes(interval)
		h.counted(t, "of a point that nobody knows yet", audited, 3)
		h.SetPoints(points(enforced, audited))
		h.hit(audited.ID, 1)
		passes(interval)
		h.counted(t, "of a point that came back", audited, 2004)

		h.breaks(true)
		h.hit(audited.ID, 10)
		h.denies(t, enforced, 10)
		passes(10 * interval)
		h.counted(t, "while nothing can be read", enforced, 11)
		h.breaks(false)
		passes(interval)
		h.counted(t, "after an error", enforced, 21)
		h.counted(t, "after an error", audited, 2014)

		h.remove(audited.ID)
		h.hit(audited.ID, 6) // its chain is made anew, between two readings
		passes(interval)
		h.counted(t, "of a chain that was made anew", audited, 2020)
	})
}

// What was seen while the kernel could not be read is counted later, where nothing is audited too.
func TestAnErrorDoesNotHideWhatWasSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := heard(t, enforced)
		passes(time.Minute)
		h.breaks(true)
		h.denies(t, enforced, 5)
		passes(5 * interval)
		h.breaks(false)
		passes(interval)
		h.counted(t, "after an error", enforced, 5)
	})
}

// Lines about what is audited are as rare as without a witness, however often counts are read for that.
func TestAWitnessMakesNoLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := heard(t, audited)
		const minutes = 5
		for range minutes * 60 {
			h.hit(audited.ID, 10)
			h.denies(t, audited, 0)
			passes(time.Second)
		}
		passes(2 * interval)
		n, lines := 0, h.take()
		for _, line := range messages(lines) {
			if line == `"msg":"audit","policy":"NetworkPolicy team-a/audited"` {
				n++
			}
		}
		if most := minutes*int(time.Minute/interval) + 1; n > most || n < most/2 {
			t.Errorf("%d lines in %d minutes, want %d", n, minutes, most)
		}
		h.counted(t, "after all", audited, minutes*600)
	})
}

// Whatever happens in whatever order, the sum of what the witness is told is what was denied.
func TestTheSumOfGrowthIsWhatWasDenied(t *testing.T) {
	for range 20 {
		seed := rand.Uint64()
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			all := []policy.Point{enforced, audited, point("o", "other", policy.Ingress, -1, false)}
			want := map[string]uint64{}
			h := heard(t, all...)
			for range 300 {
				p := all[random.IntN(len(all))]
				n := random.Uint64N(100)
				switch random.IntN(8) {
				case 0:
					h.SetPoints(points(all[:1+random.IntN(len(all))]...))
				case 1:
					h.breaks(random.IntN(2) == 0)
				case 2, 3:
					passes(time.Duration(random.Int64N(int64(time.Minute))))
				case 4:
					h.hit(p.ID, n)
					want[p.ID] += n
				default:
					h.denies(t, p, n)
					want[p.ID] += n
				}
			}
			h.breaks(false)
			h.SetPoints(points(all...))
			h.denies(t, enforced, 0)
			passes(5 * time.Minute)
			for _, p := range all {
				h.counted(t, fmt.Sprintf("seed %d", seed), p, want[p.ID])
			}
		})
	}
}
