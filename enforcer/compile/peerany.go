package compile

import "github.com/ringfence-io/ringfence/enforcer/policy"

// anyPeer is every address: the peer of a NetworkPolicy's rule that names none, and of a rule that stands for one that could not be understood.
type anyPeer struct{}

var (
	_ peers      = anyPeer{}
	_ podVisitor = anyPeer{}
)

// addAny adds every address to the rule's peers.
func (r *parsedRule) addAny() { r.peers[ofAny] = anyPeer{} }

func (anyPeer) weigh() weight { return weight{} }

func (anyPeer) never() string { return "" }

func (anyPeer) covers(peers) bool { return true }

func (anyPeer) settle(policy.Direction, []rulePort) ([]end, []ruleSet) {
	return []end{{kind: policy.AnyPeer}}, nil
}

func (anyPeer) eachPod(r *review, visit func(*Pod) bool) bool { return r.eachVisible(visit) }
