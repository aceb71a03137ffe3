package policy

import (
	"bytes"
	"cmp"
	"net/netip"
)

// Addr is an address without a zone, as sets hold it: its length in bytes, and then the address from the left. A netip.Addr takes half as much again, and
// has a pointer to follow: with sets that may hold every pod of the cluster, many times over, that is much of the enforcer's memory.
type Addr [1 + 16]byte

// AddrOf is a as an Addr.
func AddrOf(a netip.Addr) Addr {
	var to Addr
	switch {
	case a.Is4():
		to[0] = 4
		four := a.As4()
		copy(to[1:], four[:])
	case a.Is6():
		to[0] = 16
		sixteen := a.As16()
		copy(to[1:], sixteen[:])
	}
	return to
}

// IP is the address as the rest of the program has it.
func (a Addr) IP() netip.Addr {
	switch a[0] {
	case 4:
		return netip.AddrFrom4([4]byte(a[1:5]))
	case 16:
		return netip.AddrFrom16([16]byte(a[1:]))
	}
	return netip.Addr{}
}

// Is4 reports whether it is an IPv4 address.
func (a Addr) Is4() bool { return a[0] == 4 }

// Whole is the prefix that holds nothing but the address.
func (a Addr) Whole() Prefix { return Prefix{a, 8 * a[0]} }

// Compare orders addresses as netip does: IPv4 first.
func (a Addr) Compare(o Addr) int { return bytes.Compare(a[:], o[:]) }

// String is the address as netip prints it.
func (a Addr) String() string { return a.IP().String() }

// Prefix is to a netip.Prefix what an [Addr] is to a netip.Addr.
type Prefix struct {
	First  Addr
	Length uint8 // in bits; more than First has if the prefix is not valid
}

// PrefixOf is p as a Prefix.
func PrefixOf(p netip.Prefix) Prefix { return Prefix{AddrOf(p.Addr()), uint8(p.Bits())} }

// IPs is the prefix as the rest of the program has it.
func (p Prefix) IPs() netip.Prefix { return netip.PrefixFrom(p.First.IP(), int(p.Length)) }

// Addr is the address in front of the length.
func (p Prefix) Addr() netip.Addr { return p.First.IP() }

// Bits is the length, -1 if the prefix is not valid.
func (p Prefix) Bits() int { return p.IPs().Bits() }

// IsValid reports whether it is a prefix at all.
func (p Prefix) IsValid() bool { return p.IPs().IsValid() }

// Compare orders prefixes by address and length.
func (p Prefix) Compare(o Prefix) int {
	return cmp.Or(p.First.Compare(o.First), cmp.Compare(p.Length, o.Length))
}

// String is the prefix as netip prints it.
func (p Prefix) String() string { return p.IPs().String() }
