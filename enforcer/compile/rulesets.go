package compile

import (
	"crypto/sha256"
	"encoding/hex"
	"iter"
	"slices"
	"strconv"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// maxOwnSets is up to how many selectors of a rule, or names of ports, have a set each. All rules that ask for the same share such a set, of whatever policy
// they are, so that alike policies cost little. A rule with more of them has one set for all: it costs a packet one look and the node one set, however many
// they are. So the parts of a rule add up, and are never multiplied.
const maxOwnSets = 4

// ruleSet is a set that rules name, before anybody has looked what is in it.
type ruleSet struct {
	id policy.SetID
	of source // whose addresses or ports these are
	// names are the ports of pods: a set without names holds addresses.
	names    []portName
	protocol policy.Protocol // of all names; 0 if they differ
}

// ruleSets are the sets of a rule, and its blocks. It has one or several rules of the node's for each pair of an end and of ports.
type ruleSets struct {
	ends     [peerKinds][]end // the remote ends
	ports    []ruleSet        // the named ports of any pod that is the destination
	podPorts []ruleSet        // the named ports of the remote ends themselves, where these are the destinations
}

// settle says which sets the rule takes.
func (r *parsedRule) settle(d policy.Direction) {
	s := ruleSets{ports: settlePorts(d, r.named)}
	for kind, p := range r.peers {
		if p != nil {
			ends, ports := p.settle(d, r.named)
			s.ends[kind], s.podPorts = ends, append(s.podPorts, ports...)
		}
	}
	r.sets = s
}

// of are the ends of one kind.
func (s *ruleSets) of(kind policy.PeerKind) iter.Seq[*end] {
	return func(yield func(*end) bool) {
		for _, ends := range s.ends {
			for i := range ends {
				if ends[i].kind == kind && !yield(&ends[i]) {
					return
				}
			}
		}
	}
}

// all are the sets, without the blocks, which are in the rule itself.
func (s *ruleSets) all() iter.Seq[*ruleSet] {
	return func(yield func(*ruleSet) bool) {
		for e := range s.of(policy.InSet) {
			if !yield(&e.ruleSet) {
				return
			}
		}
		for _, sets := range [...][]ruleSet{s.ports, s.podPorts} {
			for i := range sets {
				if !yield(&sets[i]) {
					return
				}
			}
		}
	}
}

// anyOf is the ID of a set that has what several others have. The order in which these are written does not matter.
func anyOf(ids []policy.SetID) policy.SetID {
	parts := make([]string, 1, 1+len(ids))
	parts[0] = "any of"
	for _, id := range ids {
		parts = append(parts, string(id))
	}
	slices.Sort(parts[1:])
	return setID(parts...)
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
