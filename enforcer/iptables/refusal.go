package iptables

import "github.com/ringfence-io/ringfence/enforcer/policy"

// Refusal is the part of a plan that the kernel does not take, while it takes other plans. It is the doing of whoever asked for that part; a lock that
// another program holds, or a kernel that does not answer, is nobody's, and no Refusal.
type Refusal struct {
	Family Family
	// Set cannot be made, or filled. It is empty if it is rules that are refused.
	Set string
	// Rule is refused, as the restore had it; empty if the kernel did not say which one.
	Rule Rule
	// Full is set if there is no room, for this or for anything: whoever asks for less may still get it.
	Full bool
	// Word is what the kernel said.
	Word string
}

// SetNames are the names, in either family, of the set that stands for what a set of a node does.
func (l Layout) SetNames(id policy.SetID, kind policy.SetKind) []string {
	t := HashIP
	if kind == policy.AddressPorts {
		t = HashIPPort
	}
	var names []string
	for _, f := range Families {
		names = append(names, l.setName(t, f, string(id)))
	}
	return names
}
