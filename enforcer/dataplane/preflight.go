package dataplane

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/ringfence-io/ringfence/enforcer/ruleset"
)

// Capabilities are what rules can be made of on this node.
type Capabilities struct {
	// Families are those that can be enforced in full.
	Families []ruleset.Family
	// Table holds our chains.
	Table string
	// SelfMatch is set if rules can compare a packet's source with its destination, in every one of Families.
	SelfMatch bool
	// Log is set if rules can sample packets into NFLOG, in every one of Families.
	Log bool
	// OwnAddresses is set if rules can tell the node's own addresses from all others, in every one of Families.
	OwnAddresses bool
	// CutLive is set if live connections can be listed and ended.
	CutLive bool
	// HoldCut is set if rules can hold off what comes back of a connection that was cut, in every one of Families.
	HoldCut bool
	// Guards is set if what comes from a link can be held to addresses.
	Guards bool
	// HopLimit is set if rules can look at a packet's hop limit, in every one of Families that has one.
	HopLimit bool
}

// Severity says how much depends on what is missing.
type Severity string

// The severities.
const (
	Fatal    Severity = "fatal"    // nothing can be enforced
	Degraded Severity = "degraded" // something is not enforced, and Cost says what
	Info     Severity = "info"     // worth knowing, of consequence only on some nodes
)

// Finding is what the preflight found about one thing that enforcement needs.
type Finding struct {
	Name string
	OK   bool
	// Severity is what it costs if the thing is missing, in a word; empty if OK.
	Severity Severity
	// Detail says what was found, or what the kernel or a program said instead.
	Detail string
	// Cost says what does not work without it; Remedy says what to do. Both are empty if OK.
	Cost, Remedy string
}

// String is the finding in a sentence for a log.
func (f Finding) String() string {
	if f.OK {
		return fmt.Sprintf("%s: %s", f.Name, f.Detail)
	}
	return fmt.Sprintf("%s is missing or off (%s): %s. Cost: %s. Remedy: %s", f.Name, f.Severity, f.Detail, f.Cost, f.Remedy)
}

// probes ask the kernel. They leave nothing behind.
type probes interface {
	// setType asks for a type of ipset.
	setType(ruleset.SetType, ruleset.Family) error
	// rules has the kernel take a chain of ours with these rules, and removes it again. Rules may name probeSet(family). One without a
	// target returns.
	rules(ctx context.Context, f ruleset.Family, table string, rules ...string) error
	// connections asks for the kernel's connection tracking.
	connections() error
	// guards asks for what holds links.
	guards() error
	// sysctl reads a setting under net; an error says that the kernel has none of that name.
	sysctl(name string) (string, error)
	// bridges are the names of the bridges with ports.
	bridges() ([]string, error)
}

// probeSet is the name of the set that probing rules may name.
func probeSet(f ruleset.Family) string { return fmt.Sprintf("%sPREFLIGHT-%d", ruleset.Prefix, f) }

// need is something that every rule set needs of a family, or gains by.
type need struct {
	name string
	rule func(ruleset.Family) string // a match of it, or a target
	// optional needs cost something, but not the family.
	optional     bool
	cost, remedy string
}

// selfProbe is the smallest program that xt_bpf takes: it matches nothing.
const selfProbe = `-m bpf --bytecode "1,6 0 0 0"`

func fixed(rule string) func(ruleset.Family) string {
	return func(ruleset.Family) string { return rule }
}

// hopLimitProbe asks for the hop limit, which IPv4 does not have.
func hopLimitProbe(f ruleset.Family) string {
	if f == ruleset.IPv4 {
		return `-m comment --comment "no hop limit"`
	}
	return "-m hl --hl-eq 255"
}

func modules(names string) string {
	return "load or build the kernel module " + names + ", and install iptables with its extensions"
}

// The needs of which Capabilities speak.
const (
	needSelfMatch = "xt_bpf"
	needAddrType  = "xt_addrtype"
	needLimit     = "xt_limit"
	needNFLOG     = "xt_NFLOG"
	needHopLimit  = "xt_hl"
)

// unlogged is what it costs if packets cannot be sampled.
const unlogged = "no denied packet is logged, and what audit mode would deny is at most counted"

// needs lists what rules are made of.
var needs = []need{
	{
		name: "xt_set", rule: func(f ruleset.Family) string { return "-m set --match-set " + probeSet(f) + " src" },
		cost: "rules cannot refer to sets of pods", remedy: modules("xt_set"),
	}, {
		name: "xt_comment", rule: fixed(`-m comment --comment "ringfence preflight"`),
		cost: "rules cannot say which policy they come from, and none is written without", remedy: modules("xt_comment"),
	}, {
		name: "xt_multiport", rule: fixed("-p tcp -m multiport --dports 80,443:445"),
		cost: "rules cannot match several ports", remedy: modules("xt_multiport"),
	}, {
		name: "xt_conntrack", rule: fixed("-m conntrack --ctstate RELATED,ESTABLISHED"),
		cost: "replies cannot be told from new connections", remedy: modules("xt_conntrack (with nf_conntrack)"),
	}, {
		name: needSelfMatch, rule: fixed(selfProbe), optional: true,
		cost:   "a pod that is isolated cannot reach itself through its own Service",
		remedy: modules("xt_bpf"),
	}, {
		name: needAddrType, rule: fixed("-m addrtype ! --src-type LOCAL"), optional: true,
		cost: "with --unknown-pods=drop nothing is dropped all the same", remedy: modules("xt_addrtype"),
	}, {
		name: needLimit, rule: fixed("-m limit --limit 10/sec --limit-burst 20"), optional: true,
		cost: unlogged, remedy: modules("xt_limit"),
	}, {
		name: needNFLOG, rule: fixed(fmt.Sprintf("-j NFLOG --nflog-prefix %q --nflog-group %d", ruleset.LogPrefix, ruleset.DefaultNFLogGroup)),
		optional: true, cost: unlogged, remedy: modules("xt_NFLOG (with nfnetlink_log)"),
	}, {
		name: needHopLimit, rule: hopLimitProbe, optional: true,
		cost:   "IPv6 neighbour discovery passes with any hop limit, so that pods whose links are not known can send data as such",
		remedy: modules("xt_hl"),
	},
}

// setTypes are the types of sets, and what each is for.
var setTypes = []struct {
	setType  ruleset.SetType
	optional bool
	cost     string
}{
	{ruleset.HashIP, false, "rules cannot refer to pods"},
	{ruleset.HashNet, false, "rules cannot refer to IP blocks with exceptions"},
	{ruleset.HashIPPort, false, "rules cannot refer to named ports"},
	{ruleset.HashIPPortIP, true, "a live connection that is cut may come back when its server speaks first, if policy lets the server open one to the client"},
}

// preflight looks at everything that enforcement needs. What is missing takes a family out of the capabilities, or a
// feature; it never stops the looking, so that one start tells all there is to mend.
func preflight(ctx context.Context, p probes, table string) (Capabilities, []Finding) {
	s := &survey{probes: p, lacking: map[ruleset.Family][]string{}, without: map[ruleset.Family][]string{}}
	s.sets()
	live := s.connections()
	chosen := s.chooseTable(ctx, table)
	s.matches(ctx, chosen)
	c := Capabilities{Table: chosen}
	for _, f := range ruleset.Families {
		if len(s.lacking[f]) == 0 {
			c.Families = append(c.Families, f)
		}
	}
	c.SelfMatch = s.allHave(c.Families, needSelfMatch)
	c.OwnAddresses = s.allHave(c.Families, needAddrType)
	c.Log = s.allHave(c.Families, needLimit) && s.allHave(c.Families, needNFLOG)
	c.Guards = s.guards()
	c.HopLimit = !slices.Contains(s.without[ruleset.IPv6], needHopLimit)
	c.CutLive, c.HoldCut = live, s.allHave(c.Families, string(ruleset.HashIPPortIP))
	s.families(c)
	s.sysctls()
	return c, s.findings
}

// survey is a preflight in progress.
type survey struct {
	probes   probes
	findings []Finding
	lacking  map[ruleset.Family][]string // what is missing that the family cannot be enforced without
	without  map[ruleset.Family][]string // the optional needs that are missing
}

// allHave reports whether all of the families have what is optional, and there is one.
func (s *survey) allHave(families []ruleset.Family, name string) bool {
	lacks := func(f ruleset.Family) bool { return slices.Contains(s.without[f], name) }
	return len(families) > 0 && !slices.ContainsFunc(families, lacks)
}

// require reports something without which a family cannot be enforced.
func (s *survey) require(f Finding, errs map[ruleset.Family]error) {
	for family, err := range errs {
		if err != nil {
			s.lacking[family] = append(s.lacking[family], f.Name)
		}
	}
	s.report(f, true, errs)
}

// report adds a finding about something that was asked for once per family; errs has what went wrong, by family.
func (s *survey) report(f Finding, required bool, errs map[ruleset.Family]error) {
	var said []string
	for _, family := range ruleset.Families {
		if err := errs[family]; err != nil {
			said = append(said, fmt.Sprintf("%s: %v", family, err))
		}
	}
	f.OK = len(said) == 0
	switch {
	case f.OK:
		f.Detail, f.Cost, f.Remedy = "present", "", ""
	case required && len(said) == len(ruleset.Families):
		f.Severity = Fatal
	default:
		f.Severity = Degraded
	}
	if !f.OK {
		f.Detail = strings.Join(said, "; ")
	}
	s.findings = append(s.findings, f)
}

func (s *survey) sets() {
	for _, t := range setTypes {
		errs := map[ruleset.Family]error{}
		for _, f := range ruleset.Families {
			errs[f] = s.probes.setType(t.setType, f)
		}
		module := "ip_set_" + strings.ReplaceAll(strings.ReplaceAll(string(t.setType), ":", "_"), ",", "")
		finding := Finding{
			Name: "ip_set type " + string(t.setType), Cost: t.cost,
			Remedy: "load or build the kernel modules ip_set and " + module,
		}
		if t.optional {
			s.lack(string(t.setType), errs)
			s.report(finding, false, errs)
		} else {
			s.require(finding, errs)
		}
	}
}

// lack notes in which families something optional is missing.
func (s *survey) lack(name string, errs map[ruleset.Family]error) {
	for f, err := range errs {
		if err != nil {
			s.without[f] = append(s.without[f], name)
		}
	}
}

// connections says whether live connections can be listed.
func (s *survey) connections() bool {
	f := Finding{Name: "nf_conntrack_netlink", OK: true, Detail: "present"}
	if err := s.probes.connections(); err != nil {
		f = Finding{
			Name: f.Name, Severity: Degraded, Detail: err.Error(),
			Cost:   "a connection that policy denies only after it was opened stays open until one of its ends closes it",
			Remedy: "load or build the kernel module nf_conntrack_netlink",
		}
	}
	s.findings = append(s.findings, f)
	return f.OK
}

// guards says whether links can be held to their pods' addresses.
func (s *survey) guards() bool {
	f := Finding{Name: "nf_tables netdev", OK: true, Detail: "present"}
	if err := s.probes.guards(); err != nil {
		f = Finding{
			Name: f.Name, Severity: Degraded, Detail: err.Error(),
			Cost:   "a pod that may send raw packets (NET_RAW) can pass for another, and reach pods past policy on a bridge",
			Remedy: "load or build the kernel module nf_tables with its families netdev and bridge (CONFIG_NF_TABLES_NETDEV, CONFIG_NF_TABLES_BRIDGE)",
		}
	}
	s.findings = append(s.findings, f)
	return f.OK
}

// tableFindings say what a table is to us.
var tableFindings = map[string]Finding{
	securityTable: {
		Name: "table security", Cost: "our chains have to stand in the table mangle, where other programs write too",
		Remedy: "load or build the kernel modules iptable_security and ip6table_security (legacy), or nf_tables (nft)",
	},
	mangleTable: {
		Name: "table mangle", Cost: "there is no table for our chains",
		Remedy: "load or build the kernel modules iptable_mangle and ip6table_mangle (legacy), or nf_tables (nft)",
	},
}

// chooseTable is the table that is asked for, or else the first that both families have, or else the first that one has.
// The second is not looked at without need: looking brings a table, and its hooks, into being.
func (s *survey) chooseTable(ctx context.Context, asked string) string {
	candidates := tables[:]
	if asked != "" {
		candidates = []string{asked}
	}
	var chosen string
	var lacking map[ruleset.Family]error
	for _, table := range candidates {
		errs := map[ruleset.Family]error{}
		for _, f := range ruleset.Families {
			if err := s.probes.rules(ctx, f, table); err != nil {
				errs[f] = err
			}
		}
		s.report(tableFindings[table], table == candidates[len(candidates)-1], errs)
		if chosen == "" || len(errs) < len(lacking) {
			chosen, lacking = table, errs
		}
		if len(errs) == 0 {
			break
		}
	}
	for f := range lacking {
		s.lacking[f] = append(s.lacking[f], "table "+chosen)
	}
	return chosen
}

// matches probes all needs in one go, and one by one where that fails: on most nodes it does not.
func (s *survey) matches(ctx context.Context, table string) {
	errs := make([]map[ruleset.Family]error, len(needs))
	for i := range errs {
		errs[i] = map[ruleset.Family]error{}
	}
	for _, f := range ruleset.Families {
		if slices.Contains(s.lacking[f], "table "+table) {
			continue // said already; without a table each of them would fail for that reason
		}
		var all []string
		for _, n := range needs {
			all = append(all, n.rule(f))
		}
		if s.probes.rules(ctx, f, table, all...) == nil {
			continue
		}
		for i, n := range needs {
			errs[i][f] = s.probes.rules(ctx, f, table, n.rule(f))
		}
	}
	for i, n := range needs {
		f := Finding{Name: n.name, Cost: n.cost, Remedy: n.remedy}
		if n.optional {
			s.lack(n.name, errs[i])
			s.report(f, false, errs[i])
		} else {
			s.require(f, errs[i])
		}
	}
}

// families says of each family whether it is enforced.
func (s *survey) families(c Capabilities) {
	names := map[ruleset.Family]string{ruleset.IPv4: "IPv4", ruleset.IPv6: "IPv6"}
	for _, f := range ruleset.Families {
		finding := Finding{Name: names[f], OK: slices.Contains(c.Families, f), Detail: "enforced in the table " + c.Table}
		if !finding.OK {
			finding.Severity = Degraded
			if len(c.Families) == 0 {
				finding.Severity = Fatal
			}
			finding.Detail = "it lacks " + strings.Join(s.lacking[f], ", ")
			finding.Cost = "no policy is enforced on " + names[f] + " traffic"
			finding.Remedy = "mend what it lacks, or give pods no " + names[f] + " addresses"
		}
		s.findings = append(s.findings, finding)
	}
}

// sysctls looks at the settings without which packets do not pass our chains.
func (s *survey) sysctls() {
	severity, where := Info, "on this node there is no bridge with ports at the moment"
	switch bridges, err := s.probes.bridges(); {
	case err != nil:
		where = fmt.Sprintf("whether this node has bridges is not known: %v", err)
	case len(bridges) > 0:
		severity, where = Degraded, "bridges on this node: "+strings.Join(bridges, ", ")
	}
	const cost = "%s traffic between two pods of one bridge passes no policy; routed traffic does"
	for _, w := range []struct{ sysctl, family string }{
		{"bridge/bridge-nf-call-iptables", "IPv4"},
		{"bridge/bridge-nf-call-ip6tables", "IPv6"},
	} {
		_, name, _ := strings.Cut(w.sysctl, "/")
		f := Finding{Name: name, Severity: severity, Cost: fmt.Sprintf(cost, w.family)}
		switch v, err := s.probes.sysctl(w.sysctl); {
		case err != nil:
			f.Detail = "the kernel module br_netfilter is not loaded; " + where
			f.Remedy = "modprobe br_netfilter"
		case v != "1":
			f.Detail = fmt.Sprintf("it is %s; %s", v, where)
			f.Remedy = "sysctl -w net.bridge." + name + "=1"
		default:
			f = Finding{Name: name, OK: true, Detail: "bridged " + w.family + " traffic passes our chains"}
		}
		s.findings = append(s.findings, f)
	}
	s.forwarding()
}

func (s *survey) forwarding() {
	f := Finding{Name: "ip_forward", OK: true, Detail: "the node routes IPv4 traffic"}
	if v, err := s.probes.sysctl("ipv4/ip_forward"); err != nil || v != "1" {
		f = Finding{
			Name: "ip_forward", Severity: Info, Detail: "the node does not route IPv4 traffic",
			Cost: "routed pods reach nothing, whatever policies say", Remedy: "sysctl -w net.ipv4.ip_forward=1",
		}
	}
	s.findings = append(s.findings, f)
}
