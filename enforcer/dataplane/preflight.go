package dataplane

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
)

// Capabilities are what rules can be made of on this node.
type Capabilities struct {
	// Families are those that can be enforced in full.
	Families []iptables.Family
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
	// HopLimit is set if rules of IPv6 can match a packet's hop limit.
	HopLimit bool
	// Guards is set if what comes from a link can be held to addresses.
	Guards bool
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
	setType(iptables.SetType, iptables.Family) error
	// rules has the kernel take a chain of ours with these rules, and removes it again. Rules may name probeSet(family). One without a
	// target returns. If there are no rules, the base chains jump to the empty chain meanwhile, as they will to ours.
	rules(ctx context.Context, f iptables.Family, table string, rules ...string) error
	// connections asks for the kernel's connection tracking.
	connections() error
	// guards asks for what holds links.
	guards() error
	// sysctl reads a setting under net; an error says that the kernel has none of that name.
	sysctl(name string) (string, error)
	// bridges are the names of the bridges with ports.
	bridges() ([]string, error)
	// ipvs says by what is seen that kube-proxy, or another program, serves Services by IPVS; empty if by nothing.
	ipvs() (string, error)
}

// probeSet is the name of the set that probing rules may name.
func probeSet(f iptables.Family) string { return fmt.Sprintf("%sPREFLIGHT-%d", iptables.Prefix, f) }

// remedy is what to do about an extension that is missing.
func remedy(e iptables.Extension) string {
	return "load or build the kernel module " + strings.TrimSpace(e.Module+" "+e.With) + ", and install iptables with its extensions"
}

// setTypes are the types of sets, and what each is for.
var setTypes = []struct {
	setType  iptables.SetType
	optional bool
	cost     string
}{
	{iptables.HashIP, false, "rules cannot refer to pods"},
	{iptables.HashNet, false, "rules cannot refer to IP blocks with exceptions"},
	{iptables.HashIPPort, false, "rules cannot refer to named ports"},
	{iptables.HashIPPortIP, true, "a live connection that is cut may come back when its server speaks first, if policy lets the server open one to the client"},
}

// preflight looks at everything that enforcement needs. What is missing takes a family out of the capabilities, or a
// feature; it never stops the looking, so that one start tells all there is to mend.
//
// What cannot be asked because something is busy is asked again until ctx ends, and then no verdict: what a family needs is taken to be there, so that
// syncs find out, and what is optional is left away. Unsure is set then.
func preflight(ctx context.Context, p probes, table string) (c Capabilities, findings []Finding, unsure bool) {
	s := &survey{probes: p, ctx: ctx, lacking: map[iptables.Family][]string{}, without: map[iptables.Family][]string{}}
	s.sets()
	live := s.connections()
	chosen := s.chooseTable(table)
	s.matches(chosen)
	c.Table = chosen
	for _, f := range iptables.Families {
		if len(s.lacking[f]) == 0 {
			c.Families = append(c.Families, f)
		}
	}
	c.SelfMatch = s.allHave(c.Families, iptables.ModuleBPF)
	c.OwnAddresses = s.allHave(c.Families, iptables.ModuleAddrType)
	c.Log = s.allHave(c.Families, iptables.ModuleLimit) && s.allHave(c.Families, iptables.ModuleNFLOG)
	c.Guards = s.guards()
	c.CutLive, c.HoldCut = live, s.allHave(c.Families, string(iptables.HashIPPortIP))
	c.HopLimit = slices.Contains(c.Families, iptables.IPv6) && s.allHave(c.Families, iptables.ModuleHopLimit)
	s.families(c)
	return c, s.findings, s.unsure
}

// survey is a preflight in progress.
type survey struct {
	probes   probes
	ctx      context.Context // ends our patience with what is busy
	findings []Finding
	lacking  map[iptables.Family][]string // what is missing that the family cannot be enforced without
	without  map[iptables.Family][]string // the optional things that are missing
	unsure   bool                         // something could not be asked
}

// ask has a probe answer, and waits while the answer is that something is busy.
func (s *survey) ask(probe func() error) error {
	err := patiently(s.ctx, probe)
	s.unsure = s.unsure || isBusy(err)
	return err
}

// allHave reports whether all of the families have what is optional, and there is one.
func (s *survey) allHave(families []iptables.Family, name string) bool {
	lacks := func(f iptables.Family) bool { return slices.Contains(s.without[f], name) }
	return len(families) > 0 && !slices.ContainsFunc(families, lacks)
}

// require reports something without which a family cannot be enforced.
func (s *survey) require(f Finding, errs map[iptables.Family]error) {
	for family, err := range errs {
		if err != nil && !isBusy(err) {
			s.lacking[family] = append(s.lacking[family], f.Name)
		}
	}
	s.report(f, true, errs)
}

// report adds a finding about something that was asked for once per family; errs has what went wrong, by family.
func (s *survey) report(f Finding, required bool, errs map[iptables.Family]error) {
	var said []string
	busy := false
	for _, family := range iptables.Families {
		err := errs[family]
		switch {
		case isBusy(err):
			busy = true
			said = append(said, fmt.Sprintf("%s: it could not be asked, and will be again: %v", family, err))
		case err != nil:
			said = append(said, fmt.Sprintf("%s: %v", family, err))
		}
	}
	f.OK = len(said) == 0
	switch {
	case f.OK:
		f.Detail, f.Cost, f.Remedy = "present", "", ""
	case required && !busy && len(said) == len(iptables.Families):
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
		errs := map[iptables.Family]error{}
		for _, f := range iptables.Families {
			errs[f] = s.ask(func() error { return s.probes.setType(t.setType, f) })
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
func (s *survey) lack(name string, errs map[iptables.Family]error) {
	for f, err := range errs {
		if err != nil {
			s.without[f] = append(s.without[f], name)
		}
	}
}

// connections says whether live connections can be listed.
func (s *survey) connections() bool {
	f := Finding{Name: "nf_conntrack_netlink", OK: true, Detail: "present"}
	if err := s.ask(s.probes.connections); err != nil {
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
func (s *survey) chooseTable(asked string) string {
	candidates := tables[:]
	if asked != "" {
		candidates = []string{asked}
	}
	var chosen string
	var lacking map[iptables.Family]error
	for _, table := range candidates {
		errs, missing := map[iptables.Family]error{}, map[iptables.Family]error{}
		for _, f := range iptables.Families {
			err := s.ask(func() error { return s.probes.rules(s.ctx, f, table) })
			if err != nil {
				errs[f] = err
			}
			if err != nil && !isBusy(err) {
				missing[f] = err
			}
		}
		s.report(tableFindings[table], table == candidates[len(candidates)-1], errs)
		if chosen == "" || len(missing) < len(lacking) {
			chosen, lacking = table, missing
		}
		if len(missing) == 0 {
			break
		}
	}
	for f := range lacking {
		s.lacking[f] = append(s.lacking[f], "table "+chosen)
	}
	return chosen
}

// matches probes all extensions in one go, and one by one where that fails: on most nodes it does not.
func (s *survey) matches(table string) {
	all := iptables.Extensions
	errs := make([]map[iptables.Family]error, len(all))
	for i := range errs {
		errs[i] = map[iptables.Family]error{}
	}
	for _, f := range iptables.Families {
		if slices.Contains(s.lacking[f], "table "+table) {
			continue // reported already; without a table each of them would fail for that reason
		}
		var rules []string
		for _, e := range all {
			if slices.Contains(e.Families, f) {
				rules = append(rules, e.Probe(f, probeSet(f)))
			}
		}
		if s.ask(func() error { return s.probes.rules(s.ctx, f, table, rules...) }) == nil {
			continue
		}
		for i, e := range all {
			if slices.Contains(e.Families, f) {
				errs[i][f] = s.ask(func() error { return s.probes.rules(s.ctx, f, table, e.Probe(f, probeSet(f))) })
			}
		}
	}
	for i, e := range all {
		f := Finding{Name: e.Module, Cost: e.Cost, Remedy: remedy(e)}
		if e.Optional {
			s.lack(e.Module, errs[i])
			s.report(f, false, errs[i])
		} else {
			s.require(f, errs[i])
		}
	}
}

// families says of each family whether it is enforced.
func (s *survey) families(c Capabilities) {
	names := map[iptables.Family]string{iptables.IPv4: "IPv4", iptables.IPv6: "IPv6"}
	for _, f := range iptables.Families {
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
