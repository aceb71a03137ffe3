package query

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// notes are what is to be said of a recommendation, by kind.
type notes struct {
	unseen []string // directions of workloads
	left   []string // connections that no rule can allow
	denied []string // connections that policies deny now
	labels []string // pods that labels do not tell apart
	blocks []string // larger than what was seen
	whole  []string // namespaces whose pods are not known
	nodes  []netip.Addr
	stray  []netip.Addr // in the pods' ranges, and no pod's
}

// unseenText says in what direction nothing was seen of a subject, and what becomes of it.
func unseenText(s *subject, d policy.Direction, isolated bool) string {
	seen, then := "Nothing was seen to reach "+s.name(), "once enforced, nothing does"
	if d == policy.Egress {
		seen, then = s.name()+": nothing was seen that it reaches", "once enforced, it reaches nothing, not even the DNS"
	}
	if isolated {
		then = "the policies that there are go on to say what does"
	}
	return seen + ": " + then + "."
}

// noteSubject notes that the policy of a subject is about more than one workload.
func (r *recommending) noteSubject(s *subject, name string) {
	if len(s.workloads) > 1 {
		r.notes.labels = append(r.notes.labels, fmt.Sprintf(
			"%s have the same labels, and share the policy %s: what one needs, each may. Give each a label of its own, and ask again.", s.name(), name))
	}
	if others := s.others(); len(others) > 0 {
		r.notes.labels = append(r.notes.labels, fmt.Sprintf("The policy %s selects pods of %s too, which have all labels of %s: what it needs, they may. "+
			"Give it a label of its own, and ask again.", name, joined(others), s.name()))
	}
}

// notePeer notes that labels select more than the pods of a peer of another namespace. Of the namespace's own the note about its policy tells.
func (r *recommending) notePeer(p party) {
	s := p.subject
	if s.namespace == r.observed.Namespace {
		return
	}
	if len(s.workloads) > 1 {
		r.notes.labels = append(r.notes.labels, fmt.Sprintf("%s have the same labels: a rule for one goes for each.", s.name()))
	}
	if others := s.others(); len(others) > 0 {
		r.notes.labels = append(r.notes.labels, fmt.Sprintf("%s have all labels of %s: a rule for it goes for them too.", joined(others), s.name()))
	}
}

// noteAddr notes whose an address is, if that is not plain.
func (r *recommending) noteAddr(p party) {
	switch {
	case p.node != "":
		r.notes.nodes = append(r.notes.nodes, p.addr)
	case slices.ContainsFunc(r.ranges, func(of netip.Prefix) bool { return of.Contains(p.addr) }):
		r.notes.stray = append(r.notes.stray, p.addr)
	}
}

// lacks reports whether it is known that policies may deny what passes.
func (r *recommending) lacks() bool {
	return len(r.notes.left) > 0 || r.observed.Report.AllowedSince == nil || r.observed.Report.Rest.Connections > 0
}

// allNotes are all of them, those about what was not seen first.
func (r *recommending) allNotes() []string {
	n, o := &r.notes, r.observed
	all := append([]string{r.when()}, r.unknown()...)
	all = append(all, n.unseen...)
	for _, text := range n.left {
		all = append(all, "Seen, and not allowed by these policies: "+text+".")
	}
	for _, text := range n.denied {
		all = append(all, "Seen, and denied now by policies that are enforced, so that it stays denied: "+text+".")
	}
	all = append(all, n.labels...)
	all = append(all, n.blocks...)
	for _, namespace := range distinct(n.whole) {
		all = append(all, fmt.Sprintf("You may not list the pods of namespace %s, or they are not among the files: rules go for all of its pods.", namespace))
	}
	if some := addrTexts(n.stray); len(some) > 0 {
		all = append(all, fmt.Sprintf("%s: no pod has the address now, though it is in the range of pods. A rule allows it by itself, for whichever pod gets "+
			"it next: look whose it was, and leave it out.", joined(some)))
	}
	if some := addrTexts(n.nodes); len(some) > 0 {
		all = append(all, fmt.Sprintf("%s: addresses of nodes. Rules list them one by one, and nodes that come later are not among them.", joined(some)))
	}
	if hosts := r.onHosts(); len(hosts) > 0 {
		all = append(all, fmt.Sprintf("No policy can be about %s: the pods are on the network of their nodes.", joined(hosts)))
	}
	if r.fromNode > 0 {
		all = append(all, "Nodes were seen to reach their own pods, such as a kubelet that probes them. That is always allowed, and needs no rule.")
	}
	if len(o.Report.Connections) > 0 && r.seen == 0 {
		all = append(all, "Nothing that the report lists was seen in that time and passes.")
	}
	return distinct(all)
}

// when is how long was looked, and what was seen.
func (r *recommending) when() string {
	o, from := r.observed, r.observed.Since
	if since := o.Report.AllowedSince; since != nil && since.After(from) {
		from = since.Time
	}
	return fmt.Sprintf("Made from %d connections that were seen from %s to %s (%s). What happens more seldom is not among them.",
		r.seen, from.UTC().Format(time.RFC3339), o.Until.UTC().Format(time.RFC3339), o.Until.Sub(from).Round(time.Second))
}

// unknown is what is known to be missing.
func (r *recommending) unknown() []string {
	var all []string
	o := r.observed
	if o.Report.AllowedSince == nil {
		all = append(all, fmt.Sprintf("Nodes do not look for connections that are allowed: these are only such as policies in mode Audit would deny. "+
			"Have all be looked for: kubectl annotate --overwrite namespace %s %s=%s", o.Namespace, v1alpha1.ConnectionsAnnotation, v1alpha1.ConnectionsAll))
	}
	if n := o.Report.Rest.Connections; n > 0 {
		all = append(all, fmt.Sprintf("%d connections were seen that the report has no place for: these policies may lack rules for them.", n))
	}
	return all
}

// onHosts are the workloads of the namespace that are on their nodes' network.
func (r *recommending) onHosts() []string {
	var hosts []string
	for _, p := range r.parts.Pods {
		if p.Namespace == r.observed.Namespace && p.Spec.HostNetwork && !isFinished(p) {
			hosts = append(hosts, Workload(p))
		}
	}
	slices.Sort(hosts)
	return slices.Compact(hosts)
}

// distinct are some texts in their order, each once.
func distinct(texts []string) []string {
	var all []string
	for _, text := range texts {
		if !slices.Contains(all, text) {
			all = append(all, text)
		}
	}
	return all
}

func addrTexts(addrs []netip.Addr) []string {
	slices.SortFunc(addrs, netip.Addr.Compare)
	var texts []string
	for _, a := range slices.Compact(addrs) {
		texts = append(texts, a.String())
	}
	return texts
}
