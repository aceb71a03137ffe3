package oracle

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
)

// tieredCluster is the standard cluster with all that tiers look at: labelled nodes, a namespace that shares its team with another, one
// more without labels, and a DNS Service with its pod.
func tieredCluster() Cluster {
	c := standardCluster()
	c.Namespaces = append(c.Namespaces, namespace("a2", "team=a", "env=test"), namespace("e"), namespace("system"))
	ports(c.Pods[0], "http=TCP/80", "http=UDP/81")
	c.Pods = append(c.Pods,
		pod("a2/twin", "node2", []string{"10.1.0.7", "fd00:1::7"}),
		pod("e/alone", "node1", []string{"10.1.0.8"}),
		ports(pod("system/dns", "node2", []string{"10.1.0.6", "fd00:1::6"}, "app=dns"), "query=UDP/5353", "query=TCP/5354"),
	)
	c.Nodes = []*corev1.Node{
		node("node1", "zone=west", "192.168.0.1"),
		node("node2", "zone=east", "192.168.0.2", "fd00:168::2", "198.51.100.2", "node2.example"),
	}
	c.DNSServices = []*corev1.Service{{
		ObjectMeta: metav1.ObjectMeta{Namespace: "system", Name: "dns"},
		Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": "dns"}, ClusterIP: "10.96.0.10", ClusterIPs: []string{"10.96.0.10", "fd00:96::a"},
			Ports: []corev1.ServicePort{
				{Protocol: corev1.ProtocolUDP, Port: 53, TargetPort: intstr.FromString("query")},
				{Port: 54, TargetPort: intstr.FromInt32(5400)},
				{Protocol: corev1.ProtocolTCP, Port: 55},
			},
		},
	}}
	c.DNSAddresses = []netip.Addr{netip.MustParseAddr("169.254.20.10")}
	return c
}

func node(name, label string, addrs ...string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labelMap([]string{label})}}
	for _, a := range addrs {
		n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a})
	}
	return n
}

// objects are what a row gives the cluster, in YAML. Names of NetworkPolicies are "namespace/name", and a ClusterNetworkPolicy "sig/name"
// is the SIG's. Those under admin and baseline have that tier, and all pods as subject where they name none.
type objects struct {
	Modes           map[string]string                          `json:"modes"` // of namespaces
	Policies        map[string]annotatedPolicy                 `json:"np"`
	Admin, Baseline map[string]datedPolicy                     `json:",omitempty"`
	ClusterPolicies map[string]datedPolicy                     `json:"cnp"`
	Isolations      map[string]v1alpha1.NamespaceIsolationSpec `json:"iso"`
}

type annotatedPolicy struct {
	Mode *string `json:"mode"`
	networkingv1.NetworkPolicySpec
}

type datedPolicy struct {
	Created int64 `json:"created"`
	v1alpha1.ClusterNetworkPolicySpec
}

// with is the cluster with the objects of the text.
func (c Cluster) with(t *testing.T, text string) Cluster {
	t.Helper()
	var o objects
	if err := yaml.UnmarshalStrict([]byte(text), &o); err != nil {
		t.Fatalf("reading objects: %v\n%s", err, text)
	}
	for name, mode := range o.Modes {
		c.namespace(name).Annotations = map[string]string{v1alpha1.ModeAnnotation: mode}
	}
	for name, p := range o.Policies {
		ns, n, _ := strings.Cut(name, "/")
		policy := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: n}, Spec: p.NetworkPolicySpec}
		if p.Mode != nil {
			policy.Annotations = map[string]string{v1alpha1.ModeAnnotation: *p.Mode}
		}
		c.Policies = append(c.Policies, policy)
	}
	for _, tier := range []struct {
		name     v1alpha1.Tier
		policies map[string]datedPolicy
	}{{v1alpha1.AdminTier, o.Admin}, {v1alpha1.BaselineTier, o.Baseline}} {
		for name, p := range tier.policies {
			p.Tier = tier.name
			if p.Subject == (v1alpha1.Subject{}) {
				p.Subject.Namespaces = &v1alpha1.LabelSelector{}
			}
			c.ClusterPolicies = append(c.ClusterPolicies, clusterPolicy(name, p))
		}
	}
	for name, p := range o.ClusterPolicies {
		c.ClusterPolicies = append(c.ClusterPolicies, clusterPolicy(name, p))
	}
	for name, spec := range o.Isolations {
		c.Isolations = append(c.Isolations, &v1alpha1.NamespaceIsolation{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec})
	}
	return c
}

func clusterPolicy(name string, dated datedPolicy) *v1alpha1.ClusterNetworkPolicy {
	p := &v1alpha1.ClusterNetworkPolicy{Spec: dated.ClusterNetworkPolicySpec}
	p.APIVersion = "policy.ringfence.io/v1alpha1"
	if rest, ok := strings.CutPrefix(name, "sig/"); ok {
		name, p.APIVersion = rest, "policy.networking.k8s.io/v1beta1"
	}
	p.Name = name
	if dated.Created != 0 {
		p.CreationTimestamp = metav1.Time{Time: time.Unix(dated.Created, 0)}
	}
	return p
}

// tierRow is a behaviour: objects, the flows they allow and deny, and what is noted of flows.
type tierRow struct {
	name, objects string
	want          []string
	notes         map[string]string
}

// check runs the rows. A key of notes is "node1: flow", its value "egress ClusterNetworkPolicy x; ingress NetworkPolicy a/p".
func check(t *testing.T, rows []tierRow) {
	t.Helper()
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			c := tieredCluster().with(t, row.objects)
			expect(t, c, row.want)
			for where, want := range row.notes {
				node, text, _ := strings.Cut(where, ": ")
				var got []string
				for _, d := range c.AuditedAt(node, flow(t, text)) {
					name := d.Name
					if d.Namespace != "" {
						name = d.Namespace + "/" + d.Name
					}
					got = append(got, fmt.Sprintf("%s %s %s", d.Direction, d.Kind, name))
				}
				slices.Sort(got)
				if have := strings.Join(got, "; "); have != want {
					t.Errorf("%s: noted %q, want %q", where, have, want)
				}
			}
		})
	}
}
