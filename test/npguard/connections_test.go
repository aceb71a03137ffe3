package npguard

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/ringfence-io/ringfence/internal/query"
	"github.com/ringfence-io/ringfence/test/kit"
)

// connection is one between workloads, or between a workload and an address outside.
type connection struct{ from, to string }

// listed are the connections of a list, with their ports as text. Addresses are told apart where the list does.
type listed struct {
	between map[connection]string
	outside []outer
}

// outer are connections with addresses outside.
type outer struct {
	addrs    span
	workload string
	inwards  bool
	ports    string
}

type span struct{ first, last netip.Addr }

func (s span) contains(a netip.Addr) bool { return s.first.Compare(a) <= 0 && a.Compare(s.last) <= 0 }

// parseSpan reads "10.0.0.0-10.0.0.255", and blocks.
func parseSpan(text string) (span, bool) {
	if p, err := netip.ParsePrefix(text); err == nil {
		last := p.Masked().Addr().AsSlice()
		for i := p.Bits(); i < len(last)*8; i++ {
			last[i/8] |= 0x80 >> (i % 8)
		}
		a, _ := netip.AddrFromSlice(last)
		return span{p.Masked().Addr(), a}, true
	}
	first, last, _ := strings.Cut(text, "-")
	a, errFirst := netip.ParseAddr(first)
	b, errLast := netip.ParseAddr(last)
	return span{a, b}, errFirst == nil && errLast == nil
}

// expected reads a list of the analyzer, whose lines are "FROM => TO : PORTS".
func expected(t *testing.T, file string) listed {
	t.Helper()
	text, err := os.ReadFile(file)
	kit.Must(t, err)
	l := listed{between: map[connection]string{}}
	for line := range strings.Lines(string(text)) {
		ends, ports, ok := strings.Cut(strings.TrimSpace(line), " : ")
		if !ok || strings.Contains(line, "{ingress-controller}") {
			continue
		}
		from, to, ok := strings.Cut(ends, " => ")
		if !ok {
			t.Fatalf("%s: %q has no two ends", file, line)
		}
		l.add(strings.TrimSpace(from), strings.TrimSpace(to), theirPorts(ports))
	}
	return l
}

func (l *listed) add(from, to, ports string) {
	if s, ok := parseSpan(from); ok {
		l.outside = append(l.outside, outer{s, to, true, ports})
	} else if s, ok := parseSpan(to); ok {
		l.outside = append(l.outside, outer{s, from, false, ports})
	} else {
		l.between[connection{from, to}] = ports
	}
}

// of are the ports of connections between a workload and an address.
func (l *listed) of(workload string, a netip.Addr, inwards bool) string {
	for _, o := range l.outside {
		if o.workload == workload && o.inwards == inwards && o.addrs.contains(a) {
			return o.ports
		}
	}
	return ""
}

// theirPorts reads "TCP 80,90-99,UDP 53".
func theirPorts(text string) string {
	if text == "All Connections" {
		text = "TCP 1-65535,UDP 1-65535,SCTP 1-65535"
	}
	var all []string
	protocol := ""
	for part := range strings.SplitSeq(text, ",") {
		if name, ports, ok := strings.Cut(strings.TrimSpace(part), " "); ok {
			protocol, part = strings.ToLower(name), ports
		}
		first, last, ok := strings.Cut(part, "-")
		if !ok {
			last = first
		}
		all = append(all, fmt.Sprintf("%s %s-%s", protocol, first, last))
	}
	slices.Sort(all)
	return strings.Join(all, ",")
}

// ourPorts are the same of an answer. The analyzer does not speak of protocols without ports.
func ourPorts(ports []query.PortsVerdict) string {
	var all []string
	for _, p := range ports {
		if p.Allowed && p.First > 0 {
			all = append(all, fmt.Sprintf("%s %d-%d", p.Protocol, p.First, p.Last))
		}
	}
	slices.Sort(all)
	return strings.Join(all, ",")
}

// answered is the same list by the answers to who-can, in the analyzer's names.
func answered(t *testing.T, dir string) (l listed, pods map[netip.Addr]bool) {
	t.Helper()
	g := read(t, dir)
	c := query.New(g.Objects)
	edges := map[connection]query.Edge{}
	theirs := map[string]map[string]bool{} // by our names
	for _, e := range c.Edges(query.Selection{Outside: true}) {
		edges[connection{e.From, e.To}] = e
	}
	l, pods = listed{between: map[connection]string{}}, map[netip.Addr]bool{}
	ends := make([]query.End, len(g.Pods))
	for i, p := range g.Pods {
		found, err := c.Ends(p.Namespace+"/pod/"+p.Name, "")
		kit.Must(t, err)
		ends[i] = found[0]
		for _, a := range ends[i].Addrs {
			pods[a] = true
		}
		if ours := query.Workload(p); theirs[ours] == nil {
			theirs[ours] = map[string]bool{}
		}
		theirs[query.Workload(p)][theirName(p)] = true
	}
	for i, p := range g.Pods {
		for j, q := range g.Pods {
			k := connection{theirName(p), theirName(q)}
			if k.from == k.to {
				continue
			}
			e := edges[connection{query.Workload(p), query.Workload(q)}]
			ports := ourPorts(e.Ports)
			if e.Partly || query.Workload(p) == query.Workload(q) {
				ports = ourPorts(c.Ports(ends[i], ends[j]))
			}
			if before, ok := l.between[k]; ok && before != ports {
				t.Errorf("%v: %q for one of the pods, and %q for another", k, before, ports)
			}
			l.between[k] = ports
		}
	}
	for _, e := range edges {
		l.addOutside(theirs, e)
	}
	return l, pods
}

// addOutside adds the connections of an edge with addresses outside.
func (l *listed) addOutside(theirs map[string]map[string]bool, e query.Edge) {
	blocks, ours, inwards := e.From, e.To, true
	if theirs[ours] == nil {
		blocks, ours, inwards = e.To, e.From, false
	}
	for block := range strings.SplitSeq(blocks, ", ") {
		if s, ok := parseSpan(block); ok {
			for workload := range theirs[ours] {
				l.outside = append(l.outside, outer{s, workload, inwards, ourPorts(e.Ports)})
			}
		}
	}
}

func TestWhoCanAgreesWithTheListsOfAnother(t *testing.T) {
	facts := 0
	for _, f := range fixtures(t) {
		t.Run(f.name, func(t *testing.T) {
			want := expected(t, f.expected)
			got, pods := answered(t, f.objects)
			facts += agree(t, want, got, pods)
		})
	}
	t.Logf("%d connections that are listed, or are not", facts)
	if facts < 70_000 {
		t.Errorf("%d connections were compared: there are more", facts)
	}
}

// agree compares two lists: for each two workloads, and each workload with the first and the last address of whatever either tells apart. It returns how many
// connections these are.
func agree(t *testing.T, want, got listed, pods map[netip.Addr]bool) (facts int) {
	t.Helper()
	workloads := map[string]bool{}
	all := maps.Clone(got.between)
	maps.Copy(all, want.between)
	for k := range all {
		facts++
		workloads[k.from], workloads[k.to] = true, true
		if want.between[k] != got.between[k] {
			t.Errorf("from %s to %s: %q, want %q", k.from, k.to, got.between[k], want.between[k])
		}
	}
	addrs := map[netip.Addr]bool{}
	isAbout6 := false
	for _, o := range want.outside {
		addrs[o.addrs.first], addrs[o.addrs.last] = true, true
		isAbout6 = isAbout6 || o.addrs.first.Is6()
		workloads[o.workload] = true
	}
	for _, o := range got.outside {
		if o.addrs.first.Is4() || isAbout6 {
			addrs[o.addrs.first], addrs[o.addrs.last] = true, true
		}
		workloads[o.workload] = true
	}
	for a := range addrs {
		if pods[a] {
			continue
		}
		for w := range workloads {
			for _, inwards := range []bool{true, false} {
				facts++
				if want, got := want.of(w, a, inwards), got.of(w, a, inwards); want != got {
					t.Errorf("%s and %s, from outside: %t: %q, want %q", w, a, inwards, got, want)
				}
			}
		}
	}
	return facts
}
