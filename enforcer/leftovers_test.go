package enforcer_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringfence-io/ringfence/enforcer"
	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/dataplane"
	"github.com/ringfence-io/ringfence/enforcer/iptables"
)

// What somebody else's rules refer to is held against no policy, and holds up none: all is in force, and the sets that stay are said. They are no repair
// meanwhile, serve again if they are needed again, and go once nothing refers to them.
func TestASetThatSomebodyElseRefersToStaysAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kernel := dataplane.NewFake(dataplane.Capabilities{})
		e := enforcer.New(kernel, options)
		sync := func(s compile.Snapshot, verify, left bool) {
			t.Helper()
			r, err := e.Sync(t.Context(), s, verify)
			if err != nil {
				t.Fatal(err)
			}
			if len(r.Leftover) > 0 != left || !r.Repairs.Empty() || len(r.Refused) > 0 {
				t.Fatalf("left are %q, want some: %t; repaired is %v, refused %q", r.Leftover, left, r.Repairs, refusedNames(r))
			}
		}
		foreign := func(input string) {
			t.Helper()
			if err := kernel.Restore(iptables.IPv4, "*security\n"+input+"COMMIT\n"); err != nil {
				t.Fatal(err)
			}
		}
		before, after := with(town(), allow("a", "old", 80, "client")), with(town(), allow("b", "new", 80, "client"))
		sync(before, false, false)
		set := slices.DeleteFunc(setsOf(t, kernel), func(name string) bool { return name == iptables.CutSet(iptables.IPv4) })[0]
		foreign(":foreign - [0:0]\n-A foreign -m set --match-set " + set + " src -j RETURN\n")
		sync(after, false, true)
		if !inForce(kernel, named(after, "b", "new")) || inForce(kernel, named(before, "a", "old")) {
			t.Error("the policy that came with it is not in force, or the one that went still is")
		}
		sync(after, true, true)
		sync(with(after, named(before, "a", "old")), false, false)
		if !inForce(kernel, named(before, "a", "old")) {
			t.Error("the set is needed again, and its policy is not in force")
		}
		sync(after, false, true)
		foreign(":foreign - [0:0]\n-X foreign\n")
		time.Sleep(time.Hour)
		sync(after, true, false)
		if slices.Contains(setsOf(t, kernel), set) {
			t.Errorf("nothing refers to the set %s any more, and it stays", set)
		}
	})
}

// setsOf are the names of all of a kernel's sets, sorted.
func setsOf(t *testing.T, kernel *dataplane.Fake) []string {
	t.Helper()
	held, err := kernel.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for name, s := range held.Sets.All() {
		if s.Family == iptables.IPv4 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
