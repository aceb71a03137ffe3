package cached

import (
	"net/netip"
	"testing"

	"github.com/ringfence-io/ringfence/enforcer/compile"
)

// An event about addresses that the node knows already makes no haste, and every other one does.
func TestEventsThatCanWait(t *testing.T) {
	pod := func(node string, source compile.Source, addrs ...string) *PodEntry {
		p := &compile.Pod{Namespace: "shop", Name: "web", UID: "u", Node: node, Source: source}
		for _, text := range addrs {
			p.Addrs = append(p.Addrs, netip.MustParseAddr(text))
		}
		return &PodEntry{Pod: p}
	}
	labelled := pod("n2", compile.Shown, "10.1.0.5")
	labelled.Pod.Labels = compile.NewLabels(map[string]string{"app": "db"})
	for _, tt := range []struct {
		name          string
		before, after *PodEntry
		wait          bool
		changed       bool // for who does not wait
	}{
		{"what was announced is shown", pod("n2", compile.Announced, "10.1.0.5"), pod("n2", compile.Shown, "10.1.0.5"), true, false},
		{"the same of its own pod", pod("n1", compile.Announced, "10.1.0.5"), pod("n1", compile.Shown, "10.1.0.5"), true, false},
		{"its own pod is announced", pod("n1", compile.Shown), pod("n1", compile.Announced, "10.1.0.5"), true, true},
		{"its own pod is announced with another address", pod("n1", compile.Announced, "10.1.0.4"), pod("n1", compile.Announced, "10.1.0.5"), true, true},
		{"another node's pod is announced", pod("n2", compile.Shown), pod("n2", compile.Announced, "10.1.0.5"), false, true},
		{"another than was announced is shown", pod("n2", compile.Announced, "10.1.0.4"), pod("n2", compile.Shown, "10.1.0.5"), false, true},
		{"its own pod is shown", pod("n1", compile.Shown), pod("n1", compile.Shown, "10.1.0.5"), false, true},
		{"what was announced is taken back", pod("n1", compile.Announced, "10.1.0.5"), pod("n1", compile.Shown), false, true},
		{"it is shown with another label", pod("n2", compile.Announced, "10.1.0.5"), labelled, false, true},
		{"nothing has changed", pod("n2", compile.Announced, "10.1.0.5"), pod("n2", compile.Announced, "10.1.0.5"), false, false},
	} {
		if got := CanWait("n1", tt.before.Pod, tt.after.Pod); got != tt.wait {
			t.Errorf("%s: it can wait: %v, want %v", tt.name, got, tt.wait)
		}
		if changed := !SameForPolicy(tt.before, tt.after); changed != tt.changed {
			t.Errorf("%s: policy looks at it: %v, want %v", tt.name, changed, tt.changed)
		}
	}
}
