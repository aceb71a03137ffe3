package dataplane

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
)

// Of nf_tables itself is read what iptables-nft cannot say of a table in which another program keeps rules of its own kind: the names of chains, which rules
// of a base chain lead to ours, and whether the table is switched off. What rules match is left to iptables.

// nftTables is a netlink socket to the kernel's nf_tables, in the network namespace in which it was opened.
type nftTables struct {
	socket *nl.NetlinkSocket
	handle *nl.SocketHandle
}

func openNFTables() (*nftTables, error) {
	s, err := nl.Subscribe(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("opening netlink for nf_tables: %w", err)
	}
	timeout := &unix.Timeval{Sec: socketTimeout}
	if err := errors.Join(s.SetSendTimeout(timeout), s.SetReceiveTimeout(timeout)); err != nil {
		s.Close()
		return nil, fmt.Errorf("opening netlink for nf_tables: %w", err)
	}
	return &nftTables{socket: s, handle: &nl.SocketHandle{Socket: s}}, nil
}

func (c *nftTables) close() { c.socket.Close() }

// nftFamily is the number of the family whose tables ip and ip6 iptables-nft writes to.
func nftFamily(f iptables.Family) uint8 {
	if f == iptables.IPv4 {
		return unix.NFPROTO_IPV4
	}
	return unix.NFPROTO_IPV6
}

func (c *nftTables) request(command, flags int, f iptables.Family) *nl.NetlinkRequest {
	r := nl.NewNetlinkRequest(command|unix.NFNL_SUBSYS_NFTABLES<<8, flags)
	r.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_NETFILTER: c.handle}
	r.AddData(&nl.Nfgenmsg{NfgenFamily: nftFamily(f), Version: nl.NFNETLINK_V0})
	return r
}

// nftDump shows the attributes of each object of a listing to visit.
func nftDump(command int, f iptables.Family, names map[int]string, visit func(nftAttributes)) error {
	err := whole(func() error {
		c, err := openNFTables()
		if err != nil {
			return err
		}
		defer c.close()
		r := c.request(command, unix.NLM_F_DUMP, f)
		for kind, name := range names {
			r.AddData(nl.NewRtAttr(kind, nl.ZeroTerminated(name)))
		}
		var failed error
		err = askKernel(r, func(raw []byte) bool {
			var a nftAttributes
			if a, failed = nftAttributesOf(raw[min(len(raw), nl.SizeofNfgenmsg):]); failed == nil {
				visit(a)
			}
			return failed == nil
		})
		return errors.Join(failed, err)
	})
	if errors.Is(err, unix.ENOENT) {
		return nil // no such table, or no such chain in it
	}
	return err
}

// nftAttributes are those of one object, by their kind.
type nftAttributes map[uint16][]byte

func nftAttributesOf(raw []byte) (nftAttributes, error) {
	a := nftAttributes{}
	err := eachAttribute(raw, func(kind uint16, value []byte) error {
		a[kind] = value
		return nil
	})
	return a, err
}

func (a nftAttributes) text(kind uint16) string { return stringOf(a[kind]) }

// nested are the attributes in one of these; none if there is no such, or nothing in it that can be read.
func (a nftAttributes) nested(kind uint16) nftAttributes {
	inner, err := nftAttributesOf(a[kind])
	if err != nil {
		return nil
	}
	return inner
}

// nftChains are the names of the chains of a table.
func nftChains(f iptables.Family, table string) ([]string, error) {
	var names []string
	err := nftDump(unix.NFT_MSG_GETCHAIN, f, nil, func(a nftAttributes) {
		if a.text(unix.NFTA_CHAIN_TABLE) == table {
			names = append(names, a.text(unix.NFTA_CHAIN_NAME))
		}
	})
	return names, err
}

// nftRuleCount is how many rules a table has.
func nftRuleCount(f iptables.Family, table string) (n int, err error) {
	err = nftDump(unix.NFT_MSG_GETRULE, f, map[int]string{unix.NFTA_RULE_TABLE: table}, func(a nftAttributes) {
		if a.text(unix.NFTA_RULE_TABLE) == table {
			n++
		}
	})
	return n, err
}

// nftJump is a rule of a base chain that leads to another chain.
type nftJump struct {
	position int // counted from 1, among all rules of the chain
	handle   []byte
	to       string
}

// nftJumps are the rules of a chain that lead to one of ours. Those that go by a map of verdicts are not among them: iptables writes none.
func nftJumps(f iptables.Family, table, chain string) ([]nftJump, error) {
	var all []nftJump
	position := 0
	err := nftDump(unix.NFT_MSG_GETRULE, f, map[int]string{unix.NFTA_RULE_TABLE: table, unix.NFTA_RULE_CHAIN: chain}, func(a nftAttributes) {
		if a.text(unix.NFTA_RULE_TABLE) != table || a.text(unix.NFTA_RULE_CHAIN) != chain {
			return // a kernel that does not filter
		}
		position++
		if to := jumpOf(a[unix.NFTA_RULE_EXPRESSIONS]); isOurs(to) {
			all = append(all, nftJump{position: position, handle: bytes.Clone(a[unix.NFTA_RULE_HANDLE]), to: to})
		}
	})
	return all, err
}

// jumpOf is the chain that one of a rule's expressions jumps to, or goes to; empty if none does.
func jumpOf(expressions []byte) (to string) {
	err := eachAttribute(expressions, func(_ uint16, value []byte) error {
		expression, err := nftAttributesOf(value)
		if err == nil && expression.text(unix.NFTA_EXPR_NAME) == "immediate" {
			verdict := expression.nested(unix.NFTA_EXPR_DATA).nested(unix.NFTA_IMMEDIATE_DATA).nested(unix.NFTA_DATA_VERDICT)
			to = cmp.Or(verdict.text(unix.NFTA_VERDICT_CHAIN), to)
		}
		return err
	})
	if err != nil {
		return ""
	}
	return to
}

// nftDormant reports whether a table is there and switched off, so that no packet meets its rules.
func nftDormant(f iptables.Family, table string) (bool, error) {
	c, err := openNFTables()
	if err != nil {
		return false, err
	}
	defer c.close()
	r := c.request(unix.NFT_MSG_GETTABLE, 0, f)
	r.AddData(nl.NewRtAttr(unix.NFTA_TABLE_NAME, nl.ZeroTerminated(table)))
	answer, err := r.Execute(unix.NETLINK_NETFILTER, 0)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil || len(answer) == 0 {
		return false, err
	}
	a, err := nftAttributesOf(answer[0][min(len(answer[0]), nl.SizeofNfgenmsg):])
	flags := a[unix.NFTA_TABLE_FLAGS]
	return err == nil && len(flags) == 4 && binary.BigEndian.Uint32(flags)&unix.NFT_TABLE_F_DORMANT != 0, err
}

// nftDelete removes rules of a chain, all at once or none. The kernel knows a rule by its handle, so that no other can be hit; one that is gone is an error.
func nftDelete(f iptables.Family, table, chain string, jumps []nftJump) error {
	if len(jumps) == 0 {
		return nil
	}
	c, err := openNFTables()
	if err != nil {
		return err
	}
	defer c.close()
	batch := func(kind int) *nl.NetlinkRequest {
		r := nl.NewNetlinkRequest(kind, 0)
		r.AddRawData([]byte{unix.AF_UNSPEC, nl.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES})
		return r
	}
	text := batch(unix.NFNL_MSG_BATCH_BEGIN).Serialize()
	awaited := map[uint32]bool{}
	for _, j := range jumps {
		r := c.request(unix.NFT_MSG_DELRULE, unix.NLM_F_ACK, f)
		r.AddData(nl.NewRtAttr(unix.NFTA_RULE_TABLE, nl.ZeroTerminated(table)))
		r.AddData(nl.NewRtAttr(unix.NFTA_RULE_CHAIN, nl.ZeroTerminated(chain)))
		r.AddData(nl.NewRtAttr(unix.NFTA_RULE_HANDLE, j.handle))
		text = append(text, r.Serialize()...)
		awaited[r.Seq] = true
	}
	text = append(text, batch(unix.NFNL_MSG_BATCH_END).Serialize()...)
	if err := unix.Sendto(c.socket.GetFd(), text, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("deleting rules of the chain %s: %w", chain, err)
	}
	for len(awaited) > 0 {
		messages, _, err := c.socket.Receive()
		if err != nil {
			return fmt.Errorf("deleting rules of the chain %s: %w", chain, err)
		}
		for _, m := range messages {
			delete(awaited, m.Header.Seq)
			if m.Header.Type != unix.NLMSG_ERROR || len(m.Data) < 4 {
				continue
			}
			if errno := int32(binary.NativeEndian.Uint32(m.Data)); errno != 0 {
				return fmt.Errorf("deleting rules of the chain %s: %w", chain, unix.Errno(-errno))
			}
		}
	}
	return nil
}
