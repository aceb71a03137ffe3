package controllers

import (
	"net/netip"

	"github.com/ringfence-io/ringfence/enforcer/compile"
)

// PodsAt are the pods that hold the addresses, as "namespace/name", empty for an address that no pod holds. It walks over all pods: an index
// would take memory for every pod of the cluster, and only sampled packets ask.
func (n *Node) PodsAt(addrs ...netip.Addr) []string {
	s := compile.Snapshot{Node: n.Name, Pods: list(n.stores.pods, podOf)}
	names := make([]string, len(addrs))
	for i, a := range addrs {
		if p := compile.Holder(s, a); p != nil {
			names[i] = p.Namespace + "/" + p.Name
		}
	}
	return names
}
