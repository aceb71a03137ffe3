package policy

import (
	"fmt"
	"strconv"
	"strings"
)

// Point is a place in the rules where packets are denied, or would be, and that is counted or logged. Every back end has the same points for the same Node:
// log lines about denied packets depend on no back end.
type Point struct {
	ID        string    // 16 characters: all that a sampled packet carries
	Ref       Ref       // the object; where several isolate together, their names with commas
	Direction Direction // of the connections that it denies
	Index     int       // of the rule in the object; -1 where no rule of it matched (default deny)
	Audit     bool      // nothing is denied, it only would be
	Tier      string    // of the object, as [Stage.Tier] has it; empty of what no policy denies
}

// Label is what the rule that counts for a point says of it, for people and for whoever reads the counts back: "would deny: NetworkPolicy team-a/web
// ingress[2]". A back end writes it into the kernel, which is all that the next process finds.
type Label struct {
	Audit     bool
	Object    string // as [Ref.String]; a long name may have lost a part
	Direction Direction
	Index     int // of the rule in the object, -1 for none
}

// Label is that of the point, in full length.
func (p Point) Label() Label { return Label{p.Audit, p.Ref.String(), p.Direction, p.Index} }

// The words with which a label begins.
const (
	startAudit    = "would deny: "
	startEnforced = "denied: "
)

// String is the label as [ParseLabel] reads it.
func (l Label) String() string { return l.Start() + l.Object + l.End() }

// Start is what stands before the object.
func (l Label) Start() string {
	if l.Audit {
		return startAudit
	}
	return startEnforced
}

// End is what stands behind the object: " ingress", or " egress[2]".
func (l Label) End() string {
	if l.Index < 0 {
		return " " + l.Direction.String()
	}
	return fmt.Sprintf(" %s[%d]", l.Direction, l.Index)
}

// ParseLabel reads what [Label.String] has written, of an object whose name is not empty. It reports false for any other text.
func ParseLabel(text string) (Label, bool) {
	for _, audit := range []bool{false, true} {
		l := Label{Audit: audit, Index: -1}
		rest, ok := strings.CutPrefix(text, l.Start())
		end := strings.LastIndexByte(rest, ' ')
		if !ok || end <= 0 {
			continue
		}
		direction, index, hasIndex := strings.Cut(rest[end+1:], "[")
		if l.Object = rest[:end]; direction == Egress.String() {
			l.Direction = Egress
		}
		if n, err := strconv.Atoi(strings.TrimSuffix(index, "]")); hasIndex && err == nil {
			l.Index = n
		}
		if l.String() == text {
			return l, true
		}
	}
	return Label{}, false
}
