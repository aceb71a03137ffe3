package podnames

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

var (
	here   = netip.MustParseAddr("10.0.0.1") // of a pod that is known
	there  = netip.MustParseAddr("10.0.1.1") // of one that the API server knows
	nobody = netip.MustParseAddr("192.0.2.1")
)

// server answers after a while.
type server struct {
	mu    sync.Mutex
	takes time.Duration
	fails bool
	asked []netip.Addr
}

func (s *server) PodAt(ctx context.Context, a netip.Addr) (policy.PodName, error) {
	s.mu.Lock()
	takes, fails := s.takes, s.fails
	s.asked = append(s.asked, a)
	s.mu.Unlock()
	select {
	case <-ctx.Done():
		return policy.PodName{}, ctx.Err()
	case <-time.After(takes):
	}
	if fails {
		return policy.PodName{}, errors.New("no")
	}
	if a == there {
		return policy.PodName{Namespace: "far", Name: "peer"}, nil
	}
	return policy.PodName{}, nil
}

func (s *server) set(takes time.Duration, fails bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.takes, s.fails = takes, fails
}

func (s *server) times() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.asked)
}

// page is a log.
type page struct {
	mu    sync.Mutex
	began time.Time
	lines []string
}

// line writes a line of a name.
func (p *page) line(n *Names, name string, addrs ...netip.Addr) {
	n.Named(func(names []policy.PodName) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.lines = append(p.lines, fmt.Sprintf("%s %s %q", time.Since(p.began), name, names))
	}, addrs...)
}

func (p *page) take() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	lines := p.lines
	p.lines, p.began = nil, time.Now()
	return lines
}

// world runs Names in a bubble, whose clock tests move.
func world(t *testing.T, asker Asker, act func(n *Names, p *page, looks *int, stop func())) {
	t.Helper()
	clusterOf(t, 1, asker, act)
}

// clusterOf does so for a node of so many.
func clusterOf(t *testing.T, nodes int, asker Asker, act func(n *Names, p *page, looks *int, stop func())) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		looks := 0
		n := New(func(addrs ...netip.Addr) []policy.PodName {
			looks++
			names := make([]policy.PodName, len(addrs))
			for i, a := range addrs {
				if a == here {
					names[i] = policy.PodName{Namespace: "near", Name: "pod"}
				}
			}
			return names
		}, func() int { return nodes })
		n.Asker = asker
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- n.Start(ctx) }()
		ended := sync.OnceFunc(func() {
			stop()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
		act(n, &page{began: time.Now()}, &looks, ended)
		ended()
	})
}

// after lets time go by and compares what was written.
func (p *page) after(t *testing.T, d time.Duration, want ...string) {
	t.Helper()
	time.Sleep(d)
	synctest.Wait()
	if diff := cmp.Diff(want, p.take()); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
}

func TestALineWaitsForTheNameOfAPodElsewhere(t *testing.T) {
	api := &server{takes: 20 * time.Millisecond}
	world(t, api, func(n *Names, p *page, _ *int, _ func()) {
		p.line(n, "a", here, there)
		p.line(n, "b", here, here) // in their order
		p.line(n, "c", there, netip.Addr{})
		p.after(t, time.Second, `20ms a ["near/pod" "far/peer"]`, `20ms b ["near/pod" "near/pod"]`, `20ms c ["far/peer" ""]`)
		p.line(n, "d", there, here)
		p.after(t, time.Second, `0s d ["far/peer" "near/pod"]`)
		if api.times() != 1 {
			t.Errorf("asked for %v", api.asked)
		}
		time.Sleep(namedLife)
		p.take()
		p.line(n, "e", there, here)
		p.after(t, time.Second, `20ms e ["far/peer" "near/pod"]`) // it may have come to another pod
		if api.times() != 2 {
			t.Errorf("asked for %v", api.asked)
		}
	})
}

func TestALineWaitsForAMomentOnly(t *testing.T) {
	api := &server{takes: 3 * time.Second}
	world(t, api, func(n *Names, p *page, _ *int, stop func()) {
		p.line(n, "a", there)
		time.Sleep(100 * time.Millisecond)
		p.line(n, "b", here)
		time.Sleep(100 * time.Millisecond)
		p.line(n, "c", there)
		p.after(t, time.Second, `500ms a [""]`, `500ms b ["near/pod"]`, `700ms c [""]`)
		p.after(t, 3*time.Second)
		p.line(n, "d", there) // what came too late
		p.after(t, 0, `0s d ["far/peer"]`)
		p.line(n, "e", nobody)
		stop()
		p.after(t, 0, `0s e [""]`)
		p.line(n, "f", here) // behind the end
		p.after(t, 0, `0s f ["near/pod"]`)
	})
}

func TestOnlyAddressesThatPodsMayHaveAreAskedFor(t *testing.T) {
	api := &server{}
	world(t, api, func(n *Names, p *page, looks *int, _ func()) {
		for _, a := range []netip.Addr{here, netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("fe80::1"), netip.MustParseAddr("224.0.0.1"),
			netip.MustParseAddr("255.255.255.255"), netip.IPv4Unspecified(), {}} {
			p.line(n, a.String(), a)
			p.line(n, a.String(), a)
		}
		time.Sleep(100 * time.Millisecond)
		if api.times() > 0 || len(p.take()) != 14 || *looks != 6 {
			t.Errorf("asked for %v, looked %d times", api.asked, *looks)
		}
		p.line(n, "", nobody)
		time.Sleep(noneLife - time.Millisecond)
		p.line(n, "", nobody)
		time.Sleep(time.Millisecond)
		if api.times() != 1 {
			t.Errorf("asked for %v", api.asked)
		}
		p.line(n, "", nobody)
		time.Sleep(time.Millisecond)
		if api.times() != 2 {
			t.Errorf("asked for %v", api.asked)
		}
	})
}

// However many addresses come, a node asks as often as it may, and all lines are written.
func TestAFloodIsAFewQuestions(t *testing.T) {
	for nodes, most := range map[int]int{1: Burst + 60*Rate, 10: Burst + 60*Rate, 100: 5 + 60*ClusterRate/100, 5000: 1, 0: Burst + 60*Rate} {
		aFloodIsAFewQuestions(t, nodes, most)
	}
}

func aFloodIsAFewQuestions(t *testing.T, nodes, most int) {
	t.Helper()
	api := &server{takes: 10 * time.Millisecond}
	clusterOf(t, nodes, api, func(n *Names, p *page, _ *int, _ func()) {
		const seconds, each = 60, 100
		for i := range seconds * each {
			p.line(n, "", netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}))
			time.Sleep(time.Second / each)
		}
		time.Sleep(Patience)
		synctest.Wait()
		if got := len(p.take()); got != seconds*each {
			t.Errorf("%d lines, want %d", got, seconds*each)
		}
		if api.times() > most || api.times() < most-1 {
			t.Errorf("a node of %d asked %d times, want %d", nodes, api.times(), most)
		}
		if len(n.answers) > maxNames+maxAsked {
			t.Errorf("%d names are remembered", len(n.answers))
		}
	})
}

// Lines that come faster than their names do not pile up.
func TestManyLinesDoNotWait(t *testing.T) {
	api := &server{takes: time.Hour}
	world(t, api, func(n *Names, p *page, _ *int, _ func()) {
		for range 10 * maxWaiting {
			p.line(n, "", there)
		}
		synctest.Wait()
		if got := len(p.take()); got < 9*maxWaiting {
			t.Errorf("%d of %d lines are written at once", got, 10*maxWaiting)
		}
	})
}

func TestNothingIsAskedWhileQuestionsFail(t *testing.T) {
	api := &server{fails: true}
	world(t, api, func(n *Names, p *page, _ *int, _ func()) {
		p.line(n, "a", there)
		p.after(t, time.Second, `0s a [""]`)
		for range 8 {
			p.line(n, "b", nobody)
			p.after(t, time.Second, `0s b [""]`)
		}
		if api.times() != 1 {
			t.Errorf("asked for %v", api.asked)
		}
		api.set(time.Millisecond, false)
		p.after(t, failedLife)
		p.line(n, "c", there)
		p.after(t, time.Second, `1ms c ["far/peer"]`)
	})
}

// Where all pods are known, nobody is asked, and nothing waits.
func TestWhereAllPodsAreKnownLinesAreWrittenAtOnce(t *testing.T) {
	world(t, nil, func(n *Names, p *page, looks *int, _ func()) {
		for range 3 {
			p.line(n, "a", here, nobody)
		}
		if got := len(p.take()); got != 3 || *looks != 1 {
			t.Errorf("%d lines, %d looks", got, *looks)
		}
		time.Sleep(knownLife)
		p.line(n, "a", here, nobody)
		if got := len(p.take()); got != 1 || *looks != 2 {
			t.Errorf("%d lines, %d looks", got, *looks)
		}
	})
}

func TestWhoHasAnAddressThatSeveralAreShownWith(t *testing.T) {
	pod := func(name string, age int, goes bool) metav1.PartialObjectMetadata {
		p := metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: name, CreationTimestamp: metav1.Unix(int64(1000-age), 0)}}
		if goes {
			p.DeletionTimestamp = &metav1.Time{}
		}
		return p
	}
	for _, tt := range []struct {
		want string
		pods []metav1.PartialObjectMetadata
	}{
		{"", nil},
		{"a/one", []metav1.PartialObjectMetadata{pod("one", 1, true)}},
		{"a/old", []metav1.PartialObjectMetadata{pod("young", 1, false), pod("old", 2, false), pod("middle", 1, false)}},
		{"a/stays", []metav1.PartialObjectMetadata{pod("goes", 2, true), pod("stays", 1, false), pod("goes too", 3, true)}},
	} {
		if got := holder(tt.pods).String(); got != tt.want {
			t.Errorf("of %v: %q", tt.pods, got)
		}
	}
}
