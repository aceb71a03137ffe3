package iptables

import (
	"cmp"
	"regexp"
	"strconv"
	"strings"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// LogPrefix begins what a rule says of the packets that it samples; the ID of its [Point] follows.
const LogPrefix = "RF:"

// DefaultNFLogGroup is the NFLOG group of the samples: one that no program is known to take by itself.
const DefaultNFLogGroup = 4210

// The rules of a point stand in a chain of their own, named after what they do. The first of them matches every packet and has no
// target: its packet counter is the point's, and its comment says of what. They are told apart by whether the point only audits.
var (
	pointTags  = map[bool]string{true: "W", false: "L"} // count and sample; then go on, or drop
	pointVerbs = map[bool]string{true: "would deny: ", false: "denied: "}
)

// pointIDLength is that of a hash in a name.
const pointIDLength = 16

// PointOfChain is what the name of a chain says of the point whose rules stand in it: its ID, direction, and whether it only audits. A chain of another
// layout says nothing.
func PointOfChain(chain string) (p Point, ok bool) {
	for _, d := range policy.Directions {
		for audit, kind := range pointTags {
			if id, found := strings.CutPrefix(chain, ofLayout(tag(d)+kind)+"-"); found && isPointID(id) {
				return Point{ID: id, Direction: d, Index: -1, Audit: audit}, true
			}
		}
	}
	return Point{}, false
}

// pointComment is a counting rule's, as [countRule] writes it.
var pointComment = regexp.MustCompile(`^(?:` + pointVerbs[true] + `|` + pointVerbs[false] + `)(.+) (?:ingress|egress)(?:\[(\d+)\])?$`)

// ObjectOfComment is the object that the comment of a counting rule names, and the rule of it, if it names one. The name may have lost its middle. A
// comment that says something else stands for itself.
func ObjectOfComment(comment string) (object string, rule *int) {
	m := pointComment.FindStringSubmatch(comment)
	if m == nil {
		return cmp.Or(comment, "unknown"), nil
	}
	if n, err := strconv.Atoi(m[2]); err == nil {
		rule = &n
	}
	return m[1], rule
}

// isPointID reports whether s is a hash as names have it: lower case, of the alphabet of base 32.
func isPointID(s string) bool {
	return len(s) == pointIDLength && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz234567") == ""
}
