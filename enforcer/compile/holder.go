package compile

import (
	"net/netip"
	"slices"
)

// Holder is the pod among pods that holds an address, as Compile sees it; nil if none does.
func Holder(pods []*Pod, a netip.Addr) *Pod {
	var holder *Pod
	for _, p := range pods {
		if !p.isVisible() || !slices.Contains(p.Addrs, a) {
			continue
		}
		if holder == nil || p.outranks(holder) {
			holder = p
		}
	}
	return holder
}
