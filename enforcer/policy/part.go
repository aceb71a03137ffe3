package policy

import "slices"

// Closed is p without the rules that are not kept, so that it allows nothing that they do not: a rule that accepts then matches nothing, and any other denies
// everything from its place on. An audited policy changes no verdict, and merely loses them.
func (p Policy) Closed(keep func(Direction, Rule) bool) Policy {
	for d, rules := range p.Rules {
		var kept []Rule
		for _, r := range rules {
			if keep(Direction(d), r) {
				kept = append(kept, r)
				continue
			}
			if !p.Audit && !p.Stage.Isolates() && (r.Action == Deny || r.Action == Pass) {
				kept = append(kept, Rule{Index: r.Index, Name: r.Name, Action: Deny, Log: r.Log, Peer: Peer{Kind: AnyPeer}, Ports: Ports{Kind: AnyPort}})
				break // nothing behind it is asked
			}
		}
		p.Rules[d] = kept
	}
	return p
}

// OnlyAccepts reports whether every rule that names a set accepts what is in it: with fewer members it allows less.
func (n *Node) OnlyAccepts(id SetID) bool {
	for i := range n.Policies {
		for _, rules := range n.Policies[i].Rules {
			if slices.ContainsFunc(rules, func(r Rule) bool { return r.Names(id) && r.Action != Accept }) {
				return false
			}
		}
	}
	return id != n.Closed.Known
}

// Names reports whether the rule names a set.
func (r Rule) Names(id SetID) bool {
	return r.Peer.Kind == InSet && r.Peer.Set == id || r.Ports.Kind == InPorts && r.Ports.Set == id
}

// Equal reports whether two rules match the same, and do the same with it, for certain or in doubt.
func (r Rule) Equal(o Rule) bool {
	return r.Action == o.Action && r.Log == o.Log && r.InDoubt == o.InDoubt &&
		r.Peer.Kind == o.Peer.Kind && r.Peer.Set == o.Peer.Set && slices.EqualFunc(r.Peer.Blocks, o.Peer.Blocks, Block.Equal) &&
		r.Ports.Kind == o.Ports.Kind && r.Ports.Set == o.Ports.Set && r.Ports.Protocol == o.Ports.Protocol && slices.Equal(r.Ports.Ranges, o.Ports.Ranges)
}

// Equal reports whether two blocks are written alike.
func (b Block) Equal(o Block) bool { return b.Prefix == o.Prefix && slices.Equal(b.Except, o.Except) }

// Applying is n with those of its policies alone that some endpoint is still to be subject to. The others stay in [Node.Policies], where nothing leads to them.
func (n Node) Applying(which func(*Policy) bool) Node {
	applies := make([]bool, len(n.Policies))
	for i := range n.Policies {
		applies[i] = which(&n.Policies[i])
	}
	endpoints := n.Endpoints
	n.Endpoints = nil
	for _, e := range endpoints {
		for d := range e.Applies {
			for stage, policies := range e.Applies[d] {
				e.Applies[d][stage] = slices.DeleteFunc(slices.Clone(policies), func(i int) bool { return !applies[i] })
			}
		}
		if e.IsSubject(Ingress) || e.IsSubject(Egress) {
			n.Endpoints = append(n.Endpoints, e)
		}
	}
	return n
}
