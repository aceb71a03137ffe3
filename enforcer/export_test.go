package enforcer

// MakeAtOnce has changes wait that ask for more than n sets, so that small clusters have such changes.
func (e *Enforcer) MakeAtOnce(n int) { e.waiting.atOnce = n * workOfSet }
