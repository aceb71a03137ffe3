package scenario

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// contested are claims to one address. Lines ask whether a policy that admits the pod first to web, which is on n1, admits the address.
type contested struct {
	name   string
	claims []claim
	// ranges are those that nodes name for their pods, such as "n2 10.2.0.0/24", in the family that is looked at.
	ranges []string
	// first is set if the address is first's.
	first bool
}

// claim is a pod that shows the address.
type claim struct {
	name, node string
	created    int64
	change     func(*corev1.Pod)
}

func succeeded(p *corev1.Pod)   { p.Status.Phase = corev1.PodSucceeded }
func failed(p *corev1.Pod)      { p.Status.Phase = corev1.PodFailed }
func terminating(p *corev1.Pod) { terminate(p) }

var contestedRows = []contested{
	// Pods of one node: the status of one of them is stale.
	{"the only one", []claim{{"first", "n2", 100, nil}}, nil, true},
	{"the younger of two", []claim{{"first", "n2", 100, nil}, {"other", "n2", 200, nil}}, nil, false},
	{"not one that succeeded", []claim{{"first", "n2", 100, nil}, {"other", "n2", 200, succeeded}}, nil, true},
	{"not one that failed", []claim{{"first", "n2", 100, failed}, {"other", "n2", 200, nil}}, nil, false},
	{"the one that stays", []claim{{"first", "n2", 100, nil}, {"other", "n2", 200, terminating}}, nil, true},
	{"a terminating pod while it is alone", []claim{{"first", "n2", 100, terminating}}, nil, true},
	{"the greater UID of two of the same age", []claim{{"first", "n2", 200, nil}, {"other", "n2", 200, nil}}, nil, false},
	// Pods of several nodes: what is said elsewhere changes nothing here.
	{"a pod of this node, though it is older", []claim{{"first", "n1", 100, nil}, {"other", "n2", 200, nil}}, nil, true},
	{"a pod of this node, though it is younger", []claim{{"first", "n1", 200, nil}, {"other", "n2", 100, nil}}, nil, true},
	{"a pod of this node, though it terminates", []claim{{"first", "n1", 100, terminating}, {"other", "n2", 200, nil}}, nil, true},
	{"a pod of this node, though its node names other ranges", []claim{{"first", "n1", 100, nil}, {"other", "n2", 200, nil}},
		[]string{"n1 10.3.0.0/24", "n2 10.244.2.0/24"}, true},
	{"not one that ended here", []claim{{"first", "n1", 100, failed}, {"other", "n2", 200, nil}}, nil, false},
	{"elsewhere the older", []claim{{"first", "n2", 100, nil}, {"other", "n3", 200, nil}}, nil, true},
	{"elsewhere the older, though it terminates", []claim{{"first", "n2", 100, terminating}, {"other", "n3", 200, nil}}, nil, true},
	{"elsewhere the smaller UID of two of an age", []claim{{"first", "n2", 100, nil}, {"other", "n3", 100, nil}}, nil, true},
	{"not one whose node names other ranges", []claim{{"other", "n2", 100, nil}, {"first", "n3", 200, nil}},
		[]string{"n2 10.2.0.0/24", "n3 10.244.2.0/24"}, true},
	{"one of a node without ranges before one whose node names others", []claim{{"other", "n2", 100, nil}, {"first", "n3", 200, nil}},
		[]string{"n2 10.2.0.0/24"}, true},
	{"the older where neither node names the range", []claim{{"first", "n2", 100, nil}, {"other", "n3", 200, nil}},
		[]string{"n2 10.2.0.0/24", "n3 10.3.0.0/24"}, true},
	{"ranges of the other family say nothing", []claim{{"first", "n2", 100, nil}, {"other", "n3", 200, nil}}, []string{"n2 other 10.2.0.0/24"}, true},
	{"the younger of the older node", []claim{{"other", "n2", 100, nil}, {"first", "n2", 150, nil}, {"third", "n3", 200, nil}}, nil, true},
}

// holders is about which pod has an address that several show, or that nobody can have. The API does not show the pod job, which has the address: it sends.
func holders() []Scenario {
	var all []Scenario
	for _, row := range contestedRows {
		lines := []string{map[bool]string{true: "job reaches web on tcp/80", false: "job does not reach web on tcp/80"}[row.first]}
		s := Scenario{
			Name: "who holds an address: " + row.name, Given: row.add, Lines: lines,
			Objects: `red/p: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {app: first}}}]}]}`,
		}
		for range len(row.claims) - 1 {
			s.Then = append(s.Then, Step{What: "listed in another order", Given: row.rotate, Lines: lines})
		}
		all = append(all, s)
	}
	return slices.Concat(all, strangeAddresses(), []Scenario{{
		Name:    "a pod of an unknown namespace is in no namespaceSelector",
		Given:   func(c *Cluster) { c.Pod("alone").Namespace = "ghost" },
		Objects: `red/p: {podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]}`,
		Lines:   []string{"alone does not reach web", "bare reaches web"},
	}})
}

// add has pods claim the address of job.
func (row contested) add(c *Cluster) {
	c.Remove("job")
	for _, claim := range row.claims {
		p := created(At(NewPod("red/"+claim.name, claim.node, "app="+claim.name), c.v4("job")), claim.created)
		if claim.change != nil {
			claim.change(p)
		}
		c.Pods = append(c.Pods, p)
	}
	for _, r := range row.ranges {
		name, cidr, _ := strings.Cut(r, " ")
		i := slices.IndexFunc(c.Nodes, func(n *corev1.Node) bool { return n.Name == name })
		if i < 0 {
			i, c.Nodes = len(c.Nodes), append(c.Nodes, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}})
		}
		cidr = c.translateBlock(cidr)
		c.Nodes[i].Spec.PodCIDR, c.Nodes[i].Spec.PodCIDRs = cidr, []string{cidr}
	}
}

// rotate lists the claims in another order.
func (row contested) rotate(c *Cluster) {
	claims := slices.Clone(c.Pods[len(c.Pods)-len(row.claims):])
	c.Pods = slices.Concat(c.Pods[:len(c.Pods)-len(claims)], claims[1:], claims[:1])
}

// strangeAddresses are addresses that no pod can have, or that mean another host on each node. A pod of n2 shows one of them: on its
// own node the address would be isolated, and elsewhere it would be a peer.
func strangeAddresses() []Scenario {
	var all []Scenario
	for _, row := range []struct{ addr, here, elsewhere string }{
		{"0.0.0.0", "reaches", "does not reach"}, {"::", "reaches", "does not reach"}, {"127.0.0.1", "reaches", "does not reach"},
		{"ff02::1", "reaches", "does not reach"}, {"255.255.255.255", "reaches", "does not reach"}, {"169.254.1.9", "does not reach", "does not reach"},
		{"fe80::9", "does not reach", "does not reach"}, {"10.244.2.9", "does not reach", "reaches"},
	} {
		s := Scenario{
			Name: "a pod that shows " + row.addr, Only: IPv4,
			Given: func(c *Cluster) {
				p := NewPod("red/strange", "n2", "app=strange")
				p.Status.PodIP, p.Status.PodIPs = row.addr, []corev1.PodIP{{IP: row.addr}}
				c.Pods = append(c.Pods, p)
			},
			Objects: `
red/in: {podSelector: {matchLabels: {app: strange}}}
red/from: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {app: strange}}}]}]}`,
			Unsent: []string{fmt.Sprintf("outside %s %s on tcp/80", row.here, row.addr), fmt.Sprintf("%s %s web on tcp/80", row.addr, row.elsewhere)},
		}
		if netip.MustParseAddr(row.addr).Is6() {
			s.Only = IPv6
		}
		all = append(all, s)
	}
	return all
}
