package ruleset

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
func (t *renderer) sampling(ref policy.Ref) string {
	if t.sampled == nil {
		t.sampled = t.countSampled()
	}
	n := t.sampled[ref.Namespace]
	i := slices.IndexFunc(sampleRates, func(r sampleRate) bool { return n <= r.policies || r.policies == 0 })
	return fmt.Sprintf("-m limit --limit %s --limit-burst %d", sampleRates[i].rate, sampleRates[i].burst)
}

// countSampled is how many policies of each namespace have a point that is sampled.
func (t *renderer) countSampled() map[string]int {
	n := map[string]int{}
	for i := range t.node.Policies {
		p := &t.node.Policies[i]
		logs := func(r policy.Rule) bool { return r.Log }
		if p.Audit || t.LogDenied || slices.ContainsFunc(p.Rules[policy.Ingress], logs) || slices.ContainsFunc(p.Rules[policy.Egress], logs) {
			n[p.Ref.Namespace]++
		}
	}
	return n
}
