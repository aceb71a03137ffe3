package status

import (
	"net/netip"
	"slices"
	"sync"

	"github.com/ringfence-io/ringfence/enforcer/compile"
)

// claimants are the pods of the cluster by the addresses that they claim, so that of a pod's it is known whether another contests them. Nearly all addresses
// are claimed by one pod.
//
// Goroutines of informers write, while workers ask.
type claimants struct {
	mu    sync.Mutex
	first map[netip.Addr]*compile.Pod
	more  map[netip.Addr][]*compile.Pod // besides the first
}

func newClaimants() *claimants {
	return &claimants{first: map[netip.Addr]*compile.Pod{}, more: map[netip.Addr][]*compile.Pod{}}
}

// change takes in what a pod was and what it is, nil if it was not or is not any more. It returns the other pods for which it has changed whether somebody
// contests an address of theirs.
func (c *claimants) change(before, after *compile.Pod) []*compile.Pod {
	c.mu.Lock()
	defer c.mu.Unlock()
	var addrs []netip.Addr
	for _, p := range []*compile.Pod{before, after} {
		if p != nil {
			addrs = append(addrs, p.Claims()...)
		}
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	var news []*compile.Pod
	for _, a := range slices.Compact(addrs) {
		was := contested(c.at(a))
		c.leave(a, before)
		if after != nil && slices.Contains(after.Claims(), a) {
			c.enter(a, after)
		}
		now := contested(c.at(a))
		for _, p := range c.at(a) {
			if was[p] != now[p] && !isPod(p, before) && !isPod(p, after) {
				news = append(news, p)
			}
		}
	}
	return news
}

func isPod(p, q *compile.Pod) bool { return q != nil && p.UID == q.UID }

// contested are those of an address's claimants that another one contests.
func contested(all []*compile.Pod) map[*compile.Pod]bool {
	if len(all) < 2 {
		return nil
	}
	out := make(map[*compile.Pod]bool, len(all))
	for _, p := range all {
		if slices.ContainsFunc(all, p.Contests) {
			out[p] = true
		}
	}
	return out
}

// at are all claimants of an address.
func (c *claimants) at(a netip.Addr) []*compile.Pod {
	if c.first[a] == nil {
		return nil
	}
	return append([]*compile.Pod{c.first[a]}, c.more[a]...)
}

func (c *claimants) enter(a netip.Addr, p *compile.Pod) {
	if c.first[a] == nil {
		c.first[a] = p
		return
	}
	c.more[a] = append(c.more[a], p)
}

func (c *claimants) leave(a netip.Addr, p *compile.Pod) {
	if p == nil {
		return
	}
	left := slices.DeleteFunc(c.at(a), func(q *compile.Pod) bool { return isPod(q, p) })
	delete(c.first, a)
	delete(c.more, a)
	if len(left) > 0 {
		c.first[a] = left[0]
	}
	if len(left) > 1 {
		c.more[a] = left[1:]
	}
}

// contests is the first address of a pod that another contests.
func (c *claimants) contests(p *compile.Pod) (netip.Addr, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range p.Claims() {
		if first := c.first[a]; first != nil && first.Contests(p) || slices.ContainsFunc(c.more[a], p.Contests) {
			return a, true
		}
	}
	return netip.Addr{}, false
}
