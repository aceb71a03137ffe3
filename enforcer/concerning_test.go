package enforcer_test

import (
	"context"
	"errors"
	"net/netip"
	"testing"

	"github.com/ringfence-io/ringfence/enforcer"
	"github.com/ringfence-io/ringfence/enforcer/dataplane"
	"github.com/ringfence-io/ringfence/enforcer/iptables"
)

// A pod's start waits for what concerns its own addresses, and for nothing else that fails on the node.
func TestWhatASyncLacksForOnePod(t *testing.T) {
	four, six := []netip.Addr{netip.MustParseAddr("10.0.0.1")}, []netip.Addr{netip.MustParseAddr("fd00::1")}
	both := append(append([]netip.Addr{}, four...), six...)
	for _, tt := range []struct {
		name            string
		fails           func(dataplane.Step) bool
		four, six, both bool // something is lacking
	}{
		{"a restore of IPv6", func(s dataplane.Step) bool { return s.Kind == dataplane.Restore && s.Family == iptables.IPv6 }, false, true, true},
		{"a set of IPv4", func(s dataplane.Step) bool { return s.Kind == dataplane.CreateSet && s.Family == iptables.IPv4 }, true, false, true},
		{"what is tidied up behind the rules", func(s dataplane.Step) bool { return s.Kind == dataplane.DestroySet }, false, false, false},
	} {
		kernel := dataplane.NewFake(dataplane.Capabilities{})
		e := enforcer.New(kernel, options)
		mustSync(t, e, with(town(), allow("a", "mine", 80, "client")), false)
		kernel.Before = func(s dataplane.Step) error {
			if tt.fails(s) {
				return errors.New("no answer")
			}
			return nil
		}
		s := with(town(), allow("a", "mine", 80, "other"))
		s.Local[0].Addrs = both
		_, err := e.Sync(t.Context(), s, false)
		if err == nil {
			t.Fatalf("%s: nothing failed", tt.name)
		}
		for _, one := range []struct {
			addrs []netip.Addr
			want  bool
		}{{four, tt.four}, {six, tt.six}, {both, tt.both}} {
			if lacking := enforcer.Concerning(err, one.addrs); (lacking != nil) != one.want {
				t.Errorf("%s: a pod with %v lacks %v", tt.name, one.addrs, lacking)
			}
		}
	}
	if enforcer.Concerning(context.Canceled, four) == nil || enforcer.Concerning(nil, four) != nil {
		t.Error("an error that names no family concerns every pod, and none concerns nobody")
	}
}
