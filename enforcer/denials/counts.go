package denials

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// counts are the last that were read.
type counts struct {
	at     time.Time // zero as long as nothing was read
	totals map[string]uint64
}

// count writes a line for each audited object whose count has grown, as often as the interval says. What was counted before the first
// reading, by the rules that an earlier run has left, is not news.
func (j *Journal) count(ctx context.Context) {
	j.summarise(ctx, time.Now())
	tick := time.NewTicker(j.Interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			j.summarise(ctx, now)
		}
	}
}

// summarise reads the counts, and says what has grown. Where nothing is audited it reads them no more than the once.
func (j *Journal) summarise(ctx context.Context, now time.Time) {
	j.mu.Lock()
	points := j.points
	j.mu.Unlock()
	first := j.counts.at.IsZero()
	if !first && !anyAudited(points) {
		j.counts = counts{at: now}
		return
	}
	totals, err := j.Source.Counts(ctx)
	if err != nil {
		if ctx.Err() == nil {
			j.Log.Error(err, "what audited policies would deny could not be counted, it will be tried again; enforcement goes on")
		}
		return
	}
	since := j.counts.at
	if !first {
		for _, of := range byNamespace(grown(points, j.counts.totals, totals)) {
			j.sayGrowth(of, since)
		}
	}
	j.counts = counts{at: now, totals: totals}
}

// sayGrowth writes the lines of one namespace.
func (j *Journal) sayGrowth(of namespaceGrowth, since time.Time) {
	at := since.UTC().Format(time.RFC3339)
	for _, g := range of.most {
		j.Log.Info("audit", "policy", g.ref.String(), "direction", g.direction.String(), "count", g.count, "since", at, "total", g.total)
	}
	if of.others > 0 {
		j.Log.Info("audit of others", "namespace", of.namespace, "policies", of.others, "count", of.count, "since", at)
	}
}

func anyAudited(points policy.Map[string, policy.Point]) bool {
	for _, p := range points.All() {
		if p.Audit {
			return true
		}
	}
	return false
}

// growth is what one object in audit mode would have denied in one direction.
type growth struct {
	ref       policy.Ref
	direction policy.Direction
	count     uint64 // since the reading before
	total     uint64
}

// grown is the growth between two readings of the audited objects that have any, in their order. A total that has fallen is that of a point that was
// gone in between.
func grown(points policy.Map[string, policy.Point], before, now map[string]uint64) []growth {
	type side struct {
		ref       policy.Ref
		direction policy.Direction
	}
	sides := map[side]growth{}
	for id, p := range points.All() {
		total, ok := now[id]
		if !ok || !p.Audit {
			continue
		}
		count := total
		if b := before[id]; b <= total {
			count = total - b
		}
		g := sides[side{p.Ref, p.Direction}]
		sides[side{p.Ref, p.Direction}] = growth{p.Ref, p.Direction, g.count + count, g.total + total}
	}
	all := slices.SortedFunc(maps.Values(sides), func(a, b growth) int {
		return cmp.Or(a.ref.Compare(b.ref), cmp.Compare(a.direction, b.direction))
	})
	return slices.DeleteFunc(all, func(g growth) bool { return g.count == 0 })
}

// maxGrowths is how many objects of one namespace have a line of their own at each reading. Those of the whole cluster are no tenant's, and all have one.
const maxGrowths = 20

// namespaceGrowth is the growth of one namespace's objects.
type namespaceGrowth struct {
	namespace string
	most      []growth // those that have grown most, in their order
	others    int      // besides
	count     uint64   // of these
}

// byNamespace shares lines out: all is in the order of objects.
func byNamespace(all []growth) []namespaceGrowth {
	var out []namespaceGrowth
	place := map[string]int{}
	for _, g := range all {
		namespace := g.ref.Namespace
		i, known := place[namespace]
		if !known {
			i = len(out)
			place[namespace] = i
			out = append(out, namespaceGrowth{namespace: namespace})
		}
		out[i].most = append(out[i].most, g)
	}
	for i := range out {
		of := &out[i]
		if len(of.most) <= maxGrowths || of.namespace == "" {
			continue
		}
		ranked := slices.Clone(of.most)
		slices.SortStableFunc(ranked, func(a, b growth) int { return cmp.Compare(b.count, a.count) })
		for _, g := range ranked[maxGrowths:] {
			of.others, of.count = of.others+1, of.count+g.count
		}
		kept := map[growth]bool{}
		for _, g := range ranked[:maxGrowths] {
			kept[g] = true
		}
		of.most = slices.DeleteFunc(of.most, func(g growth) bool { return !kept[g] })
	}
	return out
}
