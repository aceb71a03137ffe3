package ruleset

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"strings"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// Every name here is Prefix, a tag of at most 8 characters, and 16 characters of hash: at most 27. The kernel takes
// 28 for a chain (XT_EXTENSION_MAXNAMELEN, less the final zero) and 31 for a set (IPSET_MAXNAMELEN, likewise).

// Prefix starts the name of every chain and set of ours. Whatever has it is ours to change and to remove.
const Prefix = "RF-"

// The chains that exist once in a table.
const (
	forwardChain = Prefix + "FORWARD"
	inputChain   = Prefix + "INPUT"
	denyChain    = Prefix + "DENY"
)

// rootChain is the root of a direction's prefix tree.
func rootChain(d policy.Direction) string { return Prefix + strings.ToUpper(d.String()) }

// treeChain is the inner node of a direction's tree for the addresses in a prefix.
func treeChain(d policy.Direction, prefix string) string { return hashed(tag(d)+"T", prefix) }

// groupChain is the chain of the pods that a list of policies isolates in a direction.
func groupChain(d policy.Direction, refs []policy.Ref) string {
	parts := make([]string, 0, 3*len(refs))
	for _, r := range refs {
		parts = append(parts, r.Kind, r.Namespace, r.Name)
	}
	return hashed(tag(d)+"G", parts...)
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

// hashed makes a name from 80 bits of a hash over the parts. Each part carries its length, so that ("team", "ab") and
// ("teama", "b") differ.
func hashed(tag string, parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return Prefix + tag + "-" + strings.ToLower(base32.StdEncoding.EncodeToString(h.Sum(nil)[:10]))
}

// maxComment is how long a comment may be: the kernel takes 255 (XT_MAX_COMMENT_LEN, less the final zero).
const maxComment = 250

// ruleComment names the API rule that a rule comes from. A namespace has up to 63 characters and a name up to 253: a longer
// text loses its middle, and keeps the start of the name and the rule.
func ruleComment(ref policy.Ref, d policy.Direction, index int) string {
	name, rule := ref.String(), fmt.Sprintf(" %s[%d]", d, index)
	if over := len(name) + len(rule) - maxComment; over > 0 {
		name = name[:len(name)-over-2] + ".."
	}
	return name + rule
}
