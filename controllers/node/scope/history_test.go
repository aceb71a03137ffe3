package scope

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringfence-io/ringfence/controllers/cached"
	"github.com/ringfence-io/ringfence/enforcer/compile"
)

// history is what has happened to the pods of a cluster: the pods after each change, which is a resource version.
type history struct {
	rng   *rand.Rand
	after []map[string]*compile.Pod

	mu      sync.Mutex
	watches map[*cached.Store[*compile.Pod]]*follower
}

// follower is how far one watch has shown the history; -1 before its list.
type follower struct {
	ctx context.Context
	at  int
}

const (
	historyNode       = "n1"
	historyNamespaces = 6
)

// happen changes a pod: it comes, changes its address, goes, or comes back on another node.
func (h *history) happen() {
	now := maps.Clone(h.after[len(h.after)-1])
	namespace, name := fmt.Sprint("ns", h.rng.IntN(historyNamespaces)), fmt.Sprint("p", h.rng.IntN(3))
	key := namespace + "/" + name
	if _, there := now[key]; there && h.rng.IntN(2) == 0 {
		delete(now, key)
	} else {
		version := len(h.after)
		now[key] = &compile.Pod{Namespace: namespace, Name: name, UID: fmt.Sprint(version), Node: []string{historyNode, "n2", "n3", ""}[h.rng.IntN(4)]}
	}
	h.after = append(h.after, now)
}

// versionOf is the resource version of a pod: it does not change but by being another one.
func versionOf(p *compile.Pod) string {
	index, _ := strconv.Atoi(p.UID)
	return fmt.Sprint(index + 1)
}

// shows reports whether a watch shows a pod.
func shows(t cached.Target, p *compile.Pod) bool {
	return p != nil && (t.Node == "" || p.Node == t.Node) && (t.Only.Namespace == "" || p.Namespace == t.Only.Namespace)
}

// follow is a watch that begins. Nothing is shown before step has it.
func (h *history) follow(ctx context.Context, s *cached.Store[*compile.Pod]) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.watches[s] = &follower{ctx, -1}
}

// step has one of the watches show what comes next, or list anew, as of some time since what it has shown; and has watches end.
func (h *history) step(t *testing.T) {
	h.mu.Lock()
	defer h.mu.Unlock()
	maps.DeleteFunc(h.watches, func(_ *cached.Store[*compile.Pod], f *follower) bool { return f.ctx.Err() != nil })
	all := slices.SortedFunc(maps.Keys(h.watches), func(a, b *cached.Store[*compile.Pod]) int { return strings.Compare(a.String(), b.String()) })
	s := all[h.rng.IntN(len(all))]
	f, target, now := h.watches[s], s.Target(), len(h.after)-1
	if f.at < 0 || h.rng.IntN(20) == 0 { // the list may be older than what others have shown
		f.at = max(f.at, now-h.rng.IntN(5), 0)
		var list []any
		for _, p := range h.after[f.at] {
			if shows(target, p) {
				list = append(list, cached.NewPodEntry(versionOf(p), p))
			}
		}
		if err := s.Replace(list, fmt.Sprint(f.at+1)); err != nil {
			t.Fatal(err)
		}
		return
	}
	for range h.rng.IntN(4) {
		if f.at == now {
			_ = s.Bookmark(fmt.Sprint(now + 1))
			return
		}
		f.at++
		for key, before := range h.after[f.at-1] {
			if after := h.after[f.at][key]; shows(target, before) && !shows(target, after) {
				_ = s.Delete(cached.NewPodEntry(fmt.Sprint(f.at+1), before))
			}
		}
		for key, after := range h.after[f.at] {
			if shows(target, after) && h.after[f.at-1][key] != after {
				_ = s.Add(cached.NewPodEntry(fmt.Sprint(f.at+1), after))
			}
		}
	}
}

// of are the pods of other nodes in a namespace, as of a version.
func (h *history) of(namespace string, at int) []string {
	var pods []string
	for _, p := range h.after[at] {
		if p.Namespace == namespace && p.Node != historyNode && p.Node != "" {
			pods = append(pods, p.Name+"="+p.UID)
		}
	}
	slices.Sort(pods)
	return pods
}

// Whatever is wanted, and however watches lag behind each other: a namespace that is wanted, and not missing, is whole, as it was at one time; and what is
// known of it never goes back in time. But a pod that is gone may be there again for the moment that a watch is behind: a list does not say what has gone
// before, and to wait for what a quiet cluster has to say would be long.
func TestWhatIsKnownIsWholeAndNeverGoesBack(t *testing.T) {
	for seed := range uint64(100) {
		synctest.Test(t, func(t *testing.T) { // its goroutines are over at each step
			h := &history{rng: rand.New(rand.NewPCG(seed, 1)), after: []map[string]*compile.Pod{{}}, watches: map[*cached.Store[*compile.Pod]]*follower{}}
			p := New(historyNode, 20*time.Second)
			p.follow = h.follow
			p.Start(t.Context(), nil, func(_, _ *compile.Pod) {})
			synctest.Wait()
			shown := map[string]int{} // what is known of a namespace is no older
			var names []string
			of, switched := 2*historyNamespaces, 0
			for step := range 400 {
				if h.rng.IntN(2) == 0 {
					h.happen()
				}
				if h.rng.IntN(5) == 0 {
					names = nil
					for i := range historyNamespaces {
						if h.rng.IntN(3) == 0 {
							names = append(names, fmt.Sprint("ns", i))
						}
					}
					of = []int{2 * historyNamespaces, 2 * historyNamespaces, 1}[h.rng.IntN(3)]
				}
				time.Sleep(time.Duration(h.rng.IntN(3)) * time.Second)
				was := p.KnowsAll()
				p.Want(names, of, time.Now())
				synctest.Wait()
				if was != p.KnowsAll() {
					switched++
				}
				h.compare(t, p, names, shown, fmt.Sprintf("seed %d, step %d", seed, step))
				h.step(t)
			}
			if switched == 0 && seed == 0 {
				t.Error("nothing was ever switched")
			}
		})
		if t.Failed() {
			return
		}
	}
}

// find is the first version, from one up to another, in which a namespace had just these pods; negative if there is none.
func (h *history) find(namespace string, pods []string, from, to int) int {
	for at := from; at < to; at++ {
		if slices.Equal(h.of(namespace, at), pods) {
			return at
		}
	}
	return -1
}

// compare holds what is known to the history.
func (h *history) compare(t *testing.T, p *Pods, names []string, shown map[string]int, when string) {
	t.Helper()
	whole := len(p.Missing()) == 0
	known := map[string][]string{}
	_, others := p.Contents()
	for pod := range others.All() {
		known[pod.Namespace] = append(known[pod.Namespace], pod.Name+"="+pod.UID)
	}
	for i := range historyNamespaces {
		name := fmt.Sprint("ns", i)
		if !p.Knows(name) {
			if whole && slices.Contains(names, name) {
				t.Fatalf("%s: %s is wanted, not known, and not missing", when, name)
			}
			if len(known[name]) > 0 {
				t.Fatalf("%s: of %s, which is not known, there is %q", when, name, known[name])
			}
			delete(shown, name)
			continue
		}
		slices.Sort(known[name])
		was := h.of(name, shown[name])
		lacks := func(pod string) bool { return !slices.Contains(known[name], pod) }
		at := h.find(name, known[name], shown[name], len(h.after))
		if at < 0 && !slices.ContainsFunc(was, lacks) && h.find(name, known[name], 0, shown[name]) >= 0 {
			at = shown[name] // with some that are gone
		}
		if at < 0 {
			t.Fatalf("%s: of %s is known %q, as it has not been since version %d: %q", when, name, known[name], shown[name], was)
		}
		shown[name] = at
	}
}
