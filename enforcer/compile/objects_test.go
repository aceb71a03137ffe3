package compile

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestObjectsAreWhatWasPutIn: random changes of a collection and of a map are the same, none changes what was there before, and what differs between any two is
// found.
func TestObjectsAreWhatWasPutIn(t *testing.T) {
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 1))
		model := map[[2]string]*Pod{}
		var all Objects[*Pod]
		states := []Objects[*Pod]{all}
		models := []map[[2]string]*Pod{{}}
		for i := range 3000 {
			key := [2]string{fmt.Sprint("ns-", random.IntN(3)), fmt.Sprint("pod-", random.IntN(200+int(seed)*100))}
			if random.IntN(3) > 0 {
				p := &Pod{Namespace: key[0], Name: key[1], UID: fmt.Sprint(i)}
				all, model[key] = all.With(p), p
			} else {
				all = all.Without(key[0], key[1])
				delete(model, key)
			}
			if i%300 == 0 {
				states, models = append(states, all), append(models, maps.Clone(model))
			}
		}
		states = append(states, ObjectsOf(slices.Collect(maps.Values(model))...), Objects[*Pod]{})
		models = append(models, model, nil)
		for i, one := range states {
			checkObjects(t, one, models[i])
			for k, other := range states {
				gone, come := one.Since(other)
				if !sameElements(gone, missing(models[k], models[i])) || !sameElements(come, missing(models[i], models[k])) {
					t.Fatalf("seed %d: from state %d to %d, %d have gone and %d come", seed, k, i, len(gone), len(come))
				}
			}
		}
	}
}

func checkObjects(t *testing.T, o Objects[*Pod], want map[[2]string]*Pod) {
	t.Helper()
	if !sameElements(slices.Collect(o.All()), slices.Collect(maps.Values(want))) || o.Len() != len(want) {
		t.Fatalf("%d objects, and Len says %d; want %d", len(slices.Collect(o.All())), o.Len(), len(want))
	}
	for key, p := range want {
		if got, ok := o.Get(key[0], key[1]); !ok || got != p {
			t.Fatalf("%s is %v", key, got)
		}
	}
	if _, ok := o.Get("ns-0", "nobody"); ok {
		t.Fatal("there is an object that nobody put in")
	}
	for range o.All() {
		break // who stops early is not called again
	}
}

// missing are those of a that b has not, or another of the same name.
func missing(a, b map[[2]string]*Pod) (all []*Pod) {
	for key, p := range a {
		if b[key] != p {
			all = append(all, p)
		}
	}
	return all
}

func sameElements(a, b []*Pod) bool {
	return len(a) == len(b) && maps.Equal(setOf(a), setOf(b))
}

// TestTwoObjectsOfOneNameAreBothThere, as long as they are listed and not put in one after the other.
func TestTwoObjectsOfOneNameAreBothThere(t *testing.T) {
	a, b := &Pod{Name: "p", UID: "a"}, &Pod{Name: "p", UID: "b"}
	both := ObjectsOf(a, b)
	if gone, come := both.Since(ObjectsOf(a)); both.Len() != 2 || len(gone) != 0 || !slices.Equal(come, []*Pod{b}) {
		t.Errorf("%d are there; since there was one, %v have gone and %v come", both.Len(), gone, come)
	}
	if one := ObjectsOf(a).With(b); one.Len() != 1 {
		t.Errorf("%d are there, want the second in the place of the first", one.Len())
	}
}
