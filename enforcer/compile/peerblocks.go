package compile

import (
	"fmt"
	"math/big"
	"net/netip"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	netutils "k8s.io/utils/net"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// blockPeers are blocks of addresses: ipBlock of a NetworkPolicy, networks of a ClusterNetworkPolicy, and the addresses of the DNS.
type blockPeers struct{ blocks []policy.Block }

var (
	_ peers      = (*blockPeers)(nil)
	_ podVisitor = (*blockPeers)(nil)
)

// blockFields are how blocks are written in a [v1alpha1.Peer].
var blockFields = []peerField{
	{"networks", func(p *v1alpha1.Peer) bool { return len(p.Networks) > 0 }, (*parsedRule).readNetworks},
}

func (r *parsedRule) readNetworks(p *v1alpha1.Peer) error {
	for _, cidr := range p.Networks {
		prefix, err := parsePrefix(string(cidr))
		if err != nil {
			return fmt.Errorf("networks: %w", err)
		}
		r.addBlock(policy.Block{Prefix: prefix})
	}
	return nil
}

// readBlock adds the block of a NetworkPolicy's peer to the rule. It refuses one with an exception that it cannot understand: to leave the exception out
// would open traffic.
func (p *parsedPolicy) readBlock(r *parsedRule, field string, b *networkingv1.IPBlock) {
	prefix, err := parsePrefix(b.CIDR)
	if err != nil {
		p.problem(field+".cidr", "%v: the peer matches nothing", err)
		return
	}
	block := policy.Block{Prefix: prefix}
	for i, text := range b.Except {
		at := fmt.Sprintf("%s.except[%d]", field, i)
		except, err := parsePrefix(text)
		switch {
		case err != nil:
			p.problem(at, "%v: the whole peer matches nothing", err)
			return
		case except.Bits() <= prefix.Bits() && except.Overlaps(prefix):
			p.problem(at, "%s leaves nothing of %s: the peer matches nothing", text, b.CIDR)
			return
		case !except.Overlaps(prefix):
			p.problem(at, "%s is outside of %s: the whole peer matches nothing", text, b.CIDR)
			return
		default:
			block.Except = append(block.Except, except)
		}
	}
	block.Except = dropCovered(block.Except)
	r.addBlock(block)
}

// addBlock adds a block to the rule's peers.
func (r *parsedRule) addBlock(b policy.Block) {
	p := peersOf[blockPeers](r, ofBlocks)
	p.blocks = append(p.blocks, b)
}

func (p *blockPeers) weigh() (w weight) {
	p.blocks = normalBlocks(p.blocks)
	for _, b := range p.blocks {
		w.blocks += 1 + len(b.Except)
	}
	return w
}

func (p *blockPeers) never() string {
	for _, b := range p.blocks {
		if !isEmpty(b) {
			return ""
		}
	}
	return fmt.Sprintf("the exceptions leave nothing of %s", p.blocks[0].Prefix)
}

// isEmpty reports whether the exceptions, of which none lies in another, leave nothing of the block.
func isEmpty(b policy.Block) bool {
	bits := b.Prefix.Addr().BitLen()
	left := new(big.Int).Lsh(big.NewInt(1), uint(bits-b.Prefix.Bits()))
	for _, e := range b.Except {
		left.Sub(left, new(big.Int).Lsh(big.NewInt(1), uint(bits-e.Bits())))
	}
	return left.Sign() == 0
}

func (p *blockPeers) covers(o peers) bool {
	if p.areEveryAddress() {
		return true
	}
	theirs, ok := o.(*blockPeers)
	return ok && !slices.ContainsFunc(theirs.blocks, func(b policy.Block) bool {
		return !slices.ContainsFunc(p.blocks, func(c policy.Block) bool { return len(c.Except) == 0 && within(b.Prefix, c.Prefix) })
	})
}

// areEveryAddress reports whether both families are among the blocks as a whole.
func (p *blockPeers) areEveryAddress() bool {
	var v4, v6 bool
	for _, b := range p.blocks {
		if b.Prefix.Bits() == 0 && len(b.Except) == 0 {
			v4, v6 = v4 || b.Prefix.Addr().Is4(), v6 || b.Prefix.Addr().Is6()
		}
	}
	return v4 && v6
}

// within reports whether every address of inner is one of outer.
func within(inner, outer netip.Prefix) bool {
	return outer.Bits() <= inner.Bits() && outer.Overlaps(inner)
}

func (p *blockPeers) settle(policy.Direction, []rulePort) ([]end, []ruleSet) {
	return []end{{kind: policy.InBlocks, ruleSet: ruleSet{id: blocksID(p.blocks)}, blocks: p.blocks}}, nil
}

func (p *blockPeers) eachPod(r *review, visit func(*Pod) bool) bool {
	return r.eachVisible(func(pod *Pod) bool { return !slices.ContainsFunc(pod.Addrs, p.have) || visit(pod) })
}

func (p *blockPeers) have(a netip.Addr) bool {
	return slices.ContainsFunc(p.blocks, func(b policy.Block) bool { return b.Contains(a) })
}

// parsePrefix takes the forms that the API server accepts in fields that are older than its strict parsing: host bits may be
// set, IPv4 octets may have leading zeros (they are decimal), and IPv4 may be written as an IPv4-mapped address.
func parsePrefix(text string) (netip.Prefix, error) {
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		_, n, sloppyErr := netutils.ParseCIDRSloppy(text)
		if sloppyErr != nil {
			return netip.Prefix{}, fmt.Errorf("%q is not an IP block; write one like 10.0.0.0/8 or fd00::/8", text)
		}
		addr, _ := netip.AddrFromSlice(n.IP)
		ones, _ := n.Mask.Size()
		prefix = netip.PrefixFrom(addr, ones)
	}
	if a := prefix.Addr(); a.Is4In6() && prefix.Bits() >= 96 {
		prefix = netip.PrefixFrom(a.Unmap(), prefix.Bits()-96)
	}
	return prefix.Masked(), nil
}

// normalBlocks sorts blocks and removes copies, so that the order in which peers are written does not matter.
func normalBlocks(blocks []policy.Block) []policy.Block {
	slices.SortFunc(blocks, func(a, b policy.Block) int {
		if c := comparePrefixes(a.Prefix, b.Prefix); c != 0 {
			return c
		}
		return slices.CompareFunc(a.Except, b.Except, comparePrefixes)
	})
	return slices.CompactFunc(blocks, func(a, b policy.Block) bool {
		return a.Prefix == b.Prefix && slices.Equal(a.Except, b.Except)
	})
}

// dropCovered sorts prefixes and removes those that lie within another one.
func dropCovered(prefixes []netip.Prefix) []netip.Prefix {
	slices.SortFunc(prefixes, comparePrefixes)
	var kept []netip.Prefix
	for _, p := range prefixes {
		if n := len(kept); n > 0 && kept[n-1].Overlaps(p) {
			continue
		}
		kept = append(kept, p)
	}
	return kept
}

// comparePrefixes orders by address, then by length: a prefix stands directly before those that lie within it.
func comparePrefixes(a, b netip.Prefix) int {
	if c := a.Addr().Compare(b.Addr()); c != 0 {
		return c
	}
	return a.Bits() - b.Bits()
}
