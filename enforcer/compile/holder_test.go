package compile

import (
	"net/netip"
	"slices"
	"testing"
)

func TestHolder(t *testing.T) {
	a, b := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")
	pod := func(name string, change func(*Pod)) *Pod {
		p := &Pod{Name: name, UID: name, Created: 10, Addrs: []netip.Addr{a, b}}
		change(p)
		return p
	}
	live := pod("live", func(*Pod) {})
	for _, c := range []struct {
		name  string
		other *Pod
		want  string
	}{
		{"one that is newer", pod("other", func(p *Pod) { p.Created = 20 }), "other"},
		{"one that is older", pod("other", func(p *Pod) { p.Created = 5 }), "live"},
		{"a newer one that terminates", pod("other", func(p *Pod) { p.Created, p.Terminating = 20, true }), "live"},
		{"a newer one that is finished", pod("other", func(p *Pod) { p.Created, p.Finished = 20, true }), "live"},
		{"a newer one on the host network", pod("other", func(p *Pod) { p.Created, p.HostNetwork = 20, true }), "live"},
		{"one without the address", pod("other", func(p *Pod) { p.Created, p.Addrs = 20, nil }), "live"},
	} {
		pods := []*Pod{live, c.other}
		for range 2 { // in both orders
			for _, addr := range []netip.Addr{a, b} {
				if got := Holder(pods, addr); got == nil || got.Name != c.want {
					t.Errorf("beside %s, %s is held by %v, want %s", c.name, addr, got, c.want)
				}
			}
			slices.Reverse(pods)
		}
	}
	if got := Holder([]*Pod{live}, netip.MustParseAddr("10.0.0.2")); got != nil {
		t.Errorf("an address of nobody is held by %v", got)
	}
}
