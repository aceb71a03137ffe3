package packets

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/lab/probe"
	"github.com/ringfence-io/ringfence/test/scenario"
)

// churn is a cluster whose policies change all the time without ever changing what they mean for the watched flows. Each
// change replaces one of its parts by an equivalent: another way to write the deciding policies, or other policies, pods and
// peers around them. It holds, for each part, the index of the way in which it is written now.
type churn [len(ways)]int

// way is a part of the churn, which can be written in n ways: add adds the pods of way i to the cluster and returns its
// policies.
type way struct {
	name string
	n    int
	add  func(c *scenario.Cluster, i int) string
}

// watchedLines must hold all the time.
var watchedLines = []string{
	"client reaches web on tcp/80", "remote reaches web on tcp/80", "db reaches web on udp/80 udp/82", "web reaches far on udp/81 sctp/81",
	"web reaches outside on tcp/80", "far reaches remote on tcp/80", "remote reaches far on icmp",

	"bare does not reach web on tcp/80 udp/80", "client does not reach web on tcp/81", "remote does not reach web on udp/80 icmp",
	"web does not reach far on udp/82 tcp/81", "web does not reach 10.9.0.1 on tcp/80", "web does not reach n1 on tcp/81",
	"outside does not reach far on tcp/80", "far does not reach bare on tcp/80",
}

var ways = [...]way{
	{"blue to web on tcp/80", 7, func(_ *scenario.Cluster, i int) string {
		return policyFor("red/blue-to-web", "app: web", "ingress", []string{
			`{from: [{namespaceSelector: {matchLabels: {team: blue}}}], ports: [{port: 80}]}`,
			`{from: [{namespaceSelector: {matchExpressions: [{key: env, operator: Exists}]}}], ports: [{port: 80, protocol: TCP}]}`,
			`{from: [{namespaceSelector: {}, podSelector: {matchExpressions: [{key: app, operator: In, values: [client, remote]}]}}], ports: [{port: http}]}`,
			`{from: [{namespaceSelector: {matchLabels: {team: blue}}, podSelector: {matchLabels: {app: client}}}], ports: [{port: 80}]}, {from: [{namespaceSelector: {matchLabels: {team: blue}}, podSelector: {matchLabels: {app: remote}}}], ports: [{port: 79, endPort: 80}]}`,
			`{from: [{ipBlock: {cidr: $client}}, {ipBlock: {cidr: $remote}}], ports: [{port: 80}, {port: 8000}, {port: 9000, endPort: 9100}]}`,
			`{from: [{ipBlock: {cidr: $client}}, {namespaceSelector: {}, podSelector: {matchLabels: {app: remote}}}], ports: [{port: http}]}`,
			`{from: [{namespaceSelector: {matchExpressions: [{key: team, operator: NotIn, values: [red]}]}, podSelector: {matchExpressions: [{key: app, operator: Exists}]}}], ports: [{port: 80}]}`,
		}[i])
	}},
	{"db to web on udp/80", 4, func(_ *scenario.Cluster, i int) string {
		return policyFor("red/db-to-web", "app: web", "ingress", []string{
			`{from: [{podSelector: {matchLabels: {app: db}}}], ports: [{port: 80, protocol: UDP}]}`,
			`{from: [{podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [web, far]}]}}], ports: [{port: 80, protocol: UDP}, {port: 7, protocol: UDP}]}`,
			`{from: [{ipBlock: {cidr: $db}}], ports: [{port: 80, protocol: UDP}]}`,
			`{from: [{podSelector: {}}, {podSelector: {matchLabels: {app: ghost}}}], ports: [{port: 80, endPort: 80, protocol: UDP}]}`,
		}[i])
	}},
	{"db to web on udp/82, by a label of db that changes together with the policy; the label's other sets stay", 3, func(c *scenario.Cluster, i int) string {
		c.Pod("db").Labels["tier"] = []string{"a", "b", "c"}[i]
		return policyFor("red/tier-to-web", "app: web", "ingress", fmt.Sprintf(
			`{from: [{podSelector: {matchLabels: {tier: %s}}}], ports: [{port: 82, protocol: UDP}]}`, c.Pod("db").Labels["tier"])) + "\n" +
			policyFor("red/tiers-to-web", "app: web", "ingress",
				`{from: [{podSelector: {matchLabels: {tier: a}}}, {podSelector: {matchLabels: {tier: b}}}, {podSelector: {matchLabels: {tier: c}}}], ports: [{port: 7000}]}`)
	}},
	{"egress of web", 6, func(_ *scenario.Cluster, i int) string {
		return policyFor("red/from-web", "app: web", "egress", []string{
			`{to: [{podSelector: {matchLabels: {app: far}}}], ports: [{port: 81, protocol: UDP}, {port: 81, protocol: SCTP}]}, {to: [{ipBlock: {cidr: $outside}}], ports: [{port: 80}]}`,
			`{to: [{namespaceSelector: {matchLabels: {team: red}}, podSelector: {matchLabels: {role: x}}}], ports: [{port: 81, endPort: 81, protocol: UDP}, {port: 81, protocol: SCTP}]}, {to: [{ipBlock: {cidr: 172.18.0.128/25}}], ports: [{port: 80}]}`,
			`{to: [{ipBlock: {cidr: $far}}], ports: [{port: 81, protocol: UDP}, {port: 80, endPort: 81, protocol: SCTP}]}, {to: [{ipBlock: {cidr: 172.18.0.0/24, except: [172.18.0.1/32, 172.18.0.2/32]}}], ports: [{port: 80}]}`,
			`{to: [{ipBlock: {cidr: 10.244.2.0/24, except: [10.244.2.128/25]}}], ports: [{port: 81, protocol: UDP}, {port: 81, protocol: SCTP}]}, {to: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.0/8, 172.18.0.0/30]}}]}`,
			`{to: [{podSelector: {}}], ports: [{port: 81, protocol: UDP}, {port: 81, protocol: SCTP}]}, {to: [{ipBlock: {cidr: 172.16.0.0/12}}], ports: [{port: 80}]}`,
			`{to: [{namespaceSelector: {}}, {ipBlock: {cidr: 192.0.2.0/24}}], ports: [{port: 81, protocol: UDP}, {port: 81, protocol: SCTP}]}, {to: [{ipBlock: {cidr: $outside}}, {ipBlock: {cidr: 10.0.0.0/8, except: [10.9.0.0/16]}}], ports: [{port: 80}]}`,
		}[i])
	}},
	{"far", 4, func(_ *scenario.Cluster, i int) string {
		return []string{
			`red/far: {podSelector: {matchLabels: {app: far}}, policyTypes: [Ingress, Egress], ingress: [{from: [{namespaceSelector: {}}]}], egress: [{to: [{namespaceSelector: {matchLabels: {team: blue}}}]}]}`,
			`red/far: {podSelector: {matchLabels: {role: x}}, policyTypes: [Ingress, Egress], ingress: [{from: [{podSelector: {}}, {namespaceSelector: {matchLabels: {team: blue}}}]}], egress: [{to: [{ipBlock: {cidr: $remote}}]}]}`,
			"red/far-in: {podSelector: {matchLabels: {app: far}}, ingress: [{from: [{ipBlock: {cidr: 10.244.0.0/16}}]}]}\nred/far-out: {podSelector: {matchLabels: {app: far}}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {}, podSelector: {matchLabels: {app: remote}}}], ports: [{port: http}]}]}",
			"red/far-in: {podSelector: {matchLabels: {role: x}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}, {from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: remote}}}]}]}\nred/far-out: {podSelector: {matchLabels: {app: far}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: $remote}}], ports: [{port: 80}]}]}",
		}[i]
	}},
	{"a policy that isolates and allows nothing", 2, func(_ *scenario.Cluster, i int) string {
		return strings.Repeat("red/deny: {podSelector: {matchExpressions: [{key: app, operator: In, values: [web, far]}]}, policyTypes: [Ingress, Egress]}", i)
	}},
	{"policies for web that allow nobody who is there", 6, func(_ *scenario.Cluster, i int) string {
		var b strings.Builder
		for k := range i {
			fmt.Fprintf(&b, "red/%c-extra: {podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress, Egress], ingress: [{from: [{podSelector: {matchLabels: {app: nobody%d}}}]}], egress: [{to: [{ipBlock: {cidr: 192.0.2.%d/32}}]}]}\n", 'a'+4*k, k, k)
		}
		return b.String()
	}},
	{"policies for the neighbours", 5, func(_ *scenario.Cluster, i int) string {
		var b strings.Builder
		for k := range i {
			fmt.Fprintf(&b, "red/more%d: {podSelector: {matchLabels: {app: more%d}}, policyTypes: [Ingress, Egress], ingress: [{from: [{namespaceSelector: {matchLabels: {team: blue}}}]}]}\n", k, k)
		}
		return b.String()
	}},
	{"neighbours of web, isolated or not", 60, func(c *scenario.Cluster, i int) string {
		for k := range i {
			p := scenario.NewPod(fmt.Sprintf("red/more%d", k), "n1", fmt.Sprintf("app=more%d", k%5))
			c.Pods = append(c.Pods, scenario.At(p, netip.AddrFrom4([4]byte{10, 244, 1, byte(20 + 3*k)})))
		}
		return ""
	}},
	{"neighbours of far", 20, func(c *scenario.Cluster, i int) string {
		for k := range i {
			p := scenario.NewPod(fmt.Sprintf("red/distant%d", k), "n2", fmt.Sprintf("app=more%d", k%5))
			c.Pods = append(c.Pods, scenario.At(p, netip.AddrFrom4([4]byte{10, 244, 2, byte(150 + k)})))
		}
		return ""
	}},
	{"pods elsewhere that selectors select", 40, func(c *scenario.Cluster, i int) string {
		for k := range i {
			p := scenario.NewPod(fmt.Sprintf("%s/ghost%d", []string{"red", "blue", "plain"}[k%3], k), "n9", "app="+[]string{"db", "client", "far", "ghost"}[k%4])
			scenario.AddPorts(&p.Spec.Containers, "http=TCP/80")
			c.Pods = append(c.Pods, scenario.At(p, netip.AddrFrom4([4]byte{100, 64, 0, byte(k)})))
		}
		return ""
	}},
	{"addresses that no pod is known to hold are closed, or not", 2, func(c *scenario.Cluster, i int) string {
		if i > 0 {
			c.CloseUnknown()
		}
		return ""
	}},
	{"a long list of rules: labels change, and so which of them is about client and about bare; others are about ports that nobody uses", 60, func(c *scenario.Cluster, i int) string {
		c.Pod("client").Labels["rank"], c.Pod("bare").Labels = fmt.Sprintf("friend%d", i%30), map[string]string{"rank": fmt.Sprintf("foe%d", i*7%30)}
		var b strings.Builder
		for k := range 30 {
			fmt.Fprintf(&b, `{action: Accept, from: [{pods: {podSelector: {matchLabels: {rank: friend%d}}}}], protocols: [{tcp: {destinationPort: {number: 80}}}]},
  {action: Deny, from: [{pods: {podSelector: {matchLabels: {rank: foe%d}}}}], protocols: [{tcp: {destinationPort: {number: 80}}}]},
`, k, (k+i/30)%30)
		}
		for k := range 20 + i/2 {
			fmt.Fprintf(&b, "{action: Deny, from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: %d}}}]},\n", 30000+k)
		}
		return "cnp long: {tier: Admin, priority: 1, subject: {pods: {podSelector: {matchLabels: {app: web}}}}, ingress: [\n" + b.String() + "]}"
	}},
	{"labels that no policy's selector needs", 3, func(c *scenario.Cluster, i int) string {
		c.Pod("db").Labels["generation"] = fmt.Sprint(i)
		c.Namespace("blue").Labels["generation"] = fmt.Sprint(i)
		return ""
	}},
}

func policyFor(path, subject, direction, rules string) string {
	types := "Ingress"
	if direction == "egress" {
		types = "Egress"
	}
	return fmt.Sprintf("%s: {podSelector: {matchLabels: {%s}}, policyTypes: [%s], %s: [%s]}", path, subject, types, direction, rules)
}

// churned is the cluster after a number of changes; the same seed and number always give the same. Blocks are there in both
// families.
func churned(seed uint64, changes int) (*scenario.Cluster, error) {
	rng := rand.New(rand.NewPCG(seed, 0))
	var state churn
	for range changes {
		part := rng.IntN(len(ways))
		state[part] = rng.IntN(ways[part].n)
	}
	c, c6 := scenario.Standard(scenario.IPv4), scenario.Standard(scenario.IPv6)
	var texts []string
	for i, w := range ways {
		texts = append(texts, w.add(c, state[i]))
	}
	text := strings.Join(texts, "\n")
	for _, a := range c.Actors {
		text = strings.ReplaceAll(text, "$"+a.Name, netip.PrefixFrom(a.V4, 32).String())
	}
	if err := errors.Join(c.Apply(text), c6.Apply(text)); err != nil {
		return nil, err
	}
	for i, np := range c.Policies {
		for k := range np.Spec.Ingress {
			np.Spec.Ingress[k].From = append(np.Spec.Ingress[k].From, blocks(c6.Policies[i].Spec.Ingress[k].From)...)
		}
		for k := range np.Spec.Egress {
			np.Spec.Egress[k].To = append(np.Spec.Egress[k].To, blocks(c6.Policies[i].Spec.Egress[k].To)...)
		}
	}
	return c, nil
}

func blocks(peers []networkingv1.NetworkPolicyPeer) []networkingv1.NetworkPolicyPeer {
	return slices.DeleteFunc(peers, func(p networkingv1.NetworkPolicyPeer) bool { return p.IPBlock == nil })
}

// watched are the flows of the watched lines, in both families.
func watched(t *testing.T, w *world) []probe.Watched {
	t.Helper()
	var all []probe.Watched
	for _, f := range iptables.Families {
		in := *w
		in.family = f
		for _, line := range watchedLines {
			for _, e := range in.expectations(t, line) {
				all = append(all, probe.Watched{Host: e.from, Flow: e.flow, Allowed: e.want.Outcome == probe.Reached})
			}
		}
	}
	return all
}
