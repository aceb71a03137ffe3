package policy_test

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// wired is a node with a tunnel, the link of a pod and one that is shut.
func wired() *policy.Node {
	return &policy.Node{
		Links: []policy.Link{
			{Name: "v1", Namespace: "shop", Pod: "web", Addrs: []netip.Addr{addr("10.244.1.5"), addr("fd00::5")}},
			{Name: "v2", Namespace: "shop", Pod: "gone"},
		},
		Tunnels: []policy.Tunnel{{Protocol: policy.UDP, Port: 8472}, {Protocol: 4}},
	}
}

func TestWhatALinkForbids(t *testing.T) {
	const stranger, tunnel, shut = "is no address of shop/web", "is the nodes' own tunnel", "pod shop/gone is gone"
	from := func(p policy.Protocol, src string, ports ...uint16) policy.Flow {
		f := policy.Flow{From: "v1", Protocol: p, Src: addr(src), Dst: addr("10.244.1.6")}
		if f.Src.Is6() {
			f.Dst = addr("fd00::6")
		}
		switch {
		case p == policy.ICMP || p == policy.ICMPv6:
			f.ICMPType = uint8(ports[0])
		case len(ports) > 0:
			f.SrcPort, f.DstPort = ports[0], ports[1]
		}
		return f
	}
	on := func(link string, f policy.Flow) policy.Flow {
		f.From = link
		return f
	}
	for _, tt := range []struct {
		name string
		flow policy.Flow
		want string // in the reason, nothing if it passes
	}{
		{"its own address", from(policy.TCP, "10.244.1.5", 1, 80), ""},
		{"its own of the other family", from(policy.SCTP, "fd00::5", 1, 80), ""},
		{"its own by a protocol without ports", from(89, "10.244.1.5"), ""},
		{"another pod's", from(policy.TCP, "10.244.1.6", 1, 80), stranger},
		{"nobody's", from(policy.UDP, "fd00::99", 1, 80), stranger},
		{"loopback", from(policy.TCP, "127.0.0.1", 1, 80), stranger},
		{"IPv4 link-local", from(policy.TCP, "169.254.1.1", 1, 80), stranger},
		{"IPv6 link-local", from(policy.TCP, "fe80::5", 1, 80), stranger},
		{"its own, into the nodes' tunnel", from(policy.UDP, "10.244.1.5", 1, 8472), tunnel},
		{"its own, into the nodes' tunnel without ports", from(4, "10.244.1.5"), tunnel},
		{"the tunnel's port, by another protocol", from(policy.TCP, "10.244.1.5", 1, 8472), ""},
		{"the tunnel's port as a source", from(policy.UDP, "10.244.1.5", 8472, 80), ""},
		{"DHCP", from(policy.UDP, "0.0.0.0", 68, 67), ""},
		{"a DHCP server", from(policy.UDP, "0.0.0.0", 67, 68), stranger},
		{"no address, to another port", from(policy.UDP, "0.0.0.0", 68, 53), stranger},
		{"no address, by TCP", from(policy.TCP, "0.0.0.0", 68, 67), stranger},
		{"DHCPv6", from(policy.UDP, "fe80::5", 546, 547), ""},
		{"a DHCPv6 server", from(policy.UDP, "fe80::5", 547, 546), stranger},
		{"DHCPv6 without an address", from(policy.UDP, "::", 546, 547), stranger},
		{"echo", from(policy.ICMP, "10.244.1.5", 8), ""},
		{"echo from another", from(policy.ICMP, "10.244.1.6", 8), stranger},
		{"a solicitation", from(policy.ICMPv6, "fd00::5", 135), ""},
		{"duplicate address detection", from(policy.ICMPv6, "::", 135), ""},
		{"an advertisement", from(policy.ICMPv6, "fe80::5", 136), ""},
		{"a router's solicitation", from(policy.ICMPv6, "fe80::5", 133), ""},
		{"a router's advertisement", from(policy.ICMPv6, "fe80::5", 134), stranger},
		{"a redirect, even from its own", from(policy.ICMPv6, "fd00::5", 137), "of neighbour discovery"},
		{"a router's advertisement, even from its own", from(policy.ICMPv6, "fd00::5", 134), "of neighbour discovery"},
		{"a solicitation from another", from(policy.ICMPv6, "fd00::6", 135), stranger},
		{"which groups it listens to", from(policy.ICMPv6, "fe80::5", 143), ""},
		{"which groups it listens to, without an address", from(policy.ICMPv6, "::", 143), ""},
		{"which groups it listens to, from another", from(policy.ICMPv6, "fd00::6", 143), stranger},
		{"who asks for listeners", from(policy.ICMPv6, "fe80::5", 130), stranger},
		{"a report of version 1", from(policy.ICMPv6, "fe80::5", 131), stranger},
		{"echo from link-local", from(policy.ICMPv6, "fe80::5", 128), stranger},
		{"ICMPv6 in IPv4", from(policy.ICMPv6, "10.244.1.5", 134), ""}, // nothing that anybody reads
		{"ICMPv6 in IPv4 from link-local", from(policy.ICMPv6, "169.254.1.1", 135), stranger},
		{"what comes from a link that is shut", on("v2", from(policy.TCP, "10.244.1.5", 1, 80)), shut},
		{"a solicitation from there", on("v2", from(policy.ICMPv6, "fe80::5", 135)), shut},
		{"a tunnel from there", on("v2", from(policy.UDP, "10.244.1.5", 1, 8472)), tunnel},
		{"what comes from a link that is nobody's", on("eth0", from(policy.TCP, "10.244.1.6", 1, 80)), ""},
		{"what does not come from a link", on("", from(policy.TCP, "10.244.1.6", 1, 80)), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := wired()
			if got := n.ForbidsSource(tt.flow); (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
				t.Errorf("forbidden because %q, want %q", got, tt.want)
			}
			v := n.Allows(tt.flow)
			if v.Allowed != (tt.want == "") || !strings.Contains(v.Reason, tt.want) {
				t.Errorf("allowed is %t because %q", v.Allowed, v.Reason)
			}
			n.AuditSources = true
			v = n.Allows(tt.flow)
			if !v.Allowed || (len(v.WouldDeny) == 1) != (tt.want != "") {
				t.Errorf("in audit mode it is allowed: %t, and would be denied by %v", v.Allowed, v.WouldDeny)
			}
			if len(v.WouldDeny) > 0 && v.WouldDeny[0] != (policy.Denial{Ref: policy.SourceCheck, Direction: policy.Egress}) {
				t.Errorf("it would be denied by %v", v.WouldDeny[0])
			}
		})
	}
}

// TestWhatIsShutOff: a pod that is gone from the API, and whose interface is there, is sent nothing, and nothing of it is believed.
func TestWhatIsShutOff(t *testing.T) {
	n := wired()
	n.Shut = "shut"
	n.Sets = policy.MapOf(map[policy.SetID]policy.Set{"shut": {Kind: policy.Addresses, Members: policy.MembersOf([]policy.Member{{Addr: policy.AddrOf(addr("10.244.1.9"))}})}})
	for _, tt := range []struct {
		name     string
		src, dst string
		change   func(*policy.Flow)
		want     bool
	}{
		{"to it", "10.244.1.5", "10.244.1.9", nil, false},
		{"from it", "10.244.1.9", "10.244.1.5", nil, false},
		{"from it to the node", "10.244.1.9", "192.0.2.1", func(f *policy.Flow) { f.ToNode = true }, false},
		{"from the node to it", "192.0.2.1", "10.244.1.9", func(f *policy.Flow) { f.FromNode = true }, true},
		{"of others", "10.244.1.5", "10.244.1.6", nil, true},
	} {
		f := policy.Flow{Protocol: policy.TCP, Src: addr(tt.src), Dst: addr(tt.dst), DstPort: 80}
		if tt.change != nil {
			tt.change(&f)
		}
		if v := n.Allows(f); v.Allowed != tt.want {
			t.Errorf("%s: allowed is %t because %q", tt.name, v.Allowed, v.Reason)
		}
	}
}

func addr(text string) netip.Addr { return netip.MustParseAddr(text) }

// TestLinksThatDifferInAnythingAreNotEqual: a field that comes is compared too.
func TestLinksThatDifferInAnythingAreNotEqual(t *testing.T) {
	whole := policy.Link{Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}
	fields := reflect.TypeOf(whole)
	for i := range fields.NumField() {
		other := whole
		switch f := reflect.ValueOf(&other).Elem().Field(i); f.Kind() {
		case reflect.String:
			f.SetString("another")
		case reflect.Int:
			f.SetInt(7)
		case reflect.Bool:
			f.SetBool(true)
		case reflect.Slice:
			f.Set(reflect.Zero(f.Type()))
		default:
			t.Fatalf("%s is of a kind that this test does not know", fields.Field(i).Name)
		}
		if whole.Equal(other) || !other.Equal(other) {
			t.Errorf("another %s: equal %t, and to itself %t", fields.Field(i).Name, whole.Equal(other), other.Equal(other))
		}
	}
}
