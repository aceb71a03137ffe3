package dataplane

import (
	"fmt"
	"testing"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// Connections are ended while they are listed: all of them, though the kernel's table changes under its own listing.
func TestConnectionsAreCutWhileTheyAreListed(t *testing.T) {
	enterNamespace(t)
	d := newDataplane(t, NFT)
	const n = 800 // several messages
	var entries []string
	for i := range n {
		entries = append(entries, fmt.Sprintf("-p udp -s 10.1.%d.%d -d 10.2.0.1 --sport 1000 --dport 53 -t 600", i/250, i%250+1))
	}
	track(t, entries...)
	var some []policy.Connection
	cut := 0
	flush := func() {
		k, err := d.Cut(t.Context(), some, false)
		if err != nil {
			t.Error(err)
		}
		cut, some = cut+k, some[:0]
	}
	if err := d.Connections(t.Context(), policy.Affected{All: true}, func(c policy.Connection) {
		if some = append(some, c); len(some) == 50 {
			flush()
		}
	}); err != nil {
		t.Fatal(err)
	}
	flush()
	left := 0
	if err := d.Connections(t.Context(), policy.Affected{All: true}, func(policy.Connection) { left++ }); err != nil {
		t.Fatal(err)
	}
	if cut != n || left != 0 {
		t.Errorf("%d of %d were cut, and %d are left", cut, n, left)
	}
}
