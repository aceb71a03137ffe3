package iptables

import "fmt"

// Extension is something that rules are made of and that a kernel may lack: a match, behind -m, or a target, behind -j. Whatever a rule names stands in
// [Extensions], so that a node is asked for each before a rule relies on it: where one is missing, iptables-restore refuses all that it was given.
type Extension struct {
	// Name is what a rule calls it: "multiport", "NFLOG".
	Name   string
	Target bool
	// Module is the kernel's name for it, as findings have it.
	Module string
	// Families are those in whose rules it stands.
	Families []Family
	// Probe is a rule that uses it as ours do, up to the target for a match. The set is one of the family, of type hash:ip.
	Probe func(f Family, set string) string
	// Optional is set if a family can be enforced without it, by rules that leave it out.
	Optional bool
	// Cost is what does not work without it.
	Cost string
	// With are further modules that it needs, in words that go behind Module; empty if there are none.
	With string
}

// The modules of which [Options] speak.
const (
	ModuleBPF      = "xt_bpf"      // [Options.SelfMatch]
	ModuleAddrType = "xt_addrtype" // ranges of a Closed node
	ModuleLimit    = "xt_limit"    // [Options.NFLogGroup], with the next
	ModuleNFLOG    = "xt_NFLOG"
	ModuleHopLimit = "xt_hl" // [Options.HopLimit]
)

// unlogged is what it costs if packets cannot be sampled.
const unlogged = "no denied packet is logged, and what audit mode would deny is at most counted"

// bpfProbe is the smallest program that xt_bpf takes: it matches nothing.
const bpfProbe = `-m bpf --bytecode "1,6 0 0 0"`

// Extensions are all that rules are made of. There is no "sctp" among the matches: multiport takes the ports of SCTP too, and kernels come without xt_sctp.
var Extensions = []Extension{
	{
		Name: "set", Module: "xt_set", Families: Families[:],
		Probe: func(_ Family, set string) string { return "-m set --match-set " + set + " src" },
		Cost:  "rules cannot refer to sets of pods",
	}, {
		Name: "comment", Module: "xt_comment", Families: Families[:], Probe: fixed(`-m comment --comment "ringfence preflight"`),
		Cost: "rules cannot say which policy they come from, and none is written without",
	}, {
		Name: "tcp", Module: "xt_tcpudp (tcp)", Families: Families[:], Probe: fixed("-p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN"),
		Cost: "rules cannot match a port of TCP",
	}, {
		Name: "udp", Module: "xt_tcpudp (udp)", Families: Families[:], Probe: fixed("-p udp -m udp --dport 53"),
		Cost: "rules cannot match a port of UDP",
	}, {
		Name: "multiport", Module: "xt_multiport", Families: Families[:], Probe: fixed("-p sctp -m multiport --dports 80,443:445"),
		Cost: "rules cannot match several ports, nor a port of SCTP",
	}, {
		Name: "conntrack", Module: "xt_conntrack", With: "(with nf_conntrack)", Families: Families[:],
		Probe: fixed("-m conntrack --ctstate RELATED,ESTABLISHED"),
		Cost:  "replies cannot be told from new connections",
	}, {
		Name: "icmp6", Module: "icmp6", Families: []Family{IPv6}, Probe: fixed("-p ipv6-icmp -m icmp6 --icmpv6-type 135"),
		Cost: "neighbour discovery cannot be told from what policy decides, and a pod without it has no network",
	}, {
		Name: "bpf", Module: ModuleBPF, Families: Families[:], Probe: fixed(bpfProbe), Optional: true,
		Cost: "a pod that is isolated cannot reach itself through its own Service, " +
			"and a live SCTP association that is cut may come back when its server speaks first",
	}, {
		Name: "addrtype", Module: ModuleAddrType, Families: Families[:], Probe: fixed("-m addrtype ! --src-type LOCAL"), Optional: true,
		Cost: "with --unknown-pods=drop nothing is dropped all the same",
	}, {
		Name: "limit", Module: ModuleLimit, Families: Families[:],
		Probe: fixed("-m limit --limit 10/sec --limit-burst 20"), Optional: true, Cost: unlogged,
	}, {
		Name: "NFLOG", Target: true, Module: ModuleNFLOG, With: "(with nfnetlink_log)", Families: Families[:],
		Probe: fixed(fmt.Sprintf("-j NFLOG --nflog-prefix %q --nflog-group %d", LogPrefix, DefaultNFLogGroup)), Optional: true, Cost: unlogged,
	}, {
		Name: "hl", Module: ModuleHopLimit, Families: []Family{IPv6}, Probe: fixed("-p ipv6-icmp -m hl --hl-eq 255"), Optional: true,
		Cost: "what pods send each other as neighbour discovery is not held to the hop limit that RFC 4861 asks for",
	},
}

func fixed(rule string) func(Family, string) string {
	return func(Family, string) string { return rule }
}
