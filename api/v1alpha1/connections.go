package v1alpha1

import "cmp"

// Ends are the end whose policy decided, and the other one.
func (o *ObservedConnection) Ends() (local, remote *ConnectionEnd) {
	if o.Direction == ConnectionIngress {
		return &o.To, &o.From
	}
	return &o.From, &o.To
}

// CompareConnections orders connections: those that were seen last come first.
func CompareConnections(a, b ObservedConnection) int {
	return cmp.Or(b.LastTime.Compare(a.LastTime.Time), cmp.Compare(b.Packets, a.Packets), compareEnds(a.From, b.From), compareEnds(a.To, b.To),
		cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Policy, b.Policy), cmp.Compare(a.Direction, b.Direction),
		cmp.Compare(a.Verdict, b.Verdict), cmp.Compare(ruleOf(a), ruleOf(b)))
}

func ruleOf(o ObservedConnection) int32 {
	if o.Rule == nil {
		return -1
	}
	return *o.Rule
}

func compareEnds(a, b ConnectionEnd) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Workload, b.Workload), cmp.Compare(a.Pod, b.Pod),
		cmp.Compare(a.Address, b.Address))
}

// CompareCounts orders counts by what they are of.
func CompareCounts(a, b ConnectionCount) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Policy, b.Policy), cmp.Compare(a.Direction, b.Direction),
		cmp.Compare(a.Verdict, b.Verdict))
}
