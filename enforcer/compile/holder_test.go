package compile

import (
	"net/netip"
	"slices"
	"strings"
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
				if got := Holder(Snapshot{}.WithPods(pods...), addr); got == nil || got.Name != c.want {
					t.Errorf("beside %s, %s is held by %v, want %s", c.name, addr, got, c.want)
				}
			}
			slices.Reverse(pods)
		}
	}
	// What is announced takes an address from nobody whom the API shows with it, and several are none.
	announced := func(name string) *Pod {
		return pod(name, func(p *Pod) { p.Created, p.Source = 20, Announced })
	}
	old := pod("old", func(p *Pod) { p.Terminating = true })
	for _, c := range []struct {
		pods []*Pod
		want string
	}{
		{[]*Pod{announced("one")}, "one"},
		{[]*Pod{announced("one"), live}, "live"},
		{[]*Pod{announced("one"), old}, "old"},
		{[]*Pod{announced("one"), announced("two")}, ""},
		{[]*Pod{announced("one"), announced("two"), announced("three")}, ""},
		{[]*Pod{announced("one"), announced("two"), old}, "old"},
		{[]*Pod{announced("one"), live, announced("two"), old}, "live"},
		{[]*Pod{announced("one"), pod("ended", func(p *Pod) { p.Finished = true })}, "one"},
	} {
		for range len(c.pods) { // whichever comes first
			got := ""
			if holder := Holder(Snapshot{}.WithPods(c.pods...), a); holder != nil {
				got = holder.Name
			}
			var members []string
			for _, p := range clusterOf(c.pods).byNamespace[""] {
				members = append(members, p.Name)
			}
			if got != c.want || strings.Join(members, " ") != c.want {
				t.Errorf("of %v, %q holds the address and %q are members, want %q", names(c.pods), got, members, c.want)
			}
			c.pods = append(c.pods[1:], c.pods[0])
		}
	}
	if got := Holder(Snapshot{}.WithPods(live), netip.MustParseAddr("10.0.0.2")); got != nil {
		t.Errorf("an address of nobody is held by %v", got)
	}
}

func clusterOf(pods []*Pod) *cluster {
	c := newCluster("")
	c.follow(Snapshot{}, pods)
	return c
}

func names(pods []*Pod) []string {
	out := make([]string, len(pods))
	for i, p := range pods {
		out[i] = p.Name
	}
	return out
}
