package query

import (
	"fmt"
	"net/netip"
	"slices"
)

// blockIndex says in which of some blocks an address is, without a look at each of them.
type blockIndex struct {
	ids  map[netip.Prefix]int
	bits map[bool][]int // the lengths of the blocks, by whether they are of IPv4
}

func newBlockIndex(blocks []netip.Prefix) blockIndex {
	x := blockIndex{map[netip.Prefix]int{}, map[bool][]int{}}
	for _, b := range blocks {
		if _, known := x.ids[b]; known {
			continue
		}
		x.ids[b] = len(x.ids)
		if is4 := b.Addr().Is4(); !slices.Contains(x.bits[is4], b.Bits()) {
			x.bits[is4] = append(x.bits[is4], b.Bits())
		}
	}
	return x
}

// around are the numbers of the blocks that contain an address: the same list for all addresses that the same blocks contain.
func (x blockIndex) around(a netip.Addr) []int {
	var ids []int
	for _, bits := range x.bits[a.Is4()] {
		if p, err := a.Prefix(bits); err == nil {
			if id, ok := x.ids[p]; ok {
				ids = append(ids, id)
			}
		}
	}
	return ids
}

// outsides are ends for all addresses that no pod and no node has: one for each set of blocks that policies tell apart.
func (c *Cluster) outsides(blocks []netip.Prefix) []End {
	ofNode := map[netip.Addr]bool{}
	for _, n := range c.parts.nodes {
		for _, a := range n.Addrs {
			ofNode[a] = true
		}
	}
	isTaken := func(a netip.Addr) bool { return ofNode[a] || len(c.parts.byAddr[a]) > 0 }
	index := newBlockIndex(blocks)
	byMembership := map[string]*End{}
	var names []string
	for _, r := range ranges(blocks) {
		a := r.first
		for isTaken(a) && a.Less(r.last) {
			a = a.Next()
		}
		if isTaken(a) {
			continue
		}
		text := fmt.Sprint(r.first.Is4(), index.around(a))
		if e := byMembership[text]; e != nil {
			e.Name += ", " + r.String()
			continue
		}
		byMembership[text] = &End{Name: r.String(), Addrs: []netip.Addr{a}}
		names = append(names, text)
	}
	var ends []End
	for _, text := range names {
		ends = append(ends, *byMembership[text])
	}
	return ends
}

// addrRange are the addresses from one to another, both included.
type addrRange struct{ first, last netip.Addr }

// String is the range as a block, if it is one.
func (r addrRange) String() string {
	for bits := 0; bits <= r.first.BitLen(); bits++ {
		p := netip.PrefixFrom(r.first, bits)
		if p.Masked() == p && lastOf(p) == r.last {
			return p.String()
		}
	}
	return r.first.String() + "-" + r.last.String()
}

// lastOf is the last address of a block.
func lastOf(p netip.Prefix) netip.Addr {
	bytes := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(bytes)*8; i++ {
		bytes[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(bytes)
	return a
}

// ranges are all addresses of both families, cut at the edges of blocks: each block contains all of a range, or nothing of it.
func ranges(blocks []netip.Prefix) []addrRange {
	var all []addrRange
	for _, whole := range []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")} {
		firsts := []netip.Addr{whole.Addr()}
		for _, b := range blocks {
			if b.Addr().Is4() != whole.Addr().Is4() {
				continue
			}
			firsts = append(firsts, b.Masked().Addr())
			if next := lastOf(b).Next(); next.IsValid() {
				firsts = append(firsts, next)
			}
		}
		slices.SortFunc(firsts, netip.Addr.Compare)
		firsts = slices.Compact(firsts)
		for i, first := range firsts {
			last := lastOf(whole)
			if i+1 < len(firsts) {
				last = firsts[i+1].Prev()
			}
			all = append(all, addrRange{first, last})
		}
	}
	return all
}
