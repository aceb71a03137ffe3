package connections

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
)

// Life is for how long a connection is listed after it was seen last.
const Life = 24 * time.Hour

// Ledger is what a node has seen of connections. Its methods may be called from any goroutine.
type Ledger struct {
	mu       sync.Mutex
	since    time.Time
	accounts map[string]*account // by the namespace of the pod of this node
	listed   int                 // of all accounts
	counts   map[countOf]tally
	watched  map[string]metav1.Time // namespaces whose allowed connections are looked for, since when
	earlier  map[string]metav1.Time // those of the process before this one, until it is known which they are now
	changed  chan struct{}          // receives when something has changed
	news     bool                   // there are connections or counts that have not been written
	grown    bool                   // those that were have grown
}

// NewLedger is one that begins now.
func NewLedger() *Ledger {
	return &Ledger{since: time.Now(), accounts: map[string]*account{}, counts: map[countOf]tally{}, changed: make(chan struct{}, 1)}
}

// account is what was seen of one namespace.
type account struct {
	listed map[connection]*sight
	groups map[string]int // how many are listed, by the namespace of the other end, and by the other end
	rest   v1alpha1.ConnectionRest
	passed int // how many of those that are listed were allowed
}

// connection is what packets have in common of which one thing is to be said.
type connection struct {
	verdict   v1alpha1.ConnectionVerdict
	direction v1alpha1.ConnectionDirection
	from, to  end
	protocol  string
	port      int32
	policy    string
	rule      int32 // -1 for none
}

// end is a pod's workload, or an address.
type end struct{ namespace, workload, address string }

// sight is how often and when a connection was seen.
type sight struct {
	last   v1alpha1.ObservedConnection
	groups groups
}

// groups are the namespace of the other end, and that end in it: whoever can make one pod in a namespace can make many. All that is no pod is one end.
type groups [2]string

func groupsOf(remote *v1alpha1.ConnectionEnd) groups {
	if remote.Workload == "" {
		return groups{"", "/"}
	}
	return groups{remote.Namespace, remote.Namespace + "/" + remote.Workload}
}

// countOf is what is counted together.
type countOf struct {
	namespace, policy string
	direction         v1alpha1.ConnectionDirection
	verdict           v1alpha1.ConnectionVerdict
}

// tally is how many packets were counted, and when there were more last.
type tally struct {
	packets int64
	last    metav1.Time
}

func (t tally) plus(packets int64, last metav1.Time) tally {
	if last.Before(&t.last) {
		last = t.last
	}
	return tally{t.packets + packets, last}
}

// others stands for the policies of a namespace that are not counted one by one any more.
const others = "others"

func keyOf(o *v1alpha1.ObservedConnection) connection {
	k := connection{
		verdict: o.Verdict, direction: o.Direction, from: endOf(&o.From), to: endOf(&o.To), protocol: o.Protocol, port: o.Port, policy: o.Policy, rule: -1,
	}
	if o.Rule != nil {
		k.rule = *o.Rule
	}
	return k
}

func endOf(e *v1alpha1.ConnectionEnd) end {
	if e.Workload == "" {
		return end{address: e.Address}
	}
	return end{namespace: e.Namespace, workload: e.Workload}
}

// Note takes in a connection that was seen, as often as it says.
func (l *Ledger) Note(o v1alpha1.ObservedConnection) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.note(o)
	l.say()
}

func (l *Ledger) note(o v1alpha1.ObservedConnection) {
	local, remote := o.Ends()
	a := l.account(local.Namespace)
	key := keyOf(&o)
	if s := a.listed[key]; s != nil {
		s.add(&o)
		l.grown = true
		return
	}
	s := &sight{o, groupsOf(remote)}
	a.listed[key] = s
	for _, g := range s.groups {
		a.groups[g]++
	}
	a.count(key, 1)
	l.listed++
	l.news = true
	if l.listed > v1alpha1.MaxNodeConnections {
		largest := slices.MaxFunc(slices.Collect(maps.Values(l.accounts)), func(a, b *account) int { return cmp.Compare(len(a.listed), len(b.listed)) })
		l.drop(largest)
	} else if len(a.listed) > v1alpha1.MaxReportConnections {
		l.drop(a)
	}
}

// maxAccounts is how many namespaces there is something known of: more come and go in the life of a node, and some make them to be remembered.
const maxAccounts = v1alpha1.MaxNodeConnections + v1alpha1.MaxConnectionRests

// account is that of a namespace.
func (l *Ledger) account(namespace string) *account {
	if l.accounts[namespace] == nil {
		if len(l.accounts) >= maxAccounts {
			l.forgetLeast()
		}
		l.accounts[namespace] = &account{listed: map[connection]*sight{}, groups: map[string]int{}}
	}
	return l.accounts[namespace]
}

// forgetLeast forgets the namespace with the fewest packets of those of which nothing is listed any more.
func (l *Ledger) forgetLeast() {
	least, found := "", false
	for namespace, a := range l.accounts {
		if len(a.listed) == 0 && (!found || cmp.Or(cmp.Compare(a.rest.Packets, l.accounts[least].rest.Packets), cmp.Compare(namespace, least)) < 0) {
			least, found = namespace, true
		}
	}
	delete(l.accounts, least)
}

// add adds what was seen of the same connection before or later.
func (s *sight) add(o *v1alpha1.ObservedConnection) {
	first, packets := s.last.FirstTime, s.last.Packets+o.Packets
	if o.FirstTime.Before(&first) {
		first = o.FirstTime
	}
	if !o.LastTime.Before(&s.last.LastTime) {
		s.last = *o
	}
	s.last.FirstTime, s.last.Packets = first, packets
}

// drop takes one connection from an account: of those that were allowed or of the others, whichever there are more of; of these, of the namespace at the other
// end that has most, and there of the other end that has most, the one that was seen least often, and of several the one that was seen first.
func (l *Ledger) drop(a *account) {
	var victim connection
	var least *sight
	ofPassed := a.passed > len(a.listed)/2
	for key, s := range a.listed {
		if key.isPassed() == ofPassed && (least == nil || a.compare(s, least) < 0) {
			victim, least = key, s
		}
	}
	l.unlist(a, victim)
}

// unlist has a connection count among the rest.
func (l *Ledger) unlist(a *account, key connection) {
	s := a.listed[key]
	delete(a.listed, key)
	a.count(key, -1)
	for _, g := range s.groups {
		if a.groups[g]--; a.groups[g] == 0 {
			delete(a.groups, g)
		}
	}
	l.listed--
	a.rest.Connections++
	a.rest.Packets += s.last.Packets
}

// count has one more connection be listed, or one less.
func (a *account) count(key connection, more int) {
	if key.isPassed() {
		a.passed += more
	}
}

func (c connection) isPassed() bool { return c.verdict == v1alpha1.ConnectionAllowed }

// compare orders what is listed by how soon it is to go.
func (a *account) compare(s, t *sight) int {
	for i := range s.groups {
		if c := cmp.Or(cmp.Compare(a.groups[t.groups[i]], a.groups[s.groups[i]]), cmp.Compare(s.groups[i], t.groups[i])); c != 0 {
			return c
		}
	}
	return cmp.Or(cmp.Compare(s.last.Packets, t.last.Packets), s.last.LastTime.Compare(t.last.LastTime.Time))
}

// Count adds packets that a policy has denied, or would have.
func (l *Ledger) Count(c v1alpha1.ConnectionCount) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count(c)
	l.say()
}

func (l *Ledger) count(c v1alpha1.ConnectionCount) {
	of := countOf{c.Namespace, c.Policy, c.Direction, c.Verdict}
	if _, there := l.counts[of]; there {
		l.grown = true
	} else {
		l.news = true
	}
	l.counts[of] = l.counts[of].plus(c.Packets, c.LastTime)
	for len(l.counts) > v1alpha1.MaxConnectionCounts {
		l.uncount()
	}
}

// uncount has the smallest count of the namespace that has most be counted with others of it; or if all are of others, one with those of all namespaces.
func (l *Ledger) uncount() {
	have := map[string]int{}
	for of := range l.counts {
		have[of.namespace]++
	}
	rank := func(of countOf) int { // what is to go first has the lowest
		switch {
		case of.policy != others:
			return 0
		case of.namespace != "":
			return 1
		}
		return 2
	}
	least := slices.MinFunc(slices.Collect(maps.Keys(l.counts)), func(a, b countOf) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(have[b.namespace], have[a.namespace]), cmp.Compare(a.namespace, b.namespace),
			cmp.Compare(l.counts[a].packets, l.counts[b].packets), cmp.Compare(a.policy, b.policy), cmp.Compare(a.direction, b.direction),
			cmp.Compare(a.verdict, b.verdict))
	})
	one := l.counts[least]
	delete(l.counts, least)
	if least.policy == others {
		least.namespace = ""
	}
	least.policy = others
	l.counts[least] = l.counts[least].plus(one.packets, one.last)
}

// say has whoever writes know that there is something.
func (l *Ledger) say() {
	select {
	case l.changed <- struct{}{}:
	default: // it is known
	}
}

// Restore adds what was written before this process began.
func (l *Ledger) Restore(before *v1alpha1.NodeConnectionsStatus) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if since := before.Since.Time; !since.IsZero() && since.Before(l.since) {
		l.since = since
	}
	for _, o := range before.Connections {
		l.note(o)
	}
	for _, c := range before.Counts {
		l.count(c)
	}
	l.earlier = map[string]metav1.Time{}
	for _, w := range before.Watched {
		l.earlier[w.Namespace] = w.Since
	}
	if l.watched != nil {
		l.watch(slices.Collect(maps.Keys(l.watched)))
	}
	for _, r := range before.Rests {
		a := l.account(r.Namespace)
		a.rest.Connections += r.Connections
		a.rest.Packets += r.Packets
	}
}

// pending says whether there is something that has not been written, and whether it is more than numbers that have grown.
func (l *Ledger) pending() (some, news bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.news || l.grown, l.news
}

// ends is when the first connection is to be listed no more, zero if none is listed.
func (l *Ledger) ends() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	var first time.Time
	for _, a := range l.accounts {
		for _, s := range a.listed {
			if end := s.last.LastTime.Add(Life); first.IsZero() || end.Before(first) {
				first = end
			}
		}
	}
	return first
}

// watch notes which namespaces' allowed connections are looked for. They are since when they were before.
func (l *Ledger) watch(namespaces []string) {
	now := map[string]metav1.Time{}
	for _, namespace := range namespaces {
		since, watched := l.earlier[namespace]
		if !watched {
			since, watched = l.watched[namespace]
		}
		if !watched {
			since = metav1.Now()
		}
		now[namespace] = since
	}
	l.news = l.news || !maps.Equal(l.watched, now)
	l.watched, l.earlier = now, nil
}

// take is the ledger as it is written: everything in it counts as written from now on.
func (l *Ledger) take(now time.Time) v1alpha1.NodeConnectionsStatus {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.news, l.grown = false, false
	l.forget(now)
	status := v1alpha1.NodeConnectionsStatus{Time: metav1.NewTime(now), Since: metav1.NewTime(l.since)}
	for _, namespace := range slices.Sorted(maps.Keys(l.accounts)) {
		a := l.accounts[namespace]
		var of []v1alpha1.ObservedConnection
		for _, s := range a.listed {
			of = append(of, s.last)
		}
		slices.SortFunc(of, v1alpha1.CompareConnections)
		status.Connections = append(status.Connections, of...)
	}
	status.Rests = l.rests()
	for of, t := range l.counts {
		status.Counts = append(status.Counts, v1alpha1.ConnectionCount{
			Namespace: of.namespace, Policy: of.policy, Direction: of.direction, Verdict: of.verdict, Packets: t.packets, LastTime: t.last})
	}
	slices.SortFunc(status.Counts, v1alpha1.CompareCounts)
	for _, namespace := range slices.Sorted(maps.Keys(l.watched)) {
		if len(status.Watched) < v1alpha1.MaxWatched {
			status.Watched = append(status.Watched, v1alpha1.WatchedNamespace{Namespace: namespace, Since: l.watched[namespace]})
		}
	}
	return status
}

// rests are those of the namespaces with the most packets, in the order of namespaces.
func (l *Ledger) rests() []v1alpha1.NamespaceRest {
	var all []v1alpha1.NamespaceRest
	for namespace, a := range l.accounts {
		if a.rest != (v1alpha1.ConnectionRest{}) {
			all = append(all, v1alpha1.NamespaceRest{Namespace: namespace, ConnectionRest: a.rest})
		}
	}
	byName := func(a, b v1alpha1.NamespaceRest) int { return cmp.Compare(a.Namespace, b.Namespace) }
	slices.SortFunc(all, func(a, b v1alpha1.NamespaceRest) int { return cmp.Or(cmp.Compare(b.Packets, a.Packets), byName(a, b)) })
	all = all[:min(len(all), v1alpha1.MaxConnectionRests)]
	slices.SortFunc(all, byName)
	return all
}

// unwritten says that what was taken could not be written.
func (l *Ledger) unwritten() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.news = true
}

// forget lists no more what was seen long ago.
func (l *Ledger) forget(now time.Time) {
	for _, a := range l.accounts {
		for key, s := range a.listed {
			if now.Sub(s.last.LastTime.Time) >= Life {
				l.unlist(a, key)
			}
		}
	}
}
