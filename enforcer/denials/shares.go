package denials

import (
	"hash/maphash"
	"maps"
	"net/netip"
	"time"

	"golang.org/x/time/rate"

	"github.com/ringfence-io/ringfence/enforcer/dataplane"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// The kernel's limit holds for each point by itself, and whoever makes a thousand policies has a thousand points. So the lines of a node are shared out: a
// namespace has its share, whatever others do, and within it one remote address has half at most, so that one who floods does not hide the others who try.
const (
	nodeRate   = 100 // lines a second, of all namespaces together
	nodeBurst  = 1000
	shareRate  = 20 // of one namespace, or less where many have something to say
	shareBurst = 40
	leastRate  = 0.2
	// shareLife is for how long a namespace counts among those that have something to say.
	shareLife = 10 * time.Second
	// maxShares bounds the memory: on a node run some hundred pods. Namespaces beyond share one share.
	maxShares = 512
	// remotes is into how many groups the remote addresses of a share fall.
	remotes = 16
)

// The reasons for which a line is left out.
const (
	overShare  = "namespace" // its namespace has had its share
	overRemote = "remote"    // its remote end has had half of that
	overNode   = "node"      // all have had what there is
)

// shares are the lines of a node. They are used by one goroutine.
type shares struct {
	node *rate.Limiter
	seed maphash.Seed
	by   map[string]*share
}

type share struct {
	all     *rate.Limiter
	remote  [remotes]*rate.Limiter // as they are needed
	last    time.Time
	leftOut uint64 // since the last line
}

func newShares() *shares {
	return &shares{node: rate.NewLimiter(nodeRate, nodeBurst), seed: maphash.MakeSeed(), by: map[string]*share{}}
}

// take asks for a line of a tenant about a remote end. It says why there is none, or how many there were none for since the one before.
func (s *shares) take(now time.Time, tenant string, remote netip.Addr) (leftOut uint64, why string) {
	one := s.of(now, tenant)
	one.last = now
	one.all.SetLimitAt(now, s.rate())
	group := &one.remote[maphash.Comparable(s.seed, remote)%remotes]
	if *group == nil {
		*group = rate.NewLimiter(0, shareBurst/2)
	}
	(*group).SetLimitAt(now, s.rate()/2)
	switch {
	case (*group).TokensAt(now) < 1:
		why = overRemote
	case one.all.TokensAt(now) < 1:
		why = overShare
	case !s.node.AllowN(now, 1):
		why = overNode
	}
	if why != "" {
		one.leftOut++
		return 0, why
	}
	(*group).AllowN(now, 1)
	one.all.AllowN(now, 1)
	leftOut, one.leftOut = one.leftOut, 0
	return leftOut, ""
}

// rate is that of one share.
func (s *shares) rate() rate.Limit {
	return max(min(shareRate, rate.Limit(nodeRate)/rate.Limit(len(s.by))), leastRate)
}

// of is the share of a tenant. Those that have had nothing to say for a while are forgotten.
func (s *shares) of(now time.Time, tenant string) *share {
	if one := s.by[tenant]; one != nil {
		return one
	}
	maps.DeleteFunc(s.by, func(_ string, one *share) bool { return now.Sub(one.last) > shareLife })
	if len(s.by) >= maxShares {
		tenant = ""
	}
	if s.by[tenant] == nil {
		s.by[tenant] = &share{all: rate.NewLimiter(shareRate, shareBurst)}
	}
	return s.by[tenant]
}

// tenantOf is whose share a line is of: the namespace that the policy is in; of a policy of the whole cluster, the local pod's address, since to look for its
// name takes a walk over all pods.
func tenantOf(p policy.Point, packet *dataplane.Packet) (tenant string, remote netip.Addr) {
	local, remote := packet.Dst, packet.Src
	if p.Direction == policy.Egress {
		local, remote = remote, local
	}
	if p.Ref.Namespace != "" {
		return "namespace " + p.Ref.Namespace, remote
	}
	return "pod " + local.String(), remote
}
