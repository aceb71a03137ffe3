package connections

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/test/kit"
)

// server keeps what a node writes.
type server struct {
	mu      sync.Mutex
	began   time.Time
	unread  bool // it refuses to be read
	refuses bool // to be written
	shelf
}

// shelf is what a server has.
type shelf struct {
	holds v1alpha1.NodeConnectionsStatus
	wrote []time.Duration // when
	reads []time.Duration // likewise
	last  *v1alpha1.NodeConnections
}

// kept is what it has now.
func (s *server) kept() shelf {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.shelf
	k.wrote, k.reads = slices.Clone(k.wrote), slices.Clone(k.reads)
	return k
}

// forget forgets when was written so far.
func (s *server) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wrote = nil
}

var _ Writer = (*server)(nil)

func (s *server) Written(context.Context, string) (v1alpha1.NodeConnectionsStatus, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads = append(s.reads, time.Since(s.began))
	if s.unread {
		return v1alpha1.NodeConnectionsStatus{}, errors.New("away")
	}
	return s.holds, nil
}

func (s *server) Write(_ context.Context, c *v1alpha1.NodeConnections) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wrote = append(s.wrote, time.Since(s.began))
	if s.refuses {
		return errors.New("no room")
	}
	s.holds, s.last = c.Status, c
	return nil
}

func (s *server) set(unread, refuses bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unread, s.refuses = unread, refuses
}

// desk is a Reporter at work, in a bubble where time passes by itself.
type desk struct {
	*Reporter
	*server
	mu    sync.Mutex
	owner types.UID
	ports int
}

func (d *desk) uid() types.UID {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.owner
}

func (d *desk) isNode(uid types.UID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.owner = uid
}

func atWork(t *testing.T, with ...func(*desk)) *desk {
	t.Helper()
	d := &desk{server: &server{began: time.Now()}, owner: "uid-1"}
	d.Reporter = &Reporter{Node: "n1", Ledger: NewLedger(), Writer: d.server, Owner: d.uid, Nodes: func() int { return 1 }}
	for _, change := range with {
		change(d)
	}
	kit.Start(t, "the reporter", d.Start)
	return d
}

// now is a packet of the bubble's time.
func now(namespace string, n int) v1alpha1.ObservedConnection {
	at := metav1.NewTime(time.Now())
	return seen(namespace, 0, port(n), func(o *v1alpha1.ObservedConnection) { o.FirstTime, o.LastTime = at, at })
}

// news is a connection that there was none of before.
func (d *desk) news() {
	d.ports++
	d.Ledger.Note(now("shop", d.ports))
}

// grows has the first connection grow.
func (d *desk) grows() { d.Ledger.Note(now("shop", 1)) }

func passes(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// hasAll checks that the API has all packets of the namespace.
func (d *desk) hasAll(t *testing.T, want int64) {
	t.Helper()
	if got := packetsOf(d.kept().holds, "shop"); got != want {
		t.Errorf("%d packets are written, want %d", got, want)
	}
}

// apart checks that no two writes are closer than that.
func (d *desk) apart(t *testing.T, least time.Duration) {
	t.Helper()
	for i := range d.kept().wrote {
		if i > 0 && d.kept().wrote[i]-d.kept().wrote[i-1] < least {
			t.Errorf("writes %s apart, want %s: %v", d.kept().wrote[i]-d.kept().wrote[i-1], least, d.kept().wrote)
			return
		}
	}
}

func TestNothingIsWrittenWhenNothingWasSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := atWork(t)
		passes(48 * time.Hour)
		if len(d.kept().wrote)+len(d.kept().reads) > 0 {
			t.Errorf("writes after %v, reads after %v", d.kept().wrote, d.kept().reads)
		}
	})
}

func TestNewsAreWrittenSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := atWork(t)
		passes(time.Hour)
		d.news()
		passes(1500 * time.Millisecond)
		d.hasAll(t, 1)
		owner := d.kept().last.OwnerReferences[0]
		if d.kept().last.Name != "n1" || owner.Kind != "Node" || owner.APIVersion != "v1" || owner.Name != "n1" || owner.UID != "uid-1" || owner.BlockOwnerDeletion != nil {
			t.Errorf("%s is written with owner %+v", d.kept().last.Name, owner)
		}
		d.news()
		passes(time.Second)
		d.hasAll(t, 1)
		passes(time.Second)
		d.hasAll(t, 2)
		passes(time.Hour)
		if len(d.kept().wrote) != 2 || len(d.kept().reads) != 1 {
			t.Errorf("writes after %v, reads after %v: want two, and one", d.kept().wrote, d.kept().reads)
		}
	})
}

// What never stops is written all the same, and not all the time.
func TestWhatKeepsChangingIsWritten(t *testing.T) {
	for _, c := range []struct {
		name        string
		change      func(*desk)
		least, most time.Duration // between writes
	}{
		{"news", (*desk).news, newsPause, newsPause + 500*time.Millisecond},
		{"numbers", (*desk).grows, grownPause, grownPause + 500*time.Millisecond},
		{"counts", func(d *desk) { d.Ledger.Count(counted("shop", 1, 1)) }, grownPause, grownPause + 500*time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := atWork(t)
				d.ports = 0
				d.news()
				passes(time.Minute)
				before := len(d.kept().wrote)
				for range 6000 {
					c.change(d)
					passes(10 * time.Millisecond)
				}
				wrote := d.kept().wrote[before:]
				if len(wrote) < 2 || wrote[0] > time.Minute+1500*time.Millisecond {
					t.Fatalf("in a minute of changes writes after %v", wrote)
				}
				for i := range wrote[1:] {
					first := c.name == "counts" && i == 0 // the first count is news
					if gap := wrote[i+1] - wrote[i]; gap < c.least && !first || gap > c.most {
						t.Errorf("%s between writes, want between %s and %s", gap, c.least, c.most)
					}
				}
				passes(time.Minute)
				if some, _ := d.Ledger.pending(); some {
					t.Error("something is not written a minute later")
				}
			})
		})
	}
}

// News do not wait for the numbers before them.
func TestNewsAreMoreUrgentThanNumbers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := atWork(t)
		d.news()
		passes(5 * time.Second)
		d.grows()
		passes(time.Second)
		d.hasAll(t, 1)
		d.news()
		d.grows()
		passes(1500 * time.Millisecond)
		d.hasAll(t, 4)
	})
}

func TestManyNodesDoNotWriteAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const nodes = 1000
		var all []*desk
		for range nodes {
			all = append(all, atWork(t, func(d *desk) { d.Nodes = func() int { return nodes } }))
		}
		for range 40 { // something denied at all nodes, again and again, puts no write forward either
			for _, d := range all {
				d.news()
			}
			passes(250 * time.Millisecond)
		}
		passes(time.Minute)
		first := map[int]int{}
		for _, d := range all {
			first[int(d.kept().wrote[0]/time.Second)]++
		}
		for second, n := range first {
			if n > 300 {
				t.Errorf("%d of %d nodes write in second %d", n, nodes, second)
			}
		}
	})
}

func TestWhatCannotBeWrittenIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := atWork(t)
		d.set(false, true)
		for range 3600 { // what changes meanwhile puts no attempt forward
			d.news()
			passes(time.Second)
		}
		if n := len(d.kept().wrote); n < 40 || n > 70 {
			t.Errorf("%d attempts in an hour: %v", n, d.kept().wrote)
		}
		d.apart(t, newsPause)
		for i := range 4 { // 2, 4, 8 and 16 seconds, or half as much more
			if gap, least := d.kept().wrote[i+1]-d.kept().wrote[i], newsPause<<i; gap < least || gap > least*3/2 {
				t.Errorf("attempt %d %s after the one before, want %s or a little more", i+2, gap, least)
			}
		}
		d.set(false, false)
		passes(maxPause * 3 / 2)
		d.hasAll(t, 3600)
		if len(d.kept().reads) != 1 {
			t.Errorf("it was read %d times", len(d.kept().reads))
		}
		d.forget()
		d.news() // and it goes on as before
		passes(1500 * time.Millisecond)
		d.hasAll(t, 3601)
	})
}

// A failure with nothing new after it is tried again too.
func TestOneFailureIsTriedAgainByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := atWork(t)
		d.set(true, false)
		d.news()
		passes(10 * time.Second)
		d.set(false, true)
		passes(10 * time.Second)
		d.set(false, false)
		passes(time.Minute)
		d.hasAll(t, 1)
	})
}

func TestNothingIsWrittenWithoutANode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := atWork(t, func(d *desk) { d.owner = "" })
		for range 100 {
			d.news()
			passes(time.Second)
		}
		if len(d.kept().wrote)+len(d.kept().reads) > 0 {
			t.Errorf("without a Node: writes after %v, reads after %v", d.kept().wrote, d.kept().reads)
		}
		d.isNode("uid-2")
		passes(maxPause * 3 / 2)
		d.hasAll(t, 100)
		if uid := d.kept().last.OwnerReferences[0].UID; uid != "uid-2" {
			t.Errorf("it is owned by %s", uid)
		}
	})
}

// What was written before the restart is added once, whatever fails meanwhile.
func TestTheFirstWriteTakesInWhatWasWrittenBefore(t *testing.T) {
	for name, fail := range map[string]func(d *desk){
		"nothing fails":                   func(*desk) {},
		"the reading fails":               func(d *desk) { d.set(true, false); passes(20 * time.Second) },
		"the writing fails":               func(d *desk) { d.set(false, true); passes(20 * time.Second) },
		"the reading, and then the write": func(d *desk) { d.set(true, false); passes(20 * time.Second); d.set(false, true); passes(time.Minute) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				old := NewLedger()
				old.since = time.Now().Add(-time.Hour)
				old.Note(now("shop", 1))
				old.Note(now("shop", 2))
				old.Count(counted("shop", 1, 7))
				before := old.take(time.Now())
				before.Rests = []v1alpha1.NamespaceRest{{Namespace: "shop", ConnectionRest: v1alpha1.ConnectionRest{Connections: 3, Packets: 30}}}
				d := atWork(t, func(d *desk) { d.holds = before })
				d.ports = 1
				d.news() // of a connection that was known
				d.news()
				d.Ledger.Count(counted("shop", 1, 1))
				fail(d)
				d.set(false, false)
				passes(2 * time.Minute)
				d.hasAll(t, 34)
				if got := d.kept().holds; !got.Since.Time.Equal(before.Since.Time) || len(got.Connections) != 3 || restOf(got, "shop") != before.Rests[0].ConnectionRest {
					t.Errorf("it has %d connections since %s, and %+v", len(got.Connections), got.Since, got.Rests)
				}
				if diff := cmp.Diff([]v1alpha1.ConnectionCount{counted("shop", 1, 8)}, d.kept().holds.Counts); diff != "" {
					t.Errorf("counts (-want +got):\n%s", diff)
				}
				d.news()
				passes(2 * time.Minute)
				d.hasAll(t, 35)
			})
		})
	}
}

// A connection that was not seen for long goes from the API too, where nothing else happens.
func TestWhatIsOldGoesByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := atWork(t)
		for range 100 {
			d.news()
			passes(time.Second)
		}
		d.forget()
		passes(Life - 2*time.Minute)
		if len(d.kept().wrote) > 1 { // of the last news
			t.Errorf("writes after %v, where nothing happened", d.kept().wrote)
		}
		d.forget()
		passes(endPause + 4*time.Minute)
		if len(d.kept().holds.Connections) > 0 || len(d.kept().wrote) != 1 {
			t.Errorf("%d connections are there, after %d writes", len(d.kept().holds.Connections), len(d.kept().wrote))
		}
		d.hasAll(t, 100)
		d.forget()
		passes(48 * time.Hour)
		if len(d.kept().wrote) > 0 {
			t.Errorf("writes of nothing after %v", d.kept().wrote)
		}
	})
}

func TestAReporterEndsWithItsProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		d := &desk{server: &server{began: time.Now()}, owner: "uid-1"}
		r := &Reporter{Node: "n1", Ledger: NewLedger(), Writer: d.server, Owner: d.uid, Nodes: func() int { return 1 }}
		ended := make(chan error)
		go func() { ended <- r.Start(ctx) }()
		for i := range 10 {
			r.Ledger.Note(now(fmt.Sprint("ns-", i), i))
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
