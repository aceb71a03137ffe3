package compile

import (
	"fmt"
	"slices"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// read makes the remarks that follow from the policy's text. ingress and egress are how many rules it has.
func (u *Understood) read(ingress, egress int) {
	u.remarks = notUnderstood(u.policy.problems)
	if why := u.policy.subject.never(); why != "" {
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
	if u.policy.unlisted > 0 || !rule.understood {
		return
	}
	at := u.fields.rule(d, rule.index)
	if why := rule.never(); why != "" {
		u.never(at+"."+u.fields.peers(d), "the rule matches nothing: %s; mend it, or remove the rule", why)
		return
	}
	if !u.policy.isRanked() {
		return // whose rules add up: none stands in another's way
	}
	for k := range u.policy.rules[d][:i] {
		earlier := &u.policy.rules[d][k]
		if earlier.understood && earlier.covers(rule) {
			name := u.fields.rule(d, earlier.index)
			if earlier.name != "" {
				name += fmt.Sprintf(" (%s)", earlier.name)
			}
			u.never(at, "the rule is never asked: %s stands before it, and matches all that it would; move this one in front of it, or remove it", name)
			return
		}
	}
}

// covers reports whether r certainly matches every packet that o does. If it reports false, r may do so all the same.
func (r *parsedRule) covers(o *parsedRule) bool { return r.coversPeers(o) && r.coversPorts(o) }

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
	for _, p := range o.named {
		if !r.coversNamed(p.name) {
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
	if r.isNamed[n] || r.isNamed[portName{0, n.name}] {
		return true
	}
	for _, protocol := range []policy.Protocol{policy.TCP, policy.UDP, policy.SCTP} {
		if (n.protocol == 0 || n.protocol == protocol) && !r.coversRange(policy.PortRange{Protocol: protocol, First: 1, Last: 65535}) {
			return false
		}
	}
	return true
}
