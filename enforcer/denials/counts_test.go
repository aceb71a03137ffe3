package denials

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ringfence-io/ringfence/enforcer/dataplane"
	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

func TestGrown(t *testing.T) {
	one, two := point("a", "one", policy.Ingress, -1, true), point("b", "one", policy.Egress, -1, true)
	again := point("c", "one", policy.Ingress, 3, true)
	other := point("d", "another", policy.Ingress, -1, true)
	enforced := point("e", "one", policy.Ingress, -1, false)
	type counts = map[string]uint64
	for _, c := range []struct {
		name        string
		points      []policy.Point
		before, now counts
		want        []growth
	}{
		{"nothing", nil, nil, nil, nil},
		{"it stands", []policy.Point{one}, counts{"a": 5}, counts{"a": 5}, nil},
		{"it grows", []policy.Point{one}, counts{"a": 5}, counts{"a": 8}, []growth{{one.Ref, policy.Ingress, true, "", 3, 8}}},
		{"it is new", []policy.Point{one}, nil, counts{"a": 8}, []growth{{one.Ref, policy.Ingress, true, "", 8, 8}}},
		{"it was gone in between", []policy.Point{one}, counts{"a": 5}, counts{"a": 2}, []growth{{one.Ref, policy.Ingress, true, "", 2, 2}}},
		{"it is not in the kernel yet", []policy.Point{one}, nil, counts{}, nil},
		{"it is not audited", []policy.Point{enforced}, nil, counts{"e": 1}, []growth{{enforced.Ref, policy.Ingress, false, "", 1, 1}}},
		{"it is of no policy any more", nil, nil, counts{"a": 1}, nil},
		{
			"points of an object and direction add up, and objects are in order", []policy.Point{one, two, again, other},
			counts{"a": 1, "c": 1}, counts{"a": 2, "b": 1, "c": 3, "d": 7},
			[]growth{{other.Ref, policy.Ingress, true, "", 7, 7}, {one.Ref, policy.Ingress, true, "", 3, 5}, {two.Ref, policy.Egress, true, "", 1, 1}},
		},
	} {
		if diff := cmp.Diff(c.want, grown(points(c.points...), c.before, c.now), cmp.AllowUnexported(growth{}), noneIsNil); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

// A thousand audited policies of one namespace have some lines at each reading, and one for the rest; another namespace's have theirs.
func TestGrowthIsSharedOutByNamespace(t *testing.T) {
	var all []growth
	for i := range 1000 {
		all = append(all, growth{ref: policy.Ref{Kind: "NetworkPolicy", Namespace: "a", Name: fmt.Sprintf("p%04d", i)}, count: uint64(i + 1), total: 5000})
	}
	for i := range 30 {
		all = append(all, growth{ref: policy.Ref{Kind: "ClusterNetworkPolicy", Name: fmt.Sprintf("c%04d", i)}, count: 1})
	}
	all = append(all, growth{ref: policy.Ref{Kind: "NetworkPolicy", Namespace: "b", Name: "quiet"}, count: 1})
	got := byNamespace(all)
	if len(got) != 3 || len(got[0].most) != maxGrowths || got[0].others != 1000-maxGrowths || got[0].count != 980*981/2 || got[0].most[0].count != 981 {
		t.Errorf("of a: %+v", got[0])
	}
	if len(got[1].most) != 30 || len(got[2].most) != 1 || got[2].others != 0 {
		t.Errorf("others: %+v", got[1:])
	}
}

var noneIsNil = cmp.Transformer("", func(all []growth) map[int]growth {
	byIndex := map[int]growth{}
	for i, g := range all {
		byIndex[i] = g
	}
	return byIndex
})

// blind is a kernel whose counters cannot be read while it has an error.
type blind struct {
	*dataplane.Fake
	err   atomic.Pointer[error]
	reads atomic.Int64
}

func (b *blind) Counts(ctx context.Context) (map[string]uint64, error) {
	b.reads.Add(1)
	if err := b.err.Load(); err != nil {
		return nil, *err
	}
	return b.Fake.Counts(ctx)
}

func TestWhatGrowsIsSaidAtEachResync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const id = "aaaaaaaaaaaaaaaa"
		chain := "RF-v1-IW-" + id
		kernel, l := &blind{Fake: dataplane.NewFake(dataplane.Capabilities{})}, &log{}
		hit := func(n uint64) {
			t.Helper()
			if err := kernel.Hit(iptables.IPv6, chain, n); err != nil {
				t.Fatal(err)
			}
		}
		if err := kernel.Restore(iptables.IPv6, "*security\n:"+chain+" - [0:0]\n-A "+chain+" -m comment --comment x\nCOMMIT\n"); err != nil {
			t.Fatal(err)
		}
		hit(1000) // by the rules of an earlier run
		j := &Journal{Source: kernel, Pods: &cluster{}, Log: l.logger(), Interval: 30 * time.Second}
		run(t, j)
		after := func(name string, want ...string) {
			t.Helper()
			time.Sleep(30 * time.Second) // of the bubble's clock
			synctest.Wait()
			if diff := cmp.Diff(append([]string{}, want...), append([]string{}, l.take()...)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", name, diff)
			}
		}
		j.SetPoints(points(point(id, "web", policy.Ingress, -1, true)))
		hit(2)
		after("it grows", `"msg":"audit","policy":"NetworkPolicy team-a/web","direction":"ingress","count":2,"since":"2000-01-01T00:00:00Z","total":1002}`)
		after("it stands")
		locked := errors.New("locked")
		kernel.err.Store(&locked)
		hit(1)
		after("it cannot be read", `"msg":"what audited policies would deny could not be counted, it will be tried again; enforcement goes on",`+
			`"error":"locked"}`)
		kernel.err.Store(nil)
		after("what was missed is said later",
			`"msg":"audit","policy":"NetworkPolicy team-a/web","direction":"ingress","count":1,"since":"2000-01-01T00:01:00Z","total":1003}`)
		j.SetPoints(policy.Map[string, policy.Point]{})
		before := kernel.reads.Load()
		after("nothing is audited")
		if kernel.reads.Load() != before {
			t.Error("the kernel was read for nothing")
		}
	})
}
