package cached

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/test/kit"
)

func podStore() *Store[*compile.Pod] {
	var t Transforms
	return NewStore(StoreOptions[*compile.Pod]{
		Target: Target{Resource: "pods", Versions: NewVersions(corev1.SchemeGroupVersion), Transform: t.PodToEntry},
		Take:   TakePod, Same: IsSamePod, Here: func(p *compile.Pod) bool { return p.Node == "here" },
	})
}

func apiPod(name, node, app string, version int) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID(name), ResourceVersion: fmt.Sprint(version), Labels: map[string]string{"app": app}},
		Spec:       corev1.PodSpec{NodeName: node},
	}
}

// TestAStoreHoldsWhatItWasTold: random events and lists; what was taken from it before stays as it was, and each change that policy sees is told.
func TestAStoreHoldsWhatItWasTold(t *testing.T) {
	for seed := range uint64(10) {
		random := rand.New(rand.NewPCG(seed, 1))
		s, want := podStore(), map[string]*corev1.Pod{}
		told := 0
		s.OnChange(func(_, _ *compile.Pod) { told++ })
		if s.HasSynced() {
			t.Fatal("it has synced before anything came")
		}
		kit.Must(t, s.Replace(nil, "0"))
		for version := 1; version < 1500; version++ {
			name := fmt.Sprint("p", random.IntN(60))
			p := apiPod(name, pickOne(random, "", "here", "there"), pickOne(random, "a", "b"), version)
			hereBefore, othersBefore, _ := s.Contents()
			heldBefore, toldBefore := collected(hereBefore, othersBefore), told
			news := !maps.Equal(texts(want), withPod(texts(want), p))
			switch random.IntN(8) {
			case 0:
				news = want[name] != nil
				delete(want, name)
				kit.Must(t, s.Delete(p))
			case 1:
				want[name], news = p, true
				kit.Must(t, s.Replace(listed(want), fmt.Sprint(version)))
			case 2:
				news = false
				kit.Must(t, s.Bookmark(fmt.Sprint(version)))
			default:
				want[name] = p
				kit.Must(t, s.Update(p))
			}
			here, others, seen := s.Contents()
			if got := collected(here, others); seen != fmt.Sprint(version) || !maps.Equal(got, texts(want)) || !s.HasSynced() {
				t.Fatalf("seed %d, version %d: it holds %v at %s, want %v", seed, version, got, seen, texts(want))
			}
			if now := collected(hereBefore, othersBefore); !maps.Equal(heldBefore, now) {
				t.Fatalf("seed %d, version %d: what was taken before has changed from %v to %v", seed, version, heldBefore, now)
			}
			if (told > toldBefore) != news {
				t.Fatalf("seed %d, version %d: %d changes were told, news: %t", seed, version, told-toldBefore, news)
			}
			for p := range here.All() {
				if p.Node != "here" {
					t.Fatalf("%s of node %q is held as one of this node", p.Name, p.Node)
				}
			}
		}
	}
}

func pickOne(random *rand.Rand, from ...string) string { return from[random.IntN(len(from))] }

func listed(pods map[string]*corev1.Pod) (all []any) {
	for _, p := range pods {
		all = append(all, p)
	}
	return all
}

func texts(pods map[string]*corev1.Pod) map[string]string {
	all := map[string]string{}
	for _, p := range pods {
		withPod(all, p)
	}
	return all
}

func withPod(all map[string]string, p *corev1.Pod) map[string]string {
	all[p.Name] = p.Spec.NodeName + " " + p.Labels["app"]
	return all
}

func collected(all ...compile.Objects[*compile.Pod]) map[string]string {
	got := map[string]string{}
	for _, objects := range all {
		for p := range objects.All() {
			got[p.Name] = p.Node + " " + p.Labels.Get("app")
		}
	}
	return got
}

// TestWhatPolicyDoesNotSeeIsNotAnotherObject: kubelets write conditions all the time, and a list comes again after a watch was lost.
func TestWhatPolicyDoesNotSeeIsNotAnotherObject(t *testing.T) {
	s := podStore()
	kit.Must(t, s.Replace([]any{apiPod("a", "here", "x", 1), apiPod("b", "there", "x", 2)}, "2"))
	here, others, _ := s.Contents()
	again := apiPod("a", "here", "x", 3)
	again.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady}}
	kit.Must(t, s.Update(again))
	kit.Must(t, s.Replace([]any{again, apiPod("b", "there", "x", 2)}, "4"))
	hereNow, othersNow, _ := s.Contents()
	for _, pair := range [2][2]compile.Objects[*compile.Pod]{{here, hereNow}, {others, othersNow}} {
		if gone, come := pair[1].Since(pair[0]); len(gone)+len(come) > 0 || pair[1].Len() != 1 {
			t.Errorf("%v have gone and %v come", gone, come)
		}
	}
	if err := s.Add(&corev1.Node{}); err == nil {
		t.Error("a node is taken for a pod")
	}
	if names := slices.Collect(maps.Keys(collected(hereNow, othersNow))); len(names) != 2 {
		t.Errorf("it holds %v", names)
	}
}

func TestAStoreKnowsWhatIsNewestInANamespace(t *testing.T) {
	s := podStore()
	s.dated = true
	namespace := apiPod("a", "here", "x", 1).Namespace
	step := func(name, want string, err error) {
		t.Helper()
		if got := s.Newest(namespace); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", name, got, err, want)
		}
	}
	step("nothing", "", nil)
	step("a list", "3", s.Replace([]any{apiPod("a", "here", "x", 3), apiPod("b", "there", "x", 2)}, "9"))
	step("a bookmark", "3", s.Bookmark("10"))
	step("what policy does not see", "3", s.Add(apiPod("a", "here", "x", 11)))
	step("a change", "12", s.Add(apiPod("b", "there", "y", 12)))
	step("a deletion", "13", s.Delete(apiPod("a", "here", "x", 13)))
	step("another list", "12", s.Replace([]any{apiPod("b", "there", "y", 12)}, "20"))
	if got := s.Newest("another"); got != "" {
		t.Errorf("of another namespace: %q", got)
	}
}
