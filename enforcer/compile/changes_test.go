package compile

import (
	"reflect"
	"testing"
)

// TestEachFieldOfANamespaceCounts: whoever keeps what was made of a namespace asks Equal whether it still holds.
func TestEachFieldOfANamespaceCounts(t *testing.T) {
	one := Namespace{Name: "n", Labels: NewLabels(map[string]string{"a": "b"})}
	v := reflect.ValueOf(&one).Elem()
	for i := range v.NumField() {
		other := one
		switch f := reflect.ValueOf(&other).Elem().Field(i); f.Kind() {
		case reflect.String:
			f.SetString("other")
		case reflect.Bool:
			f.SetBool(true)
		case reflect.Slice:
			f.SetZero()
		default:
			t.Fatalf("the test knows no other value for %s", v.Type().Field(i).Name)
		}
		if one.Equal(&other) {
			t.Errorf("two that differ in %s are equal", v.Type().Field(i).Name)
		}
	}
}
