package compile

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// peers are the remote ends of one kind that a rule names. Each kind is one file, which has all that the rest of the package asks of it:
//
//   - peerpods.go: pods, by their labels and their namespace's;
//   - peernodes.go: nodes, by their labels;
//   - peerblocks.go: blocks of addresses;
//   - peerany.go: every address.
//
// For example, the egress rule
//
//	to: [{pods: {podSelector: {app: web}}}, {pods: {podSelector: {app: job}}}, {networks: [10.0.0.0/8]}]
//	protocols: [{destinationNamedPort: http}, {tcp: {destinationPort: {number: 443}}}]
//
// has podPeers with two selectors and blockPeers with one block. The pods become two ends, each a set of addresses, and two sets of the ports that these
// pods call http. The block becomes one end, which holds its addresses itself. A packet to port 443 is compared with all three ends, a packet to a port
// called http with the two sets of ports and with the block.
//
// A new kind is a new file and a number in [peerKind]. The file has:
//
//   - a list such as podFields, which reads the kind's fields; peerFields joins these lists;
//   - a type that implements peers, and [podVisitor] if pods can be among them;
//   - a [source] of its addresses, if these are not in the policy's text.
type peers interface {
	// weigh says how much there is to compare. It is called once, when the rule has been read, and may drop what is written twice.
	weigh() weight
	// never says why no address can be one of these, whatever there is in the cluster; empty if some address can.
	never() string
	// covers reports whether each address of o, which may be of any kind, is certainly one of these.
	covers(o peers) bool
	// settle says what a packet's remote address is compared with. The ports are sets of the named ports of these very peers, in the direction in which
	// they are the destinations. A kind that returns none leaves named ports to the sets for all destinations.
	settle(d policy.Direction, named []rulePort) (ends []end, ports []ruleSet)
}

// podVisitor is implemented by the kinds of peers among which pods can be.
type podVisitor interface {
	// eachPod visits the visible pods among the peers, until visit returns false. It reports whether visit always returned true.
	eachPod(r *review, visit func(*Pod) bool) bool
}

// source says whose addresses or ports a set has.
type source interface {
	// finder is for a set in the clusters that k follows. The names are those of ports; without any it is a set of addresses.
	finder(k *knownSets, names []portName) finder
	// among are those of some namespaces, sorted by name, whose pods may be members.
	among(c *cluster, namespaces []string) []string
}

// finder finds the members of one set, in one snapshot of the cluster after the other.
type finder interface {
	// looks is how many pods, namespaces and nodes have to be looked at, at the most, to find the members. It depends on the cluster alone, not on what is
	// kept.
	looks(c *cluster) int
	// find returns the members, sorted, each once. The next call takes their memory again. It may give up on more than limit members: ok is then false.
	find(c *cluster, limit int) (members []policy.Member, ok bool)
	// follow says which members have gone and come with the changes, in whatever order; ok is false if they are to be found anew.
	follow(c *cluster, all *changes) (gone, come []policy.Member, ok bool)
}

// peerKind numbers the kinds of peers. A packet is compared with the last kind first, since that costs least.
type peerKind int

const (
	ofPods peerKind = iota
	ofNodes
	ofBlocks
	ofAny
	peerKinds // how many there are
)

// end is one thing that a packet's remote address is compared with.
type end struct {
	kind policy.PeerKind
	// ruleSet has the addresses, of the kind InSet. Of the kind InBlocks its ID is a name for the blocks.
	ruleSet
	blocks []policy.Block
	// ownPorts is set where a named port is looked up with the address, in a set of its own.
	ownPorts bool
}

// peer is the end as the node's rules have it.
func (e *end) peer() policy.Peer { return policy.Peer{Kind: e.kind, Set: e.id, Blocks: e.blocks} }

// rules is how many rules of a table, in each family, the end becomes at the most for one thing that ports are compared with.
func (e *end) rules() int {
	if e.kind == policy.InBlocks {
		return min(len(e.blocks), inlineBlocks)
	}
	return 1
}

// peerField is a field of [v1alpha1.Peer]. A peer has exactly one of them.
type peerField struct {
	name string
	isIn func(*v1alpha1.Peer) bool
	read func(*parsedRule, *v1alpha1.Peer) error
}

var (
	// peerFields are those that can be understood.
	peerFields = slices.Concat(podFields, nodeFields, blockFields)
	// strangeFields are those that the SIG's text allows, and that are not enforced.
	strangeFields = []peerField{{
		"domainNames", func(p *v1alpha1.Peer) bool { return len(p.DomainNames) > 0 },
		func(*parsedRule, *v1alpha1.Peer) error {
			return errors.New("domainNames are not enforced; write networks")
		},
	}}
)

// addPeer adds a peer of ours, or of the SIG's, to the rule.
func (r *parsedRule) addPeer(p *v1alpha1.Peer) error {
	var written *peerField
	fields := 0
	for _, all := range [][]peerField{peerFields, strangeFields} {
		for i := range all {
			if all[i].isIn(p) {
				written = &all[i]
				fields++
			}
		}
	}
	if fields != 1 {
		return fmt.Errorf("the peer has %d of the fields %s where it must have one", fields, fieldNames(peerFields))
	}
	return written.read(r, p)
}

// fieldNames lists the fields, as "a, b and c".
func fieldNames(fields []peerField) string {
	names := make([]string, len(fields))
	for i := range fields {
		names[i] = fields[i].name
	}
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " and " + names[last]
}

// never says why no remote end can be one of the rule's peers, empty if there may be one.
func (r *parsedRule) never() string {
	some := slices.DeleteFunc(slices.Clone(r.peers[:]), func(p peers) bool { return p == nil })
	return allNever(some, peers.never)
}

// coversPeers reports whether each address of a peer of o is certainly that of a peer of r.
func (r *parsedRule) coversPeers(o *parsedRule) bool {
	for _, theirs := range o.peers {
		if theirs != nil && !slices.ContainsFunc(r.peers[:], func(ours peers) bool { return ours != nil && ours.covers(theirs) }) {
			return false
		}
	}
	return true
}

// allNever is the first reason why none of some can be, empty if one of them can or there are none.
func allNever[E any](all []E, never func(E) string) (first string) {
	for _, one := range all {
		why := never(one)
		if why == "" {
			return ""
		}
		first = cmp.Or(first, why)
	}
	return first
}

// peersOf are the peers of a kind that a rule has, to add to.
func peersOf[T any, P interface {
	*T
	peers
}](r *parsedRule, kind peerKind) P {
	if r.peers[kind] == nil {
		r.peers[kind] = P(new(T))
	}
	return r.peers[kind].(P)
}

// selectorList is a list of selectors that select together.
type selectorList[E any] interface {
	~[]E
	source
}

// endsOf are the ends that selectors become: a set for each, or one for all if they are many. setID names that of one selector.
func endsOf[S selectorList[E], E any](selectors S, setID func(E) policy.SetID) []end {
	if len(selectors) > maxOwnSets {
		ids := make([]policy.SetID, len(selectors))
		for i, s := range selectors {
			ids[i] = setID(s)
		}
		return []end{{kind: policy.InSet, ruleSet: ruleSet{id: anyOf(ids), of: selectors}}}
	}
	ends := make([]end, len(selectors))
	for i, s := range selectors {
		ends[i] = end{kind: policy.InSet, ruleSet: ruleSet{id: setID(s), of: selectors[i : i+1]}}
	}
	return ends
}
