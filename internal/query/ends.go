package query

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// End is one end of a connection.
type End struct {
	// Name is what people call it: "namespace/name" of a pod, "node NAME", or an address.
	Name string
	// Pod is the pod that it is, nil of a node and of an address outside of the cluster.
	Pod *corev1.Pod
	// Node is the node that decides about the pod's connections, or the node whose own address it is.
	Node string
	// Addrs are its addresses, at most one of each family.
	Addrs []netip.Addr
}

// isPod reports whether policies may apply to the end.
func (e End) isPod() bool { return e.Pod != nil && !e.Pod.Spec.HostNetwork }

// isHost reports whether the end is on a node's own network.
func (e End) isHost() bool { return !e.isPod() && e.Node != "" }

// Outside is what people write for an end that is an address nobody in the cluster has, and that no block of a policy has but those of everything.
const Outside = "outside"

// Ends are the ends that a text stands for: an address, [Outside], "node/NAME", "NAMESPACE/POD", "NAMESPACE/KIND/NAME", or "NAME" in a namespace. A workload
// and a Service stand for each of their pods.
func (c *Cluster) Ends(text, namespace string) ([]End, error) {
	if a, err := netip.ParseAddr(strings.Trim(text, "[]")); err == nil {
		return c.EndsAt(a.Unmap()), nil
	}
	if text == Outside {
		return []End{c.outside()}, nil
	}
	parts := strings.Split(text, "/")
	if slices.Contains(parts, "") || len(parts) > 3 {
		return nil, fmt.Errorf("%q names neither a pod nor an address: write NAMESPACE/POD, NAMESPACE/deploy/NAME, NAMESPACE/svc/NAME, node/NAME, "+
			"an address, or %s", text, Outside)
	}
	if len(parts) == 2 && parts[0] == "node" {
		return c.nodeEnds(parts[1])
	}
	kind, name := "", parts[len(parts)-1]
	if len(parts) > 1 {
		namespace = parts[0]
	}
	if len(parts) == 3 {
		kind = parts[1]
	}
	return c.podEnds(kind, namespace, name)
}

// podEnds are the pods that a name in a namespace stands for. Without a kind it is a pod's, or else a workload's.
func (c *Cluster) podEnds(kind, namespace, name string) ([]End, error) {
	is, ok := kinds[kind]
	if !ok {
		return nil, fmt.Errorf("%q is no kind that pods are known by: write one of %s", kind, strings.Join(kindNames, ", "))
	}
	if is == serviceKind {
		return c.serviceEnds(namespace, name)
	}
	var ends []End
	for _, i := range c.parts.byNamespace[namespace] {
		if isOf(c.parts.Pods[i], is, name) && !c.parts.pods[i].Finished {
			ends = append(ends, c.podEnd(i))
		}
	}
	slices.SortFunc(ends, func(a, b End) int { return cmp.Compare(a.Name, b.Name) })
	if exact := slices.IndexFunc(ends, func(e End) bool { return e.Pod.Name == name }); is == "" && exact >= 0 {
		ends = ends[exact : exact+1]
	}
	if len(ends) == 0 {
		return nil, c.noPods(kind, namespace, name)
	}
	return ends, nil
}

func (c *Cluster) noPods(kind, namespace, name string) error {
	if c.parts.namespaceNamed[namespace] == nil && len(c.parts.byNamespace[namespace]) == 0 {
		return fmt.Errorf("there is no namespace %s", namespace)
	}
	return fmt.Errorf("no pod that runs is %s/%s: %s", namespace, strings.Trim(kind+"/"+name, "/"), "list them by kubectl get pods -n "+namespace)
}

// serviceEnds are the pods behind a Service.
func (c *Cluster) serviceEnds(namespace, name string) ([]End, error) {
	s := c.service(namespace, name)
	if s == nil {
		return nil, fmt.Errorf("there is no Service %s/%s", namespace, name)
	}
	var ends []End
	if len(s.Spec.Selector) > 0 {
		for _, i := range c.behind(s) {
			ends = append(ends, c.podEnd(i))
		}
	}
	if len(ends) == 0 {
		return nil, fmt.Errorf("no pod is behind the Service %s/%s: its selector matches none that runs", namespace, name)
	}
	slices.SortFunc(ends, func(a, b End) int { return cmp.Compare(a.Name, b.Name) })
	return ends, nil
}

func (c *Cluster) service(namespace, name string) *corev1.Service {
	i := slices.IndexFunc(c.parts.Services, func(s *corev1.Service) bool { return s.Namespace == namespace && s.Name == name })
	if i < 0 {
		return nil
	}
	return c.parts.Services[i]
}

// behind are the indexes of the pods of its namespace that a Service selects; all, if it has no selector.
func (c *Cluster) behind(s *corev1.Service) []int {
	return slices.DeleteFunc(slices.Clone(c.parts.byNamespace[s.Namespace]), func(i int) bool {
		return !isSelected(c.parts.Pods[i].Labels, s.Spec.Selector) || c.parts.pods[i].Finished
	})
}

func isSelected(labels, by map[string]string) bool {
	for k, v := range by {
		if got, ok := labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// podEnd is the pod of an index.
func (c *Cluster) podEnd(i int) End { return endOf(c.parts.Pods[i], c.parts.pods[i].Addrs) }

// endOf is a pod with the first of some addresses of each family.
func endOf(p *corev1.Pod, addrs []netip.Addr) End {
	e := End{Name: p.Namespace + "/" + p.Name, Pod: p, Node: p.Spec.NodeName}
	for _, a := range addrs {
		if !slices.ContainsFunc(e.Addrs, func(b netip.Addr) bool { return a.Is4() == b.Is4() }) {
			e.Addrs = append(e.Addrs, a)
		}
	}
	return e
}

func (c *Cluster) nodeEnds(name string) ([]End, error) {
	if n := c.parts.nodeNamed[name]; n != nil {
		return []End{{Name: "node " + name, Node: name, Addrs: n.Addrs}}, nil
	}
	return nil, fmt.Errorf("there is no node %s", name)
}

// EndsAt are the ends that have an address: the pod that holds it, a node, or nobody in the cluster. Where the API gives the address to pods of several
// nodes, each of these nodes may take it for its own pod's: then there are several.
func (c *Cluster) EndsAt(a netip.Addr) []End {
	claims := map[string]bool{}
	for _, i := range c.parts.byAddr[a] {
		claims[c.parts.pods[i].Node] = true
	}
	var ends []End
	for _, node := range slices.Sorted(maps.Keys(claims)) {
		i := c.parts.holder(node, a)
		if i < 0 || c.parts.pods[i].Node != node {
			continue
		}
		e := c.podEnd(i)
		e.Addrs = []netip.Addr{a}
		ends = append(ends, e)
	}
	if len(ends) > 0 {
		return ends
	}
	for _, n := range c.parts.nodes {
		if slices.Contains(n.Addrs, a) {
			return []End{{Name: "node " + n.Name, Node: n.Name, Addrs: []netip.Addr{a}}}
		}
	}
	return []End{{Name: a.String(), Addrs: []netip.Addr{a}}}
}

// examples are ranges that nobody uses: those for documentation (RFC 5737, RFC 3849) and for benchmarks (RFC 2544).
var examples = []netip.Prefix{
	netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("192.0.2.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("2001:db8::/32"),
}

// outside is an end that is like most addresses of the world.
func (c *Cluster) outside() End {
	e := End{Name: Outside}
	blocks := c.blocks()
	for _, example := range examples {
		a := example.Addr().Next()
		isKnown := slices.ContainsFunc(blocks, func(p netip.Prefix) bool { return p.Bits() > 0 && p.Contains(a) })
		if !isKnown && !slices.ContainsFunc(e.Addrs, func(b netip.Addr) bool { return a.Is4() == b.Is4() }) {
			e.Addrs = append(e.Addrs, a)
		}
	}
	return e
}

// blocks are those of all policies, exceptions included.
func (c *Cluster) blocks() []netip.Prefix {
	var peers []networkingv1.NetworkPolicyPeer
	for _, p := range c.parts.Policies {
		for _, r := range p.Spec.Ingress {
			peers = append(peers, r.From...)
		}
		for _, r := range p.Spec.Egress {
			peers = append(peers, r.To...)
		}
	}
	var texts []string
	for _, peer := range peers {
		if peer.IPBlock != nil {
			texts = append(append(texts, peer.IPBlock.CIDR), peer.IPBlock.Except...)
		}
	}
	for _, peer := range c.clusterPeers() {
		for _, n := range peer.Networks {
			texts = append(texts, string(n))
		}
	}
	var blocks []netip.Prefix
	for _, text := range texts {
		if p, err := netip.ParsePrefix(text); err == nil {
			blocks = append(blocks, p.Masked())
		}
	}
	return blocks
}

// Target is where a connection goes to.
type Target struct {
	End  End
	Port Port
	// HasPort is not set if nobody said which port, and the protocol has ports.
	HasPort bool
}

// Targets are the ends that a text stands for, as [Cluster.Ends] reads it, each with its port. A port is a number or the name of a container's port; of a
// Service it is the Service's, and the target has the one of its pod.
func (c *Cluster) Targets(text, namespace, port string, protocol policy.Protocol) ([]Target, error) {
	ends, err := c.Ends(text, namespace)
	if err != nil {
		return nil, err
	}
	var s *corev1.Service
	if parts := strings.Split(text, "/"); len(parts) == 3 && kinds[parts[1]] == serviceKind {
		s = c.service(parts[0], parts[2])
	}
	var targets []Target
	for _, e := range ends {
		t := Target{End: e, Port: Port{Protocol: protocol}, HasPort: port != "" || !protocol.HasPorts()}
		if port != "" {
			if t.Port.Number, err = portAt(e, s, port, protocol); err != nil {
				return nil, err
			}
		}
		targets = append(targets, t)
	}
	return targets, nil
}

// portAt is the number of a port at a pod, where it may be said by its name, or by that of a Service in front of it.
func portAt(e End, s *corev1.Service, port string, protocol policy.Protocol) (uint16, error) {
	if s != nil {
		i := slices.IndexFunc(s.Spec.Ports, func(p corev1.ServicePort) bool {
			return strings.EqualFold(string(cmp.Or(p.Protocol, corev1.ProtocolTCP)), protocol.String()) && (p.Name == port || fmt.Sprint(p.Port) == port)
		})
		if i < 0 {
			return 0, fmt.Errorf("the Service %s/%s has no port %s of %s", s.Namespace, s.Name, port, protocol)
		}
		if at := s.Spec.Ports[i]; at.TargetPort.String() != "0" && at.TargetPort.String() != "" {
			port = at.TargetPort.String()
		} else {
			port = fmt.Sprint(at.Port)
		}
	}
	if n, err := strconv.ParseUint(port, 10, 16); err == nil {
		return uint16(n), nil
	}
	if e.Pod != nil {
		for _, p := range compile.NewPod(e.Pod).Ports {
			if p.Name == port && p.Protocol == protocol {
				return p.Port, nil
			}
		}
	}
	return 0, fmt.Errorf("%s has no port of %s named %s", e.Name, protocol, port)
}
