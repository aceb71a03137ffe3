package iptables

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"testing"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// However many policies a tenant audits, its points together give some two hundred samples a second at most, and another tenant's as many as ever.
func TestSamplesOfATenantDoNotGrowWithItsPolicies(t *testing.T) {
	for _, audited := range []int{1, 16, 17, 160, 161, 1000, 1601, 5000} {
		n := policy.Node{Sets: policy.MapOf(map[policy.SetID]policy.Set{})}
		add := func(namespace, name string, host byte) {
			n.Policies = append(n.Policies, policy.Policy{Ref: policy.Ref{Kind: "NetworkPolicy", Namespace: namespace, Name: name}, Stage: policy.NetworkPolicies, Audit: true})
			var e policy.Endpoint
			e.Namespace, e.Name, e.Addrs = namespace, name, []netip.Addr{netip.AddrFrom4([4]byte{10, host, byte(len(n.Policies) >> 8), byte(len(n.Policies))})}
			e.Applies[policy.Ingress][policy.NetworkPolicies] = []int{len(n.Policies) - 1}
			n.Endpoints = append(n.Endpoints, e)
		}
		for i := range audited {
			add("a", fmt.Sprintf("p%04d", i), 1)
		}
		add("b", "quiet", 2)
		r := Render(n, Options{Families: []Family{IPv4}, Table: "security", NFLogGroup: DefaultNFLogGroup})
		rate, quiet, of := map[string]float64{}, "", limits(r)
		for id, p := range r.Points.All() {
			text := of[id]
			rate[p.Ref.Namespace] += perSecond(t, text)
			if p.Ref.Namespace == "b" {
				quiet = text
			}
		}
		if rate["a"] == 0 || rate["a"] > 200 || quiet != "10/sec" {
			t.Errorf("%d policies: %.1f samples a second, and another tenant's policy gives %s", audited, rate["a"], quiet)
		}
	}
}

var limitText = regexp.MustCompile(`--limit (\S+) --limit-burst \d+ -j NFLOG --nflog-prefix "RF:(\S+)"`)

// limits are the limits of the points' samples.
func limits(r Ruleset) map[string]string {
	of := map[string]string{}
	for _, rules := range r.Tables[IPv4].Chains.All() {
		for _, rule := range rules {
			if m := limitText.FindStringSubmatch(string(rule)); m != nil {
				of[m[2]] = m[1]
			}
		}
	}
	return of
}

func perSecond(t *testing.T, limit string) float64 {
	t.Helper()
	var n, unit string
	for i := range limit {
		if limit[i] == '/' {
			n, unit = limit[:i], limit[i+1:]
		}
	}
	f, err := strconv.ParseFloat(n, 64)
	if err != nil {
		t.Fatal(err)
	}
	return f / map[string]float64{"sec": 1, "min": 60}[unit]
}
