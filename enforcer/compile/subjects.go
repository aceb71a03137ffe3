package compile

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// compare orders policies as they are asked. Where they add up, the order is only for the eye.
func (p *parsedPolicy) compare(q *parsedPolicy) int {
	return cmp.Or(
		cmp.Compare(p.stage, q.stage), cmp.Compare(p.priority, q.priority), cmp.Compare(p.created, q.created),
		cmp.Compare(p.ref.Namespace, q.ref.Namespace), cmp.Compare(p.ref.Name, q.ref.Name), cmp.Compare(p.ref.Kind, q.ref.Kind),
		cmp.Compare(p.part, q.part))
}

// isRanked reports whether the policy's place among those of its stage depends on its priority.
func (p *parsedPolicy) isRanked() bool {
	return p.stage == policy.AdminRules || p.stage == policy.BaselineRules
}

// isTiedWith reports whether less than the priority decides which of two policies is asked first, in a direction of a pod that both select.
func (p *parsedPolicy) isTiedWith(q *parsedPolicy) bool {
	return p.ref != q.ref && p.isRanked() && p.stage == q.stage && p.priority == q.priority &&
		(p.applies[policy.Ingress] && q.applies[policy.Ingress] || p.applies[policy.Egress] && q.applies[policy.Egress])
}

// whyFirst is what decides between policies that are tied.
func (p *parsedPolicy) whyFirst(q *parsedPolicy) string {
	switch {
	case p.created != q.created:
		return "as it is older"
	case p.ref.Name != q.ref.Name:
		return "by its name"
	default:
		return "as it is of our kind" // and the other of the SIG's
	}
}

// subject is which of the parsed policies apply to a local pod, by direction and stage.
type subject [2][len(policy.Stages)][]int

func (s *subject) add(i int, p *parsedPolicy) {
	for _, d := range policy.Directions {
		if p.applies[d] {
			s[d][p.stage] = append(s[d][p.stage], i)
		}
	}
}

// settle leaves audited policies away where enforced ones isolate the pod already, and marks those that are left as used.
func (s *subject) settle(parsed []*parsedPolicy, used []bool) {
	enforced := func(i int) bool { return !parsed[i].audit }
	for d := range s {
		for stage, policies := range s[d] {
			if policy.Stage(stage).Isolates() && slices.ContainsFunc(policies, enforced) {
				policies = slices.DeleteFunc(policies, func(i int) bool { return parsed[i].audit })
				s[d][stage] = policies
			}
			for _, i := range policies {
				used[i] = true
			}
		}
	}
}

// ties are the policies that share a tier, a priority and a pod with another one: which is asked first is decided by less than an
// administrator may think.
func ties(parsed []*parsedPolicy, subjects []subject) []Problem {
	var problems []Problem
	seen := map[[2]int]bool{}
	for i := range subjects {
		for _, byStage := range subjects[i] {
			for _, stage := range []policy.Stage{policy.AdminRules, policy.BaselineRules} {
				for k := 1; k < len(byStage[stage]); k++ {
					pair := [2]int{byStage[stage][k-1], byStage[stage][k]}
					first, second := parsed[pair[0]], parsed[pair[1]]
					if first.priority != second.priority || seen[pair] {
						continue
					}
					seen[pair] = true
					problems = append(problems, Problem{Ref: second.ref, Field: "spec.priority", Detail: fmt.Sprintf(
						"%s has the same tier and priority, and both select a pod: it is asked first, as it is older, or by its name; "+
							"give them different priorities", first.ref)})
				}
			}
		}
	}
	return problems
}
