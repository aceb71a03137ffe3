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

// The lists that pods of one owner have in common.
var (
	labelLists = lists[Label]{seed: maphash.MakeSeed()}
	portLists  = lists[NamedPort]{seed: maphash.MakeSeed()}
)

// maxLists is how many lists are remembered: more than most clusters have, and little memory if none of them is ever seen again.
const maxLists = 4096

// lists remembers lists that were seen, so that equal ones can share their memory. It forgets all of them when they are too many: that costs
// memory for copies, and nothing else. It is safe for concurrent use.
type lists[T comparable] struct {
	seed   maphash.Seed
	mu     sync.Mutex
	byHash map[uint64][]T
}

// share is a list equal to list that nobody writes to: one that was seen before, or list itself with own made of each element.
func (s *lists[T]) share(list []T, own func(T) T) []T {
	var h maphash.Hash
	h.SetSeed(s.seed)
	for _, e := range list {
		maphash.WriteComparable(&h, e)
	}
	hash := h.Sum64()
	s.mu.Lock()
	defer s.mu.Unlock()
	if seen, ok := s.byHash[hash]; ok && slices.Equal(seen, list) {
		return seen
	}
	for i, e := range list {
		list[i] = own(e)
	}
	if s.byHash == nil || len(s.byHash) >= maxLists {
		s.byHash = map[uint64][]T{}
	}
	s.byHash[hash] = slices.Clip(list)
	return s.byHash[hash]
}
