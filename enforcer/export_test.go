package enforcer

import "github.com/ringfence-io/ringfence/enforcer/iptables"

// MakeAtOnce has changes wait that ask for more than n sets, so that small clusters have such changes.
func (e *Enforcer) MakeAtOnce(n int) { e.waiting.atOnce = n * iptables.WorkOfSet }
