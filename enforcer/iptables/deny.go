package iptables

import (
	"slices"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// denial is the target of a rule that denies.
func (pl *pipeline) denial(of *policy.Policy, r policy.Rule) string {
	if !pl.logs(r.Log) {
		return "-j DROP"
	}
	return "-g " + pl.loggedDenial(policy.Point{Ref: of.Ref, Direction: pl.direction, Index: r.Index, Tier: of.Stage.Tier()})
}

// isolationDenial are the rules for what no policy of a list accepts.
func (pl *pipeline) isolationDenial(policies []int) []Rule {
	var self []Rule
	if pl.isStageOfNetworkPolicies(policies) {
		self = pl.selfRules()
	}
	switch {
	case pl.logs(slices.ContainsFunc(policies, func(i int) bool { return pl.node.Policies[i].Log })):
		p := policy.Point{Ref: pl.together(policies), Direction: pl.direction, Index: -1, Tier: pl.node.Policies[policies[0]].Stage.Tier()}
		return append(self, Rule("-g "+pl.loggedDenial(p)))
	case len(self) == 0:
		return []Rule{"-j DROP"}
	}
	return []Rule{Rule("-g " + pl.chain(pl.Layout.denyChain(), func() []Rule { return append(self, "-j DROP") }))}
}

// together names the objects of policies that isolate together as one.
func (pl *pipeline) together(policies []int) policy.Ref {
	ref := pl.node.Policies[policies[0]].Ref
	for _, i := range policies[1:] {
		ref.Name += "," + pl.node.Policies[i].Ref.Name
	}
	return ref
}

// note adds the chain that counts and samples what an audited object would deny, and lets it go on.
func (pl *pipeline) note(of *policy.Policy) string {
	return pl.pointChain(policy.Point{Ref: of.Ref, Direction: pl.direction, Index: -1, Audit: true, Tier: of.Stage.Tier()}, pl.NFLogGroup != 0)
}
