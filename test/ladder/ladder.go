// Package ladder compares independent judges of the same traffic, neighbour with neighbour:
//
//	API objects            oracle.Cluster.AllowedAt   written from the API texts
//	 │ compile
//	policy.Node            Node.Allows                the reference semantics
//	 │ render
//	iptables.Ruleset        trace.Kernel.Walk          the text, walked by hand
//	 │ dataplane
//	a kernel               lab/probe                  real packets
//
// A difference between two of them is a bug in one, and says in which step. Random cases look for differences; each
// one that was found stays as a named seed.
//
// This package holds what the suites share: the judges set up for a case, their comparison, and what makes a difference
// readable. The suites themselves are its tests.
package ladder

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/internal/query"
	"github.com/ringfence-io/ringfence/lab/oracle"
	"github.com/ringfence-io/ringfence/test/gen"
	"github.com/ringfence-io/ringfence/test/trace"
)

// Options are those of a node that has everything.
var Options = iptables.Options{Families: iptables.Families[:], Table: "security", SelfMatch: true, NFLogGroup: 4210, HoldCut: true}

// Objects are what answers about a cluster are made of, and what nodes compile.
func Objects(c oracle.Cluster) query.Objects {
	return query.Objects{
		Pods: c.Pods, Namespaces: c.Namespaces, Nodes: c.Nodes, Policies: c.Policies,
		ClusterPolicies: slices.Clone(c.ClusterPolicies), Isolations: slices.Clone(c.Isolations),
		DNS: compile.DNS{Services: slices.Clone(c.DNSServices), Addresses: slices.Clone(c.DNSAddresses)},
	}
}

// Snapshot is the cluster as a node has seen it.
func Snapshot(c oracle.Cluster, node string) compile.Snapshot {
	s := Objects(c).Snapshot(node)
	s.Closed = slices.Clone(c.Closed[node])
	return s
}

// OptionsFor are those for a case: in half of them pods share chains wherever they may, in most even short lists of rules are cut down, and chains of few rules
// have no comments any more.
func OptionsFor(c oracle.Cluster) iptables.Options {
	o := Options
	o.ShareAlways = len(c.Pods)%2 == 0
	o.ListLength = len(c.Pods) / 2 % 4 // 0 leaves lists of this length alone; the other three have both ways to cut them
	o.NamedRules = 1 + len(c.Pods)%3   // chains of one rule have comments, and those of four have none
	return o
}

// Rendered is the ruleset that a node must hold for the cluster.
func Rendered(c oracle.Cluster, node string) iptables.Ruleset {
	compiled, _ := compile.Compile(Snapshot(c, node))
	return iptables.Render(compiled, Options)
}

// Judges are all judges that need no kernel, set up for one node of a case.
type Judges struct {
	Node     gen.Node
	Cluster  oracle.Cluster
	Compiled policy.Node
	Rendered iptables.Ruleset
	Tracer   *trace.Kernel
}

// NewJudges compiles and renders the cluster for the node.
func NewJudges(c oracle.Cluster, node gen.Node) (*Judges, error) {
	return judgesOf(c, node, Snapshot(c, node.Name))
}

// judgesOf are those of the cluster as a node has seen it.
func judgesOf(c oracle.Cluster, node gen.Node, s compile.Snapshot) (*Judges, error) {
	j := &Judges{Node: node, Cluster: c}
	j.Compiled, _ = compile.Compile(s)
	j.Rendered = iptables.Render(j.Compiled, OptionsFor(c))
	var err error
	if j.Tracer, err = trace.Parse(j.Rendered.String()); err != nil {
		return nil, fmt.Errorf("reading the ruleset of %s: %w\n%s", node.Name, err, j.Rendered)
	}
	return j, nil
}

// Opinion is what each judge says of one flow at one node.
type Opinion struct {
	Flow                       oracle.Flow
	Node                       string
	Oracle, Allows, Trace      bool
	OracleReason, AllowsReason string
	TraceHits                  []string
	TraceError                 error
	// What audited objects would have denied, as "Kind namespace/name direction", sorted.
	OracleNotes, AllowsNotes, TraceNotes []string
}

// Agreed reports whether all judges say the same.
func (o Opinion) Agreed() bool {
	return o.TraceError == nil && o.Oracle == o.Allows && o.Allows == o.Trace &&
		slices.Equal(o.OracleNotes, o.AllowsNotes) && slices.Equal(o.AllowsNotes, o.TraceNotes)
}

// String is the three opinions with their reasons, one below the other.
func (o Opinion) String() string {
	say := func(allowed bool) string {
		if allowed {
			return "allowed"
		}
		return "denied "
	}
	s := fmt.Sprintf("%s, at node %s:\n  oracle %s  %s\n  Allows %s  %s\n  trace  %s  %s",
		o.Flow, o.Node, say(o.Oracle), o.OracleReason, say(o.Allows), o.AllowsReason, say(o.Trace), strings.Join(o.TraceHits, "\n                  "))
	if len(o.OracleNotes)+len(o.AllowsNotes)+len(o.TraceNotes) > 0 {
		s += fmt.Sprintf("\n  would have been denied: oracle %q, Allows %q, trace %q", o.OracleNotes, o.AllowsNotes, o.TraceNotes)
	}
	if o.TraceError != nil {
		s += "\n  trace failed: " + o.TraceError.Error()
	}
	return s
}

// Judge asks all judges.
func (j *Judges) Judge(f oracle.Flow) Opinion {
	o := Opinion{Flow: f, Node: j.Node.Name}
	o.Oracle, o.OracleReason = j.Cluster.AllowedAt(j.Node.Name, f)
	verdict := j.Compiled.Allows(PolicyFlow(f, j.Node.Name))
	o.Allows, o.AllowsReason = verdict.Allowed, verdict.Reason
	var points []policy.Point
	o.Trace, points, o.TraceHits, o.TraceError = j.Trace(f)
	for _, p := range points {
		o.TraceNotes = append(o.TraceNotes, note(p.Ref, p.Direction.String()))
	}
	for _, d := range j.Cluster.AuditedAt(j.Node.Name, f) {
		o.OracleNotes = append(o.OracleNotes, note(policy.Ref{Kind: d.Kind, Namespace: d.Namespace, Name: d.Name}, d.Direction))
	}
	for _, d := range verdict.WouldDeny {
		o.AllowsNotes = append(o.AllowsNotes, note(d.Ref, d.Direction.String()))
	}
	for _, notes := range [][]string{o.OracleNotes, o.AllowsNotes, o.TraceNotes} {
		slices.Sort(notes)
	}
	return o
}

func note(r policy.Ref, direction string) string { return r.String() + " " + direction }

// noted are the points of the counting rules that a packet has hit.
func (j *Judges) noted(hits []string) []policy.Point {
	var points []policy.Point
	for _, hit := range hits {
		chain, rule, _ := strings.Cut(hit, " ")
		if p, ok := iptables.OwnLayout.PointOfChain(chain); ok && p.Audit && strings.HasPrefix(rule, `-m comment --comment "would deny: `) {
			points = append(points, j.Rendered.Points.Get(p.ID))
		}
	}
	return points
}

// Trace walks the flow through the hook that it passes on this node, and reports whether it passed, what noted it, and which rules matched. The node's own
// packets pass OUTPUT.
func (j *Judges) Trace(f oracle.Flow) (passed bool, noted []policy.Point, hits []string, err error) {
	hook := "FORWARD"
	switch {
	case f.FromNode == j.Node.Name:
		hook = "OUTPUT"
	case slices.Contains(j.Node.Addrs, f.Dst):
		hook = "INPUT"
	}
	v, err := j.Tracer.Walk(hook, trace.Packet{
		Src: f.Src, Dst: f.Dst, Protocol: uint8(f.Protocol), SrcPort: 40000, DstPort: f.DstPort, Type: f.ICMPType,
		SrcLocal: slices.Contains(j.Node.Addrs, f.Src), DstLocal: slices.Contains(j.Node.Addrs, f.Dst),
	})
	return v.Passed, j.noted(v.Hits), v.Hits, err
}

// PolicyFlow is f in the words of package policy, as the node sees it.
func PolicyFlow(f oracle.Flow, node string) policy.Flow {
	return policy.Flow{
		Src: f.Src, Dst: f.Dst, Protocol: policy.Protocol(f.Protocol), DstPort: f.DstPort, ICMPType: f.ICMPType,
		FromNode: f.FromNode == node, ToNode: f.ToNode == node,
	}
}

// Differences are the opinions on the flows, at every node, in which the judges differ.
func Differences(c gen.Case, flows []oracle.Flow) ([]Opinion, error) {
	var out []Opinion
	for _, node := range c.Nodes {
		j, err := NewJudges(c.Cluster, node)
		if err != nil {
			return nil, err
		}
		for _, f := range flows {
			if o := j.Judge(f); !o.Agreed() {
				out = append(out, o)
			}
		}
	}
	return out, nil
}
