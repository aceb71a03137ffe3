package packets

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// neverHeld are addresses that no pod can have.
var neverHeld = []string{"0.0.0.0", "::", "127.0.0.1", "::1", "224.0.0.1", "ff02::1", "255.255.255.255"}

// claimScenarios are about what kubelets show that cannot be so.
var claimScenarios = []scenario{{
	name:     "another node shows its pod with the address of one of this node",
	policies: allowDB,
	given: func(c *cluster) {
		c.pods = append(c.pods, created(at(pod("blue/thief", "n2", "app=thief"), c.addr("web")), 9000))
	},
	want: []string{"client does not reach web", "remote does not reach web", "db reaches web", "web does not reach client"},
	then: []step{{
		what:  "while the victim is being deleted",
		given: func(c *cluster) { terminate(c.pod("web")) },
		want:  []string{"client does not reach web", "db reaches web", "web does not reach client"},
	}},
}, {
	name:     "whoever holds a contested address gets in where its own pod does",
	policies: `red/in: {podSelector: {}, ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: db}}}]}]}`,
	given: func(c *cluster) {
		c.pods = append(c.pods, created(at(pod("red/db2", "n2", "app=db"), c.addr("client")), 9000)) // so that client would pass for a db
	},
	want: []string{"client does not reach web", "db reaches web", "db reaches far"},
}, {
	name:     "an address that no pod can have stops nobody",
	policies: allowDB,
	given: func(c *cluster) {
		c.nodes = append(c.nodes, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "virtual"}})
		for i, text := range neverHeld {
			p := pod("red/nowhere"+string(rune('a'+i)), "virtual", "app=db")
			p.Status.PodIP, p.Status.PodIPs = text, []corev1.PodIP{{IP: text}}
			c.pods = append(c.pods, p)
			c.nodes[2].Status.Addresses = append(c.nodes[2].Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: text})
		}
	},
	wide: `cnp nodes: {tier: Baseline, priority: 1, subject: {namespaces: {}}, ingress: [{action: Accept, from: [{nodes: {}}]}]}`,
	want: []string{"db reaches web", "db reaches far", "client does not reach web", "web does not reach client"},
	then: []step{{
		what:     "and what changes later is in force",
		policies: `red/p: {podSelector: {}}`,
		want:     []string{"db does not reach web", "client does not reach far"},
	}},
}}
