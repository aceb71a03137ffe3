package controllers

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
)

func TestHistoryDoesNotGoBack(t *testing.T) {
	for _, tt := range []struct {
		name     string
		versions []string
		want     string // the error's versions
	}{
		{"on and on", []string{"1", "2", "10", "11"}, ""},
		{"nothing has changed", []string{"10", "10"}, ""},
		{"an answer without", []string{"10", "", "11"}, ""},
		{"none at all", []string{"", ""}, ""},
		{"back", []string{"9", "10", "9"}, "10 9"},
		{"back, behind an answer without", []string{"10", "", "9"}, "10 9"},
		{"far back", []string{"123456789012345678901234567890", "99999999999999999999"}, "123456789012345678901234567890 99999999999999999999"},
		{"no numbers: not ours to judge", []string{"b", "a"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var h history
			got := ""
			for _, v := range tt.versions {
				if restored := new(RestoredError); errors.As(h.note(v), &restored) {
					got = restored.Before + " " + restored.Now
				}
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// An enforcer notices by its next report, ends, and has said in that report that nothing follows from it.
func TestAReporterEndsWhenTheAPIServerHasGoneBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &paper{began: time.Now(), count: 1000}
		d := &desk{paper: p}
		d.isNode("uid-1")
		d.Reporter = NewReporter("n1", p, d.uid, time.Minute, v1alpha1.NodeEnforcementStatus{})
		ended := make(chan error, 1)
		go func() { ended <- d.Start(t.Context()) }()
		d.change(1)
		passes(10 * time.Minute)
		p.goesBackTo(500)
		passes(2 * time.Minute)
		var restored *RestoredError
		select {
		case err := <-ended:
			if !errors.As(err, &restored) || restored.Now != "501" {
				t.Errorf("it ended with %v", err)
			}
		default:
			t.Fatal("it goes on")
		}
		for i, w := range p.wrote {
			e, err := reportToEntry(w.report)
			if err != nil || e.(*reportEntry).void != (i == len(p.wrote)-1) {
				t.Errorf("report %d of %d: void is %t, %v", i, len(p.wrote), e.(*reportEntry).void, err)
			}
		}
	})
}

func TestNothingFollowsFromAReportOfLostChanges(t *testing.T) {
	report := func(version, before string) *reportEntry {
		e, err := reportToEntry(&v1alpha1.NodeEnforcement{
			ObjectMeta: metav1.ObjectMeta{Name: "n1", ResourceVersion: version},
			Status: v1alpha1.NodeEnforcementStatus{Before: before, Applied: &v1alpha1.Applied{
				ResourceVersions: map[string]string{kindOfPolicy: "5000"}, PodDigests: packDigests([]uint64{7})}},
		})
		if err != nil {
			t.Fatal(err)
		}
		return e.(*reportEntry)
	}
	for _, tt := range []struct {
		version, before string
		since           string
		want            v1alpha1.NodeStanding
	}{
		{"3100", "", "3050", ""}, // the first of a process
		{"3100", "3000", "3050", ""},
		{"3100", "5001", "3050", v1alpha1.NodePending},
		{"3100", "5001", "", v1alpha1.NodePending},
		{"3100", "3100", "3050", v1alpha1.NodePending},
	} {
		n := nodeCase{pods: []uint64{7}, heard: true, report: report(tt.version, tt.before)}
		if got, message := n.standing(policyCase{resource: kindOfPolicy, since: tt.since}); got != tt.want {
			t.Errorf("a report of version %s after %s, policy since %q: %q (%s), want %q", tt.version, tt.before, tt.since, got, message, tt.want)
		}
	}
}

// Once a cache has gone back, nothing of what the caches hold is enforced, and the process ends: others may not have noticed, and the two together were never so.
func TestNothingIsEnforcedOnceACacheHasGoneBack(t *testing.T) {
	for _, kind := range []string{"pods", "namespaces", "policies"} {
		t.Run(kind, func(t *testing.T) {
			s := storesOf(t)
			store := map[string]toolscache.SharedIndexInformer{"pods": s.pods, "namespaces": s.namespaces, "policies": s.policies}[kind].GetStore()
			one := make(syncs, 1) // a second panics
			n := &Node{Name: "n", Resync: time.Hour, stores: s, watches: &watches{}, Sync: &one, restored: newRestoration()}
			store.Bookmark("10")
			if _, err := n.Reconcile(t.Context(), reconcile.Request{}); err != nil {
				t.Fatal(err)
			}
			store.Bookmark("9")
			var restored *RestoredError
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
