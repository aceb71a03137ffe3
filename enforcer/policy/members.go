package policy

import (
	"bytes"
	"cmp"
	"fmt"
	"hash/maphash"
	"iter"
	"slices"
	"strings"
)

// Members are what a set holds: members in the order of [Member.Compare], each once. They never change. What is made of them by [Members.Edited] shares with
// them all that is the same, as with a [Map]: a set may hold every pod of the cluster, and one that comes or goes costs as much as what it stands beside.
// The node's set, the rules made of it and what the kernel is known to hold are this one list, in one memory. The zero value has none.
//
// They stand in lists of some 64. Where one list ends and the next begins depends on the members there, and on nothing else. So Members with the same content
// are deeply equal, whatever they were made from, and two that differ have the same lists again a little behind where they do. No list has both families.
type Members struct{ lists [][]Member }

// listEnds is how many members there are, on average, to one that a list ends with.
const listEnds = 64

// listSeed makes the ends of lists unknown outside of the process, so that nobody can have a list without an end.
var listSeed = maphash.MakeSeed()

// isLast reports whether a list ends with a member, whatever comes next.
func (m *Member) isLast() bool {
	return (maphash.Bytes(listSeed, m.Addr[:])+uint64(m.Port)+uint64(m.Protocol))%listEnds == 0
}

// MembersOf are members that are in order, each once. The list is copied.
func MembersOf(sorted []Member) Members {
	lists := make([][]Member, 0, 1+len(sorted)/(listEnds*3/4))
	for len(sorted) > 0 {
		var first []Member
		first, sorted = cut(sorted, true)
		lists = append(lists, slices.Clone(first))
	}
	if len(lists) == 0 {
		return Members{}
	}
	return Members{slices.Clip(lists)}
}

// cut cuts the first list off some members. Where there is no end, all of them are one if nothing follows; else none is one yet.
func cut(members []Member, last bool) (first, rest []Member) {
	for i := range members {
		if members[i].isLast() || i+1 < len(members) && members[i].Addr[0] != members[i+1].Addr[0] {
			return members[:i+1], members[i+1:]
		}
	}
	if last {
		return members, nil
	}
	return nil, members
}

// Len is how many there are.
func (m Members) Len() (n int) {
	for _, list := range m.lists {
		n += len(list)
	}
	return n
}

// All are the members in their order.
func (m Members) All() iter.Seq[Member] {
	return func(yield func(Member) bool) {
		for _, list := range m.lists {
			for i := range list {
				if !yield(list[i]) {
					return
				}
			}
		}
	}
}

// Lists are the lists that the members stand in, for whoever takes many at once. Nobody writes to them.
func (m Members) Lists() iter.Seq[[]Member] { return slices.Values(m.lists) }

// Of are the members of a family. They stand in the same memory.
func (m Members) Of(four bool) Members {
	first, _ := slices.BinarySearchFunc(m.lists, false, func(list []Member, _ bool) int {
		if list[0].Addr.Is4() {
			return -1
		}
		return 0
	})
	part := m.lists[first:]
	if four {
		part = m.lists[:first]
	}
	if len(part) == 0 {
		return Members{}
	}
	return Members{slices.Clip(part)}
}

// Ends are those of members that are not empty.
func (m Members) Ends() Ends {
	last := m.lists[len(m.lists)-1]
	return Ends{m.Len(), m.lists[0][0], last[len(last)-1]}
}

// Has reports whether a member is among them. Each live connection is searched for, and so nothing is copied.
func (m Members) Has(one Member) bool {
	list := m.listOf(&one)
	for len(list) > 0 {
		middle := len(list) / 2
		switch c := list[middle].compare(&one); {
		case c == 0:
			return true
		case c < 0:
			list = list[middle+1:]
		default:
			list = list[:middle]
		}
	}
	return false
}

// HasAddr reports whether an address is among them, with whatever port.
func (m Members) HasAddr(a Addr) bool {
	from := Member{Addr: a}
	for _, list := range m.lists[max(0, m.listIndex(&from)):] {
		i, _ := slices.BinarySearchFunc(list, from, Member.Compare)
		if i < len(list) {
			return list[i].Addr == a
		}
	}
	return false
}

// listOf is the list in which a member stands, if it is there.
func (m Members) listOf(one *Member) []Member {
	if i := m.listIndex(one); i >= 0 {
		return m.lists[i]
	}
	return nil
}

// listIndex is the index of that list, -1 if the member comes before all.
func (m Members) listIndex(one *Member) int {
	from, to := 0, len(m.lists)
	for from < to {
		middle := (from + to) / 2
		if m.lists[middle][0].compare(one) <= 0 {
			from = middle + 1
		} else {
			to = middle
		}
	}
	return from - 1
}

func (m *Member) compare(o *Member) int {
	if c := bytes.Compare(m.Addr[:], o.Addr[:]); c != 0 {
		return c
	}
	return cmp.Or(cmp.Compare(m.Protocol, o.Protocol), cmp.Compare(m.Port, o.Port))
}

// Edited are the members without some that are among them and with some that are not, both in order.
func (m Members) Edited(gone, come []Member) Members {
	if len(gone)+len(come) == 0 {
		return m
	}
	if len(m.lists) == 0 {
		return MembersOf(come)
	}
	e := editing{lists: make([][]Member, 0, len(m.lists)+1+len(come)/listEnds)}
	for i, list := range m.lists {
		last := i+1 == len(m.lists)
		var out, in []Member
		if last {
			out, in, gone, come = gone, come, nil, nil
		} else {
			out, gone = before(gone, &m.lists[i+1][0])
			in, come = before(come, &m.lists[i+1][0])
		}
		e.add(list, out, in)
		if n := len(e.open); last || n > 0 && e.open[n-1].Addr[0] != m.lists[i+1][0].Addr[0] {
			e.flush(true)
		}
	}
	if len(e.lists) == 0 {
		return Members{}
	}
	return Members{e.lists}
}

// before divides members in order in those before one and the others.
func before(members []Member, one *Member) (first, rest []Member) {
	n := 0
	for n < len(members) && members[n].compare(one) < 0 {
		n++
	}
	return members[:n], members[n:]
}

// editing makes lists of others.
type editing struct {
	lists [][]Member
	open  []Member // what has not come to the end of its list
}

// add adds a list with edits.
func (e *editing) add(list, gone, come []Member) {
	if len(gone)+len(come) == 0 && len(e.open) == 0 {
		e.lists = append(e.lists, list) // whole, and it begins where a list does
		return
	}
	for i := range list {
		for len(come) > 0 && come[0].compare(&list[i]) < 0 {
			e.open, come = append(e.open, come[0]), come[1:]
		}
		if len(gone) > 0 && gone[0] == list[i] {
			gone = gone[1:]
			continue
		}
		e.open = append(e.open, list[i])
	}
	e.open = append(e.open, come...)
	e.flush(false)
}

// flush makes lists of what is open; of all of it, if nothing follows in its list.
func (e *editing) flush(last bool) {
	for len(e.open) > 0 {
		first, rest := cut(e.open, last)
		if len(first) == 0 {
			break
		}
		e.lists, e.open = append(e.lists, slices.Clone(first)), rest
	}
}

// Since visits, in order, each member that is in one of two and not in the other, and says whether it is in m. It looks at nothing that they share.
func (m Members) Since(was Members, visit func(one Member, is bool)) {
	a, b := was.lists, m.lists
	var x, y []Member // what is left of the lists that are compared
	for {
		if len(x) == 0 && len(y) == 0 {
			a, b = behindShared(a, b)
		}
		if len(x) == 0 && len(a) > 0 {
			x, a = a[0], a[1:]
		}
		if len(y) == 0 && len(b) > 0 {
			y, b = b[0], b[1:]
		}
		switch {
		case len(x) == 0 && len(y) == 0:
			return
		case len(y) == 0:
			visit(x[0], false)
			x = x[1:]
		case len(x) == 0:
			visit(y[0], true)
			y = y[1:]
		default:
			switch c := x[0].compare(&y[0]); {
			case c == 0:
				x, y = x[1:], y[1:]
			case c < 0:
				visit(x[0], false)
				x = x[1:]
			default:
				visit(y[0], true)
				y = y[1:]
			}
		}
	}
}

// behindShared leaves away the lists in front that both have.
func behindShared(a, b [][]Member) (restA, restB [][]Member) {
	for len(a) > 0 && len(b) > 0 && (IsOneSlice(a[0], b[0]) || slices.Equal(a[0], b[0])) {
		a, b = a[1:], b[1:]
	}
	return a, b
}

// IsOne reports whether two stand in one memory, without a look at what is in them.
func (m Members) IsOne(o Members) bool { return IsOneSlice(m.lists, o.lists) }

// Equal reports whether two have the same content.
func (m Members) Equal(o Members) bool {
	return slices.EqualFunc(m.lists, o.lists, func(a, b []Member) bool { return IsOneSlice(a, b) || slices.Equal(a, b) })
}

// Holds reports whether these members, in order, are all of them.
func (m Members) Holds(sorted []Member) bool {
	for _, list := range m.lists {
		if len(list) > len(sorted) || !slices.Equal(list, sorted[:len(list)]) {
			return false
		}
		sorted = sorted[len(list):]
	}
	return len(sorted) == 0
}

// Content are the members in a list of their own.
func (m Members) Content() []Member { return slices.Collect(m.All()) }

// String is the content.
func (m Members) String() string {
	var b strings.Builder
	for one := range m.All() {
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		if b.WriteString(one.Addr.String()); one.Port != 0 || one.Protocol != 0 {
			fmt.Fprintf(&b, ",%s:%d", one.Protocol, one.Port)
		}
	}
	return "[" + b.String() + "]"
}
