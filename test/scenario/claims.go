package scenario

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// neverHeld are addresses that no pod can have.
var neverHeld = []string{"0.0.0.0", "::", "127.0.0.1", "::1", "224.0.0.1", "ff02::1", "255.255.255.255"}

// claims is about what kubelets show that cannot be so.
var claims = []Scenario{{
	Name:    "another node shows its pod with the address of one of this node",
	Objects: FromDB,
	Given: func(c *Cluster) {
		c.Pods = append(c.Pods, created(At(NewPod("blue/thief", "n2", "app=thief"), c.v4("web")), 9000))
	},
	Lines: []string{"client does not reach web", "remote does not reach web", "db reaches web", "web does not reach client"},
	Then: []Step{{
		What:  "while the victim is being deleted",
		Given: func(c *Cluster) { terminate(c.Pod("web")) },
		Lines: []string{"client does not reach web", "db reaches web", "web does not reach client"},
	}},
}, {
	Name:    "whoever holds a contested address gets in where its own pod does",
	Objects: `red/in: {podSelector: {}, ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: db}}}]}]}`,
	Given: func(c *Cluster) {
		c.Pods = append(c.Pods, created(At(NewPod("red/db2", "n2", "app=db"), c.v4("client")), 9000)) // so that client would pass for a db
	},
	Lines: []string{"client does not reach web", "db reaches web", "db reaches far"},
}, {
	Name: "an address that no pod can have stops nobody",
	Objects: FromDB + `
cnp nodes: {tier: Baseline, priority: 1, subject: {namespaces: {}}, ingress: [{action: Accept, from: [{nodes: {}}]}]}`,
	Given: func(c *Cluster) {
		c.Nodes = append(c.Nodes, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "virtual"}})
		for i, text := range neverHeld {
			p := NewPod("red/nowhere"+string(rune('a'+i)), "virtual", "app=db")
			p.Status.PodIP, p.Status.PodIPs = text, []corev1.PodIP{{IP: text}}
			c.Pods = append(c.Pods, p)
			addAddresses(c.Node("virtual"), text)
		}
	},
	Lines: []string{"db reaches web", "db reaches far", "client does not reach web", "web does not reach client"},
	Then: []Step{{
		What:    "and what changes later is in force",
		Objects: `{red/in: null, red/out: null, red/p: {podSelector: {}}}`,
		Lines:   []string{"db does not reach web", "client does not reach far"},
	}},
}}
