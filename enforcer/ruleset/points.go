package ruleset

import (
	"strings"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// LogPrefix begins what a rule says of the packets that it samples; the ID of its [Point] follows.
const LogPrefix = "RF:"

// DefaultNFLogGroup is the NFLOG group of the samples: one that no program is known to take by itself.
const DefaultNFLogGroup = 4210

// The rules of a point stand in a chain of their own, named after what they do. The first of them matches every packet and has no
// target: its packet counter is the point's.
const (
	wouldDenyTag = "W" // count, sample and go on
	deniedTag    = "L" // count, sample and drop
)

// pointIDLength is that of a hash in a name.
const pointIDLength = 16

// PointOfChain is what the name of a chain says of the point whose rules stand in it: its ID, direction, and whether it only audits.
func PointOfChain(chain string) (p Point, ok bool) {
	for _, d := range policy.Directions {
		for _, audit := range []bool{true, false} {
			kind := deniedTag
			if audit {
				kind = wouldDenyTag
			}
			if id, found := strings.CutPrefix(chain, Prefix+tag(d)+kind+"-"); found && isPointID(id) {
				return Point{ID: id, Direction: d, Index: -1, Audit: audit}, true
			}
		}
	}
	return Point{}, false
}

// isPointID reports whether s is a hash as names have it: lower case, of the alphabet of base 32.
func isPointID(s string) bool {
	return len(s) == pointIDLength && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz234567") == ""
}
