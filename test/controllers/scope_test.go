package controllers

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/ringfence-io/ringfence/controllers/cached"
	"github.com/ringfence-io/ringfence/controllers/node/scope"
	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/test/kit"
	"github.com/ringfence-io/ringfence/test/kit/transport"
)

// scopes are a node's, with clusters for the namespaces that it may hear of.
type scopes struct {
	t    *testing.T
	pods *scope.Pods
	at   time.Time
	to   *transport.Transport
	by   map[string]*cluster // by a short name
	// changes are those that were told.
	changes atomic.Int64
}

// newScopes has a pod of the node and one of another node in each of the namespaces, by their short names.
func newScopes(t *testing.T, short ...string) *scopes {
	t.Helper()
	s := &scopes{t: t, at: time.Now(), to: transport.New(), by: map[string]*cluster{}}
	for _, name := range short {
		s.by[name] = newCluster(t)
		s.by[name].createPod("here", node)
		s.by[name].createPod("there", "elsewhere")
	}
	config := s.to.To(restConfig)
	client, err := rest.HTTPClientFor(config)
	kit.Must(t, err)
	s.pods = scope.New(node, scope.Kept)
	watcher, err := cached.NewWatcher(config, client, []cached.Target{s.pods.Target()})
	kit.Must(t, err)
	s.pods.Start(t.Context(), watcher, func(_, _ *compile.Pod) { s.changes.Add(1) })
	return s
}

// want has the node hear of namespaces, out of as many, some time after the last ones.
func (s *scopes) want(of int, later time.Duration, short ...string) {
	s.t.Helper()
	var names []string
	for _, name := range short {
		names = append(names, s.by[name].namespace)
	}
	s.at = s.at.Add(later)
	s.pods.Want(names, of, s.at)
}

// seen are the pods that are known, in the namespaces of the test.
func (s *scopes) seen() []string {
	var seen []string
	own, others := s.pods.Contents()
	for _, pods := range []compile.Objects[*compile.Pod]{own, others} {
		for p := range pods.All() {
			for name, c := range s.by {
				if p.Namespace == c.namespace {
					seen = append(seen, name+"/"+p.Name)
				}
			}
		}
	}
	slices.Sort(seen)
	return seen
}

// until waits until just these pods are known, and nothing is missing.
func (s *scopes) until(want ...string) {
	s.t.Helper()
	slices.Sort(want)
	kit.Eventually(s.t, patience, fmt.Sprint("pods ", want), func() bool { return s.pods.HasSynced() && len(s.pods.Missing()) == 0 && cmp.Equal(want, s.seen()) })
}

// open is how many watches of pods are open, but for the node's own.
func (s *scopes) open() int {
	return s.to.Watches(func(q *http.Request) bool {
		return strings.HasSuffix(q.URL.Path, "/pods") && q.URL.Query().Get("fieldSelector") == ""
	})
}

// streamed is about watches that begin with all objects that there are.
func streamed(q *http.Request) bool { return q.URL.Query().Get("sendInitialEvents") == "true" }

const manyNamespaces = 1000

func TestANodeHearsOfItsOwnPodsAndOfNamespacesThatAreWanted(t *testing.T) {
	s := newScopes(t, "a", "b", "c")
	s.until("a/here", "b/here", "c/here")
	s.want(manyNamespaces, 0, "a")
	s.until("a/here", "a/there", "b/here", "c/here")
	s.want(manyNamespaces, time.Second, "a", "b")
	s.until("a/here", "a/there", "b/here", "b/there", "c/here")
	if n := s.to.Watches(streamed); n > 0 {
		t.Errorf("%d watches began with all that is there: the API server goes through all pods for each", n)
	}

	s.by["b"].createPod("new", "elsewhere")
	s.by["c"].createPod("new", "elsewhere")
	s.by["c"].createPod("mine", node)
	s.by["c"].createPod("unbound", "")
	s.until("a/here", "a/there", "b/here", "b/new", "b/there", "c/here", "c/mine")
	if p := s.pods.Get(s.by["c"].namespace, "mine"); p == nil || p.Node != node {
		t.Errorf("the node's own pod is %v", p)
	}
	if p := s.pods.Get(s.by["b"].namespace, "new"); p != nil {
		t.Errorf("%v is no pod of the node", p)
	}
	s.by["c"].delete(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: s.by["c"].namespace, Name: "mine"}})
	s.until("a/here", "a/there", "b/here", "b/new", "b/there", "c/here")
	if versions := s.pods.ResourceVersions(); len(versions) != 3 || versions["pods of node "+node] == "" {
		t.Errorf("the scopes have come to %v", versions)
	}
}

// Each change of a pod that counts is told once, whatever scopes show it, and no other.
func TestWhatDoesNotCountIsNotTold(t *testing.T) {
	s := newScopes(t, "a", "b")
	s.want(manyNamespaces, 0, "a")
	s.until("a/here", "a/there", "b/here")
	told := s.changes.Load()
	s.by["b"].createPod("more", "elsewhere")
	s.by["a"].createPod("unbound", "")
	s.by["a"].createPod("mine", node)
	s.by["a"].createPod("theirs", "elsewhere")
	s.until("a/here", "a/mine", "a/theirs", "a/there", "b/here")
	if n := s.changes.Load() - told; n != 2 {
		t.Errorf("%d changes are told, want two", n)
	}
}

// A namespace that is not wanted for a while, as where an application restarts, is not read anew.
func TestANamespaceIsKeptForAWhile(t *testing.T) {
	s := newScopes(t, "a", "b")
	s.want(manyNamespaces, 0, "a", "b")
	s.until("a/here", "a/there", "b/here", "b/there")
	s.want(manyNamespaces, scope.Kept-time.Second, "a")
	s.until("a/here", "a/there", "b/here", "b/there")
	s.want(manyNamespaces, 2*time.Second, "a")
	s.until("a/here", "a/there", "b/here")
	kit.Eventually(t, patience, "the end of the watch", func() bool { return s.open() == 1 })
}

// What is not there yet is said to be missing, holds up nothing that is not wanted any more, and does not count by halves.
func TestANamespaceCountsOnceItIsThere(t *testing.T) {
	s := newScopes(t, "a", "b")
	s.until("a/here", "b/here")
	s.to.Hold(transport.Path("/namespaces/" + s.by["b"].namespace + "/pods"))
	s.want(manyNamespaces, 0, "a", "b")
	kit.Eventually(t, patience, "the watch that is held alone to be missing", func() bool {
		return s.to.Held() > 0 && cmp.Equal(s.pods.Missing(), []string{"pods of namespace " + s.by["b"].namespace})
	})
	if diff := cmp.Diff([]string{"a/here", "a/there", "b/here"}, s.seen()); diff != "" {
		t.Errorf("known meanwhile (-want +got):\n%s", diff)
	}
	s.knows(true, []string{"b"}, "a", "b")
	s.want(manyNamespaces, time.Second, "a")
	if missing := s.pods.Missing(); len(missing) > 0 {
		t.Errorf("%v are missing, and not wanted", missing)
	}
	s.want(manyNamespaces, time.Second, "a", "b")
	s.to.Release()
	s.until("a/here", "a/there", "b/here", "b/there")
	s.knows(true, nil, "a", "b")
}

// knows compares which pods are said to be known, out of those of some namespaces that are wanted.
func (s *scopes) knows(partial bool, unknown []string, short ...string) {
	s.t.Helper()
	full := func(short []string) (names []string) {
		for _, name := range short {
			names = append(names, s.by[name].namespace)
		}
		slices.Sort(names)
		return names
	}
	if diff := cmp.Diff(compile.Elsewhere{Partial: partial, Unknown: full(unknown)}, s.pods.Elsewhere(full(short))); diff != "" {
		s.t.Errorf("what is known (-want +got):\n%s", diff)
	}
}

// Where most namespaces are wanted, all pods are watched. Nothing that was known is forgotten on the way, there and back.
func TestManyNamespacesAreAll(t *testing.T) {
	s := newScopes(t, "a", "b", "c")
	s.want(6, 0, "a", "b", "c")
	s.until("a/here", "a/there", "b/here", "b/there", "c/here", "c/there")

	all := func(q *http.Request) bool {
		return strings.HasSuffix(q.URL.Path, "/api/v1/pods") && q.URL.Query().Get("fieldSelector") == ""
	}
	s.to.Hold(all)
	s.want(5, time.Second, "a", "b", "c")
	kit.Eventually(t, patience, "all pods to be asked for", func() bool { return s.to.Held() > 0 })
	if missing := s.pods.Missing(); len(missing) != 1 || len(s.seen()) != 6 {
		t.Errorf("before all pods are there, %v are known, and %v are missing", s.seen(), missing)
	}
	s.knows(true, nil, "a", "b", "c") // each by itself
	s.to.Release()
	kit.Eventually(t, patience, "one watch", func() bool {
		s.want(5, time.Second, "a", "b", "c")
		return s.to.Watches(all) == 1 && s.open() == 1
	})
	s.until("a/here", "a/there", "b/here", "b/there", "c/here", "c/there")
	s.knows(false, nil, "a", "b", "c")

	s.want(manyNamespaces, scope.Kept-time.Minute, "b")
	if n := s.open(); n != 1 || s.to.Watches(all) != 1 {
		t.Errorf("%d watches, a moment after there were too many namespaces: want that of all pods", n)
	}
	s.to.Hold(transport.Path("/namespaces/" + s.by["b"].namespace + "/pods"))
	s.want(manyNamespaces, 2*time.Minute, "b")
	kit.Eventually(t, patience, "the namespace to be asked for", func() bool { return s.to.Held() > 0 })
	s.until("a/here", "a/there", "b/here", "b/there", "c/here", "c/there")
	s.knows(false, nil, "b")
	s.to.Release()
	kit.Eventually(t, patience, "the end of the watch of all pods", func() bool {
		s.want(manyNamespaces, time.Second, "b")
		return s.to.Watches(all) == 0
	})
	s.until("a/here", "b/here", "b/there", "c/here")
}

func TestMoreNamespacesThanAreWatchedOneByOne(t *testing.T) {
	s := newScopes(t, "a")
	names := []string{s.by["a"].namespace}
	for i := range scope.MaxNamespaces {
		names = append(names, fmt.Sprintf("none-%d", i))
	}
	s.pods.Want(names[:scope.MaxNamespaces], manyNamespaces, s.at)
	kit.Eventually(t, patience, "a watch for each", func() bool { return s.open() == scope.MaxNamespaces })
	kit.Eventually(t, patience, "one for all", func() bool {
		s.pods.Want(names, manyNamespaces, s.at.Add(time.Second))
		return s.open() == 1
	})
	s.until("a/here", "a/there")
}

// While a namespace is not wanted for a while, what happens there is known all the same, and is there at once when it is wanted again.
func TestWhatHappensWhileANamespaceIsNotWantedIsKnown(t *testing.T) {
	s := newScopes(t, "a", "b")
	s.want(manyNamespaces, 0, "a", "b")
	s.until("a/here", "a/there", "b/here", "b/there")
	s.want(manyNamespaces, time.Minute, "a")
	s.by["b"].createPod("new", "elsewhere")
	s.by["b"].delete(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: s.by["b"].namespace, Name: "there"}})
	s.until("a/here", "a/there", "b/here", "b/new")
	s.to.Hold(streamedOrListed)
	defer s.to.Release()
	s.want(manyNamespaces, time.Minute, "a", "b")
	if missing := s.pods.Missing(); len(missing) > 0 {
		t.Errorf("missing: %v", missing)
	}
	s.until("a/here", "a/there", "b/here", "b/new")
}

// streamedOrListed is about requests that begin a scope.
func streamedOrListed(q *http.Request) bool {
	return q.URL.Query().Get("resourceVersion") == "0" || streamed(q)
}

// A pod that comes back on another node, with its name, moves from one scope to another, there and back.
func TestAPodThatComesBackOnAnotherNode(t *testing.T) {
	s := newScopes(t, "a")
	s.want(manyNamespaces, 0, "a")
	s.until("a/here", "a/there")
	for i, on := range []string{"elsewhere", node, "elsewhere", node} {
		s.by["a"].delete(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: s.by["a"].namespace, Name: "here"}})
		uid := s.by["a"].createPod("here", on).UID
		kit.Eventually(t, patience, fmt.Sprint("life ", i, " of the pod, on ", on), func() bool {
			own, others := s.pods.Contents()
			from, not := own, others
			if on != node {
				from, not = others, own
			}
			p, is := from.Get(s.by["a"].namespace, "here")
			_, was := not.Get(s.by["a"].namespace, "here")
			return is && !was && p.UID == string(uid)
		})
	}
}

// An API server that does not have what came since a watch ended, or was away meanwhile: what was known stays known, and what has happened is known afterwards.
func TestWatchesThatAreTooOldAreBegunAnew(t *testing.T) {
	s := newScopes(t, "a", "b")
	s.want(manyNamespaces, 0, "a")
	s.until("a/here", "a/there", "b/here")
	pods := func(q *http.Request) bool { return strings.HasSuffix(q.URL.Path, "/pods") }
	kit.Eventually(t, patience, "both watches to be open", func() bool { return s.to.Watches(pods) == 2 })
	before := s.seen()
	s.to.Hold(pods)
	s.to.Expire(pods)
	kit.Eventually(t, patience, "both to be asked for again", func() bool { return s.to.Held() == 2 })
	for _, c := range s.by {
		c.createPod("here-too", node)
		c.createPod("there-too", "elsewhere")
		c.delete(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace, Name: "there"}})
	}
	if diff := cmp.Diff(before, s.seen()); diff != "" || !s.pods.HasSynced() || len(s.pods.Missing()) > 0 {
		t.Errorf("known while the API server is away (-before +now):\n%s", diff)
	}
	s.to.Release()
	s.until("a/here", "a/here-too", "a/there-too", "b/here", "b/here-too")
	kit.Eventually(t, patience, "both watches to be too old", func() bool { return s.to.Expired() == 2 })
}
