package dataplane

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

func mustPrefix(t *testing.T, s string) netip.Prefix {
	t.Helper()
	if !strings.Contains(s, "/") {
		a, err := netip.ParseAddr(s)
		if err != nil {
			t.Fatal(err)
		}
		return netip.PrefixFrom(a, a.BitLen())
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var (
	empty = cmpopts.EquateEmpty()
	addrs = cmp.Options{cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), contents}
	// contents compares policy.Maps by what is in them.
	contents = cmp.Options{
		cmp.Transformer("sets", policy.Map[string, iptables.Set].Content), cmp.Transformer("chains", policy.Map[string, []iptables.Rule].Content),
	}
)

const wordy = `-m comment --comment "NetworkPolicy team-a/api-allow ingress[0]" `

// forms are the rules that we write. What reads back must be the same text.
var forms = []struct {
	name   string
	v4, v6 iptables.Rule // v6 is v4 where empty
}{
	{name: "established", v4: "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN"},
	{name: "few samples", v4: `-m limit --limit 1/sec --limit-burst 10 -j NFLOG --nflog-prefix "RF:x" --nflog-group 4210`},
	{name: "fewer samples", v4: `-m limit --limit 6/min --limit-burst 2 -j NFLOG --nflog-prefix "RF:x" --nflog-group 4210`},
	{name: "hardly any samples", v4: `-m limit --limit 1/min --limit-burst 1 -j NFLOG --nflog-prefix "RF:x" --nflog-group 4210`},
	{name: "jump", v4: "-j RF-LEAF"},
	{name: "goto", v4: "-g RF-LEAF"},
	{name: "drop", v4: wordy + "-j DROP"},
	{name: "comment of 250 bytes", v4: iptables.Rule(`-m comment --comment "` + strings.Repeat("word ", 49) + `words" -j RETURN`)},
	{name: "comment of one word", v4: `-m comment --comment "word" -j RETURN`},
	{name: "comment like an option", v4: `-m comment --comment "-j" -j RETURN`},
	{name: "comment with quotes and backslash", v4: `-m comment --comment "it\'s \"so\" \\ [0]" -j RETURN`},
	{name: "inner node", v4: `-s 10.244.1.16/28 ` + wordy + `-g RF-LEAF`, v6: `-s fd00:10:244:1::10/124 ` + wordy + `-g RF-LEAF`},
	{name: "leaf by source", v4: "-s 10.244.1.17/32 -g RF-LEAF", v6: "-s fd00:10:244:1::11/128 -g RF-LEAF"},
	{name: "leaf by destination", v4: "-d 10.244.1.17/32 -g RF-LEAF", v6: "-d fd00:10:244:1::11/128 -g RF-LEAF"},
	{name: "half of all", v4: "-s 128.0.0.0/1 -j RETURN", v6: "-s 8000::/1 -j RETURN"},
	{name: "zeros in the middle", v4: "-d 10.0.0.0/10 -j RETURN", v6: "-d 2001:db8:0:0:1::/80 -j RETURN"},
	{name: "IPv4 in IPv6", v4: "-d 10.0.0.1/32 -j RETURN", v6: "-d ::a00:1/128 -j RETURN"},
	{name: "mapped IPv4", v4: "-d 10.0.0.1/32 -j RETURN", v6: "-d ::ffff:10.0.0.1/128 -j RETURN"},
	{name: "all of TCP", v4: "-p tcp " + wordy + "-j RETURN"},
	{name: "all of SCTP", v4: "-p sctp -j RETURN"},
	{name: "ICMP", v4: "-p icmp -j RETURN", v6: "-p ipv6-icmp -j RETURN"},
	{name: "a protocol with a name elsewhere", v4: "-p 47 -j RETURN"},
	{name: "a protocol without a name", v4: "-p 253 -j RETURN"},
	{name: "neighbour discovery", v4: "-j RETURN", v6: "-p ipv6-icmp -m icmp6 --icmpv6-type 133 -j RETURN"},
	{name: "TCP port", v4: "-d 10.0.0.0/8 -p tcp -m tcp --dport 80 " + wordy + "-j RETURN",
		v6: "-d fd00::/8 -p tcp -m tcp --dport 80 " + wordy + "-j RETURN"},
	{name: "UDP port", v4: "-p udp -m udp --dport 53 " + wordy + "-j RETURN"},
	{name: "SCTP port", v4: "-p sctp -m sctp --dport 9999 " + wordy + "-j RETURN"},
	{name: "TCP range", v4: "-p tcp -m tcp --dport 30000:32767 " + wordy + "-j RETURN"},
	{name: "UDP range from 0", v4: "-p udp -m udp --dport 0:1023 " + wordy + "-j RETURN"},
	{name: "TCP range to the end", v4: "-p tcp -m tcp --dport 1:65535 " + wordy + "-j RETURN"},
	{name: "SCTP range", v4: "-p sctp -m sctp --dport 53:60 " + wordy + "-j RETURN"},
	{name: "ports", v4: "-p tcp -m multiport --dports 80,443,8080 " + wordy + "-j RETURN"},
	{name: "ports and ranges", v4: "-p udp -m multiport --dports 80,443:445,8080:8090 " + wordy + "-j RETURN"},
	{name: "SCTP ports", v4: "-p sctp -m multiport --dports 80,443:445 " + wordy + "-j RETURN"},
	{name: "15 ports", v4: "-p tcp -m multiport --dports 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15 " + wordy + "-j RETURN"},
	{name: "set of sources", v4: "-m set --match-set RF-v1-A src " + wordy + "-j RETURN"},
	{name: "set of destinations", v4: "-m set --match-set RF-v1-A dst " + wordy + "-j RETURN"},
	{name: "not in a set", v4: "-m set ! --match-set RF-v1-A dst " + wordy + "-j RETURN"},
	{name: "set of blocks", v4: "-m set --match-set RF-v1-N src " + wordy + "-j RETURN"},
	{name: "named port", v4: "-p tcp -m set --match-set RF-v1-P dst,dst " + wordy + "-j RETURN"},
	{name: "port and set", v4: "-p tcp -m tcp --dport 80 -m set --match-set RF-v1-A src " + wordy + "-j RETURN"},
	{name: "ports and set", v4: "-p tcp -m multiport --dports 80,90 -m set --match-set RF-v1-A src " + wordy + "-j RETURN"},
	{name: "named port and peers", v4: "-p tcp -m set --match-set RF-v1-P dst,dst -m set --match-set RF-v1-A src " + wordy + "-j RETURN"},
	{name: "self",
		v4: `-m bpf --bytecode "6,32 0 0 12,7 0 0 0,32 0 0 16,29 0 1 0,6 0 0 1,6 0 0 0" ` + wordy + `-j RETURN`,
		v6: `-m bpf --bytecode "18,32 0 0 8,7 0 0 0,32 0 0 24,29 0 13 0,32 0 0 12,7 0 0 0,32 0 0 28,29 0 9 0,32 0 0 16,7 0 0 0,` +
			`32 0 0 32,29 0 5 0,32 0 0 20,7 0 0 0,32 0 0 36,29 0 1 0,6 0 0 1,6 0 0 0" ` + wordy + `-j RETURN`},
}

func TestEachRuleReadsBackAsWritten(t *testing.T) {
	onEach(t, func(t *testing.T, d subject) {
		var p iptables.Plan
		p.Restore = map[iptables.Family]string{}
		want := iptables.Ruleset{Tables: map[iptables.Family]iptables.Table{}}
		for _, f := range iptables.Families {
			suffix := map[iptables.Family]string{iptables.IPv4: "4", iptables.IPv6: "6"}[f]
			rules := map[string][]iptables.Rule{"RF-LEAF": nil}
			for _, form := range forms {
				r := form.v4
				if f == iptables.IPv6 && form.v6 != "" {
					r = form.v6
				}
				for _, s := range []string{"A", "N", "P"} {
					r = iptables.Rule(strings.ReplaceAll(string(r), "RF-v1-"+s+" ", "RF-v1-"+suffix+s+" "))
				}
				rules["RF-FORMS"] = append(rules["RF-FORMS"], r)
			}
			p.CreateSets = append(p.CreateSets, set(t, "RF-v1-"+suffix+"A", iptables.HashIP, f),
				set(t, "RF-v1-"+suffix+"N", iptables.HashNet, f), set(t, "RF-v1-"+suffix+"P", iptables.HashIPPort, f))
			p.Restore[f] = chains(securityTable, rules)
			want.Tables[f] = iptables.Table{Name: securityTable, Chains: policy.MapOf(rules), Jumps: map[string][]int{}}
		}
		mustApply(t, d, p)
		got := mustObserve(t, d)
		if diff := cmp.Diff(want.Tables, got.Tables, contents, empty); diff != "" {
			t.Errorf("rules read back (-written +read):\n%s", diff)
		}
		for _, f := range iptables.Families {
			for _, r := range got.Tables[f].Chains.Get("RF-FORMS") {
				if c := Canonical(r); c != r {
					t.Errorf("Canonical is not at rest:\n%s\n%s", r, c)
				}
			}
		}
	})
}

func TestCanonical(t *testing.T) {
	for _, c := range []struct {
		name          string
		printed, want iptables.Rule
	}{
		{"an unquoted comment", "-m comment --comment word -j RETURN", `-m comment --comment "word" -j RETURN`},
		{"an unquoted comment like an option", "-m comment --comment -j -j RETURN", `-m comment --comment "-j" -j RETURN`},
		{"a quote that is not escaped", `-m comment --comment "it's" -j RETURN`, `-m comment --comment "it\'s" -j RETURN`},
		{"the comment in front", `-m comment --comment "a b" -m set --match-set X src -j RETURN`,
			`-m set --match-set X src -m comment --comment "a b" -j RETURN`},
		{"matches in another order", `-p tcp -m set --match-set X src -m tcp --dport 80 -g C`,
			`-p tcp -m tcp --dport 80 -m set --match-set X src -g C`},
		{"addresses behind the protocol", "-p tcp -d 10.0.0.0/8 -s 10.1.0.0/16 -j C", "-s 10.1.0.0/16 -d 10.0.0.0/8 -p tcp -j C"},
		{"two sets keep their order", "-m set --match-set B src -m set --match-set A dst -j C",
			"-m set --match-set B src -m set --match-set A dst -j C"},
		{"a protocol match without options", "-p tcp -m tcp -j C", "-p tcp -j C"},
		{"protocol numbers", "-p 6 -j C", "-p tcp -j C"},
		{"SCTP without /etc/protocols", "-p 132 -j C", "-p sctp -j C"},
		{"the other name of ICMPv6", "-p icmpv6 -m icmp6 --icmpv6-type 133 -j C", "-p ipv6-icmp -m icmp6 --icmpv6-type 133 -j C"},
		{"a name that we give a number", "-p esp -j C", "-p 50 -j C"},
		{"any protocol", "-p all -j C", "-j C"},
		{"any address", "-s 0.0.0.0/0 -d ::/0 -j C", "-j C"},
		{"but not none", "! -s 0.0.0.0/0 -j C", "! -s 0.0.0.0/0 -j C"},
		{"an address without its length", "-s 10.0.0.1 -d fd00::1 -j C", "-s 10.0.0.1/32 -d fd00::1/128 -j C"},
		{"an address with bits beyond its length", "-s 10.0.0.1/8 -j C", "-s 10.0.0.0/8 -j C"},
		{"IPv4 within IPv6", "-s ::10.0.0.1/128 -j C", "-s ::a00:1/128 -j C"},
		{"a mask with holes", "-s 10.0.0.1/255.0.0.255 -j C", "-s 10.0.0.1/255.0.0.255 -j C"},
		{"a negated address", "! -s 10.0.0.1 -p tcp -j C", "! -s 10.0.0.1/32 -p tcp -j C"},
		{"a negated set", "-m set ! --match-set X src -p tcp -j C", "-p tcp -m set ! --match-set X src -j C"},
		{"a set that has an option's name", "-m set --match-set -j src -p tcp -j C", "-p tcp -m set --match-set -j src -j C"},
		{"a comment that is not quoted, and looks like an option", "-m comment --comment --match-set -p tcp -j C", `-p tcp -m comment --comment "--match-set" -j C`},
		{"an option without its value", "-m comment -p tcp --comment", "-m comment -p tcp --comment"},
		{"states in another order", "-m conntrack --ctstate ESTABLISHED,RELATED -j C", "-m conntrack --ctstate RELATED,ESTABLISHED -j C"},
		{"an open range", "-p tcp -m tcp --dport :80 -j C", "-p tcp -m tcp --dport 0:80 -j C"},
		{"a range open above", "-p tcp -m multiport --dports 80,1024: -j C", "-p tcp -m multiport --dports 80,1024:65535 -j C"},
		{"a range of one", "-p tcp -m tcp --dport 80:80 -j C", "-p tcp -m tcp --dport 80 -j C"},
		{"blanks", `-p tcp   -m comment --comment "a  b"  -j C `, `-p tcp -m comment --comment "a  b" -j C`},
		{"an unknown match", "-m frob --nicate 1 -p tcp -j MARK --set-xmark 0x1/0xff", "-p tcp -m frob --nicate 1 -j MARK --set-xmark 0x1/0xff"},
		{"a quote without end", `-m comment --comment "a b`, `-m comment --comment "a b"`},
		{"nothing", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := Canonical(c.printed)
			if got != c.want {
				t.Errorf("Canonical(%s)\n got %s\nwant %s", c.printed, got, c.want)
			}
			if again := Canonical(got); again != got {
				t.Errorf("Canonical changes its own result to %s", again)
			}
		})
	}
}

// FuzzCanonical: whatever stands in a chain, reading it ends, and the result is at rest.
func FuzzCanonical(f *testing.F) {
	for _, form := range forms {
		f.Add(string(form.v4))
	}
	f.Fuzz(func(t *testing.T, s string) {
		once := Canonical(iptables.Rule(s))
		if twice := Canonical(once); twice != once {
			t.Errorf("Canonical of %q is %q, and of that %q", s, once, twice)
		}
	})
}

// Some sets can be read alone; one that is not there is not among them.
func TestSetsAreReadByName(t *testing.T) {
	onEach(t, func(t *testing.T, d subject) {
		one := set(t, "RF-v1-4A-one", iptables.HashIP, iptables.IPv4, "10.0.0.1", "10.0.0.2")
		six := set(t, "RF-v1-6A-six", iptables.HashIP, iptables.IPv6, "fd00::1")
		empty := set(t, "RF-v1-4A-empty", iptables.HashIP, iptables.IPv4)
		mustApply(t, d, iptables.Plan{CreateSets: []iptables.Set{one, six, empty, set(t, "RF-v1-4A-other", iptables.HashIP, iptables.IPv4, "10.0.0.3")}})
		got, err := d.ObserveSets(t.Context(), []string{one.Name, "RF-v1-4A-none", six.Name, empty.Name}, iptables.Ruleset{})
		if err != nil {
			t.Fatal(err)
		}
		all := mustObserve(t, d).Sets
		want := map[string]iptables.Set{one.Name: all.Get(one.Name), six.Name: all.Get(six.Name), empty.Name: all.Get(empty.Name)}
		if want[one.Name].Len() != 2 || !reflect.DeepEqual(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}
