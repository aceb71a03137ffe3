package compile

import (
	"cmp"
	"net/netip"
	"slices"
)

// nobody holds an address with which several pods are announced, and none is shown.
var nobody = &Pod{Source: Announced}

// Holder is the pod among pods that holds an address, as Compile sees it; nil if none does.
func Holder(pods []*Pod, a netip.Addr) *Pod {
	var holder *Pod
	for _, p := range pods {
		if p.isVisible() && slices.Contains(p.Addrs, a) {
			holder = p.against(holder)
		}
	}
	if holder == nobody {
		return nil
	}
	return holder
}

// against is who holds an address that p and q have, q nil if nobody else is known to have it. An announcement takes it from no pod that status.podIPs shows
// with it, and two announcements are none: an announcement is there to be earlier than what is shown, and never to open more.
func (p *Pod) against(q *Pod) *Pod {
	switch {
	case q == nil:
		return p
	case p.Source == Announced && q.Source == Announced:
		return nobody
	case p.Source == Announced:
		return q
	case q.Source == Announced, p.outranks(q):
		return p
	}
	return q
}

// outranks says which of two live pods that are shown with the same address holds it: one that does not terminate, then the newer.
// The cache may still show an address with the pod that had it before; the rule does not depend on the order of events.
func (p *Pod) outranks(q *Pod) bool {
	if p.Terminating != q.Terminating {
		return q.Terminating
	}
	return cmp.Or(cmp.Compare(p.Created, q.Created), cmp.Compare(p.UID, q.UID)) > 0
}
