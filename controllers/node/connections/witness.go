package connections

import (
	"cmp"
	"net/netip"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/cached"
	"github.com/ringfence-io/ringfence/enforcer/denials"
	"github.com/ringfence-io/ringfence/enforcer/passing"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

var (
	_ denials.Witness = (*Ledger)(nil)
	_ passing.Witness = (*Ledger)(nil)
)

// Saw notes a sample, unless nobody knows whose pod of this node it is about.
func (l *Ledger) Saw(s denials.Sample) {
	at := metav1.NewTime(s.At)
	o := v1alpha1.ObservedConnection{
		Verdict: verdictOf(s.Point.Audit), Direction: directionOf(s.Point.Direction),
		From: endAt(s.Src, s.Packet.Src), To: endAt(s.Dst, s.Packet.Dst),
		Protocol: denials.ProtocolName(s.Packet.Protocol), Port: int32(s.Packet.DstPort),
		Policy: cached.Plain(s.Point.Ref.String(), cached.MaxMessage), Packets: 1, FirstTime: at, LastTime: at,
	}
	if s.Point.Index >= 0 {
		rule := int32(s.Point.Index)
		o.Rule = &rule
	}
	if local, _ := o.Ends(); local.Namespace != "" {
		l.Note(o)
	}
}

// Passed notes connections that pass.
func (l *Ledger) Passed(s passing.Sight) {
	at := metav1.NewTime(s.At)
	l.Note(v1alpha1.ObservedConnection{
		Verdict: v1alpha1.ConnectionAllowed, Direction: directionOf(s.Direction), From: endAt(s.Src.Pod, s.Src.Addr), To: endAt(s.Dst.Pod, s.Dst.Addr),
		Protocol: denials.ProtocolName(s.Protocol), Port: int32(s.Port), Packets: int64(s.Number), FirstTime: at, LastTime: at,
	})
}

// Looks notes the namespaces whose allowed connections are looked for.
func (l *Ledger) Looks(namespaces []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.watch(namespaces)
	l.say()
}

// Counted adds what has grown.
func (l *Ledger) Counted(all []denials.Growth) {
	now := metav1.Now()
	for _, g := range all {
		l.Count(v1alpha1.ConnectionCount{
			Namespace: g.Ref.Namespace, Policy: cached.Plain(g.Ref.String(), cached.MaxMessage),
			Direction: directionOf(g.Direction), Verdict: verdictOf(g.Audit), Packets: int64(g.Packets), LastTime: now,
		})
	}
}

// maxWorkload is the longest name of a workload, in bytes: the schema allows some more.
const maxWorkload = 253

func endAt(pod policy.PodName, a netip.Addr) v1alpha1.ConnectionEnd {
	// What a pod names as its owner is any text, of any length.
	workload := cmp.Or(cached.Plain(pod.Workload, maxWorkload), pod.Name)
	e := v1alpha1.ConnectionEnd{Namespace: pod.Namespace, Workload: workload, Pod: pod.Name}
	if a.IsValid() {
		e.Address = a.String()
	}
	return e
}

func verdictOf(audit bool) v1alpha1.ConnectionVerdict {
	if audit {
		return v1alpha1.ConnectionWouldDeny
	}
	return v1alpha1.ConnectionDenied
}

func directionOf(d policy.Direction) v1alpha1.ConnectionDirection {
	if d == policy.Egress {
		return v1alpha1.ConnectionEgress
	}
	return v1alpha1.ConnectionIngress
}
