package iptables

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

func TestPortsTakeAsFewMatchesAsMultiportAllows(t *testing.T) {
	tcp := func(ports ...uint16) []policy.PortRange {
		var all []policy.PortRange
		for i := 0; i < len(ports); i += 2 {
			all = append(all, policy.PortRange{Protocol: policy.TCP, First: ports[i], Last: ports[i+1]})
		}
		return all
	}
	tests := map[string]struct {
		ranges []policy.PortRange
		want   []string
	}{
		"one port":             {tcp(80, 80), []string{"-p tcp -m tcp --dport 80"}},
		"one range":            {tcp(80, 90), []string{"-p tcp -m tcp --dport 80:90"}},
		"up to the last port":  {tcp(1, 65535), []string{"-p tcp -m tcp --dport 1:65535"}},
		"all ports":            {[]policy.PortRange{policy.AllPorts(policy.SCTP)}, []string{"-p sctp"}},
		"a port of SCTP":       {[]policy.PortRange{{Protocol: policy.SCTP, First: 80, Last: 80}}, []string{"-p sctp -m multiport --dports 80"}},
		"several":              {tcp(80, 80, 443, 450), []string{"-p tcp -m multiport --dports 80,443:450"}},
		"a match per protocol": {append(tcp(53, 53), policy.PortRange{Protocol: policy.UDP, First: 53, Last: 53}), []string{"-p tcp -m tcp --dport 53", "-p udp -m udp --dport 53"}},
		"a range takes two of fifteen": {tcp(1, 2, 11, 12, 21, 22, 31, 32, 41, 42, 51, 52, 61, 62, 71, 72),
			[]string{"-p tcp -m multiport --dports 1:2,11:12,21:22,31:32,41:42,51:52,61:62", "-p tcp -m tcp --dport 71:72"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, m := range rangeMatches(tt.ranges) {
				got = append(got, m.port)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestBlocksBecomeEntriesThatHashNetTakes(t *testing.T) {
	tests := map[string]struct {
		prefix string
		except []string
		want   string
	}{
		"with exceptions":          {"10.0.0.0/8", []string{"10.1.0.0/16"}, "10.0.0.0/8|10.1.0.0/16 nomatch"},
		"everything is two halves": {"0.0.0.0/0", []string{"10.0.0.0/8"}, "0.0.0.0/1|10.0.0.0/8 nomatch|128.0.0.0/1"},
		"less its lower half":      {"0.0.0.0/0", []string{"0.0.0.0/1"}, "128.0.0.0/1"},
		"less its upper half":      {"::/0", []string{"8000::/1"}, "::/1"},
		"less both":                {"::/0", []string{"::/1", "8000::/1"}, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := policy.Block{Prefix: netip.MustParsePrefix(tt.prefix)}
			for _, x := range tt.except {
				b.Except = append(b.Except, netip.MustParsePrefix(x))
			}
			set := Set{Name: "s", Type: HashNet, Nets: unionEntries([]policy.Block{b})}
			var got []string
			for line := range strings.Lines(set.String()) {
				if entry, ok := strings.CutPrefix(strings.TrimSpace(line), "add s "); ok {
					got = append(got, entry)
				}
			}
			if text := strings.Join(got, "|"); text != tt.want {
				t.Errorf("got %q, want %q", text, tt.want)
			}
		})
	}
}

func TestNamesFitTheKernelAndNeverCollide(t *testing.T) {
	long := strings.Repeat("n", 63)
	name := strings.Repeat("x", 253)
	for _, l := range []Layout{OwnLayout, "2", "9999"} {
		for _, chain := range []string{
			l.groupChain(policy.Egress, []string{"NetworkPolicy", long, name}),
			l.treeChain(policy.Ingress, policyTree, "fd00:1234:5678:9abc:def0:1234:5678:9abc/128"),
			l.rootChain(policy.Ingress, policyTree), l.rootChain(policy.Ingress, adminTree), forwardChain, inputChain, l.denyChain(),
		} {
			if len(chain) > 28 || !strings.HasPrefix(chain, Prefix) {
				t.Errorf("chain %q has %d characters, want at most 28 after %s", chain, len(chain), Prefix)
			}
		}
		if s := l.setName(HashIPPort, IPv6, long, name); len(s) > 31 {
			t.Errorf("set %q has %d characters, want at most 31", s, len(s))
		}
	}
	a := OwnLayout.groupChain(policy.Egress, []string{"NetworkPolicy", "team", "ab"})
	b := OwnLayout.groupChain(policy.Egress, []string{"NetworkPolicy", "teama", "b"})
	if a == b {
		t.Errorf("policies team/ab and teama/b share the chain %s", a)
	}
	comment := ruleComment(policy.Ref{Kind: "NetworkPolicy", Namespace: long, Name: name}, policy.Ingress, policy.Rule{Index: 17})
	if len(comment) > 255 || !strings.HasSuffix(comment, ".. ingress[17]") {
		t.Errorf("the comment %q has %d characters, want at most 255, and the rule at its end", comment, len(comment))
	}
}
