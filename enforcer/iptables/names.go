package iptables

import (
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

// layout is the version of what chains and sets mean. It stands in the name of each, so that none that another version has left is taken for one of this
// version's: what has another layout is replaced as a whole. It changes when a name would come to mean something else: another type of set, other
// entries, a chain that is entered with other packets. A rule that is written in another way is no other layout.
//
// A program of another layout is built by setting it at link time, to test that versions take over from each other:
//
//	go build -ldflags "-X github.com/ringfence-io/ringfence/enforcer/iptables.layout=2"
//
// It is read where it is used: an initialiser of another variable might be computed by the compiler, before the linker sets this one.
var layout = ownLayout

// ownLayout is the layout of this version.
const ownLayout = "1"

// The names that are the same in every layout. A takeover puts other rules into the chains that base chains jump to, and leaves the jumps alone; so each
// version must do with any packet, by whichever jump it comes.
const (
	forwardChain = Prefix + "FORWARD"
	inputChain   = Prefix + "INPUT"
)

// CutSet is the name of the set that holds the connections of a family that have been cut. What it holds is to outlive an upgrade, so that its name, its type
// and the meaning of its entries are the same in every layout: what needs another one calls it by another name.
func CutSet(f Family) string { return fmt.Sprintf("%s%d-CUT", Prefix, f) }

// IsOfAnotherLayout reports whether a name is ours and none that this version gives. What it stands for, its own version knows.
func IsOfAnotherLayout(name string) bool {
	return strings.HasPrefix(name, Prefix) && !strings.HasPrefix(name, ofLayout("")) &&
		!slices.Contains([]string{forwardChain, inputChain, CutSet(IPv4), CutSet(IPv6)}, name)
}

// ofLayout is a name of this layout.
func ofLayout(name string) string { return Prefix + "v" + layout + "-" + name }

// denyChain is where a group ends.
func denyChain() string { return ofLayout("DENY") }

// rootChain is the root of one of a direction's prefix trees.
func rootChain(d policy.Direction, kind treeKind) string {
	name := strings.ToUpper(d.String())
	if kind != policyTree {
		name += "-" + string(kind)
	}
	return ofLayout(name)
}

// treeChain is the inner node of a direction's tree for the addresses in a prefix.
func treeChain(d policy.Direction, kind treeKind, prefix string) string {
	if kind == policyTree {
		return hashed(tag(d)+"T", prefix)
	}
	return hashed(tag(d)+"T", prefix, string(kind))
}

// groupChain is the chain of the pods that a list of policies isolates in a direction, whose names are given.
func groupChain(d policy.Direction, names []string) string { return hashed(tag(d)+"G", names...) }

// listChain is the chain of a list of policies whose rules are asked in their order.
func listChain(d policy.Direction, names []string) string { return hashed(tag(d)+"R", names...) }

// auditChain is the chain of audited policies.
func auditChain(d policy.Direction, names []string) string { return hashed(tag(d)+"A", names...) }

// sharedChain is the chain of pods of a namespace whose lists of policies are long and differ.
func sharedChain(d policy.Direction, at sharing) string {
	return hashed(tag(d)+"S", at.namespace, fmt.Sprint(at.audit), fmt.Sprint(at.length))
}

// subjectSet is the name of the set of the pods that a policy isolates in a direction, by rules whose texts are given. A policy with other rules has another
// set: a pod that comes under it with them is not to meet the old ones, which it would if it entered their set before they go.
func subjectSet(f Family, d policy.Direction, ref policy.Ref, rules []Rule) string {
	parts := []string{d.String(), ref.Kind, ref.Namespace, ref.Name}
	for _, r := range rules {
		parts = append(parts, string(r))
	}
	return hashed(fmt.Sprintf("%dS", f), parts...)
}

func tag(d policy.Direction) string {
	if d == policy.Egress {
		return "E"
	}
	return "I"
}

// setName is the name of a set that stands for what parts say, in one family.
func setName(t SetType, f Family, parts ...string) string {
	letter := map[SetType]string{HashIP: "A", HashNet: "N", HashIPPort: "P"}[t]
	return hashed(fmt.Sprintf("%d%s", f, letter), parts...)
}

// knownSet is the name of the set of the addresses that ranges are open to.
func knownSet(f Family, id string) string { return hashed(knownTag(f), id) }

// shutSet is the name of the set of the addresses that are shut.
func shutSet(f Family) string { return ofLayout(fmt.Sprintf("%dG", f)) }

func knownTag(f Family) string { return fmt.Sprintf("%dK", f) }

// opens reports whether a set is one of [knownSet]: what is in it passes a rule that drops all else.
func opens(set string) bool {
	return slices.ContainsFunc(Families[:], func(f Family) bool { return strings.HasPrefix(set, ofLayout(knownTag(f)+"-")) })
}

var base32Lower = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567")

// hashed makes a name from 80 bits of a hash over the parts. Each part carries its length, so that ("team", "ab") and
// ("teama", "b") differ.
func hashed(tag string, parts ...string) string {
	var b []byte
	for _, p := range parts {
		b = append(append(strconv.AppendInt(b, int64(len(p)), 10), ':'), p...)
	}
	sum := sha256.Sum256(b)
	return ofLayout(tag) + "-" + base32Lower.EncodeToString(sum[:10])
}

// maxComment is how long the name of a rule in a comment may be: the kernel takes 255 (XT_MAX_COMMENT_LEN, less the final zero), of which
// up to 12 say more about it.
const maxComment = 240

// maxRuleName is how much of a rule's own name a comment shows, all that the API admits.
const maxRuleName = 100

// ruleComment names the API rule that a rule comes from. A namespace has up to 63 characters and a name up to 253: a longer
// text loses its middle, and keeps the start of the object's name, and the rule.
func ruleComment(ref policy.Ref, d policy.Direction, r policy.Rule) string {
	object, rule := ref.String(), " "+d.String()
	if r.Index >= 0 {
		rule += fmt.Sprintf("[%d]", r.Index)
	}
	if r.Name != "" {
		name := plain(r.Name)
		rule += " " + name[:min(len(name), maxRuleName)]
	}
	if over := len(object) + len(rule) - maxComment; over > 0 {
		object = object[:len(object)-over-2] + ".."
	}
	return object + rule
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
