package gen

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/lab/oracle"
)

// TestTiersOnlyAdd: a seed without tiers draws what it drew before there were any, and with them the same pods, namespaces and policies, but for modes.
func TestTiersOnlyAdd(t *testing.T) {
	for seed := range uint64(50) {
		for _, invalid := range []bool{false, true} {
			without := New(Seed(seed), Options{Invalid: invalid})
			for _, tiers := range []int{len(without.Cluster.Nodes), len(without.Cluster.ClusterPolicies), len(without.Cluster.Isolations),
				len(without.Cluster.DNSServices), len(without.Cluster.DNSAddresses)} {
				if tiers > 0 {
					t.Fatalf("seed %d has tiers that nobody asked for", seed)
				}
			}
			with := New(Seed(seed), Options{Invalid: invalid, Tiers: true})
			for _, n := range with.Cluster.Namespaces {
				n.Annotations = nil
			}
			for _, p := range with.Cluster.Policies {
				p.Annotations = nil
			}
			with.Cluster = oracle.Cluster{Pods: with.Cluster.Pods, Namespaces: with.Cluster.Namespaces, Policies: with.Cluster.Policies}
			if diff := cmp.Diff(without, with, sameAddr); diff != "" {
				t.Fatalf("seed %d:\n%s", seed, diff)
			}
		}
	}
}

func TestTheSameSeedDrawsTheSameTiers(t *testing.T) {
	o := Options{Invalid: true, Tiers: true}
	for seed := range uint64(50) {
		a, b := Seed(seed), Seed(seed)
		c, d := New(a, o), New(b, o)
		if diff := cmp.Diff(Redraw(a, c, o), Redraw(b, d, o), sameAddr); diff != "" {
			t.Fatalf("seed %d:\n%s", seed, diff)
		}
		if diff := cmp.Diff(Flows(a, c, 50), Flows(b, d, 50), sameAddr); diff != "" {
			t.Fatalf("flows of seed %d:\n%s", seed, diff)
		}
	}
}

func TestAnyBytesMakeTiers(t *testing.T) {
	for length := range 600 {
		data := make([]byte, length)
		for i := range data {
			data[i] = byte(i*i*31 + i*7 + length)
		}
		s := Bytes(data)
		c := New(s, Options{Invalid: true, Tiers: true})
		if flows := Flows(s, c, 10); len(flows) != 10 || len(c.Cluster.Nodes) != len(c.Nodes) {
			t.Fatalf("%d bytes make %d flows and %d nodes", length, len(flows), len(c.Cluster.Nodes))
		}
	}
}

// TestRedrawingKeepsRealPods: what is redrawn is policy, and what of pods and nodes is only words.
func TestRedrawingKeepsRealPods(t *testing.T) {
	o := Options{Tiers: true}
	seen := map[string]int{}
	for seed := range uint64(100) {
		s := Seed(seed)
		c := New(s, o)
		d := Redraw(s, c, o)
		if diff := cmp.Diff(c.podAddresses(), d.podAddresses(), sameAddr); diff != "" {
			t.Fatalf("seed %d:\n%s", seed, diff)
		}
		if diff := cmp.Diff(c.Nodes, d.Nodes, sameAddr); diff != "" {
			t.Fatalf("seed %d:\n%s", seed, diff)
		}
		for what, differ := range map[string]bool{
			"nodes":        !cmp.Equal(c.Cluster.Nodes, d.Cluster.Nodes),
			"policies":     !cmp.Equal(c.Cluster.ClusterPolicies, d.Cluster.ClusterPolicies),
			"isolations":   !cmp.Equal(c.Cluster.Isolations, d.Cluster.Isolations),
			"DNS services": !cmp.Equal(c.Cluster.DNSServices, d.Cluster.DNSServices),
		} {
			if differ {
				seen[what]++
			}
		}
	}
	wantOften(t, seen, 20, "nodes", "policies", "isolations", "DNS services")
}

func wantOften(t *testing.T, seen map[string]int, times int, features ...string) {
	t.Helper()
	for _, feature := range features {
		if seen[feature] < times {
			t.Errorf("%q turns up %d times, want %d or more", feature, seen[feature], times)
		}
	}
	if t.Failed() || testing.Verbose() {
		for _, feature := range slices.Sorted(maps.Keys(seen)) {
			t.Logf("%6d %s", seen[feature], feature)
		}
	}
}

// TestEveryFeatureOfTheTiersTurnsUp, so that no comparison passes because nothing was compared.
func TestEveryFeatureOfTheTiersTurnsUp(t *testing.T) {
	seen := map[string]int{}
	for seed := range uint64(400) {
		noteTiers(seen, New(Seed(seed), Options{Tiers: true}))
	}
	wantOften(t, seen, 20,
		"node with labels", "node that leaves an address out", "node with an address of its own",
		"NetworkPolicy Audit", "NetworkPolicy Enforce", "NetworkPolicy audit", "NetworkPolicy ",
		"Namespace Audit", "Namespace Enforce", "audited policy in an annotated namespace",
		"DNS service", "DNS service that selects pods", "DNS service without selector", "headless", "DNS target number", "DNS target name", "DNS target none",
		"DNS protocol UDP", "DNS protocol TCP", "DNS protocol ", "DNS protocol SCTP", "DNS address", "DNS address of a pod or a node",
		"policy Admin", "policy Baseline", "policy Audit", "policy Enforce", "policy ", "policy of the SIG", "policy with our version", "policy without version",
		"tie of priority", "tie of priority and age", "tie of all but the group", "ingress rule", "egress rule", "logged",
		"subject namespaces", "subject pods", "Accept", "Deny", "Pass", "namespaces", "pods", "nodes", "networks", "networks of 10 or more", "/0", "/32", "/128", "host bits",
		"nodes to ingress", "networks to ingress", "empty selector", "no protocols", "empty protocols", "tcp", "udp", "sctp", "named port", "all ports", "port number", "port range",
		"isolation Admin", "isolation Baseline", "isolation Audit", "isolation Enforce", "isolation ", "tenant label", "no tenant label",
		"directions []", "directions [Ingress]", "directions [Egress]", "directions [Ingress Egress]", "sameTenant nil", "sameTenant true", "sameTenant false",
		"dns nil", "dns true", "dns false", "allow.ingress", "allow.egress",
	)
	for feature, n := range seen {
		if strings.HasPrefix(feature, "invalid") {
			t.Errorf("%q turns up %d times where invalid objects were not asked for", feature, n)
		}
	}
}

func TestInvalidTiersTurnUp(t *testing.T) {
	seen := map[string]int{}
	for seed := range uint64(1000) {
		noteTiers(seen, New(Seed(seed), Options{Tiers: true, Invalid: true}))
	}
	for _, never := range []string{"invalid: two of one name", "invalid: mode of the SIG's", "invalid: source of the SIG's"} {
		if seen[never] > 0 {
			t.Errorf("%q turns up %d times, which the API makes impossible", never, seen[never])
		}
	}
	wantOften(t, seen, 5,
		"invalid tier", "invalid mode", "invalid action", "invalid subject", "invalid: no peers", "invalid: empty peer", "invalid: two fields in a peer", "invalid: domain names",
		"invalid: CIDR", "invalid: protocol without fields", "invalid: two fields in a protocol", "invalid port", "invalid range", "range of one port", "invalid selector",
	)
}

func noteTiers(seen map[string]int, c Case) {
	noteSurroundings(seen, c)
	for i, p := range c.Cluster.ClusterPolicies {
		noteClusterPolicy(seen, p)
		for _, q := range c.Cluster.ClusterPolicies[:i] {
			if p.Spec.Tier == q.Spec.Tier && p.Spec.Priority == q.Spec.Priority {
				seen["tie of priority"]++
				if p.CreationTimestamp.Equal(&q.CreationTimestamp) {
					seen["tie of priority and age"]++
					if p.Name == q.Name {
						seen["tie of all but the group"]++
					}
				}
			}
			if p.Name == q.Name && (p.APIVersion == sigVersion) == (q.APIVersion == sigVersion) {
				seen["invalid: two of one name"]++
			}
		}
	}
	for _, iso := range c.Cluster.Isolations {
		noteIsolation(seen, iso)
	}
}

func noteSurroundings(seen map[string]int, c Case) {
	for i, n := range c.Cluster.Nodes {
		has := addressesOfNode(n)
		if len(n.Labels) > 1 {
			seen["node with labels"]++
		}
		for _, a := range c.Nodes[i].Addrs {
			if !slices.Contains(has, a) {
				seen["node that leaves an address out"]++
			}
		}
		if slices.ContainsFunc(has, func(a netip.Addr) bool { return !slices.Contains(c.Nodes[i].Addrs, a) }) {
			seen["node with an address of its own"]++
		}
	}
	annotated := map[string]bool{}
	for _, n := range c.Cluster.Namespaces {
		if mode, ok := n.Annotations[v1alpha1.ModeAnnotation]; ok {
			seen["Namespace "+mode]++
			annotated[n.Name] = true
		}
	}
	for _, p := range c.Cluster.Policies {
		if mode, ok := p.Annotations[v1alpha1.ModeAnnotation]; ok {
			seen["NetworkPolicy "+mode]++
			if annotated[p.Namespace] {
				seen["audited policy in an annotated namespace"]++
			}
		}
	}
	for _, svc := range c.Cluster.DNSServices {
		noteDNS(seen, c, svc)
	}
	held := append(c.podAddresses(), c.Nodes[0].Addrs...)
	for _, a := range c.Cluster.DNSAddresses {
		seen["DNS address"]++
		if slices.Contains(held, a) {
			seen["DNS address of a pod or a node"]++
		}
	}
}

func noteDNS(seen map[string]int, c Case, svc *corev1.Service) {
	seen["DNS service"]++
	if len(svc.Spec.Selector) == 0 {
		seen["DNS service without selector"]++
	} else if slices.ContainsFunc(c.Cluster.Pods, func(p *corev1.Pod) bool { return p.Namespace == svc.Namespace && hasLabels(p, svc.Spec.Selector) }) {
		seen["DNS service that selects pods"]++
	}
	if svc.Spec.ClusterIP == "None" {
		seen["headless"]++
	}
	for _, port := range svc.Spec.Ports {
		seen["DNS protocol "+string(port.Protocol)]++
		switch {
		case port.TargetPort.Type == intstr.String:
			seen["DNS target name"]++
		case port.TargetPort.IntVal != 0:
			seen["DNS target number"]++
		default:
			seen["DNS target none"]++
		}
	}
}

func noteClusterPolicy(seen map[string]int, p *v1alpha1.ClusterNetworkPolicy) {
	sig := p.APIVersion == sigVersion
	switch {
	case sig:
		seen["policy of the SIG"]++
		if p.Spec.Mode != "" {
			seen["invalid: mode of the SIG's"]++
		}
	case p.APIVersion == "":
		seen["policy without version"]++
	default:
		seen["policy with our version"]++
	}
	noteTierAndMode(seen, "policy ", p.Spec.Tier, p.Spec.Mode)
	s := p.Spec.Subject
	switch {
	case (s.Namespaces == nil) == (s.Pods == nil):
		seen["invalid subject"]++
	case s.Namespaces != nil:
		seen["subject namespaces"]++
		noteSelector(seen, *s.Namespaces)
	default:
		seen["subject pods"]++
		noteSelector(seen, s.Pods.PodSelector)
	}
	for _, r := range p.Spec.Ingress {
		seen["ingress rule"]++
		noteAction(seen, r.Action, r.Log)
		noteTierPeers(seen, r.From)
		noteProtocols(seen, r.Protocols)
		for _, peer := range r.From {
			if peer.Nodes != nil || len(peer.Networks) > 0 {
				seen[map[bool]string{true: "nodes to ingress", false: "networks to ingress"}[peer.Nodes != nil]]++
				if sig {
					seen["invalid: source of the SIG's"]++
				}
			}
		}
	}
	for _, r := range p.Spec.Egress {
		seen["egress rule"]++
		noteAction(seen, r.Action, r.Log)
		noteTierPeers(seen, r.To)
		noteProtocols(seen, r.Protocols)
	}
}

func noteTierAndMode(seen map[string]int, kind string, tier v1alpha1.Tier, mode v1alpha1.Mode) {
	seen[kind+string(tier)]++
	seen[kind+string(mode)]++
	if tier != v1alpha1.AdminTier && tier != v1alpha1.BaselineTier {
		seen["invalid tier"]++
	}
	if mode != "" && mode != v1alpha1.Audit && mode != v1alpha1.Enforce {
		seen["invalid mode"]++
	}
}

func noteAction(seen map[string]int, a v1alpha1.Action, log bool) {
	seen[string(a)]++
	if a != v1alpha1.Accept && a != v1alpha1.Deny && a != v1alpha1.Pass {
		seen["invalid action"]++
	}
	if log {
		seen["logged"]++
	}
}

func noteIsolation(seen map[string]int, iso *v1alpha1.NamespaceIsolation) {
	noteTierAndMode(seen, "isolation ", iso.Spec.Tier, iso.Spec.Mode)
	seen[map[bool]string{true: "tenant label", false: "no tenant label"}[iso.Spec.TenantLabel != ""]]++
	seen[fmt.Sprint("directions ", iso.Spec.Directions)]++
	noteSwitch := func(name string, b *bool) {
		if b == nil {
			seen[name+" nil"]++
			return
		}
		seen[fmt.Sprint(name, " ", *b)]++
	}
	noteSwitch("sameTenant", iso.Spec.Allow.SameTenant)
	noteSwitch("dns", iso.Spec.Allow.DNS)
	noteSelector(seen, iso.Spec.NamespaceSelector)
	for _, r := range iso.Spec.Allow.Ingress {
		seen["allow.ingress"]++
		noteTierPeers(seen, r.From)
		noteProtocols(seen, r.Protocols)
	}
	for _, r := range iso.Spec.Allow.Egress {
		seen["allow.egress"]++
		noteTierPeers(seen, r.To)
		noteProtocols(seen, r.Protocols)
	}
}

func noteSelector(seen map[string]int, s v1alpha1.LabelSelector) {
	if len(s.MatchLabels)+len(s.MatchExpressions) == 0 {
		seen["empty selector"]++
	}
	for _, r := range s.MatchExpressions {
		wantsValues := r.Operator == "In" || r.Operator == "NotIn"
		if wantsValues != (len(r.Values) > 0) || r.Operator == "Equals" {
			seen["invalid selector"]++
		}
	}
}

func noteTierPeers(seen map[string]int, peers []v1alpha1.Peer) {
	if len(peers) == 0 {
		seen["invalid: no peers"]++
	}
	for _, p := range peers {
		fields := 0
		for name, set := range map[string]bool{"namespaces": p.Namespaces != nil, "pods": p.Pods != nil, "nodes": p.Nodes != nil, "networks": len(p.Networks) > 0} {
			if set {
				seen[name]++
				fields++
			}
		}
		switch {
		case len(p.DomainNames) > 0:
			seen["invalid: domain names"]++
		case fields == 0:
			seen["invalid: empty peer"]++
		case fields > 1:
			seen["invalid: two fields in a peer"]++
		}
		if len(p.Networks) >= 10 {
			seen["networks of 10 or more"]++
		}
		for _, cidr := range p.Networks {
			prefix, err := netip.ParsePrefix(string(cidr))
			if err != nil {
				seen["invalid: CIDR"]++
				continue
			}
			seen[fmt.Sprintf("/%d", prefix.Bits())]++
			if prefix != prefix.Masked() {
				seen["host bits"]++
			}
		}
		for _, s := range []*v1alpha1.LabelSelector{p.Namespaces, p.Nodes} {
			if s != nil {
				noteSelector(seen, *s)
			}
		}
	}
}

func noteProtocols(seen map[string]int, protocols []v1alpha1.Protocol) {
	switch {
	case protocols == nil:
		seen["no protocols"]++
	case len(protocols) == 0:
		seen["empty protocols"]++
	}
	for _, p := range protocols {
		fields := 0
		if p.DestinationNamedPort != "" {
			seen["named port"]++
			fields++
		}
		for name, match := range map[string]*v1alpha1.PortMatch{"tcp": p.TCP, "udp": p.UDP, "sctp": p.SCTP} {
			if match != nil {
				seen[name]++
				fields++
				noteDestinationPort(seen, match.DestinationPort)
			}
		}
		switch fields {
		case 0:
			seen["invalid: protocol without fields"]++
		case 2:
			seen["invalid: two fields in a protocol"]++
		}
	}
}

func noteDestinationPort(seen map[string]int, p *v1alpha1.Port) {
	switch {
	case p == nil:
		seen["all ports"]++
	case p.Range == nil:
		seen["port number"]++
		if p.Number < 1 || p.Number > 65535 {
			seen["invalid port"]++
		}
	case p.Number != 0:
		seen["invalid port"]++
	default:
		seen["port range"]++
		switch {
		case p.Range.Start < 1 || p.Range.End > 65535 || p.Range.Start > p.Range.End:
			seen["invalid range"]++
		case p.Range.Start == p.Range.End:
			seen["range of one port"]++
		}
	}
}

// TestFlowsReachEveryStage: each stage allows and denies some of the flows, in both directions, and objects of each kind are found to be what would have
// denied. NetworkPolicies decide no less than where they are alone, by much.
func TestFlowsReachEveryStage(t *testing.T) {
	seen := map[string]int{}
	for seed := range uint64(250) {
		s := Seed(seed)
		c := New(s, Options{Tiers: true})
		for _, f := range Flows(s, c, 40) {
			if f.Src.Is4() != f.Dst.Is4() {
				t.Fatalf("%s has two families", f)
			}
			if f.Src == f.Dst {
				seen["to itself"]++
			}
			for _, n := range c.Nodes {
				allowed, reason := c.Cluster.AllowedAt(n.Name, f)
				noteDecision(seen, allowed, reason)
				for _, d := range c.Cluster.AuditedAt(n.Name, f) {
					seen["noted "+d.Kind+" "+d.Direction]++
				}
			}
		}
	}
	wantOften(t, seen, 25,
		"Admin rules accepts", "Admin rules denies", "Admin rules passes", "Admin isolation allows", "Admin isolation denies", "NetworkPolicies allows", "NetworkPolicies denies",
		"Baseline rules accepts", "Baseline rules denies", "Baseline rules passes", "Baseline isolation allows", "Baseline isolation denies",
		"by allow.dns", "by allow.sameTenant", "by allow.ingress", "by allow.egress",
		"noted ClusterNetworkPolicy ingress", "noted ClusterNetworkPolicy egress", "noted NetworkPolicy ingress", "noted NetworkPolicy egress",
		"noted NamespaceIsolation ingress", "noted NamespaceIsolation egress", "to itself",
	)
}

// noteDecision reads what the oracle says of each stage: "stage: object verb pod, then ...".
func noteDecision(seen map[string]int, allowed bool, reason string) {
	for _, said := range strings.Split(reason, ", then ") {
		stage, rest, ok := strings.Cut(said, ": ")
		if !ok {
			continue
		}
		for verb, as := range map[string]string{" accepts ": "accepts", " denies ": "denies", " passes ": "passes", " allows ": "allows", " is isolated ": "denies"} {
			if strings.Contains(rest, verb) {
				seen[stage+" "+as]++
			}
		}
		for _, field := range []string{"allow.dns", "allow.sameTenant", "allow.ingress", "allow.egress"} {
			if strings.HasPrefix(rest, field) {
				seen["by "+field]++
			}
		}
	}
	seen[fmt.Sprint("allowed ", allowed)]++
}
