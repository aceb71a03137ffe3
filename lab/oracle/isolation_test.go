package oracle

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// TestIsolation holds what is said of NamespaceIsolations, one statement per row.
func TestIsolation(t *testing.T) {
	check(t, []tierRow{
		{name: "without a tenant label each namespace is its own tenant", objects: `
iso: {x: {namespaceSelector: {matchLabels: {team: a}}}}`, want: []string{
			"allowed: db -> web TCP/80", "allowed: web -> db ICMP/8", "denied: twin -> web TCP/80", "denied: client -> web TCP/80", "denied: web -> client TCP/80",
			"allowed: client -> bare TCP/80", "denied: outside -> web TCP/80", "denied: web -> outside TCP/80",
		}},
		{name: "namespaces that share the label's value are one tenant", objects: `
iso: {x: {tenantLabel: team, namespaceSelector: {matchLabels: {team: a}}}}`, want: []string{
			"allowed: twin -> web TCP/80", "allowed: twin6 -> web6 UDP/1", "allowed: web -> twin GRE", "denied: client -> web TCP/80", "denied: bare -> web TCP/80",
		}},
		{name: "namespaces of the tenant that are not selected are of it all the same, and free", objects: `
iso: {x: {tenantLabel: team, namespaceSelector: {matchLabels: {team: a}, matchExpressions: [{key: env, operator: DoesNotExist}]}}}`, want: []string{
			"allowed: twin -> web TCP/80", "allowed: web -> twin TCP/80", "denied: client -> web TCP/80", "allowed: client -> twin TCP/80", "allowed: twin -> outside TCP/80",
		}},
		{name: "a namespace without the label is a tenant of its own", objects: `
iso: {x: {tenantLabel: team, namespaceSelector: {}}}`, want: []string{"denied: bare -> alone TCP/80", "allowed: bare -> bare TCP/80", "denied: alone -> web TCP/80"}},
		{name: "sameTenant may be off", objects: `
iso: {x: {tenantLabel: team, namespaceSelector: {}, directions: [Ingress], allow: {sameTenant: false}}}`, want: []string{"denied: db -> web TCP/80", "denied: twin -> web TCP/80"}},
		{name: "pods on the host network and completed ones are of no tenant", objects: `
iso: {x: {tenantLabel: team, namespaceSelector: {}}}`, want: []string{"denied: host -> web TCP/80", "denied: job -> web TCP/80", "allowed: host -> outside TCP/80"}},
		{name: "directions", objects: `
iso: {x: {namespaceSelector: {matchLabels: {team: b}}, directions: [Egress]}, w: {namespaceSelector: {matchLabels: {team: a}}, directions: [Ingress]}}`, want: []string{
			"allowed: outside -> client TCP/80", "denied: client -> outside TCP/80", "allowed: web -> outside TCP/80", "denied: outside -> web TCP/80",
		}},
		{name: "no directions are both", objects: `
iso: {x: {namespaceSelector: {}, directions: []}}`, want: []string{"denied: outside -> web TCP/80", "denied: web -> outside TCP/80"}},
		{name: "allow.ingress and allow.egress", objects: `
iso: {x: {namespaceSelector: {matchLabels: {team: a}}, allow: {
  ingress: [{from: [{namespaces: {matchLabels: {team: b}}}], protocols: [{destinationNamedPort: http}]}, {from: [{networks: [203.0.113.0/24]}]}],
  egress: [{to: [{nodes: {matchLabels: {zone: east}}}, {pods: {podSelector: {matchLabels: {app: client}}}}], protocols: [{tcp: {destinationPort: {number: 443}}}]}]}}}`,
			want: []string{
				"allowed: client -> web TCP/80", "allowed: client -> web UDP/81", "denied: client -> web TCP/81", "allowed: outside -> web ICMP/8", "denied: bare -> web TCP/80",
				"allowed: web -> node2 TCP/443", "denied: web -> node1 TCP/443", "allowed: web -> client TCP/443", "denied: web -> client TCP/80", "denied: web -> outside TCP/443",
			}},
		{name: "isolations add up", objects: `
iso:
  x: {namespaceSelector: {}, directions: [Ingress]}
  w: {namespaceSelector: {matchLabels: {team: a}}, directions: [Ingress], allow: {ingress: [{from: [{namespaces: {matchLabels: {team: b}}}]}]}}`,
			want: []string{"allowed: client -> web TCP/80", "denied: client -> bare TCP/80", "denied: bare -> web TCP/80"}},
		{name: "what Admin isolation allows still needs the consent of NetworkPolicies", objects: `
iso: {x: {tier: Admin, namespaceSelector: {matchLabels: {team: a}}}}
np: {a/p: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{namespaceSelector: {}}], ports: [{port: 80}]}]}}`,
			want: []string{"allowed: db -> web TCP/80", "denied: db -> web TCP/81", "denied: client -> web TCP/80", "allowed: web -> db TCP/81"}},
		{name: "a NetworkPolicy may open what Baseline isolation denies", objects: `
iso: {x: {namespaceSelector: {matchLabels: {team: a}}}}
np: {a/p: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{namespaceSelector: {}}], ports: [{port: 80}]}]}}`,
			want: []string{"allowed: client -> web TCP/80", "denied: db -> web TCP/81", "denied: client -> db TCP/80"}},
		{name: "an isolation comes after the ClusterNetworkPolicies of its tier", objects: `
admin: {a: {priority: 1000, ingress: [{action: Accept, from: [{namespaces: {matchLabels: {team: b}}}]}]}}
iso: {x: {tier: Admin, namespaceSelector: {}, directions: [Ingress]}}`, want: []string{"allowed: client -> web TCP/80", "denied: bare -> web TCP/80"}},
	})
}

func TestDNS(t *testing.T) {
	isolated := `
iso: {x: {namespaceSelector: {matchLabels: {team: a}}}}`
	check(t, []tierRow{
		{name: "the pods of the Service, at the container's side of its ports", objects: isolated, want: []string{
			"allowed: web -> dns UDP/5353", "denied: web -> dns TCP/5354", "denied: web -> dns UDP/53", "allowed: web -> dns TCP/5400", "denied: web -> dns UDP/5400",
			"denied: web -> dns TCP/54", "allowed: web -> dns TCP/55", "denied: web -> dns UDP/55", "allowed: web6 -> dns6 UDP/5353", "denied: web -> dns ICMP/8",
		}},
		{name: "the addresses of the Service, at its ports", objects: isolated, want: []string{
			"allowed: web -> cluster UDP/53", "denied: web -> cluster TCP/53", "allowed: web -> cluster TCP/54", "allowed: web -> cluster TCP/55",
			"denied: web -> cluster TCP/5400", "allowed: web6 -> fd00:96::a UDP/53", "denied: web -> 10.96.0.11 UDP/53",
		}},
		{name: "the addresses of node-local DNS", objects: isolated, want: []string{
			"allowed: web -> local UDP/53", "allowed: web -> local TCP/53", "denied: web -> local SCTP/53", "denied: web -> local UDP/54",
		}},
		{name: "is egress only", objects: isolated, want: []string{"denied: dns -> web UDP/5353", "denied: local -> web UDP/53"}},
		{name: "may be off", objects: `
iso: {x: {namespaceSelector: {matchLabels: {team: a}}, allow: {dns: false}}}`, want: []string{"denied: web -> dns UDP/5353", "denied: web -> cluster UDP/53", "denied: web -> local UDP/53"}},
		{name: "may be on where sameTenant is off", objects: `
iso: {x: {namespaceSelector: {matchLabels: {team: a}}, allow: {sameTenant: false, dns: true}}}`, want: []string{"allowed: web -> dns UDP/5353", "denied: web -> db UDP/53"}},
		{name: "in Admin still needs the consent of NetworkPolicies", objects: `
iso: {x: {tier: Admin, namespaceSelector: {matchLabels: {team: a}}}}
np: {a/p: {podSelector: {matchLabels: {app: web}}, policyTypes: [Egress]}}`, want: []string{"denied: web -> local UDP/53", "allowed: db -> local UDP/53"}},
	})
}

func TestDNSServices(t *testing.T) {
	for _, row := range []struct {
		name   string
		change func(*corev1.Service)
		want   []string
	}{
		{"one in another namespace selects nothing there", func(s *corev1.Service) { s.Namespace = "a" }, []string{"denied: web -> dns UDP/5353", "allowed: web -> cluster UDP/53"}},
		{"one without a selector selects nothing", func(s *corev1.Service) { s.Spec.Selector = nil }, []string{"denied: web -> dns UDP/5353", "allowed: web -> cluster UDP/53"}},
		{"a headless one has no address", func(s *corev1.Service) { s.Spec.ClusterIP, s.Spec.ClusterIPs = "None", []string{"None"} },
			[]string{"allowed: web -> dns UDP/5353", "denied: web -> cluster UDP/53"}},
		{"an address that stands in one field only counts", func(s *corev1.Service) { s.Spec.ClusterIPs = nil }, []string{"allowed: web -> cluster UDP/53", "denied: web6 -> fd00:96::a UDP/53"}},
		{"all labels of the selector must be there", func(s *corev1.Service) { s.Spec.Selector["tier"] = "" }, []string{"denied: web -> dns UDP/5353"}},
		{"an empty name of a target port is none", func(s *corev1.Service) { s.Spec.Ports[0].TargetPort = intstr.FromString("") },
			[]string{"allowed: web -> dns UDP/53", "denied: web -> dns UDP/5353"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := tieredCluster().with(t, `iso: {x: {namespaceSelector: {matchLabels: {team: a}}, allow: {sameTenant: false}}}`)
			row.change(c.DNSServices[0])
			expect(t, c, row.want)
		})
	}
}
