package dataplane

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

func TestAListingTakesFromWhatIsKnownOnlyWhatIsTheSame(t *testing.T) {
	entries := func(addrs ...string) []iptables.Entry {
		var all []iptables.Entry
		for _, a := range addrs {
			all = append(all, iptables.Entry{Prefix: policy.PrefixOf(netip.MustParsePrefix(a + "/32"))})
		}
		return all
	}
	known := map[string]iptables.Set{
		"RF-v1-same":    iptables.Set{Name: "RF-v1-same"}.Holding(entries("10.0.0.1", "10.0.0.2")),
		"RF-v1-changed": iptables.Set{Name: "RF-v1-changed"}.Holding(entries("10.0.0.1", "10.0.0.2")),
		"RF-v1-emptied": iptables.Set{Name: "RF-v1-emptied"}.Holding(entries("10.0.0.1")),
	}
	l := listing{known: policy.MapOf(known), sets: map[string]iptables.Set{}}
	for _, read := range []struct {
		name    string
		entries []iptables.Entry
	}{
		{"RF-v1-same", entries("10.0.0.2", "10.0.0.1", "10.0.0.2")}, // in the kernel's order, one of them twice
		{"RF-v1-changed", entries("10.0.0.3", "10.0.0.1")},
		{"RF-v1-emptied", nil},
		{"RF-v1-new", entries("10.0.0.9")},
	} {
		if err := l.read(read.name, message{}); err != nil {
			t.Fatal(err)
		}
		l.room = append(l.room, read.entries...)
	}
	l.finish()
	want := map[string][]iptables.Entry{
		"RF-v1-same": entries("10.0.0.1", "10.0.0.2"), "RF-v1-changed": entries("10.0.0.1", "10.0.0.3"), "RF-v1-emptied": nil, "RF-v1-new": entries("10.0.0.9"),
	}
	got := map[string][]iptables.Entry{}
	for name, s := range l.sets {
		got[name] = s.Entries()
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("read (-want +got):\n%s", diff)
	}
	if !l.sets["RF-v1-same"].Members.IsOne(known["RF-v1-same"].Members) {
		t.Error("what has not changed takes memory twice")
	}
}
