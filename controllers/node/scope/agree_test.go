package scope

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ringfence-io/ringfence/controllers/cached"
	"github.com/ringfence-io/ringfence/enforcer/compile"
)

const manyNamespaces = 1000

// two are scopes of a node that play the API server's part themselves: what each watch has shown, and when.
type two struct {
	*Pods
	t       *testing.T
	at      time.Time
	stopped map[string]bool
}

func newTwo(t *testing.T) *two {
	t.Helper()
	s := &two{Pods: New("n1", Kept), t: t, at: time.Now(), stopped: map[string]bool{}}
	s.changed = func(_, _ *compile.Pod) {}
	return s
}

// watch begins a scope without anybody who writes to it.
func (s *two) watch(name string) watch {
	w := watch{s.store(cached.Target{}, nil), context.CancelFunc(func() { s.stopped[name] = true })}
	w.OnChange(s.changed)
	return w
}

// namespace has a namespace watched, which is wanted.
func (s *two) namespace(name string) {
	s.namespaces[name] = &namespace{watch: s.watch(name), wanted: s.at}
}

// everything has all pods watched, and wanted.
func (s *two) everything() {
	all := s.watch("all")
	s.all = &all
}

// want is Want a moment later.
func (s *two) want(of int, later time.Duration, names ...string) {
	s.at = s.at.Add(later)
	s.Want(names, of, s.at)
}

func pod(version int, namespace, name, node, address string) any {
	p := &compile.Pod{Namespace: namespace, Name: name, UID: namespace + name, Node: node}
	if address != "" {
		p.Addrs = []netip.Addr{netip.MustParseAddr(address)}
	}
	return cached.NewPodEntry(fmt.Sprint(version), p)
}

// list has a scope show some pods, as of a version.
func (s *two) list(w watch, version int, pods ...any) {
	s.t.Helper()
	if err := w.Replace(pods, fmt.Sprint(version)); err != nil {
		s.t.Fatal(err)
	}
}

func (s *two) add(w watch, p any) {
	s.t.Helper()
	if err := w.Add(p); err != nil {
		s.t.Fatal(err)
	}
}

// known are the pods of other nodes that are known, with their addresses.
func (s *two) known() []string {
	var known []string
	_, others := s.Contents()
	for p := range others.All() {
		known = append(known, fmt.Sprint(p.Namespace, "/", p.Name, " ", p.Addrs))
	}
	slices.Sort(known)
	return known
}

func (s *two) knows(when string, want ...string) {
	s.t.Helper()
	if diff := cmp.Diff(want, s.known()); diff != "" {
		s.t.Errorf("%s (-want +got):\n%s", when, diff)
	}
}

// A watch of all pods that is behind those of namespaces does not take their place: what they have shown would be gone for a moment, and be denied.
func TestAllPodsTakeThePlaceOfNamespacesOnceTheyAreNoOlder(t *testing.T) {
	s := newTwo(t)
	s.namespace("a")
	a := s.namespaces["a"].watch
	s.list(a, 10, pod(5, "a", "one", "n2", "10.0.0.1"))
	s.everything()
	s.list(*s.all, 11, pod(5, "a", "one", "n2", "10.0.0.1"), pod(6, "b", "two", "n2", "10.0.0.2"))
	s.add(a, pod(12, "a", "new", "n2", "10.0.0.3"))

	s.want(1, time.Second, "a")
	s.knows("while all pods are behind", "a/new [10.0.0.3]", "a/one [10.0.0.1]")
	if diff := cmp.Diff([]string{s.all.String()}, s.Missing()); diff != "" {
		t.Errorf("missing (-want +got):\n%s", diff)
	}
	if s.stopped["a"] {
		t.Error("the namespace is watched no more")
	}
	s.add(*s.all, pod(12, "a", "new", "n2", "10.0.0.3"))
	s.want(1, time.Second, "a")
	s.knows("once they have come as far", "a/new [10.0.0.3]", "a/one [10.0.0.1]", "b/two [10.0.0.2]")
	if missing := s.Missing(); len(missing) > 0 || !s.stopped["a"] {
		t.Errorf("missing: %v, the namespace is watched no more: %t", missing, s.stopped["a"])
	}
}

// Versions move on without pods, and not on all watches at one time: where both have come to what is there, none is waited for.
func TestAWatchWithNothingToShowIsNotWaitedFor(t *testing.T) {
	s := newTwo(t)
	s.namespace("a")
	a := s.namespaces["a"].watch
	s.list(a, 10, pod(5, "a", "one", "n2", "10.0.0.1"))
	s.everything()
	s.list(*s.all, 11, pod(5, "a", "one", "n2", "10.0.0.1"))
	if err := a.Bookmark("20"); err != nil {
		t.Fatal(err)
	}
	s.want(1, time.Second, "a")
	if missing := s.Missing(); len(missing) > 0 || !s.stopped["a"] {
		t.Errorf("missing: %v", missing)
	}
}

// The same on the way back. The watch of a namespace may begin with a list of another API server's, which is older.
func TestNamespacesTakeThePlaceOfAllPodsOnceTheyAreNoOlder(t *testing.T) {
	s := newTwo(t)
	s.everything()
	one, fresh := pod(5, "a", "one", "n2", "10.0.0.1"), pod(29, "a", "new", "n2", "10.0.0.3")
	s.list(*s.all, 28, one, pod(7, "a", "gone", "n2", "10.0.0.4"), pod(6, "b", "two", "n2", "10.0.0.2"))
	s.want(1, time.Second, "a")
	s.add(*s.all, fresh)
	if err := s.all.Delete(pod(30, "a", "gone", "n2", "10.0.0.4")); err != nil {
		t.Fatal(err)
	}
	s.add(*s.all, pod(40, "b", "three", "n2", "10.0.0.5")) // which a watch of the other namespace never comes to
	all := []string{"a/new [10.0.0.3]", "a/one [10.0.0.1]", "b/three [10.0.0.5]", "b/two [10.0.0.2]"}
	s.knows("all", all...)

	s.namespace("a")
	a := s.namespaces["a"].watch
	s.want(manyNamespaces, Kept, "a")
	for version, behind := range [][]any{{}, {one}, {one, pod(8, "a", "new", "n2", "")}, {one, fresh, pod(7, "a", "gone", "n2", "10.0.0.4")}} {
		s.list(a, 26+version, behind...)
		s.want(manyNamespaces, time.Second, "a")
		s.knows(fmt.Sprintf("behind, with %d pods", len(behind)), all...)
		if missing := s.Missing(); len(missing) > 0 || s.stopped["all"] {
			t.Errorf("missing: %v, all pods are watched no more: %t", missing, s.stopped["all"])
		}
	}
	s.list(a, 30, one, fresh)
	s.want(manyNamespaces, time.Second, "a")
	s.knows("once it has come as far", "a/new [10.0.0.3]", "a/one [10.0.0.1]")
	if !s.stopped["all"] {
		t.Error("all pods are still watched")
	}
}

// A policy that names all namespaces, and comes and goes, has all pods watched once. What policies name in between is there at any time.
func TestAPolicyThatComesAndGoesBeginsNoWatchEachTime(t *testing.T) {
	s := newTwo(t)
	s.namespace("a")
	s.list(s.namespaces["a"].watch, 10, pod(5, "a", "one", "n2", "10.0.0.1"))
	s.everything() // which take their time
	first := s.all
	for range 100 {
		s.want(1, time.Second, "a")
		s.want(manyNamespaces, time.Second, "a")
		if missing := s.Missing(); len(missing) > 0 || s.all != first {
			t.Fatalf("missing: %v, and another watch: %t", missing, s.all != first)
		}
		s.knows("before all are there", "a/one [10.0.0.1]")
	}
	s.list(*s.all, 11, pod(5, "a", "one", "n2", "10.0.0.1"))
	for range 100 {
		s.want(manyNamespaces, time.Second, "a")
		s.want(1, time.Second, "a")
		if missing := s.Missing(); len(missing) > 0 || s.all != first || len(s.namespaces) > 0 {
			t.Fatalf("missing: %v, and another watch: %t", missing, s.all != first || len(s.namespaces) > 0)
		}
	}
}

// Policies that name others each time do not have namespaces watched, and left, without end: those of some minutes count together.
func TestNamespacesOfAWhileCountTogether(t *testing.T) {
	s := newTwo(t)
	var names []string
	for i := range MaxNamespaces {
		names = append(names, fmt.Sprintf("x-%d", i))
		s.namespace(names[i])
	}
	s.want(manyNamespaces, time.Second, names[:10]...)
	if s.wide {
		t.Error("too many already")
	}
	s.everything()
	s.want(manyNamespaces, time.Second, "one", "more")
	if !s.wide {
		t.Errorf("%d namespaces are watched, and two more are wanted", len(s.namespaces))
	}
}

// A pod of the node is the first scope's, however another watch shows it, and whatever was of its name elsewhere.
func TestAPodThatAnotherWatchShowsInAnotherVersion(t *testing.T) {
	s := newTwo(t)
	own := watch{Store: s.own}
	s.own.OnChange(s.changed)
	s.namespace("a")
	a := s.namespaces["a"].watch
	s.list(own, 20, pod(20, "a", "here", "n1", "10.0.0.9"))
	s.list(a, 10, pod(10, "a", "here", "n1", ""), pod(9, "a", "unbound", "", ""), pod(8, "a", "there", "n2", "10.0.0.1"))
	s.want(manyNamespaces, time.Second, "a")
	s.knows("of others", "a/there [10.0.0.1]")
	if p := s.Get("a", "here"); p == nil || len(p.Addrs) != 1 {
		t.Errorf("its own is %v", p)
	}
	if p := s.Get("a", "there"); p != nil {
		t.Errorf("%v is not its own", p)
	}
	s.add(a, pod(30, "a", "unbound", "n1", "")) // bound to the node: its own watch has not shown it
	s.knows("of others", "a/there [10.0.0.1]")
	if err := own.Delete(pod(31, "a", "here", "n1", "10.0.0.9")); err != nil {
		t.Fatal(err)
	}
	s.add(a, pod(33, "a", "here", "n2", "10.0.0.8")) // another of its name, elsewhere
	s.knows("of others", "a/here [10.0.0.8]", "a/there [10.0.0.1]")
	if p := s.Get("a", "here"); p != nil {
		t.Errorf("its own is %v", p)
	}
}
