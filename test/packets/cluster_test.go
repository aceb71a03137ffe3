package packets

import (
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/lab/topology"
	"github.com/ringfence-io/ringfence/test/kit"
)

// cluster is what the API server holds.
type cluster struct {
	namespaces []*corev1.Namespace
	pods       []*corev1.Pod
	nodes      []*corev1.Node
	policies   []*networkingv1.NetworkPolicy
	wide       wide
	dns        compile.DNS
	closed     map[string][]netip.Prefix // by node: ranges that are closed to what no known pod holds

	family iptables.Family             // that is tested
	addr   func(pod string) netip.Addr // where the network has the pod
}

// The pods of every scenario, by the names that lines use. Names are unique over all namespaces.
//
//	red    team=red             web  app=web, tier=""    node n1    http=tcp/80, dual=tcp/81, dual=udp/82, and of init containers
//	                                                                side=tcp/90, init=udp/90
//	                            db   app=db              node n1    http=tcp/81
//	                            far  app=far, role=x     node n2    http=tcp/82
//	                            host app=host            node n2's own network
//	blue   team=blue, env=prod  client app=client, role=x  node n1
//	                            remote app=remote        node n2    http=tcp/80
//	plain  no labels            bare no labels           node n2
func standardCluster(f iptables.Family, addr func(pod string) netip.Addr) *cluster {
	c := &cluster{family: f, addr: addr, namespaces: []*corev1.Namespace{
		namespace("red", "team=red"), namespace("blue", "team=blue", "env=prod"), namespace("plain"),
	}}
	web := c.add(pod("red/web", "n1", "app=web", "tier="))
	ports(&web.Spec.Containers, "http=TCP/80", "dual=TCP/81")
	ports(&web.Spec.Containers, "dual=UDP/82")
	ports(&web.Spec.InitContainers, "side=TCP/90")
	ports(&web.Spec.InitContainers, "init=UDP/90")
	always := corev1.ContainerRestartPolicyAlways
	web.Spec.InitContainers[0].RestartPolicy = &always
	ports(&c.add(pod("red/db", "n1", "app=db")).Spec.Containers, "http=TCP/81")
	ports(&c.add(pod("red/far", "n2", "app=far", "role=x")).Spec.Containers, "http=TCP/82")
	c.add(pod("blue/client", "n1", "app=client", "role=x"))
	ports(&c.add(pod("blue/remote", "n2", "app=remote")).Spec.Containers, "http=TCP/80")
	c.add(pod("plain/bare", "n2"))
	c.add(pod("red/host", "n2", "app=host")).Spec.HostNetwork = true
	return c
}

// standardPods are the names of those that have a network of their own, by node.
var standardPods = map[string][]string{"n1": {"web", "db", "client"}, "n2": {"far", "remote", "bare"}}

// snapshot is the cluster as a node's enforcer sees it.
func (c *cluster) snapshot(node string) compile.Snapshot {
	s := compile.Snapshot{Node: node, Policies: c.policies, ClusterPolicies: c.wide.policies, Isolations: c.wide.isolations, DNS: c.dns,
		Closed: c.closed[node]}
	for _, n := range c.nodes {
		s.Nodes = append(s.Nodes, compile.NewNode(n))
	}
	var shared compile.Interner
	for _, p := range c.pods {
		s.Pods = append(s.Pods, shared.Pod(compile.NewPod(p)))
	}
	for _, n := range c.namespaces {
		s.Namespaces = append(s.Namespaces, compile.NewNamespace(n))
	}
	return s
}

// add gives the pod the address of its place and adds it.
func (c *cluster) add(p *corev1.Pod) *corev1.Pod {
	c.pods = append(c.pods, at(p, c.addr(p.Name)))
	return p
}

// pod finds a pod to change.
func (c *cluster) pod(name string) *corev1.Pod {
	i := slices.IndexFunc(c.pods, func(p *corev1.Pod) bool { return p.Name == name })
	return c.pods[i]
}

func (c *cluster) remove(name string) {
	c.pods = slices.DeleteFunc(c.pods, func(p *corev1.Pod) bool { return p.Name == name })
}

func namespace(name string, labels ...string) *corev1.Namespace {
	m := labelMap(labels)
	m[corev1.LabelMetadataName] = name
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: m}}
}

// clusterNode is a node with an address and its twin.
func clusterNode(name string, a netip.Addr, labels ...string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labelMap(labels)}}
	for _, address := range []string{a.String(), topology.Twin(a).String(), name} {
		n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: address})
	}
	return n
}

// pod is a running pod without addresses.
func pod(path, node string, labels ...string) *corev1.Pod {
	ns, name, _ := strings.Cut(path, "/")
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: ns, Name: name, UID: types.UID(path), Labels: labelMap(labels), CreationTimestamp: metav1.Unix(1000, 0),
		},
		Spec:   corev1.PodSpec{NodeName: node},
		Status: corev1.PodStatus{Phase: corev1.PodRunning},
	}
}

// at gives the pod an address and its twin.
func at(p *corev1.Pod, a netip.Addr) *corev1.Pod {
	v4, v6 := a.String(), topology.Twin(a).String()
	p.Status.PodIP, p.Status.PodIPs = v4, []corev1.PodIP{{IP: v4}, {IP: v6}}
	return p
}

// created sets the creation time.
func created(p *corev1.Pod, seconds int64) *corev1.Pod {
	p.CreationTimestamp = metav1.NewTime(time.Unix(seconds, 0))
	return p
}

func labelMap(labels []string) map[string]string {
	m := map[string]string{}
	for _, l := range labels {
		k, v, _ := strings.Cut(l, "=")
		m[k] = v
	}
	return m
}

// ports adds a container with named ports such as "http=TCP/80".
func ports(to *[]corev1.Container, named ...string) {
	c := corev1.Container{Name: fmt.Sprintf("c%d", len(*to))}
	for _, n := range named {
		p := corev1.ContainerPort{}
		name, rest, _ := strings.Cut(n, "=")
		if _, err := fmt.Sscanf(strings.ReplaceAll(rest, "/", " "), "%s %d", &p.Protocol, &p.ContainerPort); err != nil {
			panic(fmt.Sprintf("port %q: %v", n, err))
		}
		p.Name = name
		c.Ports = append(c.Ports, p)
	}
	*to = append(*to, c)
}

// policies reads NetworkPolicies from YAML of the form "namespace/name: spec". Over IPv6, IPv4 blocks become those of the
// twins. A block that begins with "other " is meant literally, and of the family that is not tested.
func policies(t *testing.T, text string, f iptables.Family) []*networkingv1.NetworkPolicy {
	t.Helper()
	all, err := readPolicies(text, f)
	kit.Must(t, err)
	return all
}

func readPolicies(text string, f iptables.Family) ([]*networkingv1.NetworkPolicy, error) {
	specs := map[string]networkingv1.NetworkPolicySpec{}
	if err := yaml.UnmarshalStrict([]byte(text), &specs); err != nil {
		return nil, fmt.Errorf("reading policies: %w\n%s", err, text)
	}
	var all []*networkingv1.NetworkPolicy
	for _, path := range slices.Sorted(maps.Keys(specs)) {
		ns, name, _ := strings.Cut(path, "/")
		np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}, Spec: specs[path]}
		for _, r := range np.Spec.Ingress {
			translateBlocks(r.From, f)
		}
		for _, r := range np.Spec.Egress {
			translateBlocks(r.To, f)
		}
		all = append(all, np)
	}
	return all, nil
}

func translateBlocks(peers []networkingv1.NetworkPolicyPeer, f iptables.Family) {
	for _, p := range peers {
		if p.IPBlock != nil {
			p.IPBlock.CIDR = translateBlock(p.IPBlock.CIDR, f)
			for i := range p.IPBlock.Except {
				p.IPBlock.Except[i] = translateBlock(p.IPBlock.Except[i], f)
			}
		}
	}
}

var ipv4Block = regexp.MustCompile(`^[0-9.]+/[0-9]+$`)

func translateBlock(text string, f iptables.Family) string {
	text, other := strings.CutPrefix(text, "other ")
	if !ipv4Block.MatchString(text) || other == (f == iptables.IPv6) {
		return text
	}
	return topology.TwinPrefix(netip.MustParsePrefix(text)).String()
}
