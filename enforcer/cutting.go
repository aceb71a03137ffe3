package enforcer

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// cutting is one Cut. It ends connections while they are listed, some at a time: of a million that are denied it never holds more than these.
type cutting struct {
	*Connections
	own   []netip.Addr
	cases *policy.Cases
	some  []policy.Case
	ended *Ended
	errs  []error

	// Of the policy that is in force, as long as it is the same.
	node   *policy.Node
	judge  *policy.Judge
	unseen func(policy.Connection) bool
}

// maxErrors is how many errors one Cut keeps: each connection may have one.
const maxErrors = 10

func (c *cutting) add(ctx context.Context, one policy.Case) {
	c.some = append(c.some, one)
	if len(c.some) == atOnce {
		c.flush(ctx)
	}
}

// flush ends those of the collected connections that policy still denies.
func (c *cutting) flush(ctx context.Context) {
	if len(c.some) == 0 {
		return
	}
	if err := c.cut(ctx); err != nil && len(c.errs) < maxErrors {
		c.errs = append(c.errs, err)
	}
	c.some = c.some[:0]
}

func (c *cutting) cut(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if inForce := c.backlog.inForce; c.node != inForce || c.judge == nil {
		c.node, c.judge, c.unseen = inForce, policy.NewJudge(inForce, c.own), c.backlog.unseen(c.own)
	}
	var heldOff, unheld, forgotten []policy.Connection
	now := time.Now()
	for _, one := range c.some {
		if one.By != (policy.Connection{}) && !c.judge.DoesDeny(one.By) {
			continue // one without was not judged: what belongs to a connection that is gone, goes
		}
		c.cases.Gone(one.Connection)
		switch {
		case c.unseen(one.By) && c.judge.MayBeReply(one.By):
			forgotten = append(forgotten, one.Connection)
		case c.hasRoom(one.Connection, now):
			heldOff = append(heldOff, one.Connection)
		default:
			unheld = append(unheld, one.Connection)
		}
		if len(c.ended.First) < shown {
			if one.Reason == "" {
				one.Reason, _ = c.judge.Denies(one.By)
			}
			c.ended.First = append(c.ended.First, one)
		}
	}
	n, err := c.end(ctx, heldOff, true)
	m, second := c.end(ctx, unheld, false)
	k, third := c.end(ctx, forgotten, false)
	c.ended.Cut, c.ended.Forgotten = c.ended.Cut+n+m+k, c.ended.Forgotten+k
	return errors.Join(err, second, third)
}

// hasRoom takes room for what the other end of a connection still sends.
func (c *cutting) hasRoom(one policy.Connection, now time.Time) bool {
	if !one.Reply.Protocol.HasPorts() {
		return true // it takes none
	}
	owner := c.judge.Owner(one)
	if c.held[iptables.FamilyOf(one.Reply.Dst)].take(owner, now, one.Hold()) {
		return true
	}
	if c.ended.Unheld == nil {
		c.ended.Unheld = map[string]int{}
	}
	c.ended.Unheld[owner]++
	return false
}

func (c *cutting) end(ctx context.Context, some []policy.Connection, holdOff bool) (int, error) {
	if len(some) == 0 {
		return 0, nil
	}
	return c.tracker.Cut(ctx, some, holdOff)
}
