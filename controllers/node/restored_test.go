package node

import (
	"errors"
	"testing"
	"time"

	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/ringfence-io/ringfence/controllers/cached"
	"github.com/ringfence-io/ringfence/test/kit"
)

// Once a cache has gone back, nothing of what the caches hold is enforced, and the process ends: others may not have noticed, and the two together were never so.
func TestNothingIsEnforcedOnceACacheHasGoneBack(t *testing.T) {
	for _, kind := range []string{"pods", "namespaces", "policies"} {
		t.Run(kind, func(t *testing.T) {
			one := make(syncs, 1) // a second panics
			n := nodeOf(t, Config{Name: "n", Resync: time.Hour, Sync: &one})
			store := map[string]toolscache.ReflectorBookmarkStore{"pods": n.stores.pods.(*allPods), "namespaces": n.stores.namespaces, "policies": n.stores.policies}[kind]
			kit.Must(t, store.Bookmark("10"))
			if _, err := n.Reconcile(t.Context(), reconcile.Request{}); err != nil {
				t.Fatal(err)
			}
			kit.Must(t, store.Bookmark("9"))
			var restored *cached.RestoredError
			for range 2 {
				if _, err := n.Reconcile(t.Context(), reconcile.Request{}); !errors.As(err, &restored) || restored.Now != "9" {
					t.Fatalf("the sync says %v", err)
				}
			}
			if err := n.restored.Start(t.Context()); !errors.As(err, &restored) {
				t.Errorf("the process ends with %v", err)
			}
		})
	}
}

// A scope that begins anew may list what is older than it had shown before. One that goes back while it is watched has not been left.
func TestAScopeThatBeginsAnewHasNotGoneBack(t *testing.T) {
	r := newRestoration()
	const scope, own = "pods of namespace a", "pods of node n"
	kit.Must(t, r.note(map[string]string{own: "10", scope: "20", "namespaces": "30"}))
	r.forget(map[string]string{own: "10"})
	kit.Must(t, r.note(map[string]string{own: "10", scope: "15", "namespaces": "30"}))
	r.forget(map[string]string{own: "10", scope: "15"})
	var restored *cached.RestoredError
	if err := r.note(map[string]string{own: "10", scope: "14"}); !errors.As(err, &restored) {
		t.Errorf("a scope that goes back says %v", err)
	}
	if err := r.note(map[string]string{own: "9"}); !errors.As(err, &restored) {
		t.Errorf("the node's own pods that go back say %v", err)
	}
	if err := r.note(map[string]string{"namespaces": "29"}); !errors.As(err, &restored) {
		t.Errorf("namespaces that go back say %v", err)
	}
}
