package cached

import (
	"errors"
	"testing"
)

func TestHistoryDoesNotGoBack(t *testing.T) {
	for _, tt := range []struct {
		name     string
		versions []string
		want     string // the error's versions
	}{
		{"on and on", []string{"1", "2", "10", "11"}, ""},
		{"nothing has changed", []string{"10", "10"}, ""},
		{"an answer without", []string{"10", "", "11"}, ""},
		{"none at all", []string{"", ""}, ""},
		{"back", []string{"9", "10", "9"}, "10 9"},
		{"back, behind an answer without", []string{"10", "", "9"}, "10 9"},
		{"far back", []string{"123456789012345678901234567890", "99999999999999999999"}, "123456789012345678901234567890 99999999999999999999"},
		{"no numbers: not ours to judge", []string{"b", "a"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var h History
			got := ""
			for _, v := range tt.versions {
				if restored := new(RestoredError); errors.As(h.Note(v), &restored) {
					got = restored.Before + " " + restored.Now
				}
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
