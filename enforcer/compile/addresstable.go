package compile

import (
	"hash/maphash"
	"math/bits"
	"net/netip"
)

// addressTable says which pod each address belongs to. It is a hash table whose keys stand in the pods themselves: a place takes 12 bytes, where one of a map
// by address takes 36. A cluster has an address of each family for each pod, and while a comparison runs there are two tables. The zero value is empty.
//
// A pod in it keeps its list of addresses as it is, as pods of a snapshot do.
type addressTable struct {
	pods  []*Pod   // nil where there is none
	which []uint32 // the index among the pod's addresses
	size  int
}

const (
	// Of so many places so many are taken at most: with more of them taken, one address is looked for in many places.
	fullPlaces, ofPlaces = 4, 5
	fewestPlaces         = 16
)

// addressSeed makes places unknown outside of the process, so that nobody can have all addresses looked for in the same ones.
var addressSeed = maphash.MakeSeed()

// home is where an address is looked for first. From there on it stands in the first place that was free.
func (t *addressTable) home(a netip.Addr) int {
	at, _ := bits.Mul64(maphash.Comparable(addressSeed, a), uint64(len(t.pods)))
	return int(at)
}

func (t *addressTable) next(at int) int {
	if at++; at == len(t.pods) {
		return 0
	}
	return at
}

// at is the address in a place that is taken.
func (t *addressTable) at(place int) netip.Addr { return t.pods[place].Addrs[t.which[place]] }

// find is the place of an address, or the one that is free for it.
func (t *addressTable) find(a netip.Addr) int {
	place := t.home(a)
	for t.pods[place] != nil && t.at(place) != a {
		place = t.next(place)
	}
	return place
}

// get is the pod that an address belongs to, nil if it is nobody's.
func (t *addressTable) get(a netip.Addr) *Pod {
	if t.size == 0 {
		return nil
	}
	return t.pods[t.find(a)]
}

// put has an address, the one of this index, belong to a pod.
func (t *addressTable) put(p *Pod, index int) {
	t.reserve(1)
	place := t.find(p.Addrs[index])
	if t.pods[place] == nil {
		t.size++
	}
	t.pods[place], t.which[place] = p, uint32(index)
}

// remove has an address be nobody's. What would not be found any more with a free place in front of it moves up.
func (t *addressTable) remove(a netip.Addr) {
	if t.size == 0 {
		return
	}
	free := t.find(a)
	if t.pods[free] == nil {
		return
	}
	t.size--
	for place := t.next(free); t.pods[place] != nil; place = t.next(place) {
		if t.isBetween(t.home(t.at(place)), free, place) {
			continue
		}
		t.pods[free], t.which[free] = t.pods[place], t.which[place]
		free = place
	}
	t.pods[free] = nil
	if len(t.pods) > fewestPlaces && t.size < len(t.pods)/4 {
		t.resize(t.size)
	}
}

// isBetween reports whether a place comes behind one and not behind another, on the way around.
func (t *addressTable) isBetween(place, behind, upTo int) bool {
	if behind <= upTo {
		return behind < place && place <= upTo
	}
	return behind < place || place <= upTo
}

// reserve makes room for more addresses.
func (t *addressTable) reserve(more int) {
	if n := t.size + more; n*ofPlaces > len(t.pods)*fullPlaces {
		t.resize(max(n, t.size+t.size/4))
	}
}

// resize makes a table with room for n addresses, of which there are not more.
func (t *addressTable) resize(n int) {
	was := *t
	places := max(fewestPlaces, n+n/3)
	*t = addressTable{pods: make([]*Pod, places), which: make([]uint32, places), size: was.size}
	for i, p := range was.pods {
		if p != nil {
			place := t.find(was.at(i))
			t.pods[place], t.which[place] = p, was.which[i]
		}
	}
}
