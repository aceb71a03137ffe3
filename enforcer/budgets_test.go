package enforcer_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ringfence-io/ringfence/enforcer"
	"github.com/ringfence-io/ringfence/enforcer/dataplane"
)

// What asks for more than a budget that depends on the node is refused by itself, with its field and its number, as what the kernel refuses is: all else is in
// force, of its namespace too.
func TestWhatIsTooLargeForTheNodeIsRefusedByItself(t *testing.T) {
	kernel := dataplane.NewFake(dataplane.Capabilities{})
	e := enforcer.New(kernel, options)
	s := with(town(), allow("b", "own", 80, "client"))
	for i := range 9 { // 500 sets each, and the eight that are there first are within the 4,096 of a namespace
		s = with(s, allowEach("a", fmt.Sprint("large", i), 80, names(fmt.Sprint("p", i, "-"), 500)...))
	}
	report, err := e.Sync(t.Context(), s, true)
	if err != nil {
		t.Fatal(err)
	}
	if got := refusedNames(report); !slices.Equal(got, []string{"a/large8"}) {
		t.Fatalf("refused are %q", got)
	}
	if r := report.Refused[0]; !r.TooLarge || r.Object.Generation != 1 || !strings.HasPrefix(r.Word, "spec: ") || !strings.Contains(r.Word, "4096") {
		t.Errorf("it is said to be %+v", r)
	}
	if !inForce(kernel, named(s, "b", "own")) || !inForce(kernel, named(s, "a", "large7")) || inForce(kernel, named(s, "a", "large8")) {
		t.Errorf("in force are %t of another namespace, %t of its own, %t of it; want all but the last",
			inForce(kernel, named(s, "b", "own")), inForce(kernel, named(s, "a", "large7")), inForce(kernel, named(s, "a", "large8")))
	}
	last := named(s, "a", "large8")
	s.Policies = s.Policies.Without("a", "large0")
	untilReady(t, e, &s, func(bool) {})
	if report, err = e.Sync(t.Context(), s, false); err != nil || len(report.Refused) > 0 || !inForce(kernel, last) {
		t.Errorf("once there is room: %v, refused are %q", err, refusedNames(report))
	}
}
