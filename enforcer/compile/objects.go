package compile

import (
	"hash/maphash"
	"iter"
	"slices"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// Named is an object that is known by its namespace, which may be empty, and its name.
type Named interface {
	comparable
	GetNamespace() string
	GetName() string
}

// Objects are the objects of one kind at one moment: a value that never changes. [Objects.With] and [Objects.Without] give another one, which shares with the
// first all that is the same. So a cache can hand out what it holds as it is, and what differs between two of them is found at the cost of what differs
// ([Objects.Since]). They are a tree of two levels, by the hash of the name. The zero value has none.
type Objects[T Named] struct {
	root *root[T]
	size int
}

// width is how many branches a tree has, and how many leaves a branch. A cluster of 100,000 pods has some 25 in a leaf; a change copies the root, one branch
// and one leaf, some 2 KB.
const width = 64

type (
	root[T Named]   [width]*branch[T]
	branch[T Named] [width][]T
)

// namesSeed makes the places of names unknown outside of the process, so that nobody can fill one leaf.
var namesSeed = maphash.MakeSeed()

// placeOf says which branch and which leaf of it have the objects of a name.
func placeOf(namespace, name string) (inRoot, inBranch int) {
	h := maphash.Comparable(namesSeed, [2]string{namespace, name})
	return int(h % width), int(h / width % width)
}

// ObjectsOf are some objects. Two of one name are both among them.
func ObjectsOf[T Named](all ...T) Objects[T] {
	var o Objects[T]
	if len(all) == 0 {
		return o
	}
	o.root, o.size = new(root[T]), len(all)
	for _, one := range all {
		i, j := placeOf(one.GetNamespace(), one.GetName())
		if o.root[i] == nil {
			o.root[i] = new(branch[T])
		}
		o.root[i][j] = append(o.root[i][j], one)
	}
	for _, b := range o.root {
		if b == nil {
			continue
		}
		for j := range b {
			b[j] = slices.Clip(slices.Clone(b[j])) // as many as there are, since caches keep them
		}
	}
	return o
}

// Len is how many there are.
func (o Objects[T]) Len() int { return o.size }

// All are the objects, in no order.
func (o Objects[T]) All() iter.Seq[T] {
	return func(yield func(T) bool) {
		if o.root == nil {
			return
		}
		for _, b := range o.root {
			if b == nil {
				continue
			}
			for _, leaf := range b {
				for _, one := range leaf {
					if !yield(one) {
						return
					}
				}
			}
		}
	}
}

// Get is the object of a name; ok is false if there is none.
func (o Objects[T]) Get(namespace, name string) (one T, ok bool) {
	if o.root == nil {
		return one, false
	}
	i, j := placeOf(namespace, name)
	if o.root[i] == nil {
		return one, false
	}
	leaf := o.root[i][j]
	if k := indexOf(leaf, namespace, name); k >= 0 {
		return leaf[k], true
	}
	return one, false
}

func indexOf[T Named](leaf []T, namespace, name string) int {
	return slices.IndexFunc(leaf, func(one T) bool { return one.GetName() == name && one.GetNamespace() == namespace })
}

// With is o with an object, in the place of one of the same name.
func (o Objects[T]) With(one T) Objects[T] {
	i, j := placeOf(one.GetNamespace(), one.GetName())
	to, b := o.copied(i)
	if k := indexOf(b[j], one.GetNamespace(), one.GetName()); k >= 0 {
		b[j] = slices.Clone(b[j])
		b[j][k] = one
		return to
	}
	to.size++
	leaf := make([]T, 0, len(b[j])+1)
	b[j] = append(append(leaf, b[j]...), one)
	return to
}

// Without is o without the object of a name.
func (o Objects[T]) Without(namespace, name string) Objects[T] {
	if _, there := o.Get(namespace, name); !there {
		return o
	}
	i, j := placeOf(namespace, name)
	to, b := o.copied(i)
	k := indexOf(b[j], namespace, name)
	b[j] = slices.Concat(b[j][:k], b[j][k+1:])
	if to.size--; to.size == 0 {
		to.root = nil
	}
	return to
}

// copied is o with a branch of its own, which may be written to before anybody sees it.
func (o Objects[T]) copied(i int) (Objects[T], *branch[T]) {
	to := Objects[T]{root: new(root[T]), size: o.size}
	b := new(branch[T])
	if o.root != nil {
		*to.root = *o.root
		if o.root[i] != nil {
			*b = *o.root[i]
		}
	}
	to.root[i] = b
	return to, b
}

// Since says which objects have gone and come since before. One that has changed is another object, so that the first has gone and the second has come.
func (o Objects[T]) Since(before Objects[T]) (gone, come []T) {
	if o.root == before.root {
		return nil, nil
	}
	var none root[T]
	var bare branch[T]
	is, was := o.root, before.root
	if is == nil {
		is = &none
	}
	if was == nil {
		was = &none
	}
	for i := range is {
		if is[i] == was[i] {
			continue
		}
		now, then := is[i], was[i]
		if now == nil {
			now = &bare
		}
		if then == nil {
			then = &bare
		}
		for j := range now {
			if !policy.IsOneSlice(now[j], then[j]) {
				gone, come = appendMissing(gone, then[j], now[j]), appendMissing(come, now[j], then[j])
			}
		}
	}
	return gone, come
}

// appendMissing adds those of some that are not among others.
func appendMissing[T comparable](to, some, others []T) []T {
	for _, one := range some {
		if !slices.Contains(others, one) {
			to = append(to, one)
		}
	}
	return to
}
