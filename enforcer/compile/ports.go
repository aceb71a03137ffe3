package compile

import (
	"slices"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// portName is a container port by its name. Without a protocol it is of any.
type portName struct {
	protocol policy.Protocol
	name     string
}

// text is the protocol for which the name counts.
func (n portName) text() string {
	if n.protocol == 0 {
		return "any"
	}
	return n.protocol.String()
}

// rulePort is a port that a rule has by its name.
type rulePort struct {
	name portName
	at   int // where it stands first in the rule's list of ports
}

// addNamed adds a named port, which stands at an index of the rule's list of ports. It may have been there before.
func (r *parsedRule) addNamed(index int, n portName) {
	if r.isNamed[n] {
		return
	}
	if r.isNamed == nil {
		r.isNamed = portNames{}
	}
	r.isNamed[n] = true
	r.named = append(r.named, rulePort{n, index})
}

// namesOf are the names of ports, and the protocol of all of them, 0 if they differ.
func namesOf(named []rulePort) (names []portName, protocol policy.Protocol) {
	names, protocol = make([]portName, 0, len(named)), named[0].name.protocol
	for _, p := range named {
		names = append(names, p.name)
		if p.name.protocol != protocol {
			protocol = 0
		}
	}
	return names, protocol
}

// settlePorts are the sets of named ports of any pod that is the destination: one for each name, or one for all if they are many.
func settlePorts(d policy.Direction, named []rulePort) []ruleSet {
	if len(named) == 0 {
		return nil
	}
	names, protocol := namesOf(named)
	sets, ids := make([]ruleSet, len(names)), make([]policy.SetID, len(names))
	for i, n := range names {
		ids[i] = setID("ports to", d.String(), n.text(), n.name)
		sets[i] = ruleSet{id: ids[i], of: destinations(d), names: names[i : i+1], protocol: n.protocol}
	}
	if len(sets) <= maxOwnSets {
		return sets
	}
	return []ruleSet{{id: anyOf(ids), of: destinations(d), names: names, protocol: protocol}}
}

// destinations are all pods that a packet can be for in a direction: for ingress those of the node.
type destinations policy.Direction

var (
	_ source = destinations(policy.Ingress)
	_ finder = destinationFinder{}
)

// destinationFinder finds named ports of any pod that is the destination.
type destinationFinder struct {
	local bool // the pods of the node alone
	names portNames
}

func (d destinations) finder(_ *knownSets, names []portName) finder {
	return destinationFinder{policy.Direction(d) == policy.Ingress, newPortNames(names)}
}

func (d destinations) among(_ *cluster, namespaces []string) []string {
	if policy.Direction(d) == policy.Ingress {
		return nil // of this node, and known
	}
	return namespaces
}

// looks is none: nothing is compared with the pods.
func (f destinationFinder) looks(*cluster) int { return 0 }

func (f destinationFinder) find(c *cluster, limit int) ([]policy.Member, bool) {
	c.members = c.members[:0]
	if f.local {
		c.addPorts(c.local, f.names, limit)
		return c.sortedWithin(limit)
	}
	for _, pods := range c.byNamespace {
		c.addPorts(pods, f.names, limit)
	}
	return c.sortedWithin(limit)
}

func (f destinationFinder) follow(c *cluster, all *changes) (gone, come []policy.Member, ok bool) {
	for _, one := range all.in {
		gone, come = f.appendMembers(gone, one.gone, c.node), f.appendMembers(come, one.come, c.node)
	}
	return gone, come, true
}

func (f destinationFinder) appendMembers(to []policy.Member, pods []*Pod, node string) []policy.Member {
	for _, p := range pods {
		if !f.local || p.Node == node {
			to = appendMembers(to, p, f.names)
		}
	}
	return to
}

// portNames are names of ports to look ports up in.
type portNames map[portName]bool

// newPortNames is empty for no names.
func newPortNames(names []portName) portNames {
	if len(names) == 0 {
		return nil
	}
	set := make(portNames, len(names))
	for _, n := range names {
		set[n] = true
	}
	return set
}

// have reports whether the port is one of those that a name stands for.
func (n portNames) have(p NamedPort) bool {
	return n[portName{p.Protocol, p.Name}] || n[portName{0, p.Name}]
}

// mergeRanges sorts the ranges and joins those that overlap or touch.
func mergeRanges(ranges []policy.PortRange) []policy.PortRange {
	slices.SortFunc(ranges, func(a, b policy.PortRange) int {
		if a.Protocol != b.Protocol {
			return int(a.Protocol) - int(b.Protocol)
		}
		return int(a.First) - int(b.First)
	})
	var merged []policy.PortRange
	for _, r := range ranges {
		if n := len(merged); n > 0 && merged[n-1].Protocol == r.Protocol && int(r.First) <= int(merged[n-1].Last)+1 {
			merged[n-1].Last = max(merged[n-1].Last, r.Last)
			continue
		}
		merged = append(merged, r)
	}
	return merged
}
