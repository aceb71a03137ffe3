package announce

import (
	stdcmp "cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/test/kit"
)

// board is what announcements are written on.
type board struct {
	mu      sync.Mutex
	tried   []string // pod and addresses
	refuses error
	takes   time.Duration
	atOnce  int
	most    int
}

// WriteAnnouncement keeps an announcement.
func (b *board) WriteAnnouncement(_ context.Context, a Announcement) error {
	b.mu.Lock()
	b.atOnce++
	b.most = max(b.most, b.atOnce)
	b.tried = append(b.tried, fmt.Sprintf("%s %s", a.Name, strings.Trim(fmt.Sprint(a.Addrs), "[]")))
	refuses := b.refuses
	b.mu.Unlock()
	time.Sleep(b.takes)
	b.mu.Lock()
	b.atOnce--
	b.mu.Unlock()
	return refuses
}

// said are the attempts since the last call.
func (b *board) said() []string {
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	said := b.tried
	b.tried = nil
	return said
}

func (b *board) refuse(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refuses = err
}

var _ Writer = (*board)(nil)

// startAnnouncer begins to announce, in a bubble where time passes by itself.
func startAnnouncer(t *testing.T) (*Announcer, *board) {
	b := &board{}
	a := New(b, logr.Discard())
	kit.Start(t, "the announcer", a.Start)
	return a, b
}

func toAnnounce(name string, addrs ...string) announcing {
	a := announcing{Announcement: Announcement{Namespace: "shop", Name: name, UID: types.UID("uid-" + name)}}
	for _, text := range addrs {
		a.Addrs = append(a.Addrs, netip.MustParseAddr(text))
	}
	return a
}

func TestEachAnnouncementIsWrittenOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := startAnnouncer(t)
		check := func(what string, want []string, all ...announcing) {
			t.Helper()
			a.note(all)
			a.note(all) // another sync, of a cache that does not show it yet
			if diff := cmp.Diff(want, b.said()); diff != "" {
				t.Errorf("%s (-want +got):\n%s", what, diff)
			}
		}
		shown := toAnnounce("web", "10.1.0.5", "fd00::5")
		shown.done = true
		check("a pod comes", []string{"web 10.1.0.5 fd00::5"}, toAnnounce("web", "10.1.0.5", "fd00::5"))
		check("the API shows what was announced", nil, shown)
		check("its sandbox is made anew", []string{"web 10.1.0.6"}, toAnnounce("web", "10.1.0.6"))
		check("its sandbox goes", []string{"web "}, toAnnounce("web"))
		check("nothing is left to say", nil)
		check("it comes once more, as before", []string{"web 10.1.0.6"}, toAnnounce("web", "10.1.0.6"))
		check("after a restart the API shows what was announced", nil, shown)
	})
}

func TestAnnouncementsThatFail(t *testing.T) {
	pod := toAnnounce("web", "10.1.0.5")
	resource := schema.GroupResource{Resource: "pods"}
	for _, tt := range []struct {
		name  string
		err   error
		again bool
	}{
		{"the API server is away", errors.New("connection refused"), true},
		{"the API server has too much to do", apierrors.NewTooManyRequests("later", 1), true},
		{"another has changed the pod in the same moment", apierrors.NewConflict(resource, "web", nil), true},
		{"it is not allowed", apierrors.NewForbidden(resource, "web", nil), false},
		{"it means nothing to the API server", apierrors.NewInvalid(schema.GroupKind{Kind: "Pod"}, "web", nil), false},
		{"the pod is gone", apierrors.NewNotFound(resource, "web"), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := startAnnouncer(t)
				b.refuse(tt.err)
				began := time.Now()
				for time.Since(began) < time.Minute {
					a.note([]announcing{pod})
					time.Sleep(100 * time.Millisecond)
				}
				tries := len(b.said())
				if tt.again && (tries < 8 || tries > 13) || !tt.again && tries != 1 {
					t.Errorf("in a minute it was tried %d times", tries)
				}
				b.refuse(nil)
				time.Sleep(2 * maxAnnounceRetry)
				if tries := len(b.said()); tt.again && tries != 1 || !tt.again && tries != 0 {
					t.Errorf("when it is taken, it is written %d times", tries)
				}
			})
		})
	}
	t.Run("nobody needs it any more", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a, b := startAnnouncer(t)
			b.refuse(errors.New("connection refused"))
			a.note([]announcing{pod})
			time.Sleep(time.Second)
			b.said()
			a.note(nil)
			time.Sleep(time.Minute)
			if said := b.said(); len(said) > 0 {
				t.Errorf("it is still tried: %q", said)
			}
		})
	})
}

func TestAFewAnnouncementsAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := startAnnouncer(t)
		b.takes = time.Second
		var all []announcing
		for i := range 50 {
			all = append(all, toAnnounce(fmt.Sprintf("web-%d", i), "10.1.0.5"))
		}
		a.note(all)
		time.Sleep(time.Minute)
		if said := b.said(); len(said) != 50 || b.most != announceWorkers {
			t.Errorf("%d of 50 were written, %d at once, want %d", len(said), b.most, announceWorkers)
		}
	})
}

// What is to be said follows from what the node knows and what the API shows of each pod.
func TestAnnouncements(t *testing.T) {
	pod := func(name string, source compile.Source, addrs ...string) *compile.Pod {
		p := &compile.Pod{Namespace: "shop", Name: name, UID: "uid-" + name, Node: "n1", Source: source}
		for _, text := range addrs {
			p.Addrs = append(p.Addrs, netip.MustParseAddr(text))
		}
		return p
	}
	elsewhere := func(p *compile.Pod) *compile.Pod { p.Node = "n2"; return p }
	another := pod("web", compile.Shown)
	another.UID = "uid-another"
	for _, tt := range []struct {
		name   string
		known  *compile.Pod // to the node's snapshot
		cached *compile.Pod // what the API shows by now
		want   string
	}{
		{"it has come", pod("web", compile.Arrived, "10.1.0.5"), pod("web", compile.Shown), "10.1.0.5"},
		{"it has come, and is announced", pod("web", compile.Arrived, "10.1.0.5"), pod("web", compile.Announced, "10.1.0.5"), "10.1.0.5, said"},
		{"it has come, and others are announced", pod("web", compile.Arrived, "10.1.0.5"), pod("web", compile.Announced, "10.1.0.4"), "10.1.0.5"},
		{"it has come, and the API shows addresses", pod("web", compile.Arrived, "10.1.0.5"), pod("web", compile.Shown, "10.1.0.4"), ""},
		{"it has come, and is gone", pod("web", compile.Arrived, "10.1.0.5"), nil, ""},
		{"it has come, and another has its name", pod("web", compile.Arrived, "10.1.0.5"), another, ""},
		{"it is announced, and has not come", pod("web", compile.Announced, "10.1.0.5"), pod("web", compile.Announced, "10.1.0.5"), "none"},
		{"it was announced, and another has its address", pod("web", compile.Announced), pod("web", compile.Announced, "10.1.0.5"), "none"},
		{"it was announced, and the API shows addresses", pod("web", compile.Announced, "10.1.0.5"), pod("web", compile.Shown, "10.1.0.5"), ""},
		{"it is announced by another node", elsewhere(pod("web", compile.Announced, "10.1.0.5")), elsewhere(pod("web", compile.Announced, "10.1.0.5")), ""},
		{"the API shows it", pod("web", compile.Shown, "10.1.0.5"), pod("web", compile.Shown, "10.1.0.5"), ""},
		{"it has no addresses", pod("web", compile.Shown), pod("web", compile.Shown), ""},
	} {
		cached := func(namespace, name string) *compile.Pod {
			if namespace == "shop" && name == "web" {
				return tt.cached
			}
			return nil
		}
		var got []string
		for _, a := range announcements(compile.Snapshot{Node: "n1"}.WithPods(tt.known), cached) {
			text := stdcmp.Or(compile.Announcement(a.Addrs), "none")
			if a.done {
				text += ", said"
			}
			got = append(got, text)
		}
		if strings.Join(got, "; ") != tt.want {
			t.Errorf("%s: %q is to be said, want %q", tt.name, got, tt.want)
		}
	}
}
