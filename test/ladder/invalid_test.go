package ladder

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/lab/oracle"
	"github.com/ringfence-io/ringfence/test/gen"
)

// TestObjectsThatCannotBeUnderstood: an object that the API server's validation would have refused opens nothing, holds up no
// other policy, and is reported with its kind, its name and the field, while the judges agree about what is left of it.
func TestObjectsThatCannotBeUnderstood(t *testing.T) {
	for _, row := range []struct {
		name  string
		spec  string
		field string
	}{
		{"unknown policy type", `{podSelector: {}, policyTypes: [Sideways], ingress: [{}], egress: [{}]}`, "spec.policyTypes[0]"},
		{"misspelt policy type", `{podSelector: {}, policyTypes: [ingress], ingress: [{}]}`, "spec.policyTypes[0]"},
		{"unknown type behind a known one", `{podSelector: {}, policyTypes: [Egress, Foo], ingress: [{}]}`, "spec.policyTypes[1]"},
		{"unknown operator in podSelector", `{podSelector: {matchExpressions: [{key: app, operator: Is, values: [web]}]}, ingress: [{}]}`, "spec.podSelector"},
		{"In without values in podSelector", `{podSelector: {matchExpressions: [{key: app, operator: In}]}, ingress: [{}]}`, "spec.podSelector"},
		{"NotIn without values in podSelector", `{podSelector: {matchExpressions: [{key: app, operator: NotIn, values: []}]}, ingress: [{}]}`, "spec.podSelector"},
		{"Exists with values in podSelector", `{podSelector: {matchExpressions: [{key: app, operator: Exists, values: [a]}]}, ingress: [{}]}`, "spec.podSelector"},
		{"bad key in podSelector", `{podSelector: {matchLabels: {"a b": c}}, ingress: [{}]}`, "spec.podSelector"},
		{"bad value in podSelector", `{podSelector: {matchLabels: {a: "b c"}}, ingress: [{}]}`, "spec.podSelector"},
		{"peer without fields", `{podSelector: {}, ingress: [{from: [{}]}]}`, "spec.ingress[0].from[0]"},
		{"ipBlock with podSelector", `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}, podSelector: {}}]}]}`, "spec.ingress[0].from[0]"},
		{"ipBlock with namespaceSelector", `{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: "::/0"}, namespaceSelector: {}}]}]}`, "spec.egress[0].to[0]"},
		{"unknown operator in a peer", `{podSelector: {}, ingress: [{from: [{podSelector: {matchExpressions: [{key: app, operator: Is}]}}]}]}`, "spec.ingress[0].from[0].podSelector"},
		{"NotIn without values in a peer", `{podSelector: {}, ingress: [{from: [{podSelector: {matchExpressions: [{key: app, operator: NotIn}]}}]}]}`, "spec.ingress[0].from[0].podSelector"},
		{"bad namespaceSelector", `{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchExpressions: [{key: team, operator: DoesNotExist, values: [x]}]}}]}]}`, "spec.ingress[0].from[0].namespaceSelector"},
		{"no cidr", `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: ""}}]}]}`, "spec.ingress[0].from[0].ipBlock.cidr"},
		{"address for a cidr", `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.1}}]}]}`, "spec.ingress[0].from[0].ipBlock.cidr"},
		{"cidr that is too long", `{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.0.0.0/33}}]}]}`, "spec.egress[0].to[0].ipBlock.cidr"},
		{"except that is no cidr", `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16, x]}}]}]}`, "spec.ingress[0].from[0].ipBlock.except[1]"},
		{"except outside", `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/16]}}]}]}`, "spec.ingress[0].from[0].ipBlock.except[0]"},
		{"except of the other family", `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: ["fd00::/64"]}}]}]}`, "spec.ingress[0].from[0].ipBlock.except[0]"},
		{"except of everything", `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}]}]}`, "spec.ingress[0].from[0].ipBlock.except[0]"},
		{"unknown protocol", `{podSelector: {}, ingress: [{ports: [{protocol: ICMP}]}]}`, "spec.ingress[0].ports[0].protocol"},
		{"protocol in small letters", `{podSelector: {}, ingress: [{ports: [{protocol: tcp, port: 80}]}]}`, "spec.ingress[0].ports[0].protocol"},
		{"empty protocol", `{podSelector: {}, ingress: [{ports: [{protocol: "", port: 80}]}]}`, "spec.ingress[0].ports[0].protocol"},
		{"port 0", `{podSelector: {}, ingress: [{ports: [{port: 0}]}]}`, "spec.ingress[0].ports[0]"},
		{"negative port", `{podSelector: {}, ingress: [{ports: [{port: -80}]}]}`, "spec.ingress[0].ports[0]"},
		{"port 65616, which is 80 in 16 bits", `{podSelector: {}, ingress: [{ports: [{port: 65616}]}]}`, "spec.ingress[0].ports[0]"},
		{"endPort before port", `{podSelector: {}, ingress: [{ports: [{port: 81, endPort: 80}]}]}`, "spec.ingress[0].ports[0]"},
		{"endPort beyond all ports", `{podSelector: {}, ingress: [{ports: [{port: 80, endPort: 65536}]}]}`, "spec.ingress[0].ports[0]"},
		{"endPort without port", `{podSelector: {}, ingress: [{ports: [{endPort: 80}]}]}`, "spec.ingress[0].ports[0].endPort"},
		{"endPort with a named port", `{podSelector: {}, ingress: [{ports: [{port: http, endPort: 80}]}]}`, "spec.ingress[0].ports[0].endPort"},
		{"empty port name", `{podSelector: {}, ingress: [{ports: [{port: ""}]}]}`, "spec.ingress[0].ports[0].port"},
	} {
		t.Run(row.name, func(t *testing.T) {
			bad := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "bad"}}
			if err := yaml.UnmarshalStrict([]byte(row.spec), &bad.Spec); err != nil {
				t.Fatal(err)
			}
			if err := checkInvalid(bad, row.field); err != nil {
				t.Error(err)
			}
		})
	}
}

// checkInvalid adds a bad policy to a small cluster with good ones.
func checkInvalid(bad *networkingv1.NetworkPolicy, field string) error {
	c, flows := smallShop()
	with := c
	with.Cluster.Policies = append(slices.Clone(c.Cluster.Policies), bad)
	for _, node := range c.Nodes {
		clean, problems := compile.Compile(Snapshot(c.Cluster, node.Name))
		if len(problems) > 0 {
			return fmt.Errorf("problems without the bad policy: %v", problems)
		}
		soiled, problems := compile.Compile(Snapshot(with.Cluster, node.Name))
		want := []compile.Problem{{Ref: policy.Ref{Kind: "NetworkPolicy", Namespace: bad.Namespace, Name: bad.Name}, Field: field}}
		for i := range problems {
			if problems[i].Detail == "" {
				return fmt.Errorf("problem %d says nothing", i)
			}
			problems[i].Detail = ""
		}
		if diff := cmp.Diff(want, problems); diff != "" {
			return fmt.Errorf("problems (-want +got):\n%s", diff)
		}
		for _, p := range clean.Policies {
			if !slices.ContainsFunc(soiled.Policies, func(q policy.Policy) bool { return cmp.Equal(p, q, comparers) }) {
				return fmt.Errorf("%s is not what it was: %v", p.Ref, soiled.Policies)
			}
		}
		for _, f := range flows {
			was, is := clean.Allows(PolicyFlow(f, node.Name)), soiled.Allows(PolicyFlow(f, node.Name))
			if !was.Allowed && is.Allowed {
				return fmt.Errorf("the bad policy opens %s at %s: %s", f, node.Name, is.Reason)
			}
		}
	}
	_, err := compareJudges(with, flows)
	return err
}

// smallShop is a cluster in which one policy isolates everything in the namespace, so that an opening would be seen, and another
// opens one port, so that a hindrance would be seen.
func smallShop() (gen.Case, []oracle.Flow) {
	c := gen.Case{Nodes: []gen.Node{{Name: "node1"}, {Name: "node2"}}}
	c.Cluster.Namespaces = []*corev1.Namespace{{ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: map[string]string{"team": "shop"}}}}
	for i, name := range []string{"web", "db", "other"} {
		p := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: map[string]string{"app": name}},
			Spec: corev1.PodSpec{NodeName: c.Nodes[i%2].Name, Containers: []corev1.Container{{Ports: []corev1.ContainerPort{
				{Name: "http", ContainerPort: 80}, {ContainerPort: 81}}}}},
			Status: corev1.PodStatus{PodIPs: []corev1.PodIP{{IP: fmt.Sprintf("10.0.0.%d", i+1)}, {IP: fmt.Sprintf("fd00::%d", i+1)}}},
		}
		c.Cluster.Pods = append(c.Cluster.Pods, p)
	}
	good := map[string]string{
		"closed":   `{podSelector: {}, policyTypes: [Ingress, Egress]}`,
		"one-port": `{podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 443}]}], egress: [{ports: [{port: 443}]}]}`,
	}
	for name, text := range good {
		p := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}}
		if err := yaml.UnmarshalStrict([]byte(text), &p.Spec); err != nil {
			panic(err) // the text is a constant
		}
		c.Cluster.Policies = append(c.Cluster.Policies, p)
	}
	return c, allPairs([]string{"10.0.0.1", "10.0.0.2", "10.0.0.3", "11.0.0.1", "fd00::1", "fd00::2", "fd00::3", "2001:db8::1"})
}

// allPairs are flows between all pairs of addresses of a family, over every protocol, on ports that the rows name and on others.
func allPairs(addrs []string) []oracle.Flow {
	var flows []oracle.Flow
	for _, src := range addrs {
		for _, dst := range addrs {
			if strings.Contains(src, ":") != strings.Contains(dst, ":") {
				continue
			}
			f := oracle.Flow{Src: netip.MustParseAddr(src), Dst: netip.MustParseAddr(dst)}
			for _, f.Protocol = range []oracle.Protocol{oracle.TCP, oracle.UDP, oracle.SCTP} {
				for _, f.DstPort = range []uint16{0, 80, 81, 443, 65456, 65535} {
					flows = append(flows, f)
				}
			}
			f.DstPort = 0
			if f.Protocol = oracle.ICMP; f.Src.Is6() {
				f.Protocol = oracle.ICMPv6
			}
			f.ICMPType = 128
			flows = append(flows, f)
		}
	}
	return flows
}
