package cli

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/ringfence-io/ringfence/controllers/node"
	"github.com/ringfence-io/ringfence/enforcer/dataplane"
)

// What --unknown-pods may say.
const (
	unknownAllow = "allow"
	unknownDrop  = "drop"
)

// maxPodCIDRs is how many ranges a node may have: each is two address matches for every first packet.
const maxPodCIDRs = 16

// unknownPods is what the flags say of unknown pods, on a node with these capabilities.
func (o *enforcerOptions) unknownPods(c dataplane.Capabilities) (node.UnknownPods, error) {
	u := node.UnknownPods{Drop: o.unknown == unknownDrop}
	u.Unable = unableToClose(c)
	var errs []error
	if o.unknown != unknownAllow && o.unknown != unknownDrop {
		errs = append(errs, fmt.Errorf("--unknown-pods %q is not known: %s or %s", o.unknown, unknownAllow, unknownDrop))
	}
	if len(o.podCIDRs) > 0 && !u.Drop {
		errs = append(errs, fmt.Errorf("--pod-cidrs is for --unknown-pods=%s", unknownDrop))
	}
	if len(o.podCIDRs) > maxPodCIDRs {
		errs = append(errs, fmt.Errorf("--pod-cidrs gives %d ranges: %d at most", len(o.podCIDRs), maxPodCIDRs))
	}
	for _, text := range o.podCIDRs {
		p, err := podRange(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("--pod-cidrs %q: %w", text, err))
		} else if !slices.Contains(u.Ranges, p) {
			u.Ranges = append(u.Ranges, p)
		}
	}
	return u, errors.Join(errs...)
}

// unableToClose is why no unknown pod can be dropped on a node with these capabilities, empty if it can.
func unableToClose(c dataplane.Capabilities) string {
	if c.OwnAddresses {
		return ""
	}
	return "the kernel lacks xt_addrtype, by which rules tell the node's own addresses from its pods'"
}

// podRange reads a range that pods may have addresses of.
func podRange(text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		return p, errors.New("give a range as in 10.244.1.0/24 or fd00:10:244:1::/64")
	case p != p.Masked():
		return p, fmt.Errorf("it has bits behind its length: %s is meant, or a single address", p.Masked())
	case p.Bits() == 0:
		return p, errors.New("it holds every address there is, and not only those of this node's pods")
	case p.Addr().Is4In6(), p.Addr().IsMulticast(), p.Addr().IsLoopback(), p.Addr().IsLinkLocalUnicast():
		return p, errors.New("no pod is reached at an address of that kind")
	}
	return p, nil
}
