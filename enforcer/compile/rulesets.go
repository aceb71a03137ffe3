package compile

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strconv"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// maxOwnSets is up to how many selectors of a rule, or names of ports, have a set each. All rules that ask for the same share such a set, of whatever policy
// they are, so that alike policies cost little. A rule with more of them has one set for all: it costs a packet one look and the node one set, however many
// they are. So the parts of a rule add up, and are never multiplied.
const maxOwnSets = 4

// ruleSet is a set that rules name, before anybody has looked what is in it.
type ruleSet struct {
	id        policy.SetID
	selectors []podSelector
	nodes     []labels.Selector
	// names are the ports of pods: a set without names holds addresses.
	names    []portName
	protocol policy.Protocol // of all names; 0 if they differ
	to       policy.Direction
}

// ruleSets are the sets of a rule. It has one or several rules of the node's for each pair of an end and of ports.
type ruleSets struct {
	pods, nodes []ruleSet // addresses of the remote ends
	ports       []ruleSet // the named ports of whatever pod is the destination
	podPorts    []ruleSet // for egress, the named ports of the pods: the set says which pod and which port in one
	blocks      policy.SetID
}

// settle says which sets the rule takes.
func (r *parsedRule) settle(d policy.Direction) {
	var s ruleSets
	selectors := distinct(r.selectors)
	for i := range selectors {
		s.pods = append(s.pods, ruleSet{id: selectors[i].setID(), selectors: selectors[i : i+1]})
	}
	for i, n := range r.nodes {
		s.nodes = append(s.nodes, ruleSet{id: setID("nodes", selectorText(n)), nodes: r.nodes[i : i+1]})
	}
	for i, n := range r.named {
		s.ports = append(s.ports, ruleSet{id: setID("ports to", d.String(), n.text(), n.name), names: r.named[i : i+1], protocol: n.protocol, to: d})
	}
	if d == policy.Egress {
		s.podPorts = portsOf(selectors, r.named)
	}
	s.pods, s.nodes, s.ports = fewSets(s.pods), fewSets(s.nodes), fewSets(s.ports)
	if len(r.blocks) > 0 {
		s.blocks = blocksID(r.blocks)
	}
	r.sets = s
}

// fewSets are the sets, or the union of them if they are many.
func fewSets(all []ruleSet) []ruleSet {
	if len(all) <= maxOwnSets {
		return all
	}
	u := ruleSet{to: all[0].to, protocol: all[0].protocol}
	ids := make([]string, 0, 1+len(all))
	for _, s := range all {
		ids = append(ids, string(s.id))
		u.selectors, u.nodes, u.names = append(u.selectors, s.selectors...), append(u.nodes, s.nodes...), append(u.names, s.names...)
		if s.protocol != u.protocol {
			u.protocol = 0
		}
	}
	slices.Sort(ids) // the order in which peers are written does not matter
	u.id = setID(append([]string{"any of"}, ids...)...)
	return []ruleSet{u}
}

// portsOf are the ports of the names on the pods of the selectors.
func portsOf(selectors []podSelector, names []portName) []ruleSet {
	if len(selectors) == 0 || len(names) == 0 {
		return nil
	}
	if len(selectors)*len(names) > maxOwnSets {
		u := ruleSet{selectors: selectors, names: names, protocol: names[0].protocol}
		var of, ports []string
		for _, s := range selectors {
			of = append(of, string(s.setID()))
		}
		for _, n := range names {
			ports = append(ports, string(setID(n.text(), n.name)))
			if n.protocol != u.protocol {
				u.protocol = 0
			}
		}
		slices.Sort(of)
		slices.Sort(ports)
		u.id = setID(slices.Concat([]string{"ports of", strconv.Itoa(len(of))}, of, ports)...)
		return []ruleSet{u}
	}
	var all []ruleSet
	for i, s := range selectors {
		for k, n := range names {
			id := setID("ports", s.scope(), selectorText(s.pods), n.text(), n.name)
			all = append(all, ruleSet{id: id, selectors: selectors[i : i+1], names: names[k : k+1], protocol: n.protocol})
		}
	}
	return all
}

// distinct are the selectors, each once.
func distinct(selectors []podSelector) []podSelector {
	seen := make(map[policy.SetID]bool, len(selectors))
	var out []podSelector
	for _, s := range selectors {
		s.id = s.setID()
		if s.namespaces != nil {
			s.within = selectorText(s.namespaces)
		}
		if !seen[s.id] {
			seen[s.id] = true
			out = append(out, s)
		}
	}
	return out
}

// setID is that of the set of the selected pods' addresses.
func (s podSelector) setID() policy.SetID {
	if s.id != "" {
		return s.id
	}
	return setID("addresses", s.scope(), selectorText(s.pods))
}

// blocksID tells lists of blocks from each other.
func blocksID(blocks []policy.Block) policy.SetID {
	parts := []string{"blocks"}
	for _, b := range blocks {
		parts = append(parts, b.Prefix.String(), strconv.Itoa(len(b.Except)))
		for _, e := range b.Except {
			parts = append(parts, e.String())
		}
	}
	return setID(parts...)
}

// longID is from how many bytes on an ID is a hash of its parts: an object may have a megabyte of them.
const longID = 512

// setID joins parts so that no two lists of parts make the same ID: each part carries its length.
func setID(parts ...string) policy.SetID {
	var b []byte
	for _, p := range parts {
		b = strconv.AppendInt(b, int64(len(p)), 10)
		b = append(append(b, ':'), p...)
	}
	if len(b) > longID {
		sum := sha256.Sum256(b)
		return setID("hash", hex.EncodeToString(sum[:])) // no other ID begins so
	}
	return policy.SetID(b)
}
