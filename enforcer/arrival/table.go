package arrival

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"

	"github.com/ringfence-io/ringfence/enforcer/compile"
)

// StateFile is the file, beside the socket, that keeps what is known. That it is there says that policy has been enforced on this node since
// the node started.
const StateFile = "arrivals.json"

// forgotten is how long a pod is kept that the API has never shown and nobody waits for: its sandbox failed, and nobody said that it went.
const forgotten = 10 * time.Minute

// Table holds the pods that have come and that the API does not show with their addresses yet. It may be used by several goroutines at once: those
// that ask, and the one that syncs.
type Table struct {
	file string
	log  logr.Logger

	mu      sync.Mutex
	ask     func()              // asks for a sync
	pods    map[string]*arrived // by their keys
	waiting map[*waiter]bool
	synced  bool   // once, since this process started
	saved   string // what the file holds, as far as is known
	tell    func(error)
	logged  string // why the file cannot be written, empty if it could
}

// arrived is one pod of the table.
type arrived struct {
	Pod
	seen bool   // the API has shown the pod, without these addresses
	as   string // the UID that it was shown with
	at   time.Time
}

// waiter is a request that waits for a sync.
type waiter struct {
	pod   Pod
	check bool // only looks: leaves nothing in the table
	done  chan error
	why   string // it still waits
}

// NewTable returns the table that a process before this one left in the file, empty if there is none.
func NewTable(file string, log logr.Logger) *Table {
	t := &Table{file: file, log: log, ask: func() {}, tell: func(error) {}, pods: map[string]*arrived{}, waiting: map[*waiter]bool{}}
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return t
	}
	var pods []Pod
	if err == nil {
		err = json.Unmarshal(text, &pods)
	}
	if err != nil {
		log.Info("what an earlier enforcer knew of new pods cannot be read: until the API shows their addresses, those that it had let in are not policed",
			"file", file, "error", err.Error())
		return t
	}
	for _, p := range pods {
		if p.validate() == nil {
			// Taken for seen: one that the first snapshot does not have is gone, or comes again with whoever still waits for it.
			t.pods[p.key()] = &arrived{Pod: p.canonical(), seen: true, at: time.Now()}
		}
	}
	t.saved = string(text)
	return t
}

// OnArrival has the table call ask whenever a sync is wanted. It does so at once if pods wait.
func (t *Table) OnArrival(ask func()) {
	t.mu.Lock()
	t.ask = ask
	wanted := len(t.pods)+len(t.waiting) > 0
	t.mu.Unlock()
	if wanted {
		ask()
	}
}

// OnSave has the table tell after each write of its file how it went.
func (t *Table) OnSave(tell func(error)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tell = tell
}

// Add takes a pod in and returns when a sync that knew it has succeeded, or with ctx.
func (t *Table) Add(ctx context.Context, p Pod) error {
	p = p.canonical()
	t.mu.Lock()
	// Who had one of the addresses before has lost it, though nobody said so.
	maps.DeleteFunc(t.pods, func(_ string, a *arrived) bool { return slices.ContainsFunc(a.Addrs, in(p.Addrs)) })
	t.pods[p.key()] = &arrived{Pod: p, at: time.Now()}
	t.save()
	t.mu.Unlock()
	return t.wait(ctx, &waiter{pod: p})
}

// Check returns nil if the next sync puts the pod's policy in force, for all of its addresses.
func (t *Table) Check(ctx context.Context, p Pod) error {
	return t.wait(ctx, &waiter{pod: p.canonical(), check: true})
}

func (t *Table) wait(ctx context.Context, w *waiter) error {
	w.done, w.why = make(chan error, 1), "the enforcer has not ended a sync since; it may still wait for the API server"
	t.mu.Lock()
	t.waiting[w] = true
	ask := t.ask
	t.mu.Unlock()
	ask()
	select {
	case err := <-w.done:
		return err
	case <-ctx.Done():
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.waiting, w)
		return fmt.Errorf("the policy of pod %s/%s is not in force yet: %s", w.pod.Namespace, w.pod.Name, w.why)
	}
}

// Delete takes out what a container had. A pod whose sandbox has been made anew has another container by then.
func (t *Table) Delete(container string) {
	t.remove(func(p Pod) bool { return p.Container == container })
}

// Collect takes out what containers had that are not named.
func (t *Table) Collect(containers []string) {
	t.remove(func(p Pod) bool { return !slices.Contains(containers, p.Container) })
}

func (t *Table) remove(which func(Pod) bool) {
	t.mu.Lock()
	before := len(t.pods)
	maps.DeleteFunc(t.pods, func(_ string, a *arrived) bool { return which(a.Pod) })
	changed := len(t.pods) != before
	if changed {
		t.save()
	}
	ask := t.ask
	t.mu.Unlock()
	if changed {
		ask()
	}
}

// Into gives the pods of a snapshot the addresses which the API does not show yet. What it returns is to be called when the sync of that
// snapshot has ended: with what says why a pod with some addresses is not policed as it should be, nil if it is. It answers those who wait for that; what
// keeps another pod waiting keeps none of them.
func (t *Table) Into(s *compile.Snapshot) (ended func(lacking func([]netip.Addr) error)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var ready []*waiter
	if len(t.pods)+len(t.waiting) > 0 || t.logged != "" {
		found := t.find(*s)
		s.Local = slices.Clone(s.Local) // who made the snapshot may keep its list
		holders := map[netip.Addr]*compile.Pod{}
		for key, a := range t.pods {
			t.enter(s, key, a, found[key], holders)
		}
		takeFromOthers(s, holders)
		for w := range t.waiting {
			if t.decide(*s, w, found[w.pod.key()]) {
				ready = append(ready, w)
			}
		}
		t.save()
	}
	return func(lacking func([]netip.Addr) error) { t.ended(ready, lacking) }
}

// place is where a snapshot has a pod.
type place struct {
	pod   *compile.Pod // nil: nowhere
	local int          // its index among the pods of the node, if it is one of them
}

// in is the pod as a snapshot has it by now.
func (at place) in(s compile.Snapshot) *compile.Pod {
	if at.pod.Node == s.Node {
		return s.Local[at.local]
	}
	return at.pod
}

// isBound reports whether the API has shown the pod on a node.
func (at place) isBound() bool { return at.pod != nil && at.pod.Node != "" }

// find says where the pods are that are known here or waited for, by their keys.
func (t *Table) find(s compile.Snapshot) map[string]place {
	byUID, byName := map[string]bool{}, map[[2]string][]wanted{}
	found := map[string]place{}
	want := func(p Pod, as string) {
		byUID[p.UID] = true
		if q, ok := s.Remote.Get(p.Namespace, p.Name); ok && p.UID != "" && q.UID == p.UID {
			found[p.UID] = place{pod: q}
		}
		if name := [2]string{p.Namespace, p.Name}; p.byName() {
			byName[name] = append(byName[name], wanted{p, as})
		}
	}
	for _, a := range t.pods {
		want(a.Pod, a.as)
	}
	for w := range t.waiting {
		as := ""
		if a := t.pods[w.pod.key()]; a != nil {
			as = a.as
		}
		want(w.pod, as)
	}
	for i, p := range s.Local {
		if p.UID != "" && byUID[p.UID] {
			found[p.UID] = place{p, i}
		}
		if len(byName) > 0 {
			for _, w := range byName[[2]string{p.Namespace, p.Name}] {
				if w.is(p) {
					found[w.key()] = place{p, i}
				}
			}
		}
	}
	return found
}

// enter gives one pod of the snapshot its addresses, and notes whose they are, or ends what the table knows of it.
func (t *Table) enter(s *compile.Snapshot, key string, a *arrived, at place, holders map[netip.Addr]*compile.Pod) {
	if !at.isBound() { // for all that the API has shown
		if a.seen || time.Since(a.at) > forgotten && !t.waitedFor(key) {
			delete(t.pods, key)
		}
		return
	}
	p := at.pod
	if p.Node != s.Node || p.HostNetwork || p.Finished || p.Source == compile.Shown && showsOneOf(p, a.Pod) {
		delete(t.pods, key)
		return
	}
	a.seen, a.as = true, p.UID
	// Whatever address the API shows is of a sandbox that was before this one, or was announced by this node itself.
	overlaid := *p
	overlaid.Addrs, overlaid.Source = a.Addrs, compile.Arrived
	if len(a.Extra) > 0 {
		overlaid.Beside = &compile.Beside{Given: a.Extra}
	}
	s.Local[at.local] = &overlaid
	for _, addr := range a.Addrs {
		holders[addr] = &overlaid
	}
}

// takeFromOthers leaves addresses with those who have just got them: whoever else on this node the API shows with one had it before. That no pod of another
// node has it is for [compile.Compile] to say.
func takeFromOthers(s *compile.Snapshot, holders map[netip.Addr]*compile.Pod) {
	if len(holders) == 0 {
		return
	}
	for i, p := range s.Local {
		lost := func(a netip.Addr) bool { return holders[a] != nil && holders[a] != p }
		if slices.ContainsFunc(p.Addrs, lost) {
			rest := *p
			rest.Addrs = slices.DeleteFunc(slices.Clone(p.Addrs), lost)
			s.Local[i] = &rest
		}
	}
}

func (t *Table) waitedFor(key string) bool {
	for w := range t.waiting {
		if w.pod.key() == key {
			return true
		}
	}
	return false
}

func showsOneOf(p *compile.Pod, a Pod) bool { return slices.ContainsFunc(a.Addrs, in(p.Addrs)) }

func showsAllOf(p *compile.Pod, a Pod) bool {
	return !slices.ContainsFunc(a.Addrs, func(addr netip.Addr) bool { return !slices.Contains(p.Addrs, addr) })
}

func in(addrs []netip.Addr) func(netip.Addr) bool {
	return func(a netip.Addr) bool { return slices.Contains(addrs, a) }
}

// decide reports whether a sync of the snapshot is what w waits for. Who can only be disappointed is answered at once.
func (t *Table) decide(s compile.Snapshot, w *waiter, at place) bool {
	if !at.isBound() {
		w.why = "the API has not shown this node " + w.pod.which()
		return false
	}
	p := at.in(s)
	if _, known := s.Namespaces.Get("", p.Namespace); !known {
		w.why = "the API has not shown this node the pod's namespace"
		return false
	}
	switch {
	case p.Node != s.Node:
		t.answer(w, fmt.Errorf("the API has pod %s/%s on node %q, and this is %q", p.Namespace, p.Name, p.Node, s.Node))
		return false
	case p.HostNetwork, p.Finished:
		return true // policy says nothing of it
	case w.check && !showsAllOf(p, w.pod), !w.check && !showsOneOf(p, w.pod):
		t.answer(w, fmt.Errorf("pod %s/%s is known here with addresses %s, not with %s", p.Namespace, p.Name, p.Addrs, w.pod.Addrs))
		return false
	}
	return true
}

// ended answers those whose policy was in a sync.
func (t *Table) ended(ready []*waiter, lacking func([]netip.Addr) error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.synced && lacking(everyFamily) == nil {
		t.synced = true
		t.save()
	}
	for _, w := range ready {
		if err := lacking(w.pod.Addrs); err != nil {
			// The kernel's words name whatever stood in its way, other tenants' policies too, and the plugin's answer becomes an Event of the pod.
			w.why = "what the sync was to bring is not all in force, and is tried again: the NodeEnforcement of the node and its enforcer's log say why"
		} else {
			t.answer(w, nil)
		}
	}
}

// everyFamily has an address of each.
var everyFamily = []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}

func (t *Table) answer(w *waiter, err error) {
	if t.waiting[w] {
		delete(t.waiting, w)
		w.done <- err
	}
}

// save writes the table, if it has changed. The file is not made before the first sync has succeeded, which its being there says. No harm is
// done at once if it cannot be written, so that pods go on starting.
func (t *Table) save() {
	if !t.synced && t.saved == "" {
		return
	}
	pods := make([]Pod, 0, len(t.pods))
	for _, key := range slices.Sorted(maps.Keys(t.pods)) {
		pods = append(pods, t.pods[key].Pod)
	}
	text, err := json.Marshal(pods)
	if err != nil || string(text) == t.saved {
		return
	}
	err = replaceFile(t.file, text)
	t.tell(err)
	if err == nil {
		t.saved, t.logged = string(text), ""
		return
	}
	if t.logged != err.Error() { // each sync tries again
		t.logged = err.Error()
		t.log.Info("new pods cannot be written down: an enforcer that starts now would not know them before the API shows their addresses; tried again",
			"file", t.file, "error", t.logged)
	}
}

// replaceFile writes a file at once or not at all. It lies in memory, so that nothing has to be flushed.
func replaceFile(path string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	part := path + ".new"
	err := os.WriteFile(part, text, 0o600)
	if err == nil {
		err = os.Rename(part, path)
	}
	if err != nil {
		_ = os.Remove(part) // half of it is of use to nobody, and takes room
		return fmt.Errorf("writing down the pods that have just started: %w", err)
	}
	return nil
}
