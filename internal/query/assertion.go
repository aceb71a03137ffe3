package query

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Assertion is a sentence about who reaches whom, such as "shop/frontend reaches shop/database on tcp/5432".
type Assertion struct {
	text     string
	from, to group
	reaches  bool
	ports    []Port // none means every port
}

// group are the ends that one side of an assertion is about.
type group struct {
	name string // an end as [Cluster.Ends] reads it; empty of a group that is not named by one
	// nothing is set for all ends, of which the assertion says that none is concerned.
	nothing bool
	// in and notIn restrict all ends to one namespace, or to all others and to the addresses outside of the cluster.
	in, notIn string
	but       []string // ends that the assertion is not about
}

// The parts of a sentence.
var (
	sentence = regexp.MustCompile(`^(.+?) (reaches|does not reach) (.+?)(?: on (.+))?$`)
	nothing  = regexp.MustCompile(`^nothing(?: (in|outside) ([a-z0-9-]+))?(?: but (.+))?$`)
)

// ParseAssertion reads a sentence:
//
//	FROM reaches TO [on PORTS]             each pod of FROM reaches each pod of TO, at each of the ports
//	FROM does not reach TO [on PORTS]      none does, at none of them
//	nothing reaches TO                     nobody does, neither in the cluster nor outside of it
//	nothing in NAMESPACE reaches TO        no pod of the namespace does
//	nothing outside NAMESPACE reaches TO   nobody else does
//	nothing but A, B reaches TO            nobody does but these; it goes with in and outside
//	FROM reaches nothing ...               likewise
//
// PORTS are as in "tcp/5432, udp/53, icmp". Without them, "reaches" is about some port, and all others are about every port.
func ParseAssertion(text string) (Assertion, error) {
	m := sentence.FindStringSubmatch(strings.Join(strings.Fields(text), " "))
	if m == nil {
		return Assertion{}, fmt.Errorf("%q is no assertion: write FROM reaches TO on tcp/80, or FROM does not reach TO", text)
	}
	a := Assertion{text: m[0], from: groupOf(m[1]), to: groupOf(m[3]), reaches: m[2] == "reaches"}
	switch {
	case a.from.nothing && a.to.nothing:
		return a, fmt.Errorf("%q says nothing on both sides: name one of them", text)
	case !a.reaches && (a.from.nothing || a.to.nothing):
		return a, fmt.Errorf("%q says no twice: write reaches", text)
	}
	if m[4] == "" {
		return a, nil
	}
	for _, part := range strings.Split(m[4], ",") {
		p, err := parsePort(strings.TrimSpace(part))
		if err != nil {
			return a, fmt.Errorf("%q: %w", text, err)
		}
		a.ports = append(a.ports, p)
	}
	return a, nil
}

func groupOf(text string) group {
	m := nothing.FindStringSubmatch(text)
	if m == nil {
		return group{name: text}
	}
	g := group{nothing: true}
	if m[1] == "in" {
		g.in = m[2]
	} else {
		g.notIn = m[2]
	}
	if m[3] != "" {
		for _, but := range strings.Split(m[3], ",") {
			g.but = append(g.but, strings.TrimSpace(but))
		}
	}
	return g
}

// parsePort reads "tcp/80" or "icmp".
func parsePort(text string) (Port, error) {
	protocol, number, ok := strings.Cut(strings.ToLower(text), "/")
	p := Port{Protocol: ProtocolNamed(protocol)}
	if p.Protocol == 0 || ok != p.Protocol.HasPorts() {
		return p, fmt.Errorf("%q is no port: write tcp/80, udp/53, sctp/38412 or icmp", text)
	}
	if !ok {
		return p, nil
	}
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil || n == 0 {
		return p, fmt.Errorf("port %q is none: write a number from 1 to 65535", number)
	}
	p.Number = uint16(n)
	return p, nil
}

// String is the sentence.
func (a Assertion) String() string { return a.text }

// Check says in what a cluster differs from an assertion: nothing, if it holds. The error says that the assertion is about something that is not there.
func (c *Cluster) Check(a Assertion, namespace string) ([]string, error) {
	if a.from.nothing || a.to.nothing {
		return c.checkNothing(a, namespace)
	}
	from, err := c.Ends(a.from.name, namespace)
	if err != nil {
		return nil, err
	}
	to, err := c.Ends(a.to.name, namespace)
	if err != nil {
		return nil, err
	}
	var differs []string
	for _, src := range from {
		for _, dst := range to {
			if src.Name != dst.Name {
				differs = append(differs, c.checkPair(a, src, dst)...)
			}
		}
	}
	return differs, nil
}

// checkPair checks one pair of ends.
func (c *Cluster) checkPair(a Assertion, src, dst End) []string {
	if len(a.ports) == 0 {
		allowed := c.allowedPorts(src, dst)
		switch {
		case a.reaches && len(allowed) == 0:
			return []string{fmt.Sprintf("%s reaches %s at no port", src.Name, dst.Name)}
		case !a.reaches && len(allowed) > 0:
			return []string{fmt.Sprintf("%s reaches %s at %s", src.Name, dst.Name, PortsText(allowed))}
		}
		return nil
	}
	var differs []string
	for _, p := range a.ports {
		answer := c.Why(src, dst, p)
		for _, path := range answer.Paths {
			if path.Allowed != a.reaches {
				differs = append(differs, fmt.Sprintf("%s to %s on %s: %s", src.Name, dst.Name, p, path.because()))
			}
		}
		if len(answer.Paths) == 0 && a.reaches {
			differs = append(differs, fmt.Sprintf("%s and %s have no addresses of one family", src.Name, dst.Name))
		}
	}
	return differs
}

// because is what decides about a path.
func (p Path) because() string {
	var reasons []string
	for _, v := range p.Verdicts {
		if v.Allowed == p.Allowed {
			reasons = append(reasons, v.Reason)
		}
	}
	if len(reasons) == 0 {
		return "no policy is about either end"
	}
	return strings.Join(reasons, "; ")
}

// checkNothing looks for an edge that is not to be.
func (c *Cluster) checkNothing(a Assertion, namespace string) ([]string, error) {
	g, named := a.from, a.to
	if a.to.nothing {
		g, named = a.to, a.from
	}
	ends, err := c.Ends(named.name, namespace)
	if err != nil {
		return nil, err
	}
	if ends[0].Pod == nil {
		return nil, fmt.Errorf("%s is no pod, and policies are about pods", named.name)
	}
	if in := g.in + g.notIn; in != "" && c.parts.namespaceNamed[in] == nil {
		return nil, fmt.Errorf("there is no namespace %s", in)
	}
	but := map[string]bool{}
	for _, name := range g.but {
		some, err := c.Ends(name, namespace)
		if err != nil {
			return nil, err
		}
		for _, e := range some {
			but[endWorkload(e)] = true
		}
	}
	concerned := func(of, workload string) bool {
		return !but[workload] && (g.in == "" || of == g.in) && (g.notIn == "" || of != g.notIn)
	}
	s := Selection{From: concerned, To: IsOneOf(ends), Outside: g.in == ""}
	if a.to.nothing {
		s.From, s.To = s.To, s.From
	}
	var differs []string
	for _, e := range c.Edges(s) {
		other := e.From
		if a.to.nothing {
			other = e.To
		}
		if ports := a.concerned(e.Ports); len(ports) > 0 && !but[other] {
			differs = append(differs, fmt.Sprintf("%s reaches %s at %s", e.From, e.To, PortsText(ports)))
		}
	}
	return differs, nil
}

// endWorkload is what edges call an end.
func endWorkload(e End) string {
	if e.Pod != nil {
		return Workload(e.Pod)
	}
	return e.Name
}

// concerned are the ports that the assertion is about, of some.
func (a Assertion) concerned(ports []PortsVerdict) []PortsVerdict {
	if len(a.ports) == 0 {
		return ports
	}
	return slices.DeleteFunc(slices.Clone(ports), func(p PortsVerdict) bool {
		return !slices.ContainsFunc(a.ports, func(q Port) bool {
			return p.Protocol == q.Protocol.String() && (!q.Protocol.HasPorts() || p.First <= q.Number && q.Number <= p.Last)
		})
	})
}
