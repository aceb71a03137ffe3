package compile

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"
)

// TestAnAddressTableIsAMap: whatever comes and goes in whatever order, it says what a map says, and takes no more places than it needs.
func TestAnAddressTableIsAMap(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var table addressTable
	want := map[netip.Addr]*Pod{}
	addr := func() netip.Addr {
		var four [4]byte
		binary.BigEndian.PutUint32(four[:], 10<<24|random.Uint32N(3000))
		if random.IntN(2) == 0 {
			return netip.AddrFrom4(four)
		}
		six := netip.MustParseAddr("fd00::").As16()
		copy(six[12:], four[:])
		return netip.AddrFrom16(six)
	}
	for step := range 60_000 {
		growing := step/10_000%2 == 0
		a := addr()
		switch {
		case random.IntN(10) == 0:
			table.reserve(random.IntN(100))
		case random.IntN(4) == 0 == growing:
			table.remove(a)
			delete(want, a)
		default:
			p := &Pod{Addrs: []netip.Addr{addr(), a}}
			table.put(p, 1)
			want[a] = p
		}
		if table.size != len(want) || table.get(a) != want[a] {
			t.Fatalf("step %d: %s is of %p, want %p; %d addresses, want %d", step, a, table.get(a), want[a], table.size, len(want))
		}
		if step%5000 > 0 {
			continue
		}
		for a, p := range want {
			if table.get(a) != p {
				t.Fatalf("step %d: %s is of %p, want %p", step, a, table.get(a), p)
			}
		}
	}
	for a := range want {
		table.remove(a)
	}
	if table.size != 0 || len(table.pods) > fewestPlaces {
		t.Errorf("%d addresses in %d places, after all have gone", table.size, len(table.pods))
	}
}
