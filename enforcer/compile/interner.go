package compile

import (
	"hash/maphash"
	"slices"
	"sync"
	"unique"
)

// intern makes equal strings share their memory: thousands of pods carry the same labels.
func intern(s string) string {
	if s == "" {
		return ""
	}
	return unique.Make(s).Value()
}

// Interner has pods share what they have in common: the pods of one owner have the same labels and named ports. Whoever keeps pods, as a cache does, has one
// for all of them. A selector is then asked about each list of labels once, instead of about each pod. The zero value is ready to use. It is safe for
// concurrent use.
type Interner struct {
	mu     sync.Mutex
	labels lists[Label]
	ports  lists[NamedPort]
}

// Pod is p with lists that equal pods have too. Nobody may write to them from here on.
func (i *Interner) Pod(p *Pod) *Pod {
	p.Labels = i.Labels(p.Labels)
	if len(p.Ports) > 0 {
		i.mu.Lock()
		defer i.mu.Unlock()
		p.Ports = i.ports.intern(p.Ports, func(p NamedPort) NamedPort { return NamedPort{intern(p.Name), p.Protocol, p.Port} })
	}
	return p
}

// Labels are labels equal to l, which others may have too. Nobody may write to them from here on, nor to l.
func (i *Interner) Labels(l Labels) Labels {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.labels.intern(l, internLabel)
}

func internLabel(l Label) Label { return Label{intern(l.Key), intern(l.Value)} }

// maxLists is how many lists are remembered: more than most clusters have, and little memory if none of them is ever seen again.
const maxLists = 4096

// lists remembers lists that were seen, so that equal ones can share their memory. It forgets all of them when they are too many: that costs
// memory for copies, and nothing else.
type lists[T comparable] struct {
	seed   maphash.Seed // of byHash, which is nil before the first list
	byHash map[uint64][]T
}

// intern is a list equal to list that nobody writes to: one that was seen before, or list itself with own made of each element.
func (s *lists[T]) intern(list []T, own func(T) T) []T {
	if s.byHash == nil {
		s.seed, s.byHash = maphash.MakeSeed(), map[uint64][]T{}
	}
	var h maphash.Hash
	h.SetSeed(s.seed)
	for _, e := range list {
		maphash.WriteComparable(&h, e)
	}
	hash := h.Sum64()
	if seen, ok := s.byHash[hash]; ok && slices.Equal(seen, list) {
		return seen
	}
	for i, e := range list {
		list[i] = own(e)
	}
	if len(s.byHash) >= maxLists {
		s.byHash = map[uint64][]T{}
	}
	s.byHash[hash] = slices.Clip(list)
	return s.byHash[hash]
}
