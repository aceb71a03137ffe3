package node

import (
	"testing"
	"time"
)

// Each namespace is waited for, but no sync waits for longer than patience, and nobody waits twice.
func TestHowLongChangesWaitForPods(t *testing.T) {
	var u unheard
	start := time.Now()
	for _, step := range []struct {
		name       string
		at         time.Duration
		namespaces []string
		want       time.Duration
	}{
		{"all are known", 0, nil, 0},
		{"one is not", 0, []string{"b"}, patience},
		{"it takes long", patience - time.Second, []string{"b"}, time.Second},
		{"another comes meanwhile", patience - time.Second, []string{"a", "b"}, time.Second},
		{"it has taken too long", patience, []string{"a", "b"}, 0},
		{"nobody waits any more", patience, []string{"a", "b"}, 0},
		{"one more, later", 2 * patience, []string{"a", "b", "c"}, patience},
		{"which comes", 2*patience + time.Millisecond, []string{"a", "b"}, 0},
		{"one comes", 3 * patience, []string{"b"}, 0},
		{"and is lost again", 4 * patience, []string{"a", "b"}, patience},
		{"all come", 4*patience + time.Second, nil, 0},
		{"the wait is another one", 9 * patience, []string{"b"}, patience},
	} {
		if got := u.hold(step.namespaces, start.Add(step.at)); got != step.want {
			t.Errorf("%s: changes wait for %s, want %s", step.name, got, step.want)
		}
	}
}
