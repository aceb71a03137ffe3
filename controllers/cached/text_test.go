package cached

import "testing"

func TestShortenedCutsAtACharacter(t *testing.T) {
	for _, tt := range []struct {
		text  string
		limit int
		want  string
	}{
		{"short", 5, "short"}, {"longer", 5, "lo..."}, {"aüüüü", 7, "aü..."}, {"aüüüü", 8, "aüü..."}, {"", 3, ""},
	} {
		if got := Shortened(tt.text, tt.limit); got != tt.want || len(got) > tt.limit {
			t.Errorf("%q in %d bytes is %q, want %q", tt.text, tt.limit, got, tt.want)
		}
	}
}
