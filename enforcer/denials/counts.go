package denials

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// counts are some that were read.
type counts struct {
	at     time.Time // zero as long as nothing was read
	totals map[string]uint64
}

// When counts are read after something was seen: soon, but so seldom that the readings take no more than a hundredth of a processor.
const (
	countSoon  = 2 * time.Second
	countShare = 100
)

// count writes a line for each audited object whose count has grown, as often as the interval says. With a witness it counts too after something was seen,
// which makes no lines, and once more when the interval is over. What was counted before the first reading, by the rules that an earlier run has left, is not
// news.
func (j *Journal) count(ctx context.Context) {
	j.init()
	seen := j.seen
	if j.Witness == nil {
		seen = nil
	}
	var took time.Duration // by the last reading
	again := false
	due := time.NewTimer(0)
	defer due.Stop()
	for {
		isSeen := false
		select {
		case <-ctx.Done():
			return
		case <-seen:
			if isSeen = pass(ctx, max(countSoon, countShare*took)); !isSeen {
				return
			}
		case <-due.C:
		}
		began, asked := time.Now(), isSeen || again
		read := j.summarise(ctx, began, asked)
		took, again = time.Since(began), isSeen || asked && !read
		due.Reset(j.Interval)
	}
}

// pass lets some time pass. It reports false if ctx has ended meanwhile.
func pass(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// summarise reads the counts, and says what has grown. Where nothing is audited, and nobody asks for it, it reads them no more than the once. It reports false
// if they could not be read.
func (j *Journal) summarise(ctx context.Context, now time.Time, asked bool) bool {
	j.mu.Lock()
	points := j.points
	j.mu.Unlock()
	first := j.counts.at.IsZero()
	if !first && !asked && !anyAudited(points) {
		if j.Witness == nil {
			j.counts, j.said = counts{at: now}, counts{at: now}
		}
		return true
	}
	totals, err := j.Source.Counts(ctx)
	if err != nil {
		if ctx.Err() == nil {
			j.Log.Error(err, "what audited policies would deny could not be counted, it will be tried again; enforcement goes on")
		}
		return false
	}
	if first {
		j.counts, j.said = counts{now, totals}, counts{now, totals}
		return true
	}
	all := grown(points, j.counts.totals, totals)
	for _, g := range all {
		packets[g.audit].WithLabelValues(g.direction.String(), cmp.Or(g.tier, noTier)).Add(float64(g.count))
	}
	if j.Witness != nil && len(all) > 0 {
		j.Witness.Counted(growths(all))
	}
	j.counts = counts{now, known(points, j.counts.totals, totals)}
	if now.Sub(j.said.at) >= j.Interval {
		audited := slices.DeleteFunc(grown(points, j.said.totals, totals), func(g growth) bool { return !g.audit })
		for _, of := range byNamespace(audited) {
			j.sayGrowth(of, j.said.at)
		}
		j.said = counts{now, known(points, j.said.totals, totals)}
	}
	return true
}

// known are totals, in which those of points that are not known stand as they did: rules are in the kernel a moment before anybody says whose they are, and
// their growth is said once that is known.
func known(points policy.Map[string, policy.Point], before, now map[string]uint64) map[string]uint64 {
	out := make(map[string]uint64, len(now))
	for id, total := range now {
		_, is := points.Lookup(id)
		was, there := before[id]
		switch {
		case is:
			out[id] = total
		case there:
			out[id] = min(was, total)
		}
	}
	return out
}

func growths(all []growth) []Growth {
	var out []Growth
	for _, g := range all {
		out = append(out, Growth{g.ref, g.direction, g.audit, g.count})
	}
	return out
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

// growth is what one object has denied in one direction, or would have.
type growth struct {
	ref       policy.Ref
	direction policy.Direction
	audit     bool
	tier      string
	count     uint64 // since the reading before
	total     uint64
}

// grown is the growth between two readings of the objects that have any, in their order. A total that has fallen is that of a point that was
// gone in between.
func grown(points policy.Map[string, policy.Point], before, now map[string]uint64) []growth {
	type side struct {
		ref       policy.Ref
		direction policy.Direction
		audit     bool
	}
	sides := map[side]growth{}
	for id, p := range points.All() {
		total, ok := now[id]
		if !ok {
			continue
		}
		count := total
		if b := before[id]; b <= total {
			count = total - b
		}
		of := side{p.Ref, p.Direction, p.Audit}
		g := sides[of]
		sides[of] = growth{p.Ref, p.Direction, p.Audit, p.Tier, g.count + count, g.total + total}
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
