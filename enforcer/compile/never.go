package compile

import (
	"fmt"
	"math/big"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// read makes the remarks that follow from the policy's text. ingress and egress are how many rules it has.
func (u *Understood) read(ingress, egress int) {
	u.remarks = notUnderstood(u.policy.problems)
	if why := unsatisfiableSubject(u.policy.subject); why != "" {
		u.never(u.fields.subject, "no pod can be selected: %s; mend the selector", why)
	}
	for _, d := range policy.Directions {
		written := [...]int{policy.Ingress: ingress, policy.Egress: egress}[d]
		if u.policy.applies[d] {
			for i := range u.policy.rules[d] {
				u.readRule(d, i)
			}
		} else if written > 0 {
			name := [...]string{policy.Ingress: "Ingress", policy.Egress: "Egress"}[d]
			u.never(u.fields.rules+d.String(),
				"%s is not among %s: these rules are never asked, and the policy leaves %s as it is; add it there, or remove the rules",
				name, u.fields.types, d)
		}
	}
}

func notUnderstood(problems []Problem) []Remark {
	var remarks []Remark
	for _, p := range problems {
		reason := v1alpha1.NotUnderstoodReason
		if p.TooLarge {
			reason = v1alpha1.TooLargeReason
		}
		remarks = append(remarks, Remark{reason, p.Field, p.Detail})
	}
	return remarks
}

func (u *Understood) never(field, format string, args ...any) {
	u.remarks = append(u.remarks, Remark{v1alpha1.NeverMatchesReason, field, fmt.Sprintf(format, args...)})
}

// readRule says so if the rule can match no packet. Where a rule is not understood in full there is nothing to add: what it will match, and what
// it will leave to others, depends on how it is mended.
func (u *Understood) readRule(d policy.Direction, i int) {
	rule := &u.policy.rules[d][i]
	if u.policy.unsaid > 0 || !u.isSound(d, rule) {
		return
	}
	at := u.fields.rule(d, rule.index)
	if why := rule.unsatisfiable(); why != "" {
		u.never(at+"."+u.fields.peers(d), "the rule matches nothing: %s; mend it, or remove the rule", why)
		return
	}
	if !u.policy.isRanked() {
		return // whose rules add up: none stands in another's way
	}
	for k := range u.policy.rules[d][:i] {
		earlier := &u.policy.rules[d][k]
		if u.isSound(d, earlier) && earlier.covers(rule) {
			name := u.fields.rule(d, earlier.index)
			if earlier.name != "" {
				name += fmt.Sprintf(" (%s)", earlier.name)
			}
			u.never(at, "the rule is never asked: %s stands before it, and matches all that it would; move this one in front of it, or remove it", name)
			return
		}
	}
}

// isSound reports whether the rule stands in the object, and is understood in full.
func (u *Understood) isSound(d policy.Direction, rule *parsedRule) bool {
	if rule.index < 0 || rule.action == policy.NoAction {
		return false
	}
	at := u.fields.rule(d, rule.index)
	return !slices.ContainsFunc(u.policy.problems, func(p Problem) bool { return p.Field == at || strings.HasPrefix(p.Field, at+".") })
}

// unsatisfiableSubject says why s can select no pod, empty if it can.
func unsatisfiableSubject(s podSelector) string {
	for _, part := range s.parts() {
		if texts := contradiction(part); texts != "" {
			return fmt.Sprintf("no labels satisfy %q", texts)
		}
	}
	return ""
}

// unsatisfiable says why no remote end can be one of the rule's peers, empty if there may be one.
func (r *parsedRule) unsatisfiable() string {
	if r.anyPeer {
		return ""
	}
	var first string
	for _, s := range r.selectors {
		why := unsatisfiableSubject(s)
		if why == "" {
			return ""
		}
		first = firstOf(first, why)
	}
	for _, s := range r.nodes {
		texts := contradiction(s)
		if texts == "" {
			return ""
		}
		first = firstOf(first, fmt.Sprintf("no labels satisfy %q", texts))
	}
	for _, b := range r.blocks {
		if !isEmpty(b) {
			return ""
		}
		first = firstOf(first, fmt.Sprintf("the exceptions leave nothing of %s", b.Prefix))
	}
	return first
}

func firstOf(first, second string) string {
	if first != "" {
		return first
	}
	return second
}

// isEmpty reports whether the exceptions, of which none lies in another, leave nothing of the block.
func isEmpty(b policy.Block) bool {
	bits := b.Prefix.Addr().BitLen()
	left := new(big.Int).Lsh(big.NewInt(1), uint(bits-b.Prefix.Bits()))
	for _, e := range b.Except {
		left.Sub(left, new(big.Int).Lsh(big.NewInt(1), uint(bits-e.Bits())))
	}
	return left.Sign() == 0
}

// covers reports whether r certainly matches every packet that o does. If it reports false, r may do so all the same.
func (r *parsedRule) covers(o *parsedRule) bool { return r.coversPeers(o) && r.coversPorts(o) }

func (r *parsedRule) coversPeers(o *parsedRule) bool {
	if r.isEveryAddress() {
		return true
	}
	if o.anyPeer {
		return false
	}
	for _, s := range o.selectors {
		if !slices.ContainsFunc(r.selectors, func(t podSelector) bool { return t.covers(s) }) {
			return false
		}
	}
	for _, s := range o.nodes {
		if !slices.ContainsFunc(r.nodes, func(t labels.Selector) bool { return covers(t, s) }) {
			return false
		}
	}
	for _, b := range o.blocks {
		if !slices.ContainsFunc(r.blocks, func(c policy.Block) bool { return len(c.Except) == 0 && within(b.Prefix, c.Prefix) }) {
			return false
		}
	}
	return true
}

// isEveryAddress reports whether the peers are any, or both families whole.
func (r *parsedRule) isEveryAddress() bool {
	var v4, v6 bool
	for _, b := range r.blocks {
		if b.Prefix.Bits() == 0 && len(b.Except) == 0 {
			v4, v6 = v4 || b.Prefix.Addr().Is4(), v6 || b.Prefix.Addr().Is6()
		}
	}
	return r.anyPeer || v4 && v6
}

func (r *parsedRule) coversPorts(o *parsedRule) bool {
	if r.anyPort {
		return true
	}
	if o.anyPort {
		return false
	}
	for _, ports := range o.ranges {
		if !r.coversRange(ports) {
			return false
		}
	}
	for _, n := range o.named {
		if !r.coversNamed(n) {
			return false
		}
	}
	return true
}

func (r *parsedRule) coversRange(o policy.PortRange) bool {
	return slices.ContainsFunc(r.ranges, func(p policy.PortRange) bool {
		return p.Protocol == o.Protocol && p.First <= o.First && o.Last <= p.Last
	})
}

// coversNamed reports whether r has the name too, or all ports that can have one.
func (r *parsedRule) coversNamed(n portName) bool {
	if slices.ContainsFunc(r.named, func(m portName) bool { return m.name == n.name && (m.protocol == 0 || m.protocol == n.protocol) }) {
		return true
	}
	for _, protocol := range []policy.Protocol{policy.TCP, policy.UDP, policy.SCTP} {
		if (n.protocol == 0 || n.protocol == protocol) && !r.coversRange(policy.PortRange{Protocol: protocol, First: 1, Last: 65535}) {
			return false
		}
	}
	return true
}
