package dataplane

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// Guards are rules of nftables, whatever back end iptables has: the kernel has one hook where a frame enters from a link, and nf_tables' family netdev is at
// it (Linux 4.2). A table of the family netdev has for each link a base chain. Each rule carries the digest of its guard and its place as a comment: rules
// that another program has added, taken away or changed have not all of them.

var (
	netdevTable = &nftables.Table{Name: iptables.GuardTable, Family: nftables.TableFamilyNetdev}
	bridgeTable = &nftables.Table{Name: iptables.GuardTable, Family: nftables.TableFamilyBridge}
)

// guards is a connection to nf_tables, in the network namespace in which it was opened.
type guards struct{ conn *nftables.Conn }

func openGuards() (*guards, error) {
	// One message holds as many chains as go in one transaction, and its answers come all at once.
	room := func(c *netlink.Conn) error {
		return errors.Join(c.SetWriteBuffer(4<<20), c.SetReadBuffer(8<<20))
	}
	c, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(room))
	if err != nil {
		return nil, fmt.Errorf("opening netlink for nftables: %w", err)
	}
	return &guards{c}, nil
}

func (g *guards) close() { _ = g.conn.CloseLasting() }

// withGuards does something with a connection of its own.
func withGuards(do func(*guards) error) error {
	g, err := openGuards()
	if err != nil {
		return err
	}
	defer g.close()
	return do(g)
}

// comment is what the rule of a chain says of itself, and with it its guard.
func comment(digest string, i, of int, words string) []byte {
	text := strings.TrimSpace(fmt.Sprintf("%s %d/%d %s", digest, i+1, of, words))
	return userdata.AppendString(nil, userdata.TypeComment, text)
}

// fill adds the rules of a chain, each with its comment.
func (g *guards) fill(table *nftables.Table, chain string, rules [][]expr.Any, digest, words string) {
	for i, r := range rules {
		g.conn.AddRule(&nftables.Rule{
			Table: table, Chain: &nftables.Chain{Name: chain, Table: table}, Exprs: r, UserData: comment(digest, i, len(rules), words),
		})
	}
}

// whole is the digest that all rules of a chain carry, each in its place; empty if one is missing, or is not of these.
func (g *guards) whole(table *nftables.Table, chain string) (digest string, err error) {
	rules, err := g.conn.GetRules(table, &nftables.Chain{Name: chain, Table: table})
	if err != nil {
		return "", fmt.Errorf("reading chain %s: %w", chain, err)
	}
	for i, r := range rules {
		text, _ := userdata.GetString(r.UserData, userdata.TypeComment)
		parts := strings.Fields(text)
		if len(parts) < 2 || parts[1] != fmt.Sprintf("%d/%d", i+1, len(rules)) || i > 0 && parts[0] != digest {
			return "", nil
		}
		digest = parts[0]
	}
	return digest, nil
}

// chains are the names of a table's chains, none if there is no such table.
func (g *guards) chains(table *nftables.Table) (map[string]bool, error) {
	list, err := g.conn.ListChainsOfTableFamily(table.Family)
	if err != nil {
		return nil, fmt.Errorf("listing the chains of nftables: %w", err)
	}
	names := map[string]bool{}
	for _, c := range list {
		if c.Table.Name == table.Name {
			names[c.Name] = true
		}
	}
	return names, nil
}

// sharedDigest is that of the chains which all guards share: what they say depends on nothing.
const sharedDigest = "shared-1"

// observe reads which guards are there.
func (g *guards) observe() (map[string]iptables.Guard, error) {
	names, err := g.chains(netdevTable)
	if err != nil {
		return nil, err
	}
	found, shared := map[string]iptables.Guard{}, true
	for _, chain := range slices.Sorted(maps.Keys(sharedRules)) {
		digest, err := g.whole(netdevTable, chain)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return nil, err
		}
		shared = shared && digest == sharedDigest
	}
	for name := range names {
		link, ok := linkOf(name)
		if !ok {
			continue
		}
		digest, err := g.digest(link, names)
		if err != nil {
			return nil, err
		}
		if !shared {
			digest = ""
		}
		found[link] = iptables.Guard{Link: link, Digest: digest}
	}
	return found, nil
}

// digest is the one digest of all chains of a link. A chain that has gone while it was read has gone with its link.
func (g *guards) digest(link string, names map[string]bool) (string, error) {
	one := ""
	for i, chain := range []string{entryChain(link), answerChain(link), endChain(link)} {
		if !names[chain] {
			continue // one that is shut answers nothing; if it were missing otherwise, a rule could not refer to it
		}
		digest, err := g.whole(netdevTable, chain)
		if errors.Is(err, unix.ENOENT) {
			return "", nil
		}
		if err != nil {
			return "", err
		}
		if i > 0 && digest != one {
			return "", nil
		}
		one = digest
	}
	return one, nil
}

// perTransaction is how many guards are written at once. The kernel takes all of a transaction, or nothing.
const perTransaction = 16

// write puts guards in place. Of those that the kernel does not take together, each is tried by itself: a link that has gone meanwhile costs
// the others nothing.
func (g *guards) write(ctx context.Context, all []iptables.Guard) error {
	var errs []error
	for part := range slices.Chunk(all, perTransaction) {
		if err := context.Cause(ctx); err != nil {
			return errors.Join(append(errs, fmt.Errorf("guarding links: %w", err))...)
		}
		if g.transact(part) == nil {
			continue
		}
		for _, one := range part {
			if err := g.transact([]iptables.Guard{one}); err != nil && !isGone(one.Link, one.Index) {
				errs = append(errs, fmt.Errorf("guarding link %s of %s: %w", one.Link, one.Owner, err))
			}
		}
	}
	return errors.Join(errs...)
}

func (g *guards) transact(part []iptables.Guard) error {
	names, err := g.chains(netdevTable)
	if err != nil {
		return err
	}
	g.conn.AddTable(netdevTable)
	for _, chain := range slices.Sorted(maps.Keys(sharedRules)) {
		g.renew(chain, names)
		g.fill(netdevTable, chain, sharedRules[chain], sharedDigest, "")
	}
	for _, one := range part {
		chains := guardChains(one)
		for _, chain := range []string{endChain(one.Link), answerChain(one.Link)} {
			if chains[chain] != nil {
				g.renew(chain, names)
			}
		}
		entry, accepting := &nftables.Chain{Name: entryChain(one.Link), Table: netdevTable}, nftables.ChainPolicyAccept
		if names[entry.Name] { // it may be of a link that is gone: from Linux 6.14 on the chain stays, and need not be hooked to another of that name
			g.conn.FlushChain(entry)
			g.conn.DelChain(entry)
		}
		g.conn.AddChain(&nftables.Chain{
			Name: entry.Name, Table: netdevTable, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookIngress,
			Priority: hookPriority, Policy: &accepting, Device: one.Link,
		})
		for _, chain := range slices.Sorted(maps.Keys(chains)) {
			words := ""
			if chain == endChain(one.Link) {
				words = iptables.LogPrefix + one.Point + " " + one.Words()
			}
			g.fill(netdevTable, chain, chains[chain], one.Digest, words)
		}
	}
	return flush(g.conn)
}

// renew makes a chain that is entered from others, or empties it.
func (g *guards) renew(chain string, names map[string]bool) {
	c := &nftables.Chain{Name: chain, Table: netdevTable}
	if names[chain] {
		g.conn.FlushChain(c)
		return
	}
	g.conn.AddChain(c)
}

// flush ends a transaction.
func flush(c *nftables.Conn) error {
	if err := c.Flush(); err != nil {
		return fmt.Errorf("writing to nftables: %w", err)
	}
	return nil
}

// remove takes the guards of links away; one that is missing is no error.
func (g *guards) remove(links []string) error {
	names, err := g.chains(netdevTable)
	if err != nil {
		return err
	}
	for _, link := range links {
		own := slices.DeleteFunc([]string{entryChain(link), answerChain(link), endChain(link)}, func(c string) bool { return !names[c] })
		for _, chain := range own {
			g.conn.FlushChain(&nftables.Chain{Name: chain, Table: netdevTable})
		}
		for _, chain := range own {
			g.conn.DelChain(&nftables.Chain{Name: chain, Table: netdevTable})
		}
		if err := flush(g.conn); err != nil {
			return fmt.Errorf("taking the guard of link %s away: %w", link, err)
		}
	}
	return nil
}

// removeAll takes away both tables.
func (g *guards) removeAll() error {
	for _, table := range []*nftables.Table{netdevTable, bridgeTable} {
		list, err := g.conn.ListTablesOfFamily(table.Family)
		if err != nil {
			return fmt.Errorf("listing the tables of nftables: %w", err)
		}
		if slices.ContainsFunc(list, func(t *nftables.Table) bool { return t.Name == table.Name }) {
			g.conn.DelTable(table)
			if err := flush(g.conn); err != nil {
				return fmt.Errorf("removing table %s: %w", table.Name, err)
			}
		}
	}
	return nil
}

// counts are what guards have dropped, or would have.
func (g *guards) counts() ([]Count, error) {
	names, err := g.chains(netdevTable)
	if err != nil {
		return nil, err
	}
	var counts []Count
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if !strings.HasPrefix(name, endChain("")) {
			continue
		}
		rules, err := g.conn.GetRules(netdevTable, &nftables.Chain{Name: name, Table: netdevTable})
		if err != nil && !errors.Is(err, unix.ENOENT) { // the link has gone meanwhile
			return counts, fmt.Errorf("reading chain %s: %w", name, err)
		}
		for _, r := range rules {
			text, _ := userdata.GetString(r.UserData, userdata.TypeComment)
			_, text, _ = strings.Cut(text, iptables.LogPrefix)
			point, words, _ := strings.Cut(text, " ")
			for _, e := range r.Exprs {
				if c, is := e.(*expr.Counter); is && point != "" {
					label, _ := policy.ParseLabel(words)
					p := policy.Point{ID: point, Direction: policy.Egress, Index: -1, Audit: label.Audit}
					counts = append(counts, Count{Point: p, Comment: words, Packets: c.Packets})
				}
			}
		}
	}
	return counts, nil
}

// guardCounts are those of this network namespace, whose kernel has nf_tables.
func guardCounts() (counts []Count, err error) {
	err = withGuards(func(g *guards) error {
		counts, err = g.counts()
		return err
	})
	return counts, err
}

// observeInward reads what bridges bring to which ports. What was written by a version of another layout counts as changed.
func (g *guards) observeInward(layout iptables.Layout) (iptables.Inward, error) {
	names, err := g.chains(bridgeTable)
	if err != nil || !names[bridgeOut] {
		return iptables.Inward{}, err
	}
	digest, err := g.whole(bridgeTable, bridgeOut)
	if err != nil {
		return iptables.Inward{}, err
	}
	in, err := g.readInward()
	if err != nil {
		return iptables.Inward{}, err
	}
	for _, audit := range []bool{false, true} {
		if in := iptables.NewInward(layout, in.Ports, in.Broadcasts, audit); in.Digest == digest {
			return in, nil
		}
	}
	return iptables.Inward{Digest: changed}, nil
}

// readInward reads the sets. Pairs of ports that are not looked at are left out, so that the digest is another.
func (g *guards) readInward() (iptables.Inward, error) {
	var in iptables.Inward
	ports := map[string]*iptables.Port{}
	for _, set := range []string{portSet, isolatedSet, to4Set, to6Set, forAllSet} {
		elements, err := g.conn.GetSetElements(&nftables.Set{Table: bridgeTable, Name: set})
		if err != nil {
			return iptables.Inward{}, fmt.Errorf("reading set %s: %w", set, err)
		}
		for _, e := range elements {
			if set == forAllSet {
				if a, ok := netip.AddrFromSlice(e.Key); ok {
					in.Broadcasts = append(in.Broadcasts, a)
				}
				continue
			}
			size := max(len(e.Key)-unix.IFNAMSIZ, 0)
			link := strings.TrimRight(string(e.Key[size:]), "\x00")
			if set == portSet {
				ports[link] = &iptables.Port{Link: link}
				continue
			}
			p := ports[link]
			if p == nil {
				p = &iptables.Port{Link: link + " is not looked at"}
				ports[link] = p
			}
			if a, ok := netip.AddrFromSlice(e.Key[:size]); ok {
				p.Addrs = append(p.Addrs, a)
			}
			p.Isolated = p.Isolated || set == isolatedSet
		}
	}
	for _, p := range ports {
		slices.SortFunc(p.Addrs, netip.Addr.Compare)
		in.Ports = append(in.Ports, *p)
	}
	in.Broadcasts = slices.DeleteFunc(in.Broadcasts, func(a netip.Addr) bool { return a == limitedBroadcast })
	slices.SortFunc(in.Broadcasts, netip.Addr.Compare)
	return in, nil
}

// limitedBroadcast is for all on whatever link it is sent (RFC 919).
var limitedBroadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// changed stands for the digest of what another program has changed.
const changed = "changed by another program"

// writeInward replaces what bridges bring to ports, in one transaction.
func (g *guards) writeInward(in iptables.Inward) error {
	list, err := g.conn.ListTablesOfFamily(nftables.TableFamilyBridge)
	if err != nil {
		return fmt.Errorf("listing the tables of nftables: %w", err)
	}
	if slices.ContainsFunc(list, func(t *nftables.Table) bool { return t.Name == bridgeTable.Name }) {
		g.conn.DelTable(bridgeTable)
	}
	if len(in.Ports) > 0 {
		if err := g.addInward(in); err != nil {
			return err
		}
	}
	if err := flush(g.conn); err != nil {
		return fmt.Errorf("guarding the ports of bridges: %w", err)
	}
	return nil
}

func (g *guards) addInward(in iptables.Inward) error {
	g.conn.AddTable(bridgeTable)
	var links, isolated, to4, to6 []nftables.SetElement
	for _, p := range in.Ports {
		name := interfaceName(p.Link)
		links = append(links, nftables.SetElement{Key: name})
		if p.Isolated {
			isolated = append(isolated, nftables.SetElement{Key: name})
		}
		for _, a := range p.Addrs {
			e := nftables.SetElement{Key: append(a.AsSlice(), name...)}
			if a.Is4() {
				to4 = append(to4, e)
			} else {
				to6 = append(to6, e)
			}
		}
	}
	forAll := []nftables.SetElement{{Key: limitedBroadcast.AsSlice()}}
	for _, a := range in.Broadcasts {
		forAll = append(forAll, nftables.SetElement{Key: a.AsSlice()})
	}
	for _, set := range []struct {
		name     string
		key      nftables.SetDatatype
		elements []nftables.SetElement
	}{
		{portSet, nftables.TypeIFName, links},
		{isolatedSet, nftables.TypeIFName, isolated},
		{forAllSet, nftables.TypeIPAddr, forAll},
		{to4Set, nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeIFName), to4},
		{to6Set, nftables.MustConcatSetType(nftables.TypeIP6Addr, nftables.TypeIFName), to6},
	} {
		s := &nftables.Set{Table: bridgeTable, Name: set.name, KeyType: set.key, Concatenation: set.name == to4Set || set.name == to6Set}
		if err := g.conn.AddSet(s, set.elements); err != nil {
			return fmt.Errorf("guarding the ports of bridges: set %s: %w", set.name, err)
		}
	}
	accepting := nftables.ChainPolicyAccept
	g.conn.AddChain(&nftables.Chain{
		Name: bridgeOut, Table: bridgeTable, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward, Priority: hookPriority, Policy: &accepting,
	})
	g.fill(bridgeTable, bridgeOut, inwardRules(in.Audit), in.Digest, "")
	return nil
}

// probeGuards says why the kernel cannot hold links, and leaves nothing behind.
func probeGuards() error {
	return withGuards(func(g *guards) error {
		for _, family := range []nftables.TableFamily{nftables.TableFamilyNetdev, nftables.TableFamilyBridge} {
			t := g.conn.AddTable(&nftables.Table{Name: iptables.GuardTable + "-PREFLIGHT", Family: family})
			chain := &nftables.Chain{
				Name: "probe", Table: t, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookIngress, Priority: hookPriority, Device: "lo",
			}
			if family == nftables.TableFamilyBridge {
				chain.Hooknum, chain.Device = nftables.ChainHookForward, ""
			}
			g.conn.AddChain(chain)
			g.conn.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: every(
				etherType(etherIPv6), layer4(unix.IPPROTO_ICMPV6), routingHeader(), atMost(arpBytes), []expr.Any{&expr.Counter{}}, accept())})
			g.conn.DelTable(t)
		}
		return flush(g.conn)
	})
}
