package ladder

import (
	"net/netip"
	"slices"

	"github.com/ringfence-io/ringfence/enforcer/compile"
)

// Uncontested is a snapshot in which no two pods have one address, and none has one of these.
func Uncontested(s compile.Snapshot, others ...netip.Addr) compile.Snapshot {
	taken := map[netip.Addr]bool{}
	for _, a := range others {
		taken[a] = true
	}
	isTaken := func(p *compile.Pod) bool {
		if slices.ContainsFunc(p.Addrs, func(a netip.Addr) bool { return taken[a] }) {
			return true
		}
		for _, a := range p.Addrs {
			taken[a] = true
		}
		return false
	}
	s.Local = slices.DeleteFunc(slices.Clone(s.Local), isTaken)
	for p := range s.Remote.All() {
		if isTaken(p) {
			s.Remote = s.Remote.Without(p.Namespace, p.Name)
		}
	}
	return s
}
