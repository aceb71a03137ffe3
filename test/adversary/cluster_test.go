package adversary

import (
	"encoding/json"
	"maps"
	"net/netip"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/lab/twin"
	"github.com/ringfence-io/ringfence/test/kit"
)

// labels are those of the pods, all of one namespace, that have any.
//
//	open, bare, remote   no policy is about them
//	shut                 may send to the control port alone, wherever it is
//	guarded, far         receive from friend and heir, and on the control port
//	friend               no policy is about it; heir too, which has the address that old's container still has
//	gone                 was as shut, and its object is deleted: its container runs on
//	done                 was as shut, and has finished, says the API
//	second               as shut and as guarded, with an address besides that its status does not name
//	ward                 is denied the kubelets' port of all nodes by a ClusterNetworkPolicy
//	kept                 receives from nodes, and from nobody else, by one
var labels = map[string]map[string]string{
	"shut":    {"shut": "yes"},
	"guarded": {"guarded": "yes"},
	"far":     {"guarded": "yes"},
	"friend":  {"friend": "yes"},
	"heir":    {"friend": "yes"},
	"gone":    {"shut": "yes"},
	"done":    {"shut": "yes"},
	"second":  {"shut": "yes", "guarded": "yes"},
	"ward":    {"ward": "yes"},
	"kept":    {"kept": "yes"},
}

const networkPolicies = `
shut: {podSelector: {matchLabels: {shut: "yes"}}, policyTypes: [Egress], egress: [{ports: [{port: 7777, protocol: UDP}]}]}
guarded:
  podSelector: {matchLabels: {guarded: "yes"}}
  ingress: [{from: [{podSelector: {matchLabels: {friend: "yes"}}}]}, {ports: [{port: 7777, protocol: UDP}]}]`

const clusterPolicies = `
ward:
  tier: Admin
  priority: 10
  subject: {pods: {namespaceSelector: {}, podSelector: {matchLabels: {ward: "yes"}}}}
  egress: [{name: kubelet, action: Deny, to: [{nodes: {}}], protocols: [{tcp: {destinationPort: {number: 10250}}}]}]
kept:
  tier: Admin
  priority: 20
  subject: {pods: {namespaceSelector: {}, podSelector: {matchLabels: {kept: "yes"}}}}
  ingress:
  - {name: nodes, action: Accept, from: [{nodes: {}}]}
  - {name: control, action: Accept, from: [{networks: ["0.0.0.0/0", "::/0"]}], protocols: [{udp: {destinationPort: {number: 7777}}}]}
  - {name: others, action: Deny, from: [{networks: ["0.0.0.0/0", "::/0"]}]}`

// cluster is what the API server holds.
type cluster struct {
	stack    stack
	pods     []*corev1.Pod
	nodes    []*corev1.Node
	policies []*networkingv1.NetworkPolicy
	wide     []*v1alpha1.ClusterNetworkPolicy
}

func (w *world) cluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{stack: w.stack}
	for _, name := range slices.Sorted(maps.Keys(w.parties)) {
		p := w.parties[name]
		switch {
		case p.pod != nil && name != "old":
			c.pods = append(c.pods, c.pod(p))
		case p.itself != nil:
			c.nodes = append(c.nodes, c.node(p))
		}
	}
	specs := map[string]networkingv1.NetworkPolicySpec{}
	kit.Must(t, yaml.UnmarshalStrict([]byte(networkPolicies), &specs))
	for _, name := range slices.Sorted(maps.Keys(specs)) {
		c.policies = append(c.policies, &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: specs[name]})
	}
	wide := map[string]json.RawMessage{}
	kit.Must(t, yaml.UnmarshalStrict([]byte(clusterPolicies), &wide))
	for _, name := range slices.Sorted(maps.Keys(wide)) {
		p := &v1alpha1.ClusterNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: name}}
		kit.Must(t, yaml.UnmarshalStrict(wide[name], &p.Spec))
		c.wide = append(c.wide, p)
	}
	return c
}

func (c *cluster) addrs(a netip.Addr) []string {
	if c.stack == linkLocal {
		return []string{a.String()}
	}
	return []string{a.String(), twin.Of(a).String()}
}

func (c *cluster) pod(p *party) *corev1.Pod {
	out := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", Name: p.name, UID: types.UID(uid(p.name)), Labels: labels[p.name], CreationTimestamp: metav1.Unix(1000, 0),
		},
		Spec:   corev1.PodSpec{NodeName: p.node},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: p.addr.String()},
	}
	if p.name == "done" {
		out.Status.Phase = corev1.PodSucceeded
	}
	for _, a := range c.addrs(p.addr) {
		out.Status.PodIPs = append(out.Status.PodIPs, corev1.PodIP{IP: a})
	}
	return out
}

func (c *cluster) node(p *party) *corev1.Node {
	out := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: p.name}}
	for _, a := range c.addrs(p.addr) {
		out.Status.Addresses = append(out.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a})
	}
	out.Spec.PodCIDR = p.itself.Pods.String()
	out.Spec.PodCIDRs = []string{p.itself.Pods.String()}
	if c.stack != linkLocal {
		out.Spec.PodCIDRs = append(out.Spec.PodCIDRs, twin.OfPrefix(p.itself.Pods).String())
	}
	return out
}

func (c *cluster) remove(name string) {
	c.pods = slices.DeleteFunc(c.pods, func(p *corev1.Pod) bool { return p.Name == name })
}

// snapshot is the cluster as a node's enforcer sees it.
func (c *cluster) snapshot(node string) compile.Snapshot {
	s := compile.Snapshot{Node: node, Policies: compile.ObjectsOf(c.policies...), ClusterPolicies: c.wide}
	for _, n := range c.nodes {
		s.Nodes = append(s.Nodes, compile.NewNode(n))
	}
	var shared compile.Interner
	for _, p := range c.pods {
		s = s.WithPods(shared.Pod(compile.NewPod(p)))
	}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default", Labels: map[string]string{corev1.LabelMetadataName: "default"}}}
	s.Namespaces = s.Namespaces.With(compile.NewNamespace(namespace))
	return s
}
