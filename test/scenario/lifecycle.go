package scenario

import (
	corev1 "k8s.io/api/core/v1"
)

// FromDB admits pods with the label app=db, and nobody else, to all pods of red; from web they may be reached, and nobody else.
const FromDB = `
red/in: {podSelector: {}, ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: db}}}]}]}
red/out: {podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {}, podSelector: {matchLabels: {app: db}}}]}]}`

// lifecycle is about pods and policies that come, change and go.
var lifecycle = []Scenario{{
	Name:  "a policy comes, changes and goes",
	Lines: []string{"client reaches web"},
	Then: []Step{{
		What:    "it comes",
		Objects: `red/p: {podSelector: {}}`,
		Lines:   []string{"client does not reach web", "remote does not reach far"},
	}, {
		What:    "it opens a port",
		Objects: `red/p: {podSelector: {}, ingress: [{ports: [{port: 80}]}]}`,
		Lines:   []string{"client reaches web on tcp/80", "client does not reach web on tcp/81"},
	}, {
		What:    "it selects other pods",
		Objects: `red/p: {podSelector: {matchLabels: {app: far}}, ingress: [{ports: [{port: 80}]}]}`,
		Lines:   []string{"client reaches web on tcp/81", "client does not reach far on tcp/81"},
	}, {
		What:    "it isolates the other direction",
		Objects: `red/p: {podSelector: {matchLabels: {app: far}}, policyTypes: [Egress], egress: [{ports: [{port: 80}]}]}`,
		Lines:   []string{"client reaches far on tcp/81", "far does not reach client on tcp/81", "far reaches client on tcp/80"},
	}, {
		What:    "it goes",
		Objects: `red/p: null`,
		Lines:   []string{"client reaches web", "client reaches far", "far reaches client"},
	}},
}, {
	Name: "a pod's labels change: it is selected, it is a peer, and neither any more",
	Objects: `red/p: {podSelector: {matchLabels: {isolated: "yes"}},
  ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {friend: "yes"}}}]}]}`,
	Lines: []string{"client reaches web", "remote reaches web"},
	Then: []Step{{
		What:  "web becomes selected",
		Given: func(c *Cluster) { c.Pod("web").Labels["isolated"] = "yes" },
		Lines: []string{"client does not reach web", "remote does not reach web"},
	}, {
		What:  "remote becomes a peer",
		Given: func(c *Cluster) { c.Pod("remote").Labels["friend"] = "yes" },
		Lines: []string{"client does not reach web", "remote reaches web"},
	}, {
		What:  "client becomes the peer in its place",
		Given: func(c *Cluster) { c.Pod("client").Labels["friend"] = "yes"; delete(c.Pod("remote").Labels, "friend") },
		Lines: []string{"client reaches web", "remote does not reach web"},
	}, {
		What:  "web is no longer selected",
		Given: func(c *Cluster) { delete(c.Pod("web").Labels, "isolated") },
		Lines: []string{"client reaches web", "remote reaches web"},
	}},
}, {
	Name:    "a namespace's labels change",
	Objects: `red/p: {podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {friend: "yes"}}}]}]}`,
	Lines:   []string{"client does not reach web", "bare does not reach web"},
	Then: []Step{{
		What:  "blue becomes a friend",
		Given: func(c *Cluster) { c.Namespace("blue").Labels["friend"] = "yes" },
		Lines: []string{"client reaches web", "remote reaches far", "bare does not reach web"},
	}, {
		What: "plain becomes the friend in its place",
		Given: func(c *Cluster) {
			delete(c.Namespace("blue").Labels, "friend")
			c.Namespace("plain").Labels["friend"] = "yes"
		},
		Lines: []string{"client does not reach web", "bare reaches web", "bare reaches far"},
	}},
}, {
	Name:    "a pod that comes is enforced, and one that goes leaves nothing behind",
	Objects: FromDB,
	Given:   func(c *Cluster) { c.Remove("db") },
	Lines:   []string{"client does not reach web", "db does not reach web"}, // the address is still there, the pod is not
	Then: []Step{{
		What:  "db comes back",
		Given: func(c *Cluster) { c.Add(NewPod("red/db", "n1", "app=db")) },
		Lines: []string{"db reaches web", "db reaches far", "web does not reach client"},
	}, {
		What:  "web goes: nobody is isolated at its address any more",
		Given: func(c *Cluster) { c.Remove("web") },
		Lines: []string{"client reaches web", "web reaches client", "client does not reach db"},
	}},
}, {
	Name: "a completed pod is no peer, and is not isolated",
	Given: func(c *Cluster) {
		c.Pod("db").Status.Phase = corev1.PodSucceeded
	},
	Objects: FromDB,
	Lines: []string{
		"db does not reach web", "db does not reach far", "web does not reach db", "client reaches db", "db reaches client",
		"job does not reach web", "outside reaches job", "job reaches outside",
	},
}, {
	Name:    "a failed pod is no peer, and is not isolated",
	Given:   func(c *Cluster) { c.Pod("db").Status.Phase = corev1.PodFailed },
	Objects: FromDB,
	Lines:   []string{"db does not reach web", "client reaches db", "db reaches client"},
}, {
	Name:    "a pod leaves every set as soon as it is completed",
	Objects: FromDB,
	Lines:   []string{"db reaches web", "db reaches far"},
	Then: []Step{{
		What:  "db completes",
		Given: func(c *Cluster) { c.Pod("db").Status.Phase = corev1.PodSucceeded },
		Lines: []string{"db does not reach web", "db does not reach far", "web does not reach db"},
	}},
}, {
	// client's address is at first that of a job with the label app=db.
	Name:    "an address is reused: first the old pod completes, then the new one comes",
	Objects: FromDB,
	Given:   func(c *Cluster) { reuse(c, corev1.PodRunning) },
	Lines:   []string{"client reaches web", "client reaches far"},
	Then: []Step{{
		What:  "the job completes",
		Given: func(c *Cluster) { c.Pod("old").Status.Phase = corev1.PodSucceeded },
		Lines: []string{"client does not reach web", "client does not reach far"},
	}, {
		What:  "client comes, and inherits nothing",
		Given: func(c *Cluster) { c.Pods = append(c.Pods, newClient(c)) },
		Lines: []string{"client does not reach web", "client does not reach far", "web does not reach client"},
	}},
}, {
	Name:    "an address is reused: the new pod comes before the news that the old one has completed",
	Objects: FromDB,
	Given:   func(c *Cluster) { reuse(c, corev1.PodRunning) },
	Lines:   []string{"client reaches web", "client reaches far"},
	Then: []Step{{
		What:  "client comes, and the job still seems to run",
		Given: func(c *Cluster) { c.Pods = append(c.Pods, newClient(c)) },
		Lines: []string{"client does not reach web", "client does not reach far", "web does not reach client"},
	}, {
		What:  "the job completes",
		Given: func(c *Cluster) { c.Pod("old").Status.Phase = corev1.PodSucceeded },
		Lines: []string{"client does not reach web", "client does not reach far", "web does not reach client"},
	}},
}, {
	Name:    "an address is reused by a pod that a policy selects",
	Objects: `blue/p: {podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}`,
	Given:   func(c *Cluster) { reuse(c, corev1.PodSucceeded); c.Pods = append(c.Pods, newClient(c)) },
	Lines:   []string{"web does not reach client", "remote reaches client"},
}, {
	Name: "the order in which a completed pod and its successor are listed does not matter",
	Given: func(c *Cluster) {
		reuse(c, corev1.PodSucceeded)
		c.Pods = append([]*corev1.Pod{newClient(c)}, c.Pods...)
	},
	Objects: FromDB,
	Lines:   []string{"client does not reach web", "client does not reach far", "db reaches web"},
}, {
	Name:    "a terminating pod is enforced until it is gone",
	Given:   func(c *Cluster) { terminate(c.Pod("web")); terminate(c.Pod("far")) },
	Objects: FromDB,
	Lines:   []string{"client does not reach web", "client does not reach far", "web does not reach client", "db reaches web", "db reaches far"},
}, {
	Name:    "a terminating pod is a peer until it is gone",
	Given:   func(c *Cluster) { terminate(c.Pod("db")) },
	Objects: FromDB,
	Lines:   []string{"db reaches web", "db reaches far"},
}, {
	Name: "a pending pod with an address is enforced",
	Given: func(c *Cluster) {
		c.Pod("web").Status.Phase = corev1.PodPending
		c.Pod("db").Status.Phase = corev1.PodPending
	},
	Objects: FromDB,
	Lines:   []string{"client does not reach web", "db reaches web", "db reaches far"},
}, {
	Name:    "a pod without an address disturbs nobody",
	Given:   func(c *Cluster) { c.Pods = append(c.Pods, NewPod("red/waiting", "n1", "app=db")) },
	Objects: FromDB,
	Lines:   []string{"client does not reach web", "db reaches web", "db reaches far"},
}}

// reuse gives client's address, and its place, to an older pod with the label app=db.
func reuse(c *Cluster, phase corev1.PodPhase) {
	old := created(At(NewPod("plain/old", "n1", "app=db"), c.v4("client")), 500)
	old.Status.Phase = phase
	c.Pods = append(c.Pods, old)
	c.Remove("client")
}

// newClient is the pod that takes its place.
func newClient(c *Cluster) *corev1.Pod {
	return created(At(NewPod("blue/client", "n1", "app=client", "role=x"), c.v4("client")), 2000)
}
