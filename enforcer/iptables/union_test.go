package iptables

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

func block(prefix string, except ...string) policy.Block {
	b := policy.Block{Prefix: netip.MustParsePrefix(prefix)}
	for _, x := range except {
		b.Except = append(b.Except, netip.MustParsePrefix(x))
	}
	return b
}

func TestAnExceptionTakesFromItsOwnBlockAlone(t *testing.T) {
	for name, c := range map[string]struct {
		blocks []policy.Block
		want   string
	}{
		"another block inside of the exception":      {[]policy.Block{block("10.0.0.0/8", "10.0.1.0/24"), block("10.0.1.5/32")}, "10.0.0.0/8|10.0.1.0/24 nomatch|10.0.1.5/32"},
		"another block around it":                    {[]policy.Block{block("10.0.0.0/8", "10.0.1.0/24"), block("10.0.0.0/16")}, "10.0.0.0/8"},
		"the exception is another block":             {[]policy.Block{block("10.0.0.0/8", "10.0.1.0/24"), block("10.0.1.0/24")}, "10.0.0.0/8"},
		"both except it":                             {[]policy.Block{block("10.0.0.0/8", "10.0.1.0/24"), block("10.0.0.0/16", "10.0.1.0/24")}, "10.0.0.0/8|10.0.1.0/24 nomatch"},
		"the inner block's exception is the outer's": {[]policy.Block{block("10.0.0.0/8"), block("10.0.0.0/16", "10.0.1.0/24")}, "10.0.0.0/8"},
		"a block in a block":                         {[]policy.Block{block("10.0.0.0/8"), block("10.0.0.0/16")}, "10.0.0.0/8"},
		"side by side":                               {[]policy.Block{block("10.0.0.0/9", "10.0.0.0/32"), block("10.128.0.0/9")}, "10.0.0.0/9|10.0.0.0/32 nomatch|10.128.0.0/9"},
		"everything, less what another has":          {[]policy.Block{block("::/0", "fd00::/8"), block("fd00::/16")}, "::/1|8000::/1|fd00::/8 nomatch|fd00::/16"},
		"everything, less a half of which part is another's": {[]policy.Block{block("0.0.0.0/0", "0.0.0.0/1"), block("10.0.0.0/8", "10.0.0.0/9")},
			"10.0.0.0/8|10.0.0.0/9 nomatch|128.0.0.0/1"},
	} {
		t.Run(name, func(t *testing.T) {
			for range 2 {
				var got []string
				for _, e := range unionEntries(c.blocks) {
					got = append(got, e.Text(HashNet))
				}
				if diff := cmp.Diff(c.want, strings.Join(got, "|")); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				slices.Reverse(c.blocks)
			}
		})
	}
}

// smallBlock is a block of the last 6 bits of a family, or the whole family, with exceptions: decided by bytes.
func smallBlock(next func() int) policy.Block {
	prefix := func(outer netip.Prefix) netip.Prefix {
		a := outer.Addr().AsSlice()
		a[len(a)-1] |= byte(next() % 64)
		addr, _ := netip.AddrFromSlice(a)
		bits := max(addr.BitLen()-next()%7, outer.Bits())
		if next()%8 == 0 {
			bits = outer.Bits()
		}
		return netip.PrefixFrom(addr, bits).Masked()
	}
	all := netip.MustParsePrefix("0.0.0.0/0")
	if next()%2 == 0 {
		all = netip.MustParsePrefix("10.9.8.64/26")
	}
	b := policy.Block{Prefix: prefix(all)}
	for range next() % 4 {
		if x := prefix(b.Prefix); b.Prefix.Overlaps(x) && x.Bits() > b.Prefix.Bits() {
			b.Except = append(b.Except, x)
		}
	}
	return b
}

// checkUnion compares the entries with the blocks on each address that either speaks of.
func checkUnion(t *testing.T, blocks []policy.Block) {
	t.Helper()
	entries := unionEntries(blocks)
	if !slices.IsSortedFunc(entries, Entry.Compare) {
		t.Fatalf("%v: the entries are not in order: %v", blocks, entries)
	}
	for i, e := range entries {
		if i > 0 && e.Compare(entries[i-1]) == 0 || e.Prefix.Bits() == 0 {
			t.Fatalf("%v: the set does not take %v", blocks, e)
		}
	}
	for high := range 4 {
		for low := range 64 {
			a := netip.AddrFrom4([4]byte{[]byte{10, 10, 0, 200}[high], 9, 8, byte([]int{64, 0, 64, 64}[high] + low)})
			want := slices.ContainsFunc(blocks, func(b policy.Block) bool { return b.Contains(a) })
			got, longest := false, -1
			for _, e := range entries {
				if p := e.Prefix.IPs(); p.Contains(a) && p.Bits() > longest {
					got, longest = !e.NoMatch, p.Bits()
				}
			}
			if got != want {
				t.Fatalf("%v: %s is in a block: %v, in the set: %v\n%v", blocks, a, want, got, entries)
			}
		}
	}
}

func TestUnionOfBlocksIsExact(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		var blocks []policy.Block
		for range 1 + random.IntN(8) {
			blocks = append(blocks, smallBlock(func() int { return random.IntN(256) }))
		}
		checkUnion(t, blocks)
	}
}

// FuzzUnionOfBlocks: the set holds an address exactly if a block does.
func FuzzUnionOfBlocks(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12})
	f.Fuzz(func(t *testing.T, data []byte) {
		next := func() int {
			if len(data) == 0 {
				return 0
			}
			b := data[0]
			data = data[1:]
			return int(b)
		}
		var blocks []policy.Block
		for len(blocks) < 24 && (len(data) > 0 || len(blocks) == 0) {
			blocks = append(blocks, smallBlock(next))
		}
		checkUnion(t, blocks)
	})
}
