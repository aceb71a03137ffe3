package iptables

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// LogPrefix begins what a rule says of the packets that it samples; the ID of its point follows.
const LogPrefix = "RF:"

// DefaultNFLogGroup is the NFLOG group of the samples: one that no program is known to take by itself.
const DefaultNFLogGroup = 4210

// pointIDLength is that of a hash in a name.
const pointIDLength = 16

// pointTag tells, in a chain's name, points that deny from those that only audit.
func pointTag(audit bool) string {
	if audit {
		return "W"
	}
	return "L"
}

// pointChain adds the chain of a point, and returns its name. The first rule counts, the next one samples, if that is asked for, and what is not merely audited
// is dropped then.
func (t *rendering) pointChain(p policy.Point, sampled bool) string {
	chain := t.Layout.identify(&p)
	return t.chain(chain, func() []Rule {
		t.kept.holdPoint(p)
		t.making.point = &p
		rules := []Rule{countRule(p)}
		if sampled {
			rules = append(rules, t.sampleRule(p))
		}
		if !p.Audit {
			rules = append(rules, "-j DROP")
		}
		return rules
	})
}

// loggedDenial adds the chain that counts, samples and drops.
func (t *rendering) loggedDenial(p policy.Point) string { return t.pointChain(p, true) }

// logs reports whether denials have points: those that ask for it, or all.
func (t *rendering) logs(asked bool) bool { return t.NFLogGroup != 0 && (asked || t.LogDenied) }

// identify gives p its ID, and returns its chain. The ID alone tells it from all others: samples carry nothing else. What a point says is all in it, so that a
// chain that is kept says the same.
func (l Layout) identify(p *policy.Point) string {
	kind := pointTag(p.Audit)
	chain := l.hashed(tag(p.Direction)+kind, kind, p.Direction.String(), p.Ref.Kind, p.Ref.Namespace, p.Ref.Name, fmt.Sprint(p.Index), p.Tier)
	p.ID = chain[strings.LastIndexByte(chain, '-')+1:]
	return chain
}

// PointOfChain is what the name of a chain says of the point whose rules stand in it: its ID, direction, and whether it only audits. A chain of another
// layout says nothing.
func (l Layout) PointOfChain(chain string) (p policy.Point, ok bool) {
	for _, d := range policy.Directions {
		for _, audit := range []bool{false, true} {
			if id, found := strings.CutPrefix(chain, l.name(tag(d)+pointTag(audit))+"-"); found && isPointID(id) {
				return policy.Point{ID: id, Direction: d, Index: -1, Audit: audit}, true
			}
		}
	}
	return policy.Point{}, false
}

// isPointID reports whether s is a hash as names have it: lower case, of the alphabet of base 32.
func isPointID(s string) bool {
	return len(s) == pointIDLength && strings.Trim(s, base32Alphabet) == ""
}

// countRule matches every packet and does nothing: its counter is what is read, and its comment, which [ObjectOfComment] reads, says what of.
func countRule(p policy.Point) Rule {
	label := p.Label()
	label.Object = fitting(label.Object, label.End())
	return Rule(fmt.Sprintf("-m comment --comment %q", label))
}

// ObjectOfComment is the object that the comment of a counting rule names, and the rule of it, if it names one. The name may have lost its middle. A
// comment that says something else stands for itself.
func ObjectOfComment(comment string) (object string, rule *int) {
	label, ok := policy.ParseLabel(comment)
	switch {
	case !ok:
		return cmp.Or(comment, "unknown"), nil
	case label.Index >= 0:
		rule = &label.Index
	}
	return label.Object, rule
}

// sampleRule sends some of the packets to whoever reads the group.
func (t *rendering) sampleRule(p policy.Point) Rule {
	return Rule(fmt.Sprintf("%s -j NFLOG --nflog-prefix %q --nflog-group %d", t.sampling(p.Ref), LogPrefix+p.ID, t.NFLogGroup))
}
