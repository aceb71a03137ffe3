package policy_test

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// drawn is a member of either family among few addresses, with a port or without.
func drawn(random *rand.Rand) policy.Member {
	var six [16]byte
	binary.BigEndian.PutUint32(six[12:], random.Uint32N(600))
	six[0], six[12] = 0xfd, 10
	m := policy.Member{Addr: policy.AddrOf(netip.AddrFrom16(six))}
	if random.IntN(2) == 0 {
		m.Addr = policy.AddrOf(netip.AddrFrom4([4]byte(six[12:])))
	}
	if random.IntN(4) == 0 {
		m.Protocol, m.Port = policy.TCP, uint16(random.IntN(3))
	}
	return m
}

// TestEditedMembersAreThoseThatAreMadeAtOnce: whatever comes and goes, members are deeply equal to those made of the same list, and what differs from the ones
// before is what came and went.
func TestEditedMembersAreThoseThatAreMadeAtOnce(t *testing.T) {
	for seed := range uint64(3) {
		random := rand.New(rand.NewPCG(seed, 1))
		var list []policy.Member
		var members policy.Members
		for step := range 200 {
			var gone, come []policy.Member
			for range random.IntN(5) + random.IntN(2)*random.IntN(200) {
				m := drawn(random)
				if there := has(list, m); there && (step/50%2 == 1 || random.IntN(3) == 0) {
					gone = append(gone, m)
				} else if !there && (step/50%2 == 0 || random.IntN(3) == 0) {
					come = append(come, m)
				}
			}
			if random.IntN(40) == 0 { // a whole family goes
				gone, come = slices.DeleteFunc(slices.Clone(list), func(m policy.Member) bool { return m.Addr.Is4() == (step%2 == 0) }), nil
			}
			slices.SortFunc(gone, policy.Member.Compare)
			slices.SortFunc(come, policy.Member.Compare)
			gone, come = slices.Compact(gone), slices.Compact(come)
			list = slices.DeleteFunc(slices.Clone(list), func(m policy.Member) bool { return has(gone, m) })
			list = append(list, come...)
			slices.SortFunc(list, policy.Member.Compare)

			before := members
			members = members.Edited(gone, come)
			if at := policy.MembersOf(list); !reflect.DeepEqual(members, at) || !members.Equal(at) || members.Len() != len(list) || !members.Holds(list) {
				t.Fatalf("seed %d, step %d: without %v, with %v:\n%v, want\n%v", seed, step, gone, come, members, at)
			}
			var lost, gained []policy.Member
			members.Since(before, func(m policy.Member, is bool) {
				if is {
					gained = append(gained, m)
				} else {
					lost = append(lost, m)
				}
			})
			if !slices.Equal(lost, gone) || !slices.Equal(gained, come) {
				t.Fatalf("seed %d, step %d: lost %v and gained %v, want %v and %v", seed, step, lost, gained, gone, come)
			}
			if before.Equal(members) != (len(gone)+len(come) == 0) {
				t.Fatalf("seed %d, step %d: equal to those before", seed, step)
			}
			if step%10 == 0 {
				answers(t, members, list, random)
			}
		}
	}
}

func has(list []policy.Member, m policy.Member) bool {
	_, there := slices.BinarySearchFunc(list, m, policy.Member.Compare)
	return there
}

// answers compares what members say with what their list says.
func answers(t *testing.T, members policy.Members, list []policy.Member, random *rand.Rand) {
	t.Helper()
	for range 20 {
		m := drawn(random)
		if there := has(list, m); members.Has(m) != there {
			t.Fatalf("has %v: %t, want %t", m, members.Has(m), there)
		}
		hasAddr := slices.ContainsFunc(list, func(o policy.Member) bool { return o.Addr == m.Addr })
		if members.HasAddr(m.Addr) != hasAddr {
			t.Fatalf("has the address %v: %t, want %t", m.Addr, members.HasAddr(m.Addr), hasAddr)
		}
	}
	for _, four := range []bool{true, false} {
		want := slices.DeleteFunc(slices.Clone(list), func(m policy.Member) bool { return m.Addr.Is4() != four })
		if got := members.Of(four); !reflect.DeepEqual(got, policy.MembersOf(want)) {
			t.Fatalf("of IPv4 %t: %v, want %v", four, got, want)
		}
	}
	if len(list) > 0 && members.Ends() != (policy.Ends{Length: len(list), First: list[0], Last: list[len(list)-1]}) {
		t.Fatalf("the ends are %v", members.Ends())
	}
	if diff := cmp.Diff(list, members.Content()); len(list) > 0 && diff != "" {
		t.Fatalf("content (-want +got):\n%s", diff)
	}
}

// TestEditedMembersShareWhatIsTheSame: one pod that comes to every pod of the cluster makes a list or two.
func TestEditedMembersShareWhatIsTheSame(t *testing.T) {
	var list []policy.Member
	for i := range 100_000 {
		list = append(list, policy.Member{Addr: policy.AddrOf(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}))})
	}
	before := policy.MembersOf(slices.Delete(slices.Clone(list), 50_000, 50_001))
	after := before.Edited(nil, list[50_000:50_001])
	had := map[*policy.Member]bool{}
	for some := range before.Lists() {
		had[&some[0]] = true
	}
	lists, made, longest := 0, 0, 0
	for some := range after.Lists() {
		if lists++; !had[&some[0]] {
			made++
		}
		longest = max(longest, len(some))
	}
	if made > 2 || lists < 1000 || lists > 3000 || longest > 2000 {
		t.Errorf("%d of %d lists are made again, and the longest has %d members", made, lists, longest)
	}
}
