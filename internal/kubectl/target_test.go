package kubectl

import (
	"strings"
	"testing"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

func TestTargets(t *testing.T) {
	for _, tt := range []struct {
		text string
		want target
	}{
		{"shop/db", target{"shop/db", "", policy.TCP}},
		{"db", target{"db", "", policy.TCP}},
		{"db:5432", target{"db", "5432", policy.TCP}},
		{"shop/db:5432", target{"shop/db", "5432", policy.TCP}},
		{"shop/db:5432/udp", target{"shop/db", "5432", policy.UDP}},
		{"shop/db:5432/TCP", target{"shop/db", "5432", policy.TCP}},
		{"shop/svc/db:postgres", target{"shop/svc/db", "postgres", policy.TCP}},
		{"shop/deploy/db/icmp", target{"shop/deploy/db", "", policy.ICMP}},
		{"shop/db/icmp", target{"shop/db", "", policy.ICMP}},
		{"shop/udp", target{"shop/udp", "", policy.TCP}}, // a pod of this name
		{"outside:443", target{"outside", "443", policy.TCP}},
		{"outside/icmp", target{"outside", "", policy.ICMP}},
		{"10.0.0.1:53/udp", target{"10.0.0.1", "53", policy.UDP}},
		{"10.0.0.1/sctp", target{"10.0.0.1", "", policy.SCTP}},
		{"fd00::1", target{"fd00::1", "", policy.TCP}},
		{"[fd00::1]:53/udp", target{"fd00::1", "53", policy.UDP}},
		{"[fd00::1]/icmp", target{"fd00::1", "", policy.ICMP}},
		{"node/n1:10250", target{"node/n1", "10250", policy.TCP}},
	} {
		if got, err := parseTarget(tt.text); err != nil || got != tt.want {
			t.Errorf("%s: %+v, %v, want %+v", tt.text, got, err, tt.want)
		}
	}
	for text, want := range map[string]string{
		"shop/db:0":         "write a number from 1 to 65535",
		"shop/db:65536":     "write a number from 1 to 65535",
		"shop/db:80/igmp":   "write tcp, udp, sctp or icmp",
		"shop/db:80/icmp":   "has a port",
		"10.0.0.1:80/blurb": "write tcp, udp, sctp or icmp",
	} {
		if got, err := parseTarget(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %+v, %v, want an error that has %q", text, got, err, want)
		}
	}
}
