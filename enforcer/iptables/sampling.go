package iptables

import (
	"fmt"
	"slices"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// Samples of what is denied, or would be, are so many at most: the kernel drops the others unseen. What is counted is everything. The kernel's limit is of one
// rule, and a tenant may have as many rules as it likes: the more policies of a namespace are sampled, the fewer samples each of their points gives. There are
// few rates, so that a policy that comes or goes changes the rules of the others seldom.
var sampleRates = []sampleRate{
	{16, "10/sec", 20},
	{160, "1/sec", 10}, // not 5, which iptables-save leaves out
	{1600, "6/min", 2},
	{0, "1/min", 1},
}

type sampleRate struct {
	policies int // of one namespace, up to which the rate holds; 0 for however many there are
	rate     string
	burst    int
}

// sampling are the words of a limit for the points of an object.
func (t *rendering) sampling(ref policy.Ref) string {
	r := rateFor(t.kept.samplings[ref.Namespace])
	return fmt.Sprintf("-m limit --limit %s --limit-burst %d", r.rate, r.burst)
}

// rateFor is the rate of each point of a namespace, of whose policies so many are sampled.
func rateFor(n int) sampleRate {
	return sampleRates[slices.IndexFunc(sampleRates, func(r sampleRate) bool { return n <= r.policies || r.policies == 0 })]
}

// countSampled counts the policies of each namespace that have a point which is sampled, and returns the namespaces that have another rate now. was is as
// [Renderer.were] has it.
func (r *Renderer) countSampled(policies []policy.Policy, was []int) (rated map[string]bool) {
	sampled, n := make([]bool, len(policies)), map[string]int{}
	for i := range policies {
		p := &policies[i]
		if was[i] >= 0 {
			sampled[i] = r.sampled[was[i]]
		} else {
			sampled[i] = p.Audit || p.Log || r.options.LogDenied || logs(p.Rules[policy.Ingress]) || logs(p.Rules[policy.Egress])
		}
		if sampled[i] {
			n[p.Ref.Namespace]++
		}
	}
	rated = map[string]bool{}
	for _, counts := range []map[string]int{n, r.samplings} {
		for namespace := range counts {
			if rateFor(n[namespace]) != rateFor(r.samplings[namespace]) {
				rated[namespace] = true
			}
		}
	}
	r.sampled, r.samplings = sampled, n
	return rated
}

func logs(rules []policy.Rule) bool {
	return slices.ContainsFunc(rules, func(r policy.Rule) bool { return r.Log })
}
