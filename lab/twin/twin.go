// Package twin gives each IPv4 address an IPv6 one that stands for it, so that a test written for one family holds for the other.
package twin

import "net/netip"

// net has the twins.
var net = netip.MustParsePrefix("fd00:64::/96")

// Of is the twin of an IPv4 address: it ends with its 32 bits.
func Of(a netip.Addr) netip.Addr {
	bytes, four := net.Addr().As16(), a.As4()
	copy(bytes[12:], four[:])
	return netip.AddrFrom16(bytes)
}

// OfPrefix is the prefix of the twins of p's addresses, and ::/0 for 0.0.0.0/0.
func OfPrefix(p netip.Prefix) netip.Prefix {
	if p.Bits() == 0 {
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return netip.PrefixFrom(Of(p.Addr()), net.Bits()+p.Bits())
}
