package policy

import (
	"fmt"
	"reflect"
	"testing"
)

type text string

func (t text) String() string { return string(t) }

// Changes of which others come behind are all of both: each number of what changes, but for tables, which are the same ones.
func TestChangesComeBehindOthers(t *testing.T) {
	var a, b Changes
	numbers := reflect.VisibleFields(reflect.TypeFor[Changes]())
	for i, field := range numbers {
		if field.Type.Kind() == reflect.Int {
			reflect.ValueOf(&a).Elem().Field(i).SetInt(int64(i + 1))
			reflect.ValueOf(&b).Elem().Field(i).SetInt(int64(10 * (i + 1)))
		}
	}
	a.Text, b.Text, b.WereAway = text("a"), text("b"), true
	both := a.Then(b)
	if fmt.Sprint(both) != "ab" || !both.WereAway {
		t.Errorf("the text is %q, they were away: %t", both, both.WereAway)
	}
	for i, field := range numbers {
		if field.Type.Kind() != reflect.Int {
			continue
		}
		want := int64(11 * (i + 1))
		if field.Name == "Tables" {
			want = int64(10 * (i + 1))
		}
		if got := reflect.ValueOf(both).Field(i).Int(); got != want {
			t.Errorf("%s: %d, want %d", field.Name, got, want)
		}
	}
	if got := (Changes{}).Then(b); got != b {
		t.Errorf("behind none: %+v", got)
	}
	if got := a.Then(Changes{}); got != a {
		t.Errorf("with none behind: %+v", got)
	}
}

// Whatever changes counts under a noun, so that no repair is reported without saying of what.
func TestEachChangeCountsUnderANoun(t *testing.T) {
	for i, field := range reflect.VisibleFields(reflect.TypeFor[Changes]()) {
		if field.Type.Kind() != reflect.Int {
			continue
		}
		var c Changes
		reflect.ValueOf(&c).Elem().Field(i).SetInt(1)
		sum := 0
		for _, n := range c.Counts() {
			sum += n
		}
		if sum != 1 {
			t.Errorf("%s: %v", field.Name, c.Counts())
		}
	}
}
