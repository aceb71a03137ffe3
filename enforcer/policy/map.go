package policy

import (
	"cmp"
	"fmt"
	"hash/maphash"
	"iter"
	"maps"
	"reflect"
	"slices"
)

// Map is a map that never changes. What is made of it by [Map.Edited] shares with it all that is the same. So one state of a node, and what the kernel is to
// hold for it, is made from the one before at the cost of what differs, and what differs is found at the same cost ([Map.Since]). The zero value is empty.
//
// It is a tree over the hashes of the keys. Its shape depends on what is in it and on nothing else: two maps with the same content are deeply equal, whatever
// they were made from.
type Map[K ~string, V any] struct{ root *mapNode[K, V] }

// mapNode is a leaf with up to leafSize entries, or a branch with more.
type mapNode[K ~string, V any] struct {
	size   int
	leaf   []mapEntry[K, V] // in the order of their hashes
	branch *[branches]*mapNode[K, V]
}

type mapEntry[K ~string, V any] struct {
	hash  uint64
	key   K
	value V
}

// mapEdit is what becomes of a key: a value, or nothing.
type mapEdit[K ~string, V any] struct {
	hash  uint64
	key   K
	value *V
}

const (
	leafSize   = 12
	branchBits = 4
	branches   = 1 << branchBits
	firstShift = 64 - branchBits // the branches of the root are by the highest bits
)

// keysSeed makes the places of keys unknown outside of the process, so that nobody can fill one leaf.
var keysSeed = maphash.MakeSeed()

func hashOf[K ~string](key K) uint64 { return maphash.String(keysSeed, string(key)) }

// MapOf is a map as a Map.
func MapOf[K ~string, V any](m map[K]V) Map[K, V] {
	entries := make([]mapEntry[K, V], 0, len(m))
	for k, v := range m {
		entries = append(entries, mapEntry[K, V]{hashOf(k), k, v})
	}
	slices.SortFunc(entries, func(a, b mapEntry[K, V]) int { return inMap(a.hash, a.key, b.hash, b.key) })
	return Map[K, V]{nodeOf(entries, firstShift)}
}

// inMap is the order of entries.
func inMap[K ~string](aHash uint64, a K, bHash uint64, b K) int {
	if aHash != bHash {
		return cmp.Compare(aHash, bHash)
	}
	return cmp.Compare(a, b)
}

// nodeOf is the node of some entries in order, which have the bits above shift in common; nil without any.
func nodeOf[K ~string, V any](entries []mapEntry[K, V], shift int) *mapNode[K, V] {
	switch {
	case len(entries) == 0:
		return nil
	case len(entries) <= leafSize || shift < 0:
		return &mapNode[K, V]{size: len(entries), leaf: slices.Clip(slices.Clone(entries))}
	}
	n := &mapNode[K, V]{size: len(entries), branch: new([branches]*mapNode[K, V])}
	for i := range n.branch {
		end := 0
		for end < len(entries) && placeAt(entries[end].hash, shift) == i {
			end++
		}
		n.branch[i], entries = nodeOf(entries[:end], shift-branchBits), entries[end:]
	}
	return n
}

func placeAt(hash uint64, shift int) int { return int(hash >> shift % branches) }

// Len is how many keys there are.
func (m Map[K, V]) Len() int { return m.root.len() }

func (n *mapNode[K, V]) len() int {
	if n == nil {
		return 0
	}
	return n.size
}

// Get is the value of a key, the zero value if it is not there.
func (m Map[K, V]) Get(key K) V {
	v, _ := m.Lookup(key)
	return v
}

// Has reports whether a key is there.
func (m Map[K, V]) Has(key K) bool {
	_, there := m.Lookup(key)
	return there
}

// Lookup is the value of a key; there is false if it is not there.
func (m Map[K, V]) Lookup(key K) (value V, there bool) {
	n := m.root
	if n == nil {
		return value, false
	}
	hash := hashOf(key)
	for shift := firstShift; n != nil && n.branch != nil; shift -= branchBits {
		n = n.branch[placeAt(hash, shift)]
	}
	if n == nil {
		return value, false
	}
	for i := range n.leaf {
		if e := &n.leaf[i]; e.hash == hash && e.key == key {
			return e.value, true
		}
	}
	return value, false
}

// All are the keys with their values, in no order that means something.
func (m Map[K, V]) All() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		m.root.each(func(e *mapEntry[K, V]) bool { return yield(e.key, e.value) })
	}
}

// Keys are the keys, likewise.
func (m Map[K, V]) Keys() iter.Seq[K] {
	return func(yield func(K) bool) { m.root.each(func(e *mapEntry[K, V]) bool { return yield(e.key) }) }
}

// each visits the entries in their order, as long as visit says so.
func (n *mapNode[K, V]) each(visit func(*mapEntry[K, V]) bool) bool {
	if n == nil {
		return true
	}
	for i := range n.leaf {
		if !visit(&n.leaf[i]) {
			return false
		}
	}
	if n.branch != nil {
		for _, b := range n.branch {
			if !b.each(visit) {
				return false
			}
		}
	}
	return true
}

// With is the map with a value for a key.
func (m Map[K, V]) With(key K, value V) Map[K, V] {
	return Map[K, V]{m.root.edited([]mapEdit[K, V]{{hashOf(key), key, &value}}, firstShift)}
}

// Without is the map without a key.
func (m Map[K, V]) Without(key K) Map[K, V] {
	return Map[K, V]{m.root.edited([]mapEdit[K, V]{{hashOf(key), key, nil}}, firstShift)}
}

// Edited is the map with other values for some keys, and without those that have nil.
func (m Map[K, V]) Edited(edits map[K]*V) Map[K, V] {
	if len(edits) == 0 {
		return m
	}
	sorted := make([]mapEdit[K, V], 0, len(edits))
	for k, v := range edits {
		sorted = append(sorted, mapEdit[K, V]{hashOf(k), k, v})
	}
	slices.SortFunc(sorted, func(a, b mapEdit[K, V]) int { return inMap(a.hash, a.key, b.hash, b.key) })
	return Map[K, V]{m.root.edited(sorted, firstShift)}
}

// edited is the node with edits, which are in order.
func (n *mapNode[K, V]) edited(edits []mapEdit[K, V], shift int) *mapNode[K, V] {
	if len(edits) == 0 {
		return n
	}
	if n == nil || n.branch == nil {
		var before []mapEntry[K, V]
		if n != nil {
			before = n.leaf
		}
		return nodeOf(merge(before, edits), shift)
	}
	to := &mapNode[K, V]{branch: new([branches]*mapNode[K, V])}
	for i, b := range n.branch {
		end := 0
		for end < len(edits) && placeAt(edits[end].hash, shift) == i {
			end++
		}
		to.branch[i], edits = b.edited(edits[:end], shift-branchBits), edits[end:]
		to.size += to.branch[i].len()
	}
	if to.size <= leafSize {
		return nodeOf(to.entries(), shift)
	}
	return to
}

// merge is a list of entries with edits; both are in order.
func merge[K ~string, V any](entries []mapEntry[K, V], edits []mapEdit[K, V]) []mapEntry[K, V] {
	to := make([]mapEntry[K, V], 0, len(entries)+len(edits))
	for len(edits) > 0 {
		e := &edits[0]
		edits = edits[1:]
		for len(entries) > 0 && inMap(entries[0].hash, entries[0].key, e.hash, e.key) < 0 {
			to, entries = append(to, entries[0]), entries[1:]
		}
		if len(entries) > 0 && entries[0].hash == e.hash && entries[0].key == e.key {
			entries = entries[1:]
		}
		if e.value != nil {
			to = append(to, mapEntry[K, V]{e.hash, e.key, *e.value})
		}
	}
	return append(to, entries...)
}

// entries are those of a node in order.
func (n *mapNode[K, V]) entries() []mapEntry[K, V] {
	if n == nil || n.branch == nil {
		if n == nil {
			return nil
		}
		return n.leaf
	}
	all := make([]mapEntry[K, V], 0, n.size)
	n.each(func(e *mapEntry[K, V]) bool {
		all = append(all, *e)
		return true
	})
	return all
}

// Since visits each key that is in one of two maps and not in the other, and each that may have another value: with what it was, and with what it is. It looks
// at nothing that the maps share.
func (m Map[K, V]) Since(before Map[K, V], visit func(key K, was, is *V)) {
	differ(before.root, m.root, visit)
}

func differ[K ~string, V any](before, after *mapNode[K, V], visit func(key K, was, is *V)) {
	if before == after {
		return
	}
	if before != nil && after != nil && before.branch != nil && after.branch != nil {
		for i := range before.branch {
			differ(before.branch[i], after.branch[i], visit)
		}
		return
	}
	was, is := before.entries(), after.entries()
	for len(was) > 0 || len(is) > 0 {
		order := 0
		switch {
		case len(was) == 0:
			order = 1
		case len(is) == 0:
			order = -1
		default:
			order = inMap(was[0].hash, was[0].key, is[0].hash, is[0].key)
		}
		switch {
		case order < 0:
			visit(was[0].key, &was[0].value, nil)
			was = was[1:]
		case order > 0:
			visit(is[0].key, nil, &is[0].value)
			is = is[1:]
		default:
			visit(is[0].key, &was[0].value, &is[0].value)
			was, is = was[1:], is[1:]
		}
	}
}

// IsOne reports whether two maps are one, without a look at what is in them.
func (m Map[K, V]) IsOne(o Map[K, V]) bool { return m.root == o.root }

// Equal reports whether two maps have the same content.
func (m Map[K, V]) Equal(o Map[K, V]) bool { return reflect.DeepEqual(m.root, o.root) }

// Content is what is in the map.
func (m Map[K, V]) Content() map[K]V { return maps.Collect(m.All()) }

// String is the content in the order of the keys.
func (m Map[K, V]) String() string { return fmt.Sprint(m.Content()) }
