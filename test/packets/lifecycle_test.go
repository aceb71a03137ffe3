package packets

import (
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// allowDB admits pods with the label app=db, and nobody else, to all pods of red; from web they may be reached, and nobody else.
const allowDB = `
red/in: {podSelector: {}, ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: db}}}]}]}
red/out: {podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {}, podSelector: {matchLabels: {app: db}}}]}]}`

// lifecycleScenarios are about pods and policies that come, change and go.
var lifecycleScenarios = []scenario{{
	name: "a policy comes, changes and goes",
	want: []string{"client reaches web"},
	then: []step{{
		what:     "it comes",
		policies: `red/p: {podSelector: {}}`,
		want:     []string{"client does not reach web", "remote does not reach far"},
	}, {
		what:     "it opens a port",
		policies: `red/p: {podSelector: {}, ingress: [{ports: [{port: 80}]}]}`,
		want:     []string{"client reaches web on tcp/80", "client does not reach web on tcp/81"},
	}, {
		what:     "it selects other pods",
		policies: `red/p: {podSelector: {matchLabels: {app: far}}, ingress: [{ports: [{port: 80}]}]}`,
		want:     []string{"client reaches web on tcp/81", "client does not reach far on tcp/81"},
	}, {
		what:     "it isolates the other direction",
		policies: `red/p: {podSelector: {matchLabels: {app: far}}, policyTypes: [Egress], egress: [{ports: [{port: 80}]}]}`,
		want:     []string{"client reaches far on tcp/81", "far does not reach client on tcp/81", "far reaches client on tcp/80"},
	}, {
		what:     "it goes",
		policies: `{}`,
		want:     []string{"client reaches web", "client reaches far", "far reaches client"},
	}},
}, {
	name:     "a pod's labels change: it is selected, it is a peer, and neither any more",
	policies: `red/p: {podSelector: {matchLabels: {isolated: "yes"}}, ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {friend: "yes"}}}]}]}`,
	want:     []string{"client reaches web", "remote reaches web"},
	then: []step{{
		what:  "web becomes selected",
		given: func(c *cluster) { c.pod("web").Labels["isolated"] = "yes" },
		want:  []string{"client does not reach web", "remote does not reach web"},
	}, {
		what:  "remote becomes a peer",
		given: func(c *cluster) { c.pod("remote").Labels["friend"] = "yes" },
		want:  []string{"client does not reach web", "remote reaches web"},
	}, {
		what:  "client becomes the peer in its place",
		given: func(c *cluster) { c.pod("client").Labels["friend"] = "yes"; delete(c.pod("remote").Labels, "friend") },
		want:  []string{"client reaches web", "remote does not reach web"},
	}, {
		what:  "web is no longer selected",
		given: func(c *cluster) { delete(c.pod("web").Labels, "isolated") },
		want:  []string{"client reaches web", "remote reaches web"},
	}},
}, {
	name:     "a namespace's labels change",
	policies: `red/p: {podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {friend: "yes"}}}]}]}`,
	want:     []string{"client does not reach web", "bare does not reach web"},
	then: []step{{
		what:  "blue becomes a friend",
		given: func(c *cluster) { c.namespaces[1].Labels["friend"] = "yes" },
		want:  []string{"client reaches web", "remote reaches far", "bare does not reach web"},
	}, {
		what:  "plain becomes the friend in its place",
		given: func(c *cluster) { delete(c.namespaces[1].Labels, "friend"); c.namespaces[2].Labels["friend"] = "yes" },
		want:  []string{"client does not reach web", "bare reaches web", "bare reaches far"},
	}},
}, {
	name:     "a pod that comes is enforced, and one that goes leaves nothing behind",
	policies: allowDB,
	given:    func(c *cluster) { c.remove("db") },
	want:     []string{"client does not reach web", "db does not reach web"}, // the address is still there, the pod is not
	then: []step{{
		what:  "db comes back",
		given: func(c *cluster) { c.add(pod("red/db", "n1", "app=db")) },
		want:  []string{"db reaches web", "db reaches far", "web does not reach client"},
	}, {
		what:  "web goes: nobody is isolated at its address any more",
		given: func(c *cluster) { c.remove("web") },
		want:  []string{"client reaches web", "web reaches client", "client does not reach db"},
	}},
}, {
	name: "a completed pod is no peer",
	given: func(c *cluster) {
		c.pod("db").Status.Phase = corev1.PodSucceeded
	},
	policies: allowDB,
	want:     []string{"db does not reach web", "db does not reach far", "web does not reach db"},
}, {
	name:     "a failed pod is no peer, and is not isolated",
	given:    func(c *cluster) { c.pod("db").Status.Phase = corev1.PodFailed },
	policies: allowDB,
	want:     []string{"db does not reach web", "client reaches db", "db reaches client"},
}, {
	name:     "a pod leaves every set as soon as it is completed",
	policies: allowDB,
	want:     []string{"db reaches web", "db reaches far"},
	then: []step{{
		what:  "db completes",
		given: func(c *cluster) { c.pod("db").Status.Phase = corev1.PodSucceeded },
		want:  []string{"db does not reach web", "db does not reach far", "web does not reach db"},
	}},
}, {
	// client's address is at first that of a job with the label app=db.
	name:     "an address is reused: first the old pod completes, then the new one comes",
	policies: allowDB,
	given:    func(c *cluster) { reuse(c, corev1.PodRunning) },
	want:     []string{"client reaches web", "client reaches far"},
	then: []step{{
		what:  "the job completes",
		given: func(c *cluster) { c.pod("job").Status.Phase = corev1.PodSucceeded },
		want:  []string{"client does not reach web", "client does not reach far"},
	}, {
		what:  "client comes, and inherits nothing",
		given: func(c *cluster) { c.pods = append(c.pods, newClient(c)) },
		want:  []string{"client does not reach web", "client does not reach far", "web does not reach client"},
	}},
}, {
	name:     "an address is reused: the new pod comes before the news that the old one has completed",
	policies: allowDB,
	given:    func(c *cluster) { reuse(c, corev1.PodRunning) },
	want:     []string{"client reaches web", "client reaches far"},
	then: []step{{
		what:  "client comes, and the job still seems to run",
		given: func(c *cluster) { c.pods = append(c.pods, newClient(c)) },
		want:  []string{"client does not reach web", "client does not reach far", "web does not reach client"},
	}, {
		what:  "the job completes",
		given: func(c *cluster) { c.pod("job").Status.Phase = corev1.PodSucceeded },
		want:  []string{"client does not reach web", "client does not reach far", "web does not reach client"},
	}},
}, {
	name:     "an address is reused by a pod that a policy selects",
	policies: `blue/p: {podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}`,
	given:    func(c *cluster) { reuse(c, corev1.PodSucceeded); c.pods = append(c.pods, newClient(c)) },
	want:     []string{"web does not reach client", "remote reaches client"},
}, {
	name: "the order in which a completed pod and its successor are listed does not matter",
	given: func(c *cluster) {
		reuse(c, corev1.PodSucceeded)
		c.pods = append([]*corev1.Pod{newClient(c)}, c.pods...)
	},
	policies: allowDB,
	want:     []string{"client does not reach web", "client does not reach far", "db reaches web"},
}, {
	name:     "a terminating pod is enforced until it is gone",
	given:    func(c *cluster) { terminate(c.pod("web")); terminate(c.pod("far")) },
	policies: allowDB,
	want:     []string{"client does not reach web", "client does not reach far", "web does not reach client", "db reaches web", "db reaches far"},
}, {
	name:     "a terminating pod is a peer until it is gone",
	given:    func(c *cluster) { terminate(c.pod("db")) },
	policies: allowDB,
	want:     []string{"db reaches web", "db reaches far"},
}, {
	name: "a pending pod with an address is enforced",
	given: func(c *cluster) {
		c.pod("web").Status.Phase = corev1.PodPending
		c.pod("db").Status.Phase = corev1.PodPending
	},
	policies: allowDB,
	want:     []string{"client does not reach web", "db reaches web", "db reaches far"},
}, {
	name:     "a pod without an address disturbs nobody",
	given:    func(c *cluster) { c.pods = append(c.pods, pod("red/waiting", "n1", "app=db")) },
	policies: allowDB,
	want:     []string{"client does not reach web", "db reaches web", "db reaches far"},
}}

// reuse gives client's address, and its place, to a job with the label app=db.
func reuse(c *cluster, phase corev1.PodPhase) {
	job := created(at(pod("plain/job", "n1", "app=db"), netip.MustParseAddr(c.pod("client").Status.PodIP)), 500)
	job.Status.Phase = phase
	c.pods = append(c.pods, job)
	c.remove("client")
}

// newClient is the pod that takes the job's place.
func newClient(c *cluster) *corev1.Pod {
	return created(at(pod("blue/client", "n1", "app=client", "role=x"), netip.MustParseAddr(c.pod("job").Status.PodIP)), 2000)
}

func terminate(p *corev1.Pod) {
	now := metav1.NewTime(time.Unix(3000, 0))
	p.DeletionTimestamp = &now
}
