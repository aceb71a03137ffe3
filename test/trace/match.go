package trace

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

const (
	icmp   = 1
	tcp    = 6
	udp    = 17
	icmpv6 = 58
	sctp   = 132
)

var protocolNumbers = map[string]int{"icmp": icmp, "tcp": tcp, "udp": udp, "ipv6-icmp": icmpv6, "sctp": sctp}

func hasPorts(protocol int) bool { return protocol == tcp || protocol == udp || protocol == sctp }

func knownModule(name string) error {
	if !slices.Contains([]string{"tcp", "udp", "multiport", "set", "bpf", "comment", "conntrack", "icmp6", "limit", "addrtype"}, name) {
		return fmt.Errorf("module %s is not known", name)
	}
	return nil
}

func source(f Family, text string) (match, error) {
	prefix, err := readPrefix(f, text)
	return func(p *Packet) (bool, error) { return prefix.Contains(p.Src), nil }, err
}

func destination(f Family, text string) (match, error) {
	prefix, err := readPrefix(f, text)
	return func(p *Packet) (bool, error) { return prefix.Contains(p.Dst), nil }, err
}

// readPrefix wants the form that iptables-save prints: with a length, and without bits behind it.
func readPrefix(f Family, text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		return p, err
	case p.Addr().Is4() != (f == 4):
		return p, fmt.Errorf("prefix is not of family %d", f)
	case p != p.Masked():
		return p, errors.New("prefix has bits behind its length")
	case p.Bits() == 0:
		return p, errors.New("iptables-save prints no prefix of length 0")
	}
	return p, nil
}

func (r *ruleReader) readProtocol(text string) (match, error) {
	number, ok := protocolNumbers[text]
	if !ok {
		var err error
		if number, err = strconv.Atoi(text); err != nil || number < 1 || number > 255 {
			return nil, errors.New("protocol is not known")
		}
	}
	r.protocol = number
	return func(p *Packet) (bool, error) { return int(p.Protocol) == number, nil }, nil
}

// moduleOption reads an option of the module that the last -m has loaded.
func (r *ruleReader) moduleOption(option, argument string) (match, error) {
	switch r.module + " " + option {
	case "tcp --dport", "udp --dport":
		if protocolNumbers[r.module] != r.protocol {
			return nil, fmt.Errorf("module %s wants -p %s", r.module, r.module)
		}
		return portList(argument, 1)
	case "tcp --tcp-flags":
		return r.onlySYN(argument)
	case "multiport --dports":
		if !hasPorts(r.protocol) {
			return nil, errors.New("multiport wants a protocol that has ports")
		}
		return portList(argument, 15)
	case "set --match-set":
		if len(r.words) == 0 {
			return nil, errors.New("dimensions are missing")
		}
		dimensions := r.words[0]
		r.words = r.words[1:]
		return r.inSet(argument, dimensions)
	case "bpf --bytecode":
		program, err := readProgram(argument)
		return program.matches, err
	case "comment --comment":
		if len(argument) > 255 {
			return nil, fmt.Errorf("comment has %d characters, 255 are allowed", len(argument))
		}
		return nil, nil
	case "limit --limit", "limit --limit-burst":
		return nil, nil // one packet at a time is never too many
	case "conntrack --ctstate":
		return inState(argument)
	case "addrtype --src-type", "addrtype --dst-type":
		if argument != "LOCAL" {
			return nil, errors.New("the type LOCAL is all that is known")
		}
		return func(p *Packet) (bool, error) {
			return option == "--src-type" && p.SrcLocal || option == "--dst-type" && p.DstLocal, nil
		}, nil
	case "icmp6 --icmpv6-type":
		if r.protocol != icmpv6 || r.family != 6 {
			return nil, errors.New("module icmp6 wants -p ipv6-icmp")
		}
		number, err := strconv.ParseUint(argument, 10, 8)
		return func(p *Packet) (bool, error) { return p.Protocol == icmpv6 && uint64(p.Type) == number, nil }, err
	}
	return nil, fmt.Errorf("module %q has no such option here", r.module)
}

// onlySYN matches TCP packets that begin a connection, which is the one thing that is asked of flags here.
func (r *ruleReader) onlySYN(mask string) (match, error) {
	if len(r.words) == 0 || mask != "FIN,SYN,RST,ACK" || r.words[0] != "SYN" || r.protocol != tcp {
		return nil, errors.New("-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN is wanted")
	}
	r.words = r.words[1:]
	return func(p *Packet) (bool, error) { return p.Protocol == tcp && !p.MidStream, nil }, nil
}

func inState(text string) (match, error) {
	states := strings.Split(text, ",")
	for _, s := range states {
		if !slices.Contains([]string{"NEW", "ESTABLISHED", "RELATED", "INVALID", "UNTRACKED"}, s) {
			return nil, fmt.Errorf("state %s is not known", s)
		}
	}
	return func(p *Packet) (bool, error) {
		state := p.State
		if state == "" {
			state = "NEW"
		}
		return slices.Contains(states, state), nil
	}, nil
}

type portRange struct{ first, last uint64 }

// portList reads ports and ranges "a:b", as many as fit: a port takes one slot and a range two, unless one item is all.
func portList(text string, slots int) (match, error) {
	items := strings.Split(text, ",")
	if slots == 1 && len(items) > 1 {
		return nil, errors.New("one port or one range is all that --dport takes")
	}
	var ranges []portRange
	used := 0
	for _, item := range items {
		first, last, isRange := strings.Cut(item, ":")
		used++
		if isRange {
			used++
		} else {
			last = first
		}
		a, err := strconv.ParseUint(first, 10, 16)
		if err != nil {
			return nil, err
		}
		b, err := strconv.ParseUint(last, 10, 16)
		if err != nil {
			return nil, err
		}
		if a > b || isRange && a == b {
			return nil, fmt.Errorf("%s is no range", item)
		}
		ranges = append(ranges, portRange{a, b})
	}
	if slots > 1 && used > slots {
		return nil, fmt.Errorf("%d slots are needed, multiport has %d", used, slots)
	}
	return func(p *Packet) (bool, error) {
		return slices.ContainsFunc(ranges, func(r portRange) bool {
			return r.first <= uint64(p.DstPort) && uint64(p.DstPort) <= r.last
		}), nil
	}, nil
}
