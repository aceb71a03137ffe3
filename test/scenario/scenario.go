// Package scenario states how policies behave, once: objects as a person writes them, and lines such as "client reaches web on tcp/80" that follow from the
// API's text, worked out by hand.
//
// Four judges read the same scenarios. Three need no kernel, and take seconds:
//
//	lab/oracle       the evaluator that is written from the API texts alone
//	test/scenario    policy.Node.Allows, and test/trace, which walks the text of the rules
//
// The fourth, test/packets, sends real packets: on iptables legacy and nft, over IPv4 and IPv6, on bridged and on routed nodes.
//
// Invariants:
//   - each judge is asked about every line of every scenario. A line about a packet that no probe can send stands under Unsent, and a test holds that no
//     other line does;
//   - each scenario holds in both families. Scenarios are written with IPv4 addresses; over IPv6 their twins take their place (package twin). Where a text is
//     about one family, Only says which;
//   - this package imports nothing of the enforcer: a judge that shares code with the enforcer could not judge it. Judges adapt.
package scenario

import "fmt"

// Scenario is one behaviour.
type Scenario struct {
	Name string
	// Given changes the cluster before anything else happens.
	Given func(*Cluster)
	// Samples are files of config/samples that are applied, with a space between them; with Enforce, whatever mode they have.
	Samples string
	Enforce bool
	// Objects are applied then: see [Cluster.Apply].
	Objects string
	// Lines hold then: see [Line].
	Lines []string
	// Unsent are lines about packets that no probe sends, for the judges that need no kernel: see [Line.IsSendable].
	Unsent []string
	// Problems are the beginnings of what the compiler must report, none by default.
	Problems []string
	// Then are further changes, each made to what the ones before have left.
	Then []Step

	// Only is the family that the text is about, 0 for both. Blocks are meant as they stand.
	Only Family
	// NeighboursForgotten has a judge with a network forget, before it sends anything, which link-layer addresses its hosts have.
	NeighboursForgotten bool
	// Large is set where a judge that looks at each pod for each pod takes minutes: it is asked node by node only.
	Large bool
}

// Step is a change to a scenario's cluster and what holds after it.
type Step struct {
	What    string
	Given   func(*Cluster)
	Objects string
	Lines   []string
}

// Theme is what the scenarios of a file have in common.
type Theme struct {
	Name string
	// Cluster is the one in which the scenarios play.
	Cluster   func(Family) *Cluster
	Scenarios []Scenario
}

// Themes are all scenarios.
func Themes() []Theme {
	return []Theme{
		{"isolation", Standard, isolation},
		{"hosts", Standard, hosts},
		{"peers", Standard, peers()},
		{"ports", Standard, ports()},
		{"named ports", Standard, namedPorts},
		{"blocks", Standard, blocks},
		{"services", Standard, services},
		{"tiers", Standard, tiers},
		{"rules of tiers", Standard, tierRules},
		{"long lists", Standard, longLists},
		{"fail closed", Standard, failClosed()},
		{"namespace isolation", Standard, namespaceIsolation},
		{"DNS", Standard, dns},
		{"dry run", Standard, dryRun},
		{"lifecycle", Standard, lifecycle},
		{"holders of addresses", Standard, holders()},
		{"unknown pods", Standard, unknownPods},
		{"claims", Standard, claims},
		{"invalid objects", Standard, invalid},
		{"large", Standard, large},
		{"samples", Shop, samples},
	}
}

// Families are those in which the scenario holds.
func (s Scenario) Families() []Family {
	if s.Only != 0 {
		return []Family{s.Only}
	}
	return []Family{IPv4, IPv6}
}

// State is a cluster after the changes so far, and what holds then.
type State struct {
	// What has been changed last, empty at first.
	What    string
	Cluster *Cluster
	Lines   []Line
	Unsent  []Line
}

// Play calls do with each state of the scenario, one after the other. The cluster is the same one each time.
func (s Scenario) Play(c *Cluster, do func(State)) error {
	c.literal = s.Only != 0
	steps := append([]Step{{Given: s.Given, Objects: s.Objects, Lines: s.Lines}}, s.Then...)
	for i, step := range steps {
		if step.Given != nil {
			step.Given(c)
		}
		state := State{What: step.What, Cluster: c}
		var err error
		if i == 0 {
			if err = c.applySamples(s.Samples, s.Enforce); err != nil {
				return err
			}
			if state.Unsent, err = c.ParseLines(s.Unsent); err != nil {
				return err
			}
		}
		if err := c.Apply(step.Objects); err != nil {
			return fmt.Errorf("%s: %w", step.What, err)
		}
		if state.Lines, err = c.ParseLines(step.Lines); err != nil {
			return err
		}
		do(state)
	}
	return nil
}
