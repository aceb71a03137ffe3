package trace

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const self4 = `"6,32 0 0 12,7 0 0 0,32 0 0 16,29 0 1 0,6 0 0 1,6 0 0 0"`

func tcpPacket(src, dst string, port uint16) Packet {
	return Packet{Src: netip.MustParseAddr(src), Dst: netip.MustParseAddr(dst), Protocol: tcp, DstPort: port}
}

// TestWalk: how rules of a table and entries of sets decide about packets, one behaviour per row.
func TestWalk(t *testing.T) {
	plain := tcpPacket("10.0.0.1", "10.0.0.2", 80)
	for _, row := range []struct {
		name   string
		table  string
		sets   string
		packet Packet
		want   Verdict
	}{
		{name: "an empty base chain accepts", packet: plain, want: Verdict{Passed: true}},
		{name: "a rule without a target goes on", packet: plain,
			table: "-A FORWARD -p tcp\n-A FORWARD -j DROP",
			want:  Verdict{Hits: []string{"FORWARD -p tcp", "FORWARD -j DROP"}}},
		{name: "a chain that ends returns behind its jump", packet: plain,
			table: ":A -\n-A A -s 10.0.0.9/32 -j DROP\n-A FORWARD -j A\n-A FORWARD -j DROP",
			want:  Verdict{Hits: []string{"FORWARD -j A", "FORWARD -j DROP"}}},
		{name: "RETURN from a goto continues behind the last jump", packet: plain,
			table: ":A -\n:B -\n-A B -j RETURN\n-A A -g B\n-A A -j DROP\n-A FORWARD -j A\n-A FORWARD -j ACCEPT",
			want:  Verdict{Passed: true, Hits: []string{"FORWARD -j A", "A -g B", "B -j RETURN", "FORWARD -j ACCEPT"}}},
		{name: "RETURN from a jump continues behind that jump", packet: plain,
			table: ":A -\n:B -\n-A B -j RETURN\n-A A -j B\n-A A -j DROP\n-A FORWARD -j A\n-A FORWARD -j ACCEPT",
			want:  Verdict{Hits: []string{"FORWARD -j A", "A -j B", "B -j RETURN", "A -j DROP"}}},
		{name: "a goto from a base chain returns to its policy", packet: plain,
			table: ":A -\n-A A -j RETURN\n-A FORWARD -g A\n-A FORWARD -j DROP",
			want:  Verdict{Passed: true, Hits: []string{"FORWARD -g A", "A -j RETURN"}}},
		{name: "every match must hold", packet: plain,
			table: "-A FORWARD -s 10.0.0.0/24 -d 10.0.0.2/32 -p tcp -m tcp --dport 81 -j DROP\n-A FORWARD -d 10.0.0.2/32 -p udp -j DROP"},
		{name: "ports and ranges of multiport", packet: plain,
			table: "-A FORWARD -p tcp -m multiport --dports 1,79:80 -j DROP",
			want:  Verdict{Hits: []string{"FORWARD -p tcp -m multiport --dports 1,79:80 -j DROP"}}},
		{name: "the longest prefix of hash:net decides", packet: plain,
			table: "-A FORWARD -m set --match-set N src -j DROP",
			sets:  "create N hash:net family inet\nadd N 10.0.0.0/8\nadd N 10.0.0.0/24 nomatch"},
		{name: "a longer match inside of a nomatch", packet: plain,
			table: "-A FORWARD -m set --match-set N src -j DROP",
			sets:  "create N hash:net family inet\nadd N 10.0.0.0/8\nadd N 10.0.0.0/24 nomatch\nadd N 10.0.0.1",
			want:  Verdict{Hits: []string{"FORWARD -m set --match-set N src -j DROP"}}},
		{name: "hash:ip compares with the side that is named", packet: plain,
			table: "-A FORWARD -m set --match-set A src -j DROP\n-A FORWARD -m set --match-set A dst -j ACCEPT",
			sets:  "create A hash:ip family inet hashsize 64\nadd A 10.0.0.2",
			want:  Verdict{Passed: true, Hits: []string{"FORWARD -m set --match-set A dst -j ACCEPT"}}},
		{name: "hash:ip,port compares protocol and port too", packet: plain,
			table: "-A FORWARD -m set --match-set P dst,dst -j DROP",
			sets:  "create P hash:ip,port family inet\nadd P 10.0.0.2,udp:80\nadd P 10.0.0.2,tcp:81\nadd P 10.0.0.1,tcp:80"},
		{name: "the self match lets others by", packet: plain,
			table: "-A FORWARD -m bpf --bytecode " + self4 + " -j DROP"},
		{name: "the self match holds for a packet to itself", packet: tcpPacket("10.0.0.1", "10.0.0.1", 80),
			table: "-A FORWARD -m bpf --bytecode " + self4 + " -j DROP",
			want:  Verdict{Hits: []string{"FORWARD -m bpf --bytecode " + self4 + " -j DROP"}}},
		{name: "a first packet is not established", packet: plain,
			table: "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j DROP"},
		{name: "a later one is", packet: Packet{Src: plain.Src, Dst: plain.Dst, Protocol: tcp, State: "ESTABLISHED"},
			table: "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n-A FORWARD -j DROP",
			want:  Verdict{Passed: true, Hits: []string{"FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"}}},
		{name: "a later one has none of the other states", packet: Packet{Src: plain.Src, Dst: plain.Dst, Protocol: tcp, State: "ESTABLISHED"},
			table: "-A FORWARD -m conntrack ! --ctstate RELATED,ESTABLISHED -j DROP"},
		{name: "a first packet has", packet: plain,
			table: "-A FORWARD -m conntrack ! --ctstate RELATED,ESTABLISHED -j DROP", want: Verdict{Hits: []string{"FORWARD -m conntrack ! --ctstate RELATED,ESTABLISHED -j DROP"}}},
		{name: "hash:ip,port,ip compares destination and port, and the source", packet: plain,
			table: "-A FORWARD -m set --match-set C dst,dst,src -j DROP",
			sets:  "create C hash:ip,port,ip family inet timeout 10\nadd C 10.0.0.2,tcp:80,10.0.0.1 timeout 9",
			want:  Verdict{Hits: []string{"FORWARD -m set --match-set C dst,dst,src -j DROP"}}},
		{name: "hash:ip,port,ip leaves alone what differs in one of them", packet: plain,
			table: "-A FORWARD -m set --match-set C dst,dst,src -j DROP",
			sets: "create C hash:ip,port,ip family inet\nadd C 10.0.0.2,tcp:81,10.0.0.1\nadd C 10.0.0.2,udp:80,10.0.0.1\nadd C 10.0.0.2,tcp:80,10.0.0.3\n" +
				"add C 10.0.0.1,tcp:80,10.0.0.2"},
		{name: "a SYN begins a connection", packet: plain,
			table: "-A FORWARD -p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -j DROP"},
		{name: "a packet in mid-stream does not", packet: Packet{Src: plain.Src, Dst: plain.Dst, Protocol: tcp, MidStream: true},
			table: "-A FORWARD -p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -j DROP",
			want:  Verdict{Hits: []string{"FORWARD -p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -j DROP"}}},
		{name: "comments say nothing", packet: plain,
			table: `-A FORWARD -m comment --comment "-j ACCEPT \" it's" -j DROP`,
			want:  Verdict{Hits: []string{`FORWARD -m comment --comment "-j ACCEPT \" it's" -j DROP`}}},
	} {
		t.Run(row.name, func(t *testing.T) {
			k, err := Load(map[Family]string{4: row.table}, row.sets)
			if err != nil {
				t.Fatal(err)
			}
			got, err := k.Walk("FORWARD", row.packet)
			if err != nil {
				t.Fatal(err)
			}
			if len(row.want.Hits) == 0 {
				row.want.Passed = true
			}
			if diff := cmp.Diff(row.want, got); diff != "" {
				t.Errorf("verdict (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWalkIPv6(t *testing.T) {
	self6 := `"18,32 0 0 8,7 0 0 0,32 0 0 24,29 0 13 0,32 0 0 12,7 0 0 0,32 0 0 28,29 0 9 0,` +
		`32 0 0 16,7 0 0 0,32 0 0 32,29 0 5 0,32 0 0 20,7 0 0 0,32 0 0 36,29 0 1 0,6 0 0 1,6 0 0 0"`
	k, err := Parse("# inet6\n*security\n-A FORWARD -p ipv6-icmp -m icmp6 --icmpv6-type 135 -j ACCEPT\n" +
		"-A FORWARD -m bpf --bytecode " + self6 + " -j ACCEPT\n-A FORWARD -m set --match-set N dst -j DROP\nCOMMIT\n" +
		"create N hash:net family inet6\nadd N ::/1\nadd N 8000::/1\nadd N fd00::/16 nomatch\n")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		src, dst string
		protocol uint8
		icmpType uint8
		want     bool
	}{
		{"2001:db8::1", "2001:db8::2", tcp, 0, false},
		{"2001:db8::1", "2001:db8::1", tcp, 0, true},
		{"2001:db8:0:1::1", "2001:db8:0:2::1", tcp, 0, false},
		{"2001:db8::1", "fd00::1", tcp, 0, true},
		{"2001:db8::1", "2001:db8::2", icmpv6, 135, true},
		{"2001:db8::1", "2001:db8::2", icmpv6, 128, false},
	} {
		v, err := k.Walk("FORWARD", Packet{Src: netip.MustParseAddr(row.src), Dst: netip.MustParseAddr(row.dst), Protocol: row.protocol, Type: row.icmpType})
		if err != nil || v.Passed != row.want {
			t.Errorf("%+v: got %v, %v", row, v, err)
		}
	}
}

// TestRefused: what the tracer does not know, and what the kernel would not take, is an error.
func TestRefused(t *testing.T) {
	sets := "create A hash:ip family inet\ncreate P hash:ip,port family inet\ncreate A6 hash:ip family inet6\n"
	for name, row := range map[string]struct{ table, sets, want string }{
		"an unknown option":                 {table: "-A FORWARD -i eth0 -j DROP", want: "no such option"},
		"an unknown module":                 {table: "-A FORWARD -m owner --uid-owner 0 -j DROP", want: "not known"},
		"an unknown target":                 {table: "-A FORWARD -j REJECT", want: "does not exist"},
		"a negation":                        {table: "-A FORWARD ! -s 10.0.0.0/8 -j DROP", want: "no such option"},
		"a chain that is not declared":      {table: "-A NOWHERE -j DROP", want: "not declared"},
		"a set that does not exist":         {table: "-A FORWARD -m set --match-set X src -j DROP", want: "does not exist"},
		"a set of the other family":         {table: "-A FORWARD -m set --match-set A6 src -j DROP", want: "another family"},
		"dimensions that do not fit":        {table: "-A FORWARD -m set --match-set P dst -j DROP", want: "do not fit"},
		"an address of the other family":    {table: "-A FORWARD -s fd00::/8 -j DROP", want: "family"},
		"bits behind the prefix":            {table: "-A FORWARD -s 10.0.0.1/8 -j DROP", want: "bits"},
		"a port without its protocol":       {table: "-A FORWARD -m tcp --dport 80 -j DROP", want: "wants -p"},
		"multiport without protocol":        {table: "-A FORWARD -m multiport --dports 80,81 -j DROP", want: "wants a protocol"},
		"too many ports":                    {table: "-A FORWARD -p tcp -m multiport --dports 1,2,3,4,5,6,7,8,9,10,11,12,13,14:15,16 -j DROP", want: "slots"},
		"two ports for one":                 {table: "-A FORWARD -p tcp -m tcp --dport 80,81 -j DROP", want: "one port"},
		"icmp6 in IPv4":                     {table: "-A FORWARD -p ipv6-icmp -m icmp6 --icmpv6-type 135 -j DROP", want: "wants"},
		"a program of the wrong length":     {table: `-A FORWARD -m bpf --bytecode "2,6 0 0 1" -j DROP`, want: "announced"},
		"a circle":                          {table: ":A -\n:B -\n-A A -j B\n-A B -g A", want: "back to itself"},
		"a chain with a long name":          {table: ":" + strings.Repeat("c", 29) + " -", want: "28 are allowed"},
		"a set with a long name":            {sets: "create " + strings.Repeat("s", 32) + " hash:ip family inet", want: "31 are allowed"},
		"a prefix of length 0 in a set":     {sets: "create N hash:net family inet\nadd N 0.0.0.0/0", want: "length 0"},
		"an entry of the other family":      {sets: "add A fd00::1", want: "family"},
		"an entry twice":                    {sets: "add A 10.0.0.1\nadd A 10.0.0.1", want: "already"},
		"an unknown set type":               {sets: "create X list:set family inet", want: "not known"},
		"nomatch in a set of addresses":     {sets: "add A 10.0.0.1 nomatch", want: "nomatch"},
		"a protocol without ports in a set": {sets: "add P 10.0.0.1,icmp:8", want: "no ports"},
		"two targets":                       {table: "-A FORWARD -j DROP -j ACCEPT", want: "twice"},
		"an open quote":                     {table: `-A FORWARD -m comment --comment "a -j DROP`, want: "quote"},
		"an option without argument":        {table: "-A FORWARD -j", want: "argument"},
		"a comment that is too long":        {table: `-A FORWARD -m comment --comment "` + strings.Repeat("x", 256) + `" -j DROP`, want: "255"},
		"an unknown instruction":            {table: `-A FORWARD -m bpf --bytecode "2,128 0 0 0,6 0 0 1" -j DROP`, want: "instruction"},
	} {
		t.Run(name, func(t *testing.T) {
			k, err := Load(map[Family]string{4: row.table}, sets+row.sets)
			if err == nil {
				_, err = k.Walk("FORWARD", tcpPacket("10.0.0.1", "10.0.0.2", 80))
			}
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v, want an error with %q", err, row.want)
			}
		})
	}
}

func TestChainsNestTooDeeply(t *testing.T) {
	var b strings.Builder
	for i := range 18 {
		b.WriteString(":" + strings.Repeat("c", i+1) + " -\n")
	}
	for i := range 17 {
		b.WriteString("-A " + strings.Repeat("c", i+1) + " -g " + strings.Repeat("c", i+2) + "\n")
	}
	b.WriteString("-A FORWARD -j c\n")
	if _, err := Load(map[Family]string{4: b.String()}, ""); err == nil || !strings.Contains(err.Error(), "deeper") {
		t.Errorf("got %v, want an error", err)
	}
}
