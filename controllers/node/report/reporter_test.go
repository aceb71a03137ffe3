package report

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/cached"
	"github.com/ringfence-io/ringfence/controllers/internal/testapi"
	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/test/kit"
)

// paper is what reports are written on. It remembers them, and refuses as long as it is told to.
type paper struct {
	mu     sync.Mutex
	began  time.Time
	wrote  []written
	tried  []time.Duration
	refuse bool
	count  int // of changes, in whose order resource versions are
}

// written is one report, and when it came.
type written struct {
	after  time.Duration
	report *v1alpha1.NodeEnforcement
}

// WriteReport keeps a report.
func (p *paper) WriteReport(_ context.Context, report *v1alpha1.NodeEnforcement) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tried = append(p.tried, time.Since(p.began))
	if p.refuse {
		return errors.New("no room")
	}
	p.count++
	report.ResourceVersion = fmt.Sprint(p.count)
	p.wrote = append(p.wrote, written{time.Since(p.began), report})
	return nil
}

func (p *paper) refuses(refuse bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse = refuse
}

// goesBackTo restores the API server from older data, in which there were count changes.
func (p *paper) goesBackTo(count int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count = count
}

var _ Writer = (*paper)(nil)

// desk is a Reporter at work, in a bubble where time passes by itself.
type desk struct {
	*Reporter
	*paper
	node atomic.Pointer[types.UID] // nil while there is no Node
}

func (d *desk) uid() types.UID {
	if uid := d.node.Load(); uid != nil {
		return *uid
	}
	return ""
}

func (d *desk) isNode(uid types.UID) { d.node.Store(&uid) }

func atWork(t *testing.T, heartbeat time.Duration) *desk {
	d := &desk{paper: &paper{began: time.Now()}}
	d.isNode("uid-1")
	d.Reporter = NewReporter("n1", d.paper, d.uid, heartbeat, v1alpha1.NodeEnforcementStatus{Backend: "nft"}, nil)
	kit.Start(t, "the reporter", d.Start)
	return d
}

// change is a sync that brings a new generation of a policy.
func (d *desk) change(generation int64) {
	d.Note(syncOf([]policy.Object{testapi.Object("web", generation)}, uint64(generation)))
}

// passes lets time pass, and everything happen that is due by then.
func passes(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (d *desk) within(t *testing.T, what string, got, least, most time.Duration) {
	t.Helper()
	if got < least || got > most {
		t.Errorf("%s after %s, want between %s and %s", what, got, least, most)
	}
}

func TestNothingIsReportedBeforeTheFirstSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := atWork(t, time.Minute)
		passes(time.Hour)
		if len(d.tried) > 0 {
			t.Errorf("%d attempts, the first after %s", len(d.tried), d.tried[0])
		}
	})
}

func TestAReportSaysWhoseItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := atWork(t, time.Minute)
		d.change(1)
		passes(time.Second)
		got := d.wrote[0].report
		owner := got.OwnerReferences[0]
		if got.Name != "n1" || owner.Kind != "Node" || owner.APIVersion != "v1" || owner.Name != "n1" || owner.UID != "uid-1" {
			t.Errorf("the report %s is owned by %+v", got.Name, owner)
		}
		s := got.Status
		if s.Backend != "nft" || s.HeartbeatSeconds != 60 || !s.HeartbeatTime.Time.Equal(d.began.Add(d.wrote[0].after)) || s.Applied.Counts.Policies != 1 {
			t.Errorf("the report says %+v", s)
		}
	})
}

func TestChangesThatComeTogetherAreOneReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := atWork(t, time.Hour)
		for generation := range int64(20) {
			d.change(generation + 1)
			passes(time.Millisecond)
		}
		passes(time.Minute)
		if len(d.wrote) != 1 {
			t.Fatalf("20 changes within 20 ms made %d reports", len(d.wrote))
		}
		d.within(t, "the report", d.wrote[0].after, reportDelay, 150*time.Millisecond)
		if got := cached.UnpackDigests(d.wrote[0].report.Status.Applied.PodDigests); !cmp.Equal(got, []uint64{20}) {
			t.Errorf("the report is about the pods %v: want the last", got)
		}
	})
}

func TestChangesThatGoOnAreOneReportASecond(t *testing.T) {
	for _, every := range []time.Duration{10 * time.Millisecond, 100 * time.Millisecond, 400 * time.Millisecond} {
		t.Run(every.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := atWork(t, time.Hour)
				for generation := int64(1); time.Since(d.began) < 30*time.Second; generation++ {
					d.change(generation)
					passes(every)
				}
				for i, w := range d.wrote {
					if i == 0 {
						d.within(t, "the first report", w.after, reportDelay, 150*time.Millisecond)
					} else {
						d.within(t, fmt.Sprintf("report %d", i), w.after-d.wrote[i-1].after, reportSpacing, 1550*time.Millisecond+every)
					}
				}
				if n := len(d.wrote); n < 15 || n > 30 {
					t.Errorf("%d reports in 30 s", n)
				}
			})
		})
	}
}

func TestAQuietNodeGivesASignOfLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := atWork(t, time.Minute)
		for time.Since(d.began) < time.Hour {
			d.Note(syncOf([]policy.Object{testapi.Object("web", 1)}, 7)) // as each resync does
			passes(10 * time.Second)
		}
		for i, w := range d.wrote[1:] {
			d.within(t, "a sign of life", w.after-d.wrote[i].after, time.Minute, 90*time.Second)
			if before := d.wrote[i].report.Status.HeartbeatTime; !before.Before(&w.report.Status.HeartbeatTime) {
				t.Errorf("the heartbeat %s does not follow %s", w.report.Status.HeartbeatTime, before)
			}
		}
		if n := len(d.wrote); n < 40 || n > 60 {
			t.Errorf("%d reports in an hour", n)
		}
	})
}

// A sign of life says also what was not worth a report by itself.
func TestASignOfLifeSaysHowFarTheNodeHasCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := atWork(t, time.Minute)
		d.change(1)
		passes(time.Second)
		s := syncOf([]policy.Object{testapi.Object("web", 1)}, 1)
		s.ResourceVersions = map[string]string{testapi.KindOfPolicy: "77"}
		d.Note(s)
		passes(2 * time.Minute)
		last := d.wrote[len(d.wrote)-1].report.Status.Applied.ResourceVersions
		if len(d.wrote) < 2 || last[testapi.KindOfPolicy] != "77" {
			t.Errorf("the last of %d reports has the resource versions %v", len(d.wrote), last)
		}
	})
}

func TestAReportThatFailsIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := atWork(t, time.Minute)
		d.refuses(true)
		d.change(1)
		for generation := range int64(3000) { // changes do not hurry it
			d.change(generation + 2)
			passes(100 * time.Millisecond)
		}
		for i := range d.tried[1:] {
			pause := min(time.Second<<i, maxReportWait)
			d.within(t, fmt.Sprintf("attempt %d", i+2), d.tried[i+1]-d.tried[i], pause, pause*3/2)
		}
		if n := len(d.tried); n < 8 || n > 14 {
			t.Errorf("%d attempts in five minutes", n)
		}
		d.refuses(false)
		passes(maxReportWait * 3 / 2)
		if len(d.wrote) == 0 || !cmp.Equal(cached.UnpackDigests(d.wrote[0].report.Status.Applied.PodDigests), []uint64{3001}) {
			t.Fatalf("%d reports: want the present one", len(d.wrote))
		}
		before := len(d.wrote)
		passes(2 * time.Second)
		d.change(9000)
		passes(150 * time.Millisecond)
		if len(d.wrote) != before+1 {
			t.Errorf("a change after that made %d reports", len(d.wrote)-before)
		}
	})
}

func TestNothingIsReportedOfANodeThatTheAPIDoesNotHave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := atWork(t, time.Minute)
		d.isNode("")
		d.change(1)
		passes(time.Minute)
		if len(d.tried) > 0 {
			t.Errorf("%d attempts without a Node", len(d.tried))
		}
		d.isNode("uid-2")
		passes(maxReportWait * 3 / 2)
		if len(d.wrote) == 0 || d.wrote[0].report.OwnerReferences[0].UID != "uid-2" {
			t.Errorf("%d reports once the Node is there", len(d.wrote))
		}
	})
}

// An enforcer notices by its next report, ends, and has said in that report that nothing follows from it.
func TestAReporterEndsWhenTheAPIServerHasGoneBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &paper{began: time.Now(), count: 1000}
		d := &desk{paper: p}
		d.isNode("uid-1")
		d.Reporter = NewReporter("n1", p, d.uid, time.Minute, v1alpha1.NodeEnforcementStatus{}, nil)
		ended := make(chan error, 1)
		go func() { ended <- d.Start(t.Context()) }()
		d.change(1)
		passes(10 * time.Minute)
		p.goesBackTo(500)
		passes(2 * time.Minute)
		var restored *cached.RestoredError
		select {
		case err := <-ended:
			if !errors.As(err, &restored) || restored.Now != "501" {
				t.Errorf("it ended with %v", err)
			}
		default:
			t.Fatal("it goes on")
		}
		for i, w := range p.wrote {
			e, err := cached.ReportToEntry(w.report)
			if err != nil || e.(*cached.ReportEntry).Void != (i == len(p.wrote)-1) {
				t.Errorf("report %d of %d: void is %t, %v", i, len(p.wrote), e.(*cached.ReportEntry).Void, err)
			}
		}
	})
}
