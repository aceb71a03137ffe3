package iptables

import (
	"cmp"
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// Names are Prefix, "v", the layout of up to four characters, a tag of up to two, and 16 characters of hash, joined by "-": 28 characters at most. The roots
// of trees, which have no hash, are shorter. The kernel takes 28 for a chain (XT_EXTENSION_MAXNAMELEN, less the final zero) and 31 for a set
// (IPSET_MAXNAMELEN, likewise).

// Prefix starts the name of every chain and set of ours, in every version. Whatever has it is ours to change and to remove.
const Prefix = "RF-"

// Layout is the version of what chains and sets mean, of up to four characters. It stands in the name of each, so that none that another version has left is
// taken for one of this version's: what has another layout is replaced as a whole. It changes when a name would come to mean something else: another type of
// set, other entries, a chain that is entered with other packets. A rule that is written in another way is no other layout.
//
// The zero Layout is [OwnLayout]. Only tests have another one, to see that versions take over from each other.
type Layout string

// OwnLayout is the layout of this version.
const OwnLayout Layout = "1"

// version is the layout as names have it.
func (l Layout) version() string { return string(cmp.Or(l, OwnLayout)) }

// The names that are the same in every layout. A takeover puts other rules into the chains that base chains jump to, and leaves the jumps alone; so each
// version must do with any packet, by whichever jump it comes.
const (
	forwardChain = Prefix + "FORWARD"
	inputChain   = Prefix + "INPUT"
)

// CutSet is the name of the set that holds the connections of a family that have been cut. What it holds is to outlive an upgrade, so that its name, its type
// and the meaning of its entries are the same in every layout: what needs another one calls it by another name.
func CutSet(f Family) string { return fmt.Sprintf("%s%d-CUT", Prefix, f) }

// IsOther reports whether a name is ours and none that this layout gives. What it stands for, a version with that layout knows.
func (l Layout) IsOther(name string) bool {
	return strings.HasPrefix(name, Prefix) && !strings.HasPrefix(name, l.name("")) &&
		!slices.Contains([]string{forwardChain, inputChain, CutSet(IPv4), CutSet(IPv6)}, name)
}

// name is a name of this layout.
func (l Layout) name(rest string) string { return Prefix + "v" + l.version() + "-" + rest }

// denyChain is where a group ends.
func (l Layout) denyChain() string { return l.name("DENY") }

// rootChain is the root of one of a direction's prefix trees.
func (l Layout) rootChain(d policy.Direction, kind treeKind) string {
	name := strings.ToUpper(d.String())
	if kind != policyTree {
		name += "-" + string(kind)
	}
	return l.name(name)
}

// treeChain is the inner node of a direction's tree for the addresses in a prefix.
func (l Layout) treeChain(d policy.Direction, kind treeKind, prefix string) string {
	if kind == policyTree {
		return l.hashed(tag(d)+"T", prefix)
	}
	return l.hashed(tag(d)+"T", prefix, string(kind))
}

// groupChain is the chain of the pods that a list of policies isolates in a direction, whose names are given.
func (l Layout) groupChain(d policy.Direction, names []string) string {
	return l.hashed(tag(d)+"G", names...)
}

// listChain is the chain of a list of policies whose rules are asked in their order.
func (l Layout) listChain(d policy.Direction, names []string) string {
	return l.hashed(tag(d)+"R", names...)
}

// portChain is the chain of those rules of a list that packets to some ports can be matched by. Texts say the ports and the rules.
func (l Layout) portChain(d policy.Direction, texts []string) string {
	return l.hashed(tag(d)+"P", texts...)
}

// runChain is the chain of a run of rules, which texts say.
func (l Layout) runChain(d policy.Direction, texts []string) string {
	return l.hashed(tag(d)+"U", texts...)
}

// auditChain is the chain of audited policies.
func (l Layout) auditChain(d policy.Direction, names []string) string {
	return l.hashed(tag(d)+"A", names...)
}

// sharedChain is the chain of pods of a namespace whose lists of policies are long and differ.
func (l Layout) sharedChain(d policy.Direction, at sharing) string {
	return l.hashed(tag(d)+"S", at.namespace, fmt.Sprint(at.audit), fmt.Sprint(at.length))
}

// subjectSet is the name of the set of the pods that a policy isolates in a direction, by rules whose texts are given. A policy with other rules has another
// set: a pod that comes under it with them is not to meet the old ones, which it would if it entered their set before they go.
func (l Layout) subjectSet(f Family, d policy.Direction, ref policy.Ref, rules []Rule) string {
	parts := []string{d.String(), ref.Kind, ref.Namespace, ref.Name}
	for _, r := range rules {
		parts = append(parts, string(r))
	}
	return l.hashed(fmt.Sprintf("%dS", f), parts...)
}

func tag(d policy.Direction) string {
	if d == policy.Egress {
		return "E"
	}
	return "I"
}

// setName is the name of a set that stands for what parts say, in one family.
func (l Layout) setName(t SetType, f Family, parts ...string) string {
	letter := map[SetType]string{HashIP: "A", HashNet: "N", HashIPPort: "P"}[t]
	return l.hashed(fmt.Sprintf("%d%s", f, letter), parts...)
}

// unionSet is the name of the union of some sets of the node, in one family.
func (l Layout) unionSet(f Family, ids []policy.SetID) string {
	parts := make([]string, len(ids))
	for i, id := range ids {
		parts[i] = string(id)
	}
	return l.hashed(unionTag(f), parts...)
}

// unionTag comes behind the tags of the sets that a union is of: see [Diff].
func unionTag(f Family) string { return fmt.Sprintf("%dU", f) }

// isUnion reports whether a set is one of [Layout.unionSet], of whichever layout.
func isUnion(set string) bool { return hasTag(set, unionTag) }

// knownSet is the name of the set of the addresses that ranges are open to.
func (l Layout) knownSet(f Family, id string) string { return l.hashed(knownTag(f), id) }

// shutSet is the name of the set of the addresses that are shut.
func (l Layout) shutSet(f Family) string { return l.name(fmt.Sprintf("%dG", f)) }

func knownTag(f Family) string { return fmt.Sprintf("%dK", f) }

// opens reports whether a set is one of [Layout.knownSet], of whichever layout: what is in it passes a rule that drops all else.
func opens(set string) bool { return hasTag(set, knownTag) }

// hasTag reports whether a name has a tag behind its layout.
func hasTag(name string, tag func(Family) string) bool {
	rest, ok := strings.CutPrefix(name, Prefix+"v")
	_, rest, _ = strings.Cut(rest, "-")
	return ok && slices.ContainsFunc(Families[:], func(f Family) bool { return strings.HasPrefix(rest, tag(f)+"-") })
}

// base32Alphabet is that of RFC 4648, in lower case.
const base32Alphabet = "abcdefghijklmnopqrstuvwxyz234567"

var base32Lower = base32.NewEncoding(base32Alphabet)

// hashed makes a name from 80 bits of a hash over the parts. Each part carries its length, so that ("team", "ab") and
// ("teama", "b") differ.
func (l Layout) hashed(tag string, parts ...string) string {
	var b []byte
	for _, p := range parts {
		b = append(append(strconv.AppendInt(b, int64(len(p)), 10), ':'), p...)
	}
	sum := sha256.Sum256(b)
	return l.name(tag) + "-" + base32Lower.EncodeToString(sum[:10])
}

// maxComment is how long the name of a rule in a comment may be: the kernel takes 255 (XT_MAX_COMMENT_LEN, less the final zero), of which
// up to 12 say more about it.
const maxComment = 240

// maxRuleName is how much of a rule's own name a comment shows, all that the API admits.
const maxRuleName = 100

// ruleComment names the API rule that a rule comes from.
func ruleComment(ref policy.Ref, d policy.Direction, r policy.Rule) string {
	rule := policy.Label{Direction: d, Index: r.Index}.End()
	if r.Name != "" {
		name := plain(r.Name)
		rule += " " + name[:min(len(name), maxRuleName)]
	}
	return fitting(ref.String(), rule) + rule
}

// fitting is the name of an object that fits into a comment in front of what a rule is called. A namespace has up to 63 characters and a name up to 253: what
// is longer loses its end.
func fitting(object, rule string) string {
	if over := len(object) + len(rule) - maxComment; over > 0 {
		return object[:len(object)-over-2] + ".."
	}
	return object
}

// plain is text that needs no quoting in a rule: a rule's name may be any text of up to 100 characters.
func plain(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || strings.ContainsRune("\"'\\`$", r) {
			return '_'
		}
		return r
	}, text)
}
