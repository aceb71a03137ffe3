package enforcer

import (
	"errors"
	"fmt"
	"reflect"

	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// made is what the last Sync made with the help of what earlier ones have left.
type made struct {
	snapshot compile.Snapshot // what was to be in force
	node     policy.Node
	problems []compile.Problem

	closed  policy.Node // the node without what is refused
	options iptables.Options
	ruleset iptables.Ruleset
}

// ErrDiffers is in the error of a comparison that has found a difference.
var ErrDiffers = errors.New("what was made step by step is not what is made at once: please report this with the message; what is enforced is made anew")

// Comparison is a function that compares what the last [Enforcer.Sync] made, which depends on what was kept from one snapshot to the next, with what is made of
// the same snapshot at once. There must be no difference. The function takes as long as a first sync does; it may run beside later Syncs, since nobody writes
// to what it reads. It is nil before the first Sync that succeeds.
func (e *Enforcer) Comparison() func() error {
	if e.known == nil {
		return nil
	}
	m := e.made
	return m.compare
}

func (m made) compare() error {
	anew := compile.Like(m.node)
	node, problems := anew.Compile(m.snapshot)
	switch {
	case !reflect.DeepEqual(node, m.node):
		return fmt.Errorf("%w: the compiled policy: %s", ErrDiffers, where(reflect.ValueOf(node), reflect.ValueOf(m.node), ""))
	case !reflect.DeepEqual(problems, m.problems):
		return fmt.Errorf("%w: the problems: %d at once, %d step by step", ErrDiffers, len(problems), len(m.problems))
	}
	if want := iptables.Render(m.closed, m.options); !reflect.DeepEqual(want, m.ruleset) {
		return fmt.Errorf("%w: the rules:\n%s", ErrDiffers, iptables.Diff(want, m.ruleset))
	}
	return nil
}

// where names the first part in which two values of one type differ, and what each has there.
func where(want, got reflect.Value, path string) string {
	if content := want.MethodByName("Content"); content.IsValid() { // of a policy.Map
		want, got = content.Call(nil)[0], got.MethodByName("Content").Call(nil)[0]
	}
	if want.Kind() == reflect.Struct {
		for i := range want.NumField() {
			a, b := want.Field(i), got.Field(i)
			if a.CanInterface() && !reflect.DeepEqual(a.Interface(), b.Interface()) {
				return where(a, b, path+"."+want.Type().Field(i).Name)
			}
		}
	}
	if want.Kind() == reflect.Slice && want.Len() == got.Len() {
		for i := range want.Len() {
			if a, b := want.Index(i), got.Index(i); !reflect.DeepEqual(a.Interface(), b.Interface()) {
				return where(a, b, fmt.Sprintf("%s[%d]", path, i))
			}
		}
	}
	if want.Kind() == reflect.Map {
		for _, key := range append(want.MapKeys(), got.MapKeys()...) {
			a, b := want.MapIndex(key), got.MapIndex(key)
			switch in := fmt.Sprintf("%s[%v]", path, key); {
			case !a.IsValid():
				return in + " is there step by step alone"
			case !b.IsValid():
				return in + " is missing step by step"
			case !reflect.DeepEqual(a.Interface(), b.Interface()):
				return where(a, b, in)
			}
		}
	}
	return fmt.Sprintf("%s is %v at once, %v step by step", path, want, got)
}

// Forget has the next Sync make everything of its snapshot alone.
func (e *Enforcer) Forget() { e.planner = &planner{} }
