package policy_test

import (
	"cmp"
	"net/netip"
	"testing"
	"unsafe"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// ordered are addresses as netip orders them. One is an IPv4 address written as an IPv6 one, which is another address.
var ordered = []string{"0.0.0.0", "9.255.0.0", "10.0.0.0", "10.0.0.1", "255.255.255.255", "::", "::a00:1", "::ffff:10.0.0.1", "fd00::1", "ff02::1"}

func TestAddressesAreWhatTheyAreInNetip(t *testing.T) {
	for i, text := range ordered {
		a := netip.MustParseAddr(text)
		own := policy.AddrOf(a)
		if own.IP() != a || own.Is4() != a.Is4() || own.String() != a.String() {
			t.Errorf("%s comes back as %s (IPv4: %v)", a, own, own.Is4())
		}
		if whole := netip.PrefixFrom(a, a.BitLen()); own.Whole() != policy.PrefixOf(whole) || own.Whole().IPs() != whole {
			t.Errorf("%s as a prefix is %s", a, own.Whole())
		}
		for j, other := range ordered {
			if got := own.Compare(policy.AddrOf(netip.MustParseAddr(other))); got != cmp.Compare(i, j) {
				t.Errorf("%s compared with %s: %d", text, other, got)
			}
		}
	}
	if zoned := policy.AddrOf(netip.MustParseAddr("fe80::1%eth0")); zoned.String() != "fe80::1" {
		t.Errorf("an address with a zone is %s", zoned)
	}
	if none := policy.AddrOf(netip.Addr{}); none != (policy.Addr{}) || none.IP().IsValid() {
		t.Errorf("no address is %s", none)
	}
}

func TestPrefixesAreWhatTheyAreInNetip(t *testing.T) {
	texts := []string{"0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/9", "10.0.0.1/8", "::/0", "fd00::/8", "fd00::/128"}
	for i, text := range texts {
		p := netip.MustParsePrefix(text)
		own := policy.PrefixOf(p)
		if own.IPs() != p || own.Addr() != p.Addr() || own.Bits() != p.Bits() || own.String() != text || !own.IsValid() {
			t.Errorf("%s comes back as %s", text, own)
		}
		for j, other := range texts {
			if got := own.Compare(policy.PrefixOf(netip.MustParsePrefix(other))); got != cmp.Compare(i, j) {
				t.Errorf("%s compared with %s: %d", text, other, got)
			}
		}
	}
	for _, p := range []netip.Prefix{{}, netip.PrefixFrom(netip.MustParseAddr("10.0.0.1"), 33), netip.PrefixFrom(netip.Addr{}, 8)} {
		if own := policy.PrefixOf(p); own.IsValid() || own.Bits() != -1 || own.Addr() != p.Addr() {
			t.Errorf("%#v, which is no prefix, comes back as %s", p, own)
		}
	}
}

// A field more in a member is felt on every node of a large cluster.
func TestAMemberIsSmall(t *testing.T) {
	if size := unsafe.Sizeof(policy.Member{}); size > 20 {
		t.Errorf("a member of a set takes %d bytes", size)
	}
}
