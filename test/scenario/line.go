package scenario

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/ringfence-io/ringfence/lab/oracle"
)

// Line states what becomes of connections:
//
//	client reaches web                           over every protocol: TCP, UDP and SCTP to port 80, ICMP echo, and one without a name
//	client does not reach web on tcp/81 udp/81   each times out; a refusal would be an answer
//	client is refused by web on tcp/99           the packet arrives, nobody listens, and the client is told so
//	client would not reach web on tcp/80         it passes, but an object in dry run would deny it
//
// The last two verbs may name, and "does not reach" too, what is in dry run and would deny it: "client would not reach web noting ingress cnp a, egress red/p".
// Of what reaches, nothing is noted; of what does not, only what the line names.
//
// Ends are the actors of the cluster, and addresses. An address that is no actor's is only an address: nobody is there.
type Line struct {
	Text     string
	From, To Actor
	Verb     Verb
	Services []Service
	// Noted are the objects in dry run, sorted, as "ingress cnp a".
	Noted []string
}

// Verb is what a line says of its connections.
type Verb int

// The verbs.
const (
	Reaches Verb = iota
	DoesNotReach
	IsRefused
	WouldNotReach
)

// Passes reports whether the packets of a line arrive.
func (v Verb) Passes() bool { return v != DoesNotReach }

var verbs = []struct {
	text string
	verb Verb
}{
	{" does not reach ", DoesNotReach}, {" would not reach ", WouldNotReach}, {" is refused by ", IsRefused}, {" reaches ", Reaches},
}

// everyProtocol stands for a line without "on".
const everyProtocol = "tcp/80 udp/80 sctp/80 icmp other"

// Service is what a connection asks for.
type Service struct {
	// Text is the service as the line has it: "tcp/80".
	Text     string
	Protocol oracle.Protocol
	Port     uint16
	// IsTyped is set for an ICMP packet that is not an echo request: Type says which it is.
	IsTyped bool
	Type    uint8
}

// The protocols that no policy can name. Nobody listens on GRE.
const (
	Experimental oracle.Protocol = 253
	gre          oracle.Protocol = 47
)

var protocols = map[string]oracle.Protocol{
	"tcp": oracle.TCP, "udp": oracle.UDP, "sctp": oracle.SCTP, "icmp": oracle.ICMP, "other": Experimental, "gre": gre,
}

// ParseLines reads lines about the cluster's actors.
func (c *Cluster) ParseLines(texts []string) ([]Line, error) {
	lines := make([]Line, len(texts))
	for i, text := range texts {
		var err error
		if lines[i], err = c.parseLine(text); err != nil {
			return nil, fmt.Errorf("reading %q: %w", text, err)
		}
	}
	return lines, nil
}

func (c *Cluster) parseLine(text string) (Line, error) {
	for _, v := range verbs {
		from, rest, ok := strings.Cut(text, v.text)
		if !ok {
			continue
		}
		rest, noted, _ := strings.Cut(rest, " noting ")
		to, on, ok := strings.Cut(rest, " on ")
		if !ok {
			on = everyProtocol
		}
		l := Line{Text: text, Verb: v.verb}
		if noted != "" {
			l.Noted = strings.Split(noted, ", ")
			slices.Sort(l.Noted)
		}
		var err error
		if l.From, err = c.actor(from); err != nil {
			return l, err
		}
		if l.To, err = c.actor(to); err != nil {
			return l, err
		}
		for _, service := range strings.Fields(on) {
			s, err := parseService(service)
			if err != nil {
				return l, err
			}
			l.Services = append(l.Services, s)
		}
		return l, nil
	}
	return Line{}, fmt.Errorf("it has no verb")
}

// parseService reads "tcp/80", "icmp", or "icmp/135".
func parseService(text string) (Service, error) {
	name, number, numbered := strings.Cut(text, "/")
	s := Service{Text: text, Protocol: protocols[name]}
	if s.Protocol == 0 {
		return s, fmt.Errorf("no protocol: %q", text)
	}
	if !numbered {
		return s, nil
	}
	bits := 16
	if s.IsTyped = s.Protocol == oracle.ICMP; s.IsTyped {
		bits = 8
	}
	n, err := strconv.ParseUint(number, 10, bits)
	s.Port, s.Type = uint16(n), uint8(n)
	return s, err
}

// IsSendable reports whether the packets of a line can be sent by a probe, and missed: from a host that there is, to a host that there is, with a protocol that
// somebody answers. What a pod sends to its own address does not leave it.
func (l Line) IsSendable() bool {
	for _, s := range l.Services {
		if s.Protocol == gre || s.IsTyped || s.Port == 0 && (s.Protocol == oracle.TCP || s.Protocol == oracle.UDP || s.Protocol == oracle.SCTP) {
			return false
		}
	}
	loops := l.From.Name == l.To.Name && !l.Verb.Passes()
	return l.From.Role != Nobody && l.From.Role != Virtual && l.To.Role != Nobody && !loops
}

// Flow is the first packet of a connection as policy sees it, in the cluster's family: a service's address has become its backend's.
func (c *Cluster) Flow(l Line, s Service) oracle.Flow {
	f := oracle.Flow{Src: l.From.In(c.Family), Dst: l.To.In(c.Family), Protocol: s.Protocol, DstPort: s.Port}
	if s.Protocol == oracle.ICMP {
		f.DstPort, f.ICMPType = 0, 8
		if c.Family == IPv6 {
			f.Protocol, f.ICMPType = oracle.ICMPv6, 128
		}
		if s.IsTyped {
			f.ICMPType = s.Type
		}
	}
	if l.From.Role == Node {
		f.FromNode = l.From.Node
	}
	switch l.To.Role {
	case Node:
		f.ToNode = l.To.Node
	case Virtual:
		backend, _ := c.Actor(l.To.Backend)
		f.Dst, f.DstPort = backend.In(c.Family), TargetPort
	}
	return f
}
