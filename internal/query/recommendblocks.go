package query

import (
	"maps"
	"net/netip"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
)

// maxBlocks is how many addresses of a family a rule lists one by one, and how many blocks they become if there are more.
const maxBlocks = 10

// lengths are the prefixes of the blocks that many addresses become, the smallest block first.
var lengths = map[bool][]int{true: {24, 16, 8, 0}, false: {64, 48, 32, 0}} // by whether it is IPv4

// blocksOf are blocks that have some addresses: each by itself if they are few, or else the smallest of a length of which there are few. A block takes in none
// of the pods' ranges: those that lie in it are excepted, and addresses in such a range are never more than themselves. It reports whether blocks have more
// than these addresses.
func blocksOf(addrs []netip.Addr, pods []netip.Prefix) (blocks []networkingv1.IPBlock, larger bool) {
	for _, is4 := range []bool{true, false} {
		family := slices.DeleteFunc(slices.Clone(addrs), func(a netip.Addr) bool { return a.Is4() != is4 })
		some := alone(family)
		if len(family) > maxBlocks {
			for _, bits := range lengths[is4] {
				if some = merged(family, bits, pods); len(some) <= maxBlocks {
					break
				}
			}
		}
		for _, b := range slices.SortedFunc(maps.Keys(some), netip.Prefix.Compare) {
			block := networkingv1.IPBlock{CIDR: b.String()}
			if larger = larger || !b.IsSingleIP(); !b.IsSingleIP() {
				for _, r := range pods {
					if b.Overlaps(r) {
						block.Except = append(block.Except, r.String())
					}
				}
			}
			blocks = append(blocks, block)
		}
	}
	return blocks, larger
}

func alone(addrs []netip.Addr) map[netip.Prefix]bool {
	some := map[netip.Prefix]bool{}
	for _, a := range addrs {
		some[netip.PrefixFrom(a, a.BitLen())] = true
	}
	return some
}

// merged are the blocks of a length that some addresses lie in. One that is the only one of its block, or that lies in a range of pods, stays alone.
func merged(addrs []netip.Addr, bits int, pods []netip.Prefix) map[netip.Prefix]bool {
	in := map[netip.Prefix][]netip.Addr{}
	for _, a := range addrs {
		b := netip.PrefixFrom(a, bits).Masked()
		if slices.ContainsFunc(pods, func(r netip.Prefix) bool { return r.Contains(a) || r.Overlaps(b) && r.Bits() <= bits }) {
			b = netip.PrefixFrom(a, a.BitLen())
		}
		in[b] = append(in[b], a)
	}
	some := map[netip.Prefix]bool{}
	for b, of := range in {
		if len(of) == 1 {
			b = netip.PrefixFrom(of[0], of[0].BitLen())
		}
		some[b] = true
	}
	return some
}

// podRanges are those that addresses of pods come from: what the nodes name, and what all pods that are known lie in.
func (c *Cluster) podRanges() []netip.Prefix {
	var ranges []netip.Prefix
	for _, n := range c.parts.nodes {
		ranges = append(ranges, n.Ranges...)
	}
	for _, is4 := range []bool{true, false} {
		var of []netip.Addr
		for _, p := range c.parts.pods {
			if !p.HostNetwork {
				of = append(of, p.Addrs...)
			}
		}
		of = slices.DeleteFunc(of, func(a netip.Addr) bool { return a.Is4() != is4 })
		if len(of) > 0 {
			ranges = append(ranges, coverOf(of))
		}
	}
	slices.SortFunc(ranges, func(a, b netip.Prefix) int { return a.Bits() - b.Bits() })
	var widest []netip.Prefix
	for _, r := range ranges {
		if !slices.ContainsFunc(widest, func(w netip.Prefix) bool { return w.Overlaps(r) }) {
			widest = append(widest, r)
		}
	}
	slices.SortFunc(widest, netip.Prefix.Compare)
	return widest
}

// coverOf is the smallest prefix that has all of some addresses of one family, but of a few pods alone it is as large as a node's share mostly is: /24, or /64.
func coverOf(addrs []netip.Addr) netip.Prefix {
	bits := 64
	if addrs[0].Is4() {
		bits = 24
	}
	for ; bits > 0; bits-- {
		p := netip.PrefixFrom(addrs[0], bits)
		if !slices.ContainsFunc(addrs, func(a netip.Addr) bool { return !p.Contains(a) }) {
			break
		}
	}
	return netip.PrefixFrom(addrs[0], bits).Masked()
}
