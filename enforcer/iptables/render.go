package iptables

import (
	"fmt"
	"slices"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// Options say what the node's kernel can do.
type Options struct {
	Families []Family
	// Table is the table that holds our chains: "security", or "mangle" on a kernel without it.
	Table string
	// SelfMatch is set where xt_bpf is there, to let a pod reach itself through its Service, and to tell what begins an SCTP association.
	SelfMatch bool
	// NFLogGroup is the NFLOG group that samples of denied packets go to, 0 for none.
	NFLogGroup uint16
	// LogDenied logs every denial, not only those of rules that ask for it.
	LogDenied bool
	// HoldCut is set where live connections are cut, to hold off what their other end still sends.
	HoldCut bool
	// Guards is set where the kernel can hold what comes from a link to addresses; see [Guard].
	Guards bool
	// HopLimit is set where ip6tables rules can match a packet's hop limit.
	HopLimit bool
	// Layout is how chains and sets are named.
	Layout Layout
	// FanOut is how many rules a packet meets at most in one node of a tree that is not too high, 0 for [DefaultFanOut].
	FanOut int
	// ListLength is how many rules of a list a packet meets one after the other before the list is cut down, 0 for [DefaultListLength].
	ListLength int
	// NamedRules is how many rules of NetworkPolicies a chain may have whose comments name them, 0 for [DefaultNamedRules].
	NamedRules int
	// ShareAlways has groups of a namespace share a chain wherever there are two, whether that is less or not. It is for tests.
	ShareAlways bool
}

// The first rule of a hook. The jump that leads there has left such packets out already; but a jump that another program has put in its place, or an
// older version's, may not have.
const establishedRule Rule = "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN"

// neighbourDiscovery are the ICMPv6 types of RFC 4861. Bridged frames pass ip6tables too, and a pod without them has no network.
var neighbourDiscovery = []int{133, 134, 135, 136, 137}

const forwardBase = "FORWARD"

// hooks are the base chains that we police, the chain that each jumps to, and the directions decided there. OUTPUT is not among
// them: a node always reaches its own pods, which the kubelet's probes rely on.
var hooks = []struct {
	base, chain string
	directions  []policy.Direction
}{
	{forwardBase, forwardChain, []policy.Direction{policy.Egress, policy.Ingress}},
	{"INPUT", inputChain, []policy.Direction{policy.Egress}}, // a pod to its own node
}

// JumpRule is the rule in a base chain that leads to our chains. Packets of established connections do not enter them: this one rule is all that they
// pay, however many policies there are.
func JumpRule(base string) Rule {
	for _, h := range hooks {
		if h.base == base {
			return Rule(`-m conntrack ! --ctstate RELATED,ESTABLISHED -m comment --comment "ringfence network policy" -j ` + h.chain)
		}
	}
	return ""
}

// selfMatch are the programs for xt_bpf that match a packet whose source and destination address are the same: it compares
// them in words of four bytes, at offset 12 and 16 in the IPv4 header, at 8 and 24 in the IPv6 header.
var selfMatch = map[Family]string{
	IPv4: "6,32 0 0 12,7 0 0 0,32 0 0 16,29 0 1 0,6 0 0 1,6 0 0 0",
	IPv6: "18,32 0 0 8,7 0 0 0,32 0 0 24,29 0 13 0,32 0 0 12,7 0 0 0,32 0 0 28,29 0 9 0," +
		"32 0 0 16,7 0 0 0,32 0 0 32,29 0 5 0,32 0 0 20,7 0 0 0,32 0 0 36,29 0 1 0,6 0 0 1,6 0 0 0",
}

// Render says what the kernel must hold to enforce n.
//
// A direction returns, it never accepts: a packet that a group's rules admit goes on behind the jump that led it there, to the
// other direction, and then to whatever other programs have in the same base chain.
func Render(n policy.Node, o Options) Ruleset { return new(Renderer).Render(n, o, Ruleset{}) }

func wantedJumps() map[string][]int {
	jumps := map[string][]int{}
	for _, h := range hooks {
		jumps[h.base] = []int{1}
	}
	return jumps
}

// rendering makes one family's table, and the sets that its rules name.
type rendering struct {
	Options
	node   *policy.Node
	family Family
	reuse  policy.Map[string, Set] // whose entries stand in the result where they are the same
	kept   *Renderer
	table  *keptTable
	making *piece // that whatever is added is below
}

// render takes the table to the present node. Of the sections all stay, if same is set.
func (t *rendering) render(namespaces []namespace, same bool) {
	if !same || t.table.roots == nil {
		t.renderSections(namespaces)
	}
	t.leave(&t.table.own)
	t.table.own = piece{own: true}
	t.into(&t.table.own, func() {
		for _, h := range hooks {
			t.hook(h.chain, t.hookRules(h.base, h.directions, t.table.roots))
		}
	})
}

func (t *rendering) renderSections(namespaces []namespace) {
	pipelines := make([]*pipeline, len(policy.Directions))
	for _, d := range policy.Directions {
		pipelines[d] = newPipeline(t, d, namespaces)
	}
	t.table.roots = map[policy.Direction]string{}
	for _, pl := range pipelines { // both directions have one chain in common, and take that which there is
		pl.makeSections(namespaces)
		if root := pl.addTrees(); root != "" {
			t.table.roots[pl.direction] = root
		}
		pl.endGroups()
	}
	t.table.forgetSizes(t.node)
	t.endTexts()
}

// hook adds a chain of a hook.
func (t *rendering) hook(chain string, rules []Rule) {
	if before, there := t.table.hooks[chain]; !there || !slices.Equal(before, rules) {
		t.table.hooks[chain], t.table.edits[chain] = rules, &rules
	}
}

// hookRules are empty where nothing is policed: a new connection pays for one jump there.
func (t *rendering) hookRules(base string, directions []policy.Direction, roots map[policy.Direction]string) []Rule {
	var jumps []Rule
	for _, d := range directions {
		if root, ok := roots[d]; ok {
			jumps = append(jumps, Rule("-j "+root))
		}
	}
	closed := slices.Concat(t.linkLocalRules(base), t.shutRules(directions), t.closedRules(directions))
	if len(jumps)+len(closed) == 0 {
		return nil
	}
	rules := []Rule{establishedRule}
	if t.HoldCut {
		rules = append(rules, t.cutRules()...)
	}
	if t.family == IPv6 {
		rules = append(rules, t.neighbourRules()...)
	}
	return slices.Concat(rules, closed, jumps)
}

// neighbourRules let neighbour discovery pass: what has not been forwarded, as RFC 4861 wants it, so that nobody sends anything else that way past a router.
func (t *rendering) neighbourRules() []Rule {
	own := ""
	if t.HopLimit {
		own = " -m hl --hl-eq 255"
	}
	var rules []Rule
	for _, icmpType := range neighbourDiscovery {
		rules = append(rules, Rule(fmt.Sprintf("-p ipv6-icmp -m icmp6 --icmpv6-type %d%s -j RETURN", icmpType, own)))
	}
	return rules
}

// linkLocalRules drop what is for an address of one link alone and was forwarded all the same: it has crossed a bridge, to a pod that policy does not know by
// that address. What comes from such an address to a pod's own is policy's to decide, and INPUT has it from routers and other nodes.
func (t *rendering) linkLocalRules(base string) []Rule {
	if t.family != IPv6 || base != forwardBase || !t.node.LinkLocalHeld {
		return nil
	}
	return []Rule{`-d fe80::/10 -m comment --comment "of one link alone, no pod has it" -j DROP`}
}

// ruleTexts are the rules that together match what r matches, of pods that a match on the subject leaves, with what is to happen then.
// Their comment is there to be read: empty is none.
func (t *rendering) ruleTexts(d policy.Direction, r policy.Rule, subject, comment, target string) []Rule {
	var rules []Rule
	for _, peer := range t.peerMatches(d, r.Peer) {
		for _, ports := range t.portMatches(r.Ports) {
			both := match{addr: peer.addr, port: ports.port, set: joinNonEmpty(subject, joinNonEmpty(peer.set, ports.set))}
			rules = append(rules, both.text(comment, target))
		}
	}
	return rules
}

// netSet adds the set of the union of blocks, and returns its name. Blocks do not change: the set is named after them, by their name if they have one, and
// one that is there already need not be made again.
func (t *rendering) netSet(id policy.SetID, blocks []policy.Block) string {
	var entries []Entry
	parts := []string{"blocks", string(id)}
	if id == "" {
		entries = unionEntries(blocks)
		parts = parts[:0]
		for _, e := range entries {
			parts = append(parts, e.Text(HashNet))
		}
	}
	name := t.Layout.setName(HashNet, t.family, parts...)
	t.fixedSet(name, HashNet, func() []Entry {
		if have, ok := t.reuse.Lookup(name); ok && entries == nil && have.Type == HashNet {
			return have.Nets
		}
		if entries == nil {
			return unionEntries(blocks)
		}
		return entries
	})
	return name
}
