package status

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/cached"
	"github.com/ringfence-io/ringfence/enforcer/compile"
)

// BenchmarkLargePolicy is one look at a policy for all pods of a cluster of 5,000 nodes, 1,000 namespaces and 50,000 pods.
func BenchmarkLargePolicy(b *testing.B) {
	const nodes, spaces, pods = 5000, 1000, 50000
	v := viewOf(b)
	for i := range nodes {
		name := fmt.Sprintf("node-%d", i)
		v.holds(b, named(name), reportOf(name, time.Minute, started))
	}
	for i := range spaces {
		name := fmt.Sprintf("team-%d", i)
		v.holds(b, &cached.NamespaceEntry{ObjectMeta: metav1.ObjectMeta{Name: name}, Namespace: &compile.Namespace{Name: name}})
	}
	for i := range pods {
		p := visible(fmt.Sprintf("team-%d", i%spaces), fmt.Sprintf("node-%d", i%nodes))
		p.Name, p.UID = fmt.Sprintf("pod-%d", i), fmt.Sprintf("9f3c1a70-0000-4000-8000-%012d", i)
		p.Addrs = []netip.Addr{netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})}
		v.holds(b, p)
	}
	everyone := compile.Understand(compile.Object{ClusterNetworkPolicy: &v1alpha1.ClusterNetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "everyone"},
		Spec:       v1alpha1.ClusterNetworkPolicySpec{Tier: v1alpha1.AdminTier, Subject: v1alpha1.Subject{Namespaces: &v1alpha1.LabelSelector{}}},
	}})
	for b.Loop() {
		if found, _ := v.nodesOf(everyone, started); len(found) != nodes {
			b.Fatalf("%d nodes run pods that the policy selects, want %d", len(found), nodes)
		}
	}
}

func TestALongLookIsFollowedByARest(t *testing.T) {
	for look, want := range map[time.Duration]time.Duration{
		900 * time.Microsecond: 0, 50 * time.Millisecond: 200 * time.Millisecond, 5 * time.Second: time.Second,
	} {
		if got := restAfter(look); got != want {
			t.Errorf("after a look of %s: %s, want %s", look, got, want)
		}
	}
	x := newIndex()
	x.see(web, webAt(1, "10"), started)
	tx, _ := x.begin(web, webAt(1, "10"), started)
	tx.judged.took = 50 * time.Millisecond
	tx.commit()
	if got := x.mark(web, false); got != 50*time.Millisecond {
		t.Errorf("the look took %s, want 50ms", got)
	}
	x.see(web, webAt(2, "11"), started)
	if got := x.mark(web, false); got != 0 {
		t.Errorf("a version that nobody has looked at takes %s, and would wait", got)
	}
}

func TestWhatThisProcessWroteIsNoNews(t *testing.T) {
	x := newIndex()
	x.see(web, webAt(1, "10"), started)
	tx, _ := x.begin(web, webAt(1, "10"), started)
	tx.commit()
	object := func(version string) metav1.Object { return &metav1.ObjectMeta{ResourceVersion: version} }
	if x.wrote(web, object("11")) {
		t.Error("it is said to have written, and has not")
	}
	writes(tx, &v1alpha1.EnforcementStatus{}, "11", "12")
	for version, want := range map[string]bool{"11": true, "12": true, "13": false, "113": false} {
		if got := x.wrote(web, object(version)); got != want {
			t.Errorf("it wrote 11 and 12, and %s is its own: %t, want %t", version, got, want)
		}
	}
	x.enforcementGone(web)
	if x.wrote(web, object("12")) {
		t.Error("what has gone is said to be there")
	}
}

func TestNamespacesAreReadAnewOnceTheyChange(t *testing.T) {
	entry := func(name string) *cached.NamespaceEntry {
		return &cached.NamespaceEntry{ObjectMeta: metav1.ObjectMeta{Name: name}, Namespace: &compile.Namespace{Name: name}}
	}
	v := viewOf(t, entry("shop"))
	read := func() []string { return slices.Sorted(maps.Keys(v.byName.from(v.namespaces))) }
	if diff := cmp.Diff([]string{"shop"}, read()); diff != "" {
		t.Errorf("namespaces (-want +got):\n%s", diff)
	}
	v.holds(t, entry("other"))
	(&Policies{view: v, index: newIndex()}).namespaceChanged(nil, entry("other"))
	if diff := cmp.Diff([]string{"other", "shop"}, read()); diff != "" {
		t.Errorf("namespaces after a change (-want +got):\n%s", diff)
	}
}

func TestADigestIsOfThePodInItsNamespace(t *testing.T) {
	p := visible("shop", "n1")
	e := &podEntry{PodEntry: cached.NewPodEntry("1", p)}
	audited := &compile.Namespace{Name: "shop", Mode: string(v1alpha1.Audit)}
	for _, ns := range []*compile.Namespace{nil, {Name: "shop"}, audited, audited, {Name: "shop"}, nil} {
		if got, want := e.Digest(ns), p.Digest(ns); got != want {
			t.Errorf("in namespace %+v: %x, want %x", ns, got, want)
		}
	}
}

func TestAClusterNetworkPolicyConcernsThoseOfItsPriority(t *testing.T) {
	ranked := func(name string, tier v1alpha1.Tier, priority int32) *v1alpha1.ClusterNetworkPolicy {
		return &v1alpha1.ClusterNetworkPolicy{
			ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), ResourceVersion: "1"},
			Spec:       v1alpha1.ClusterNetworkPolicySpec{Tier: tier, Priority: priority, Subject: v1alpha1.Subject{Namespaces: &v1alpha1.LabelSelector{}}},
		}
	}
	x := newIndex()
	for _, p := range []*v1alpha1.ClusterNetworkPolicy{
		ranked("ten", v1alpha1.AdminTier, 10), ranked("also-ten", v1alpha1.AdminTier, 10), ranked("twenty", v1alpha1.AdminTier, 20),
		ranked("thirty", v1alpha1.AdminTier, 30), ranked("last", v1alpha1.BaselineTier, 10),
	} {
		x.see(policyKey{name: p.Name}, p, started)
	}
	x.see(policyKey{name: "isolation"}, &v1alpha1.NamespaceIsolation{ObjectMeta: metav1.ObjectMeta{Name: "isolation", UID: "isolation"}}, started)
	for _, tt := range []struct {
		name          string
		before, after metav1.Object
		want          []string
	}{
		{"a new one", nil, ranked("new", v1alpha1.AdminTier, 10), []string{"also-ten", "ten"}},
		{"another priority", ranked("moved", v1alpha1.AdminTier, 10), ranked("moved", v1alpha1.AdminTier, 20), []string{"also-ten", "ten", "twenty"}},
		{"one that goes", ranked("gone", v1alpha1.BaselineTier, 10), nil, []string{"last"}},
		{"a NetworkPolicy", nil, webAt(1, "10"), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, key := range x.tied(tt.before, tt.after) {
				got = append(got, key.name)
			}
			slices.Sort(got)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("it concerns (-want +got):\n%s", diff)
			}
		})
	}
}
