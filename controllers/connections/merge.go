package connections

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/cached"
)

// said is what one node says.
type said struct {
	node   string
	status *v1alpha1.NodeConnectionsStatus
}

// merge is the report of a namespace, made of what nodes say. runs reports whether a node runs, or has run, pods of a namespace: about others it is not
// believed. A time that is still to come counts as the present. The order of all does not matter.
func merge(namespace string, all []said, runs func(node, namespace string) bool, now time.Time) v1alpha1.ConnectionReportStatus {
	var status v1alpha1.ConnectionReportStatus
	all = slices.SortedFunc(slices.Values(all), func(a, b said) int { return cmp.Compare(a.node, b.node) })
	listed := newListed()
	counted := newPile(countKey, addCount)
	for _, s := range all {
		for _, o := range s.status.Connections {
			if local, _ := o.Ends(); !runs(s.node, local.Namespace) {
				continue
			}
			if one, ok := asReadIn(namespace, o, now); ok {
				listed.add(s.node, one)
			}
		}
		if !runs(s.node, namespace) {
			continue
		}
		for _, r := range s.status.Rests {
			if r.Namespace == namespace {
				status.Rest = v1alpha1.ConnectionRest{Connections: sum(status.Rest.Connections, r.Connections), Packets: sum(status.Rest.Packets, r.Packets)}
			}
		}
		for _, c := range s.status.Counts {
			if c.Namespace == namespace {
				c.Policy, c.Packets, c.LastTime = cached.Plain(c.Policy, cached.MaxMessage), max(c.Packets, 0), plausible(c.LastTime, now)
				counted.add(s.node, c)
			}
		}
		status.Since = earlier(status.Since, plausible(s.status.Since, now))
		for _, w := range s.status.Watched {
			if w.Namespace == namespace {
				status.AllowedSince = earlier(status.AllowedSince, plausible(w.Since, now))
			}
		}
	}
	var left []v1alpha1.ReportedConnection
	status.Connections, left = listed.taken()
	for _, c := range left {
		status.Rest = v1alpha1.ConnectionRest{Connections: sum(status.Rest.Connections, 1), Packets: sum(status.Rest.Packets, c.Packets)}
	}
	status.Counts = counted.taken(v1alpha1.MaxConnectionCounts)
	slices.SortFunc(status.Counts, v1alpha1.CompareCounts)
	for _, c := range status.Counts {
		switch c.Verdict {
		case v1alpha1.ConnectionDenied:
			status.Denied = sum(status.Denied, c.Packets)
		case v1alpha1.ConnectionWouldDeny:
			status.WouldDeny = sum(status.WouldDeny, c.Packets)
		}
	}
	if len(status.Connections) > 0 && !status.Connections[0].LastTime.IsZero() {
		last := status.Connections[0].LastTime
		status.LastTime = &last
	}
	return status
}

// listed are connections that are to be listed. Those that were allowed take no place of others, nor the other way round.
type listed struct {
	passed, others *pile[v1alpha1.ReportedConnection]
}

func newListed() listed {
	return listed{newPile(connectionKey, addConnection), newPile(connectionKey, addConnection)}
}

func (l listed) add(node string, o v1alpha1.ObservedConnection) {
	to := l.others
	if o.Verdict == v1alpha1.ConnectionAllowed {
		to = l.passed
	}
	to.add(node, v1alpha1.ReportedConnection{ObservedConnection: o, Nodes: []string{node}})
}

// taken are those that there is room for, those that were seen last first, and those that are left.
func (l listed) taken() (taken, left []v1alpha1.ReportedConnection) {
	room := func(others *pile[v1alpha1.ReportedConnection]) int {
		return max(v1alpha1.MaxReportConnections/2, v1alpha1.MaxReportConnections-len(others.all))
	}
	forPassed, forOthers := room(l.others), room(l.passed)
	taken = append(l.passed.taken(forPassed), l.others.taken(forOthers)...)
	slices.SortFunc(taken, func(a, b v1alpha1.ReportedConnection) int {
		return v1alpha1.CompareConnections(a.ObservedConnection, b.ObservedConnection)
	})
	return taken, append(l.passed.left, l.others.left...)
}

// asReadIn is a connection as the report of a namespace has it. It reports false if no end of it is there.
func asReadIn(namespace string, o v1alpha1.ObservedConnection, now time.Time) (v1alpha1.ObservedConnection, bool) {
	local, remote := o.Ends()
	switch {
	case namespace == local.Namespace:
		o.Policy = cached.Plain(o.Policy, cached.MaxMessage)
	case namespace == remote.Namespace && o.Verdict != v1alpha1.ConnectionAllowed: // which the other end's node has seen
		o.Policy, o.Rule = "policy of namespace "+cached.Plain(local.Namespace, maxNamespace), nil
	default:
		return o, false
	}
	for _, e := range []*v1alpha1.ConnectionEnd{&o.From, &o.To} {
		*e = v1alpha1.ConnectionEnd{
			Namespace: cached.Plain(e.Namespace, maxNamespace), Workload: cached.Plain(e.Workload, maxName),
			Pod: cached.Plain(e.Pod, maxName), Address: cached.Plain(e.Address, maxAddress),
		}
	}
	o.Protocol = cached.Plain(o.Protocol, maxProtocol)
	for _, t := range []*metav1.Time{&o.FirstTime, &o.LastTime} {
		*t = plausible(*t, now)
	}
	o.Packets = max(o.Packets, 0)
	return o, true
}

// plausible is a time that a node says, or the nearest that a clock can have shown: other ones are refused where the report is written.
func plausible(t metav1.Time, now time.Time) metav1.Time {
	switch {
	case t.IsZero():
		return t
	case t.After(now):
		return metav1.NewTime(now.Truncate(time.Second))
	case t.Unix() < 0:
		return metav1.Unix(0, 0)
	}
	return t
}

// earlier is the first of two times, of which neither may be known.
func earlier(a *metav1.Time, b metav1.Time) *metav1.Time {
	if b.IsZero() || a != nil && a.Before(&b) {
		return a
	}
	return &b
}

// sum is that of two numbers, the first of which is not negative. A node may say any.
func sum(a, b int64) int64 {
	b = max(b, 0)
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// Bounds of texts in bytes. The schema has none below them, which it counts in characters: a text that is cut may have more of those than before.
const (
	maxNamespace = 63
	maxName      = 253
	maxAddress   = 64
	maxProtocol  = 16
)

// pile is a bounded number of things, of which each node has its share.
type pile[T any] struct {
	key    func(T) string
	join   func(into *T, more T)
	byNode map[string][]string // keys, in the order in which the node has them
	all    map[string]T
	left   []T // there was no room for these; known once all is taken
}

func newPile[T any](key func(T) string, join func(*T, T)) *pile[T] {
	return &pile[T]{key: key, join: join, byNode: map[string][]string{}, all: map[string]T{}}
}

func (p *pile[T]) add(node string, one T) {
	key := p.key(one)
	p.byNode[node] = append(p.byNode[node], key)
	if before, there := p.all[key]; there {
		p.join(&before, one)
		one = before
	}
	p.all[key] = one
}

// taken are as many things as there is room for: the first that each node has, then the second ones, and so on.
func (p *pile[T]) taken(most int) []T {
	var out []T
	nodes := slices.Sorted(maps.Keys(p.byNode))
	for more := true; more && len(p.all) > 0 && len(out) < most; {
		more = false
		for _, node := range nodes {
			keys := p.byNode[node]
			for len(keys) > 0 && len(out) < most {
				one, there := p.all[keys[0]]
				keys, more = keys[1:], true
				if there {
					delete(p.all, p.key(one))
					out = append(out, one)
					break
				}
			}
			p.byNode[node] = keys
		}
	}
	p.left = slices.Collect(maps.Values(p.all))
	return out
}

func connectionKey(c v1alpha1.ReportedConnection) string {
	rule := "-"
	if c.Rule != nil {
		rule = strconv.Itoa(int(*c.Rule))
	}
	end := func(e v1alpha1.ConnectionEnd) string {
		return strings.Join([]string{e.Namespace, cmp.Or(e.Workload, e.Address)}, "\x00")
	}
	return strings.Join([]string{string(c.Verdict), string(c.Direction), end(c.From), end(c.To), c.Protocol, strconv.Itoa(int(c.Port)), c.Policy, rule}, "\x00")
}

// addConnection adds what another node, or another pod of a workload, has seen of the same.
func addConnection(into *v1alpha1.ReportedConnection, more v1alpha1.ReportedConnection) {
	first, packets, nodes := into.FirstTime, sum(into.Packets, more.Packets), into.Nodes
	if more.FirstTime.Before(&first) {
		first = more.FirstTime
	}
	if into.LastTime.Before(&more.LastTime) {
		*into = more
	}
	into.FirstTime, into.Packets, into.Nodes = first, packets, nodes
	for _, n := range more.Nodes {
		if !slices.Contains(into.Nodes, n) && len(into.Nodes) < v1alpha1.MaxConnectionNodes {
			into.Nodes = append(slices.Clone(into.Nodes), n)
		}
	}
	slices.Sort(into.Nodes)
}

func countKey(c v1alpha1.ConnectionCount) string {
	return strings.Join([]string{c.Policy, string(c.Direction), string(c.Verdict)}, "\x00")
}

func addCount(into *v1alpha1.ConnectionCount, more v1alpha1.ConnectionCount) {
	into.Packets = sum(into.Packets, more.Packets)
	if into.LastTime.Before(&more.LastTime) {
		into.LastTime = more.LastTime
	}
}
