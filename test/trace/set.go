package trace

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// set is an ipset.
type set struct {
	typ    string
	family Family
	addrs  map[netip.Addr]bool   // hash:ip
	nets   map[netip.Prefix]bool // hash:net; false is nomatch
	ports  map[addrPort]bool     // hash:ip,port
	pairs  map[pair]bool         // hash:ip,port,ip
}

type addrPort struct {
	addr     netip.Addr
	protocol int
	port     uint16
}

type pair struct {
	addrPort
	other netip.Addr
}

// readSets reads "create NAME TYPE family FAMILY ..." and "add NAME ENTRY [nomatch]" lines.
func (k *Kernel) readSets(text string) error {
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) == 0 || words[0] == "COMMIT" || strings.HasPrefix(words[0], "#") {
			continue
		}
		var err error
		switch words[0] {
		case "create":
			err = k.createSet(words[1:])
		case "add":
			err = k.addEntry(words[1:])
		default:
			err = errors.New("command is not known")
		}
		if err != nil {
			return fmt.Errorf("line %q: %w", strings.TrimSpace(line), err)
		}
	}
	return nil
}

func (k *Kernel) createSet(words []string) error {
	if len(words) < 4 || words[2] != "family" {
		return errors.New("name, type and family are wanted")
	}
	name := words[0]
	if len(name) > 31 {
		return fmt.Errorf("name has %d characters, 31 are allowed", len(name))
	}
	if k.sets[name] != nil {
		return errors.New("set is there already")
	}
	s := &set{typ: words[1], addrs: map[netip.Addr]bool{}, nets: map[netip.Prefix]bool{}, ports: map[addrPort]bool{}, pairs: map[pair]bool{}}
	switch words[3] {
	case "inet":
		s.family = 4
	case "inet6":
		s.family = 6
	default:
		return errors.New("family is not known")
	}
	switch s.typ {
	case "hash:ip", "hash:net", "hash:ip,port", "hash:ip,port,ip":
	default:
		return errors.New("type is not known")
	}
	k.sets[name] = s
	return nil
}

func (k *Kernel) addEntry(words []string) error {
	if n := len(words); n == 4 && words[2] == "timeout" {
		words = words[:2] // nothing here takes time
	}
	if len(words) < 2 || len(words) > 3 || len(words) == 3 && words[2] != "nomatch" {
		return errors.New("name and entry are wanted")
	}
	s, nomatch := k.sets[words[0]], len(words) == 3
	if s == nil {
		return errors.New("set does not exist")
	}
	if nomatch && s.typ != "hash:net" {
		return errors.New("nomatch belongs to hash:net")
	}
	switch s.typ {
	case "hash:ip":
		a, err := s.readAddr(words[1])
		if err != nil {
			return err
		}
		if s.addrs[a] {
			return errors.New("entry is there already")
		}
		s.addrs[a] = true
	case "hash:net":
		return s.addNet(words[1], nomatch)
	case "hash:ip,port":
		return s.addPort(words[1])
	case "hash:ip,port,ip":
		return s.addPair(words[1])
	}
	return nil
}

// addNet takes an address for a prefix of full length, as ipset does, and refuses a length of 0, as ipset does.
func (s *set) addNet(text string, nomatch bool) error {
	if !strings.Contains(text, "/") {
		a, err := s.readAddr(text)
		if err != nil {
			return err
		}
		text = fmt.Sprintf("%s/%d", a, a.BitLen())
	}
	p, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		return err
	case p.Addr().Is4() != (s.family == 4):
		return errors.New("entry has the wrong family")
	case p.Bits() == 0:
		return errors.New("hash:net takes no prefix of length 0")
	case p != p.Masked():
		return errors.New("prefix has bits behind its length")
	}
	if _, ok := s.nets[p]; ok {
		return errors.New("entry is there already")
	}
	s.nets[p] = !nomatch
	return nil
}

func (s *set) addPort(text string) error {
	e, err := s.readPort(text)
	if err != nil {
		return err
	}
	if s.ports[e] {
		return errors.New("entry is there already")
	}
	s.ports[e] = true
	return nil
}

func (s *set) addPair(text string) error {
	at := strings.LastIndexByte(text, ',')
	if at < 0 {
		return errors.New("ADDRESS,PROTOCOL:PORT,ADDRESS is wanted")
	}
	e, err := s.readPort(text[:at])
	if err != nil {
		return err
	}
	other, err := s.readAddr(text[at+1:])
	if err != nil {
		return err
	}
	if s.pairs[pair{e, other}] {
		return errors.New("entry is there already")
	}
	s.pairs[pair{e, other}] = true
	return nil
}

func (s *set) readPort(text string) (addrPort, error) {
	addr, rest, ok := strings.Cut(text, ",")
	protocol, port, ok2 := strings.Cut(rest, ":")
	if !ok || !ok2 {
		return addrPort{}, errors.New("ADDRESS,PROTOCOL:PORT is wanted")
	}
	a, err := s.readAddr(addr)
	if err != nil {
		return addrPort{}, err
	}
	number, ok := protocolNumbers[protocol]
	if !ok || !hasPorts(number) {
		return addrPort{}, errors.New("protocol has no ports")
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return addrPort{a, number, uint16(n)}, err
}

func (s *set) readAddr(text string) (netip.Addr, error) {
	a, err := netip.ParseAddr(text)
	if err != nil {
		return a, err
	}
	if a.Is4() != (s.family == 4) {
		return a, errors.New("entry has the wrong family")
	}
	return a, nil
}

// inSet matches packets against a set; dimensions say which end of the packet each part of an entry is compared with.
func (r *ruleReader) inSet(name, dimensions string) (match, error) {
	if r.module != "set" {
		return nil, errors.New("module set is not loaded")
	}
	s := r.sets[name]
	switch {
	case s == nil:
		return nil, fmt.Errorf("set %s does not exist", name)
	case s.family != r.family:
		return nil, fmt.Errorf("set %s has another family than the table", name)
	}
	switch {
	case s.typ == "hash:ip,port" && dimensions == "dst,dst":
		return func(p *Packet) (bool, error) {
			return hasPorts(int(p.Protocol)) && s.ports[addrPort{p.Dst, int(p.Protocol), p.DstPort}], nil
		}, nil
	case s.typ == "hash:ip,port,ip" && dimensions == "dst,dst,src":
		return func(p *Packet) (bool, error) {
			return hasPorts(int(p.Protocol)) && s.pairs[pair{addrPort{p.Dst, int(p.Protocol), p.DstPort}, p.Src}], nil
		}, nil
	case s.typ == "hash:ip,port,ip":
	case s.typ != "hash:ip,port" && dimensions == "src":
		return func(p *Packet) (bool, error) { return s.has(p.Src), nil }, nil
	case s.typ != "hash:ip,port" && dimensions == "dst":
		return func(p *Packet) (bool, error) { return s.has(p.Dst), nil }, nil
	}
	return nil, fmt.Errorf("dimensions %s do not fit type %s", dimensions, s.typ)
}

// has looks an address up. In hash:net the longest prefix that holds it decides alone.
func (s *set) has(a netip.Addr) bool {
	if s.typ == "hash:ip" {
		return s.addrs[a]
	}
	for bits := a.BitLen(); bits > 0; bits-- {
		p, err := a.Prefix(bits)
		if err != nil {
			return false
		}
		if matches, ok := s.nets[p]; ok {
			return matches
		}
	}
	return false
}
