package status

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/node/report"
	"github.com/ringfence-io/ringfence/controllers/status"
	"github.com/ringfence-io/ringfence/enforcer"
	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/test/kit"
	"github.com/ringfence-io/ringfence/test/kit/transport"
)

// nothingHappens: a cluster where nothing changes writes nothing but heartbeats. Its nodes give a sign of life every two seconds, by the real
// reporter.
func nothingHappens(s *story, by *controller) {
	const duration = 30 * time.Second
	t, c := s.t, settle(s)
	c.said()
	beats := transport.New()
	beating := map[string]*report.Reporter{}
	for i := range 5 {
		n := c.newNode(fmt.Sprintf("beating-%d", i))
		c.pod(fmt.Sprintf("beating-%d", i), n)
		beating[n.name] = n.beats(t, beats)
	}
	np := c.policy("beating", `{podSelector: {matchExpressions: [{key: app, operator: In, values: [beating-0, beating-1, beating-2, beating-3, beating-4]}]}}`)
	c.says(np, "False Pending at 1: 5 of 5 nodes do not enforce generation 1: NODE-beating-0, NODE-beating-1, NODE-beating-2, NODE-beating-3, NODE-beating-4")
	again := func() {
		var rest v1alpha1.PolicyEnforcementList
		kit.Must(t, c.c.List(t.Context(), &rest))
		for name, r := range beating {
			n := &node{s: c.story, name: name}
			r.Note(n.synced(np.UID, rest.ResourceVersion))
		}
	}
	again()
	c.says(np, programmed(1, 5, 5))
	c.policies["beating"] = np

	c.says(c.policies["ni"], "False NodesFailing at 1: 2 of 8 nodes do not enforce generation 1: NODE-failing, NODE-silent; NODE-failing: "+refused)
	began, before, writes, reports := time.Now(), c.stands(), by.Writes(c.namespace), len(beats.Writes("/nodeenforcements/"))
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for time.Since(began) < duration {
		<-tick.C
		again() // nodes go on to sync, and see later resource versions
	}
	if diff := cmp.Diff(before, c.stands()); diff != "" {
		t.Errorf("statuses were written in %s, and nothing had changed (-before +after):\n%s", duration, diff)
	}
	if diff := cmp.Diff(writes, by.Writes(c.namespace)); diff != "" {
		t.Errorf("the controller has written (-before +after):\n%s", diff)
	}
	// One in 2 s to 3 s of each; less if the machine is busy.
	if n := len(beats.Writes("/nodeenforcements/")) - reports; n < 5*5 || n > 5*16 {
		t.Errorf("5 nodes have reported %d times in %s", n, duration)
	}
}

// beats starts a reporter of the node, with a heartbeat of two seconds.
func (n *node) beats(t *testing.T, by *transport.Transport) *report.Reporter {
	t.Helper()
	config := by.To(unlimited(restConfig))
	web, err := rest.HTTPClientFor(config)
	kit.Must(t, err)
	api, err := apiutil.RESTClientForGVK(v1alpha1.GroupVersion.WithKind("NodeEnforcement"), false, false, config, codecs(status.Scheme()), web)
	kit.Must(t, err)
	r := report.NewReporter(n.name, report.NewWriter(api), func() types.UID { return n.object.UID }, 2*time.Second,
		v1alpha1.NodeEnforcementStatus{Families: []v1alpha1.Family{v1alpha1.IPv4, v1alpha1.IPv6}}, nil)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Start(ctx) }()
	t.Cleanup(func() {
		stop()
		kit.Must(t, <-done)
	})
	r.Note(report.Synced{At: time.Now()})
	return r
}

// synced is a sync of the node that went well, and saw everything up to a resource version.
func (n *node) synced(uid types.UID, version string) report.Synced {
	versions := map[string]string{}
	for _, kind := range kinds {
		versions[kind] = version
	}
	packed := n.digests()
	var pods []uint64
	for ; len(packed) > 0; packed = packed[8:] {
		var d uint64
		for _, b := range packed[:8] {
			d = d<<8 | uint64(b)
		}
		pods = append(pods, d)
	}
	return report.Synced{At: time.Now(), ResourceVersions: versions, Report: enforcer.Report{Concerns: policy.Concerns{
		Objects: []policy.Object{{Ref: policy.Ref{Kind: "NetworkPolicy", Namespace: n.s.namespace, Name: "beating"}, UID: string(uid), Generation: 1}}, Pods: pods,
	}}}
}
