package gen

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

var sameAddr = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

func TestTheSameSeedDrawsTheSame(t *testing.T) {
	for seed := range uint64(50) {
		a, b := Seed(seed), Seed(seed)
		c, d := New(a, Options{Invalid: true}), New(b, Options{Invalid: true})
		if diff := cmp.Diff(c, d, sameAddr); diff != "" {
			t.Fatalf("seed %d:\n%s", seed, diff)
		}
		if diff := cmp.Diff(Flows(a, c, 50), Flows(b, d, 50), sameAddr); diff != "" {
			t.Fatalf("flows of seed %d:\n%s", seed, diff)
		}
	}
}

func TestAnyBytesMakeACase(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	for length := range 300 {
		data := make([]byte, length)
		for i := range data {
			data[i] = byte(random.Uint32())
		}
		s := Bytes(data)
		c := New(s, Options{Invalid: true})
		if flows := Flows(s, c, 10); len(flows) != 10 || len(c.Cluster.Pods) < 2 || len(c.Nodes) < 2 {
			t.Fatalf("%d bytes make %d flows, %d pods and %d nodes", length, len(flows), len(c.Cluster.Pods), len(c.Nodes))
		}
	}
}

// TestEveryFeatureTurnsUp: a generator that has lost a feature of the API would let every comparison pass.
func TestEveryFeatureTurnsUp(t *testing.T) {
	seen := map[string]int{}
	for seed := range uint64(400) {
		s := Seed(seed)
		c := New(s, Options{})
		for _, p := range c.Cluster.Pods {
			notePod(seen, p)
		}
		for _, p := range c.Cluster.Policies {
			notePolicy(seen, p)
		}
		for _, f := range Flows(s, c, 20) {
			seen[f.Protocol.String()]++
			seen[fmt.Sprint("sent by a node: ", f.FromNode != "")]++
			if f.Src.Is4() != f.Dst.Is4() {
				t.Fatalf("%s has two families", f)
			}
		}
	}
	for _, feature := range []string{
		"host network", "phase Succeeded", "phase Failed", "phase Pending", "terminating", "init port", "sidecar", "2 addresses", "1 addresses", "0 addresses", "IPv6 first",
		"named TCP", "named UDP", "named SCTP", "named ",
		"types []", "types [Ingress]", "types [Egress]", "types [Ingress Egress]", "nil ingress", "empty ingress", "nil egress", "empty egress",
		"nil from", "empty from", "nil to", "empty to", "nil ports", "empty ports",
		"In", "NotIn", "Exists", "DoesNotExist", "empty selector", "matchLabels", "empty value",
		"podSelector", "namespaceSelector", "namespaceSelector+podSelector", "ipBlock",
		"/0 of 4", "/32 of 4", "/31 of 4", "/0 of 6", "/128 of 6", "host bits", "0 exceptions", "1 exceptions", "2 exceptions", "3 exceptions",
		"port name", "port number", "no port", "endPort", "endPort 65535", "protocol TCP", "protocol UDP", "protocol SCTP", "no protocol",
		"TCP", "UDP", "SCTP", "ICMP", "ICMPv6", "protocol 47", "sent by a node: true",
	} {
		if seen[feature] == 0 {
			t.Errorf("%q never turns up", feature)
		}
	}
	if n := seen["invalid exception"]; n > 0 {
		t.Errorf("%d exceptions are invalid where invalid objects were not asked for", n)
	}
}

func notePod(seen map[string]int, p *corev1.Pod) {
	seen["phase "+string(p.Status.Phase)]++
	seen[fmt.Sprint(len(p.Status.PodIPs), " addresses")]++
	if p.Spec.HostNetwork {
		seen["host network"]++
	}
	if p.DeletionTimestamp != nil {
		seen["terminating"]++
	}
	if len(p.Status.PodIPs) == 2 && netip.MustParseAddr(p.Status.PodIP).Is6() {
		seen["IPv6 first"]++
	}
	for _, c := range p.Spec.InitContainers {
		if len(c.Ports) > 0 {
			seen["init port"]++
		}
		if c.RestartPolicy != nil {
			seen["sidecar"]++
		}
	}
	for _, port := range allPorts(p) {
		if port.Name != "" {
			seen["named "+string(port.Protocol)]++
		}
	}
}

func notePolicy(seen map[string]int, p *networkingv1.NetworkPolicy) {
	seen[fmt.Sprint("types ", p.Spec.PolicyTypes)]++
	note(seen, "ingress", p.Spec.Ingress)
	note(seen, "egress", p.Spec.Egress)
	for _, r := range p.Spec.Ingress {
		note(seen, "from", r.From)
		note(seen, "ports", r.Ports)
	}
	for _, r := range p.Spec.Egress {
		note(seen, "to", r.To)
		note(seen, "ports", r.Ports)
	}
	for _, port := range append(portsOf(p, true), portsOf(p, false)...) {
		notePort(seen, port)
	}
	for _, peer := range (Case{}).with(p).peers() {
		notePeer(seen, peer)
	}
}

func (c Case) with(p *networkingv1.NetworkPolicy) Case {
	c.Cluster.Policies = []*networkingv1.NetworkPolicy{p}
	return c
}

// note tells a nil list from an empty one.
func note[T any](seen map[string]int, name string, list []T) {
	switch {
	case list == nil:
		seen["nil "+name]++
	case len(list) == 0:
		seen["empty "+name]++
	}
}

func notePort(seen map[string]int, port networkingv1.NetworkPolicyPort) {
	switch {
	case port.Port == nil:
		seen["no port"]++
	case port.Port.Type == intstr.String:
		seen["port name"]++
	default:
		seen["port number"]++
	}
	if port.EndPort != nil {
		seen["endPort"]++
		seen[fmt.Sprint("endPort ", *port.EndPort)]++
	}
	if port.Protocol == nil {
		seen["no protocol"]++
		return
	}
	seen["protocol "+string(*port.Protocol)]++
}

func notePeer(seen map[string]int, peer networkingv1.NetworkPolicyPeer) {
	kind := ""
	if peer.NamespaceSelector != nil {
		kind = "namespaceSelector"
	}
	if peer.PodSelector != nil {
		if kind != "" {
			kind += "+"
		}
		kind += "podSelector"
		if len(peer.PodSelector.MatchLabels)+len(peer.PodSelector.MatchExpressions) == 0 {
			seen["empty selector"]++
		}
		for _, v := range peer.PodSelector.MatchLabels {
			seen["matchLabels"]++
			if v == "" {
				seen["empty value"]++
			}
		}
		for _, r := range peer.PodSelector.MatchExpressions {
			seen[string(r.Operator)]++
		}
	}
	if peer.IPBlock != nil {
		kind = "ipBlock"
		prefix := netip.MustParsePrefix(peer.IPBlock.CIDR)
		family := 6
		if prefix.Addr().Is4() {
			family = 4
		}
		seen[fmt.Sprintf("/%d of %d", prefix.Bits(), family)]++
		seen[fmt.Sprint(len(peer.IPBlock.Except), " exceptions")]++
		if prefix != prefix.Masked() {
			seen["host bits"]++
		}
		for _, text := range peer.IPBlock.Except {
			if x := netip.MustParsePrefix(text); !prefix.Contains(x.Addr()) || x.Bits() <= prefix.Bits() {
				seen["invalid exception"]++
			}
		}
	}
	seen[kind]++
}
