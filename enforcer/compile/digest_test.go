package compile

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// digested is a pod with something in each field, and its namespace.
func digested() (*Pod, *Namespace) {
	p := &Pod{
		Namespace: "team-a", Name: "web", UID: "uid-1", Created: 10, Node: "node1",
		Labels: NewLabels(map[string]string{"app": "web", "tier": "front"}),
		Addrs:  []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")},
		Ports:  []NamedPort{{"http", policy.TCP, 8080}, {"dns", policy.UDP, 53}},
	}
	return p, &Namespace{Name: "team-a", Labels: NewLabels(map[string]string{"team": "a"})}
}

// TestDigestIsTheSameInEveryRelease: a controller compares its digests with those of enforcers of other releases. If this fails, the encoding has
// changed: then so must its version.
func TestDigestIsTheSameInEveryRelease(t *testing.T) {
	p, ns := digested()
	if got, want := p.Digest(ns), uint64(0xf607ed26e1ed262c); got != want {
		t.Errorf("digest %#x, want %#x", got, want)
	}
}

func TestDigestFollowsWhatMattersToPolicy(t *testing.T) {
	base, baseNS := digested()
	want := base.Digest(baseNS)
	for _, c := range []struct {
		name    string
		change  func(*Pod, *Namespace)
		matters bool
	}{
		{"another pod", func(p *Pod, _ *Namespace) { p.UID = "uid-2" }, true},
		{"a label's value", func(p *Pod, _ *Namespace) { p.Labels = NewLabels(map[string]string{"app": "web", "tier": "back"}) }, true},
		{"a label less", func(p *Pod, _ *Namespace) { p.Labels = p.Labels[:1] }, true},
		{"a label that moves to the namespace", func(p *Pod, ns *Namespace) { p.Labels, ns.Labels = p.Labels[1:], append(ns.Labels, p.Labels[0]) }, true},
		{"a label cut elsewhere", func(p *Pod, _ *Namespace) { p.Labels[0] = Label{"appw", "eb"} }, true},
		{"an address less", func(p *Pod, _ *Namespace) { p.Addrs = p.Addrs[:1] }, true},
		{"a port's number", func(p *Pod, _ *Namespace) { p.Ports[0].Port = 80 }, true},
		{"a port's protocol", func(p *Pod, _ *Namespace) { p.Ports[0].Protocol = policy.SCTP }, true},
		{"a port's name", func(p *Pod, _ *Namespace) { p.Ports[0].Name = "web" }, true},
		{"another namespace", func(p *Pod, _ *Namespace) { p.Namespace = "team-b" }, true},
		{"a label of the namespace", func(_ *Pod, ns *Namespace) { ns.Labels = nil }, true},
		{"audit in the namespace", func(_ *Pod, ns *Namespace) { ns.Mode = "Audit" }, true},

		{"what is the mode without one", func(_ *Pod, ns *Namespace) { ns.Mode = "Enforce" }, false},
		{"termination", func(p *Pod, _ *Namespace) { p.Terminating = true }, false},
		{"the order of containers", func(p *Pod, _ *Namespace) { slices.Reverse(p.Ports) }, false},
		{"a port that two containers name", func(p *Pod, _ *Namespace) { p.Ports = append(p.Ports, p.Ports[0]) }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, ns := digested()
			c.change(p, ns)
			if got := p.Digest(ns); (got != want) != c.matters {
				t.Errorf("the digest changes: %t, want %t", got != want, c.matters)
			}
		})
	}
	if base.Digest(nil) == base.Digest(&Namespace{}) {
		t.Error("a namespace that is not known has the digest of one without labels")
	}
}
