package status

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	labserver "github.com/ringfence-io/ringfence/lab/apiserver"
	"github.com/ringfence-io/ringfence/test/apiserver"
	"github.com/ringfence-io/ringfence/test/kit"
	"github.com/ringfence-io/ringfence/test/kit/netns"
)

// settled is a cluster where everything is said: a policy of each of our kinds that is programmed, one that waits, one that fails, and one whose
// node has never reported.
type settled struct {
	*story
	failing, silent *node
	policies        map[string]client.Object
}

func settle(s *story) *settled {
	s.t.Helper()
	c := &settled{story: s, failing: s.newNode("failing"), silent: s.newNode("silent"), policies: map[string]client.Object{}}
	s.pod("good", s.node)
	s.pod("bad", c.failing)
	s.pod("mute", c.silent)
	cnp, ni := &v1alpha1.ClusterNetworkPolicy{}, &v1alpha1.NamespaceIsolation{}
	s.clusterPolicy("cnp", `{tier: Admin, priority: 60, ingress: [{action: Deny, from: [{namespaces: {}}]}],
		subject: {pods: {namespaceSelector: {matchLabels: {story: NAMESPACE}}, podSelector: {matchLabels: {app: good}}}}}`, cnp)
	s.clusterPolicy("ni", `{namespaceSelector: {matchLabels: {story: NAMESPACE}}, tier: Baseline}`, ni)
	c.policies["cnp"], c.policies["ni"] = cnp, ni
	for _, name := range []string{"good", "bad", "mute", "none"} {
		c.policies[name] = s.policy(name, fmt.Sprintf("{podSelector: {matchLabels: {app: %s}}, policyTypes: [Ingress]}", name))
	}
	s.node.enforces()
	c.failing.fails(v1alpha1.RefusedReason, "no")
	return c
}

// said waits until everything is said.
func (c *settled) said() {
	c.t.Helper()
	nobody := "no enforcer has reported from this node: see that a pod of the DaemonSet runs there"
	c.says(c.policies["good"], programmed(1, 1, 1))
	c.says(c.policies["cnp"], programmed(1, 1, 1))
	c.says(c.policies["ni"], "False NodesFailing at 1: 2 of 3 nodes do not enforce generation 1: NODE-failing, NODE-silent; NODE-failing: "+refused,
		"3 pods, 3 nodes: 1 programmed, 1 failed, 1 unknown")
	c.says(c.policies["bad"], "False NodesFailing at 1: 1 of 1 node does not enforce generation 1: NODE-failing; NODE-failing: "+refused)
	c.says(c.policies["mute"], "False NodesUnknown at 1: 1 of 1 node does not enforce generation 1: NODE-silent; NODE-silent: "+nobody)
	c.says(c.policies["none"], "True NoPods at 1: "+noPods)
}

// stands is every status of the story's policies, with its resource version.
func (c *settled) stands() map[string]string {
	c.t.Helper()
	all := map[string]string{}
	for name, p := range c.policies {
		o := p
		if name != "cnp" && name != "ni" {
			o = c.enforcement(name)
		}
		c.get(o)
		all[name] = o.GetResourceVersion() + ": " + told(statusIn(o), v1alpha1.ProgrammedCondition)
	}
	return all
}

// quiet checks that nothing is written once a controller has looked at everything, which a marker shows: a policy that is made now.
func (c *settled) quiet(marker string, by *controller) {
	c.t.Helper()
	before := c.stands()
	np := c.policy(marker, "{podSelector: {matchLabels: {app: nothing}}}")
	c.says(np, "True NoPods at 1: "+noPods)
	if diff := cmp.Diff(before, c.stands()); diff != "" {
		c.t.Errorf("statuses were written, and nothing had changed (-before +after):\n%s", diff)
	}
	want := []string{
		"POST /apis/policy.ringfence.io/v1alpha1/namespaces/" + c.namespace + "/policyenforcements 201",
		"PATCH /apis/policy.ringfence.io/v1alpha1/namespaces/" + c.namespace + "/policyenforcements/" + marker + "/status 200",
	}
	got := slices.DeleteFunc(by.Writes(c.namespace), func(line string) bool { return strings.Contains(line, "/events") })
	if diff := cmp.Diff(want, got); diff != "" {
		c.t.Errorf("writes since it has started (-want +got):\n%s", diff)
	}
	if got := by.Writes("/events"); len(got) > 0 {
		c.t.Errorf("Events since it has started: %v", got)
	}
}

func TestARestartChangesNothing(t *testing.T) {
	c := settle(begin(t))
	first := startController(t, restConfig)
	c.said()
	lost := begin(t) // its node falls silent
	lost.pod("one", lost.node)
	lost.node.status.HeartbeatSeconds = 1
	np := lost.policy("web", everyPod)
	lost.node.enforces()
	silent := "False NodesUnknown at 1: 1 of 1 node does not enforce generation 1: NODE-a; NODE-a: " + notHeard
	lost.says(np, programmed(1, 1, 1))
	lost.says(np, silent)
	stands := c.stands()
	v := lost.follow(&v1alpha1.PolicyEnforcementList{}, lost.namespace)
	first.crash()
	second := startController(t, restConfig)
	c.quiet("marker", second)
	if diff := cmp.Diff(stands, c.stands()); diff != "" {
		t.Errorf("after a restart (-before +after):\n%s", diff)
	}
	lost.pod("two", lost.node)
	lost.says(np, silent, "2 pods, 1 nodes: 0 programmed, 0 failed, 1 unknown")
	e := lost.enforcement("web")
	lost.get(e)
	for _, o := range v.all(e) {
		if line := told(statusIn(o), v1alpha1.ProgrammedCondition); !strings.HasPrefix(line, "False NodesUnknown") {
			t.Errorf("of a node that is silent all the time it was said: %s", line)
		}
	}
	lost.node.status.HeartbeatSeconds = 3600
	lost.node.enforces()
	lost.says(np, programmed(1, 2, 1))
}

// TestChangesWhileNoControllerRuns: what was said stays as it was, and names the generation that it speaks of. A new controller calls nothing
// programmed that is not.
func TestChangesWhileNoControllerRuns(t *testing.T) {
	c := settle(begin(t))
	first := startController(t, restConfig)
	c.said()
	audited := c.policy("audited", "{podSelector: {matchLabels: {app: good}}}")
	c.patch(audited, fmt.Sprintf(`{"metadata":{"annotations":{%q:"Audit"}}}`, v1alpha1.ModeAnnotation))
	c.node.enforces()
	c.says(audited, "True Programmed at 1: audited on 1 pod, on 1 node: nothing is denied by it")
	first.end()

	c.patch(c.policies["good"], `{"spec":{"policyTypes":["Egress"]}}`)
	c.patch(c.policies["cnp"], `{"spec":{"priority":61}}`)
	c.patch(audited, fmt.Sprintf(`{"metadata":{"annotations":{%q:null}}}`, v1alpha1.ModeAnnotation))
	c.says(c.policies["good"], programmed(1, 1, 1))
	before := c.stands()
	startController(t, restConfig)
	c.says(c.policies["good"], "False Pending at 2: 1 of 1 node does not enforce generation 2: NODE-a")
	c.says(c.policies["cnp"], "False Pending at 2: 1 of 1 node does not enforce generation 2: NODE-a")
	c.says(audited, "False Pending at 1: 1 of 1 node does not enforce generation 1: NODE-a")
	c.node.enforces()
	c.says(c.policies["good"], programmed(2, 1, 1))
	c.says(c.policies["cnp"], programmed(2, 1, 1))
	c.says(audited, programmed(1, 1, 1))
	after := c.stands()
	for _, name := range []string{"bad", "mute", "none"} {
		if before[name] != after[name] {
			t.Errorf("%s has not changed, and is written: %s, then %s", name, before[name], after[name])
		}
	}
}

// elected makes a controller one of several, of which one leads.
func elected(o *ctrl.Options) {
	lease, renew, retry := 3*time.Second, 2*time.Second, 200*time.Millisecond
	o.LeaderElection, o.LeaderElectionID, o.LeaderElectionNamespace = true, "ringfence-controller", "default"
	o.LeaseDuration, o.RenewDeadline, o.RetryPeriod = &lease, &renew, &retry
}

func TestOfTwoControllersOneLeads(t *testing.T) {
	c := settle(begin(t))
	first := startController(t, restConfig, elected)
	c.said()
	second := startController(t, restConfig, elected)
	late := c.policy("late", "{podSelector: {matchLabels: {app: good}}}")
	c.node.enforces()
	c.says(late, programmed(1, 1, 1))
	if got := second.Writes(""); len(got) > 0 {
		t.Errorf("the one that does not lead writes: %v", got)
	}
	before := c.stands()
	first.crash()
	c.patch(late, `{"spec":{"policyTypes":["Egress"]}}`)
	c.node.enforces()
	c.says(late, programmed(2, 1, 1))
	if len(second.Writes("/policyenforcements/late/status")) == 0 {
		t.Error("nobody knows who has written that")
	}
	if diff := cmp.Diff(before, c.stands()); diff != "" {
		t.Errorf("after another has taken the lead (-before +after):\n%s", diff)
	}
}

func TestTwoControllersThatBothWriteComeToAnEnd(t *testing.T) {
	c := settle(begin(t))
	both := []*controller{startController(t, restConfig), startController(t, restConfig)}
	c.said()
	np := c.policies["good"]
	for generation := 2; generation < 5; generation++ {
		c.patch(np, fmt.Sprintf(`{"spec":{"podSelector":{"matchLabels":{"app":"good"},"matchExpressions":[{"key":"no-%d","operator":"DoesNotExist"}]}}}`, generation))
		c.node.enforces()
		c.says(np, programmed(generation, 1, 1))
	}
	writes := func() int { return len(both[0].Writes("/status")) + len(both[1].Writes("/status")) }
	last, since := -1, time.Now()
	kit.Eventually(t, patience, "an end of their writes", func() bool {
		if n := writes(); n != last {
			last, since = n, time.Now()
		}
		return time.Since(since) > 3*time.Second
	})
	if last > 80 {
		t.Errorf("two controllers wrote %d times about 6 policies with 9 generations", last)
	}
}

// TestTheAPIServerIsAway kills it, and brings it back.
func TestTheAPIServerIsAway(t *testing.T) {
	kit.NeedRoot(t)
	h := netns.New(t, "rf-status", "away")
	api, err := labserver.Start(t.Context(), labserver.Options{Host: h, Addresses: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, Dir: t.TempDir()})
	kit.Must(t, err)
	t.Cleanup(api.Stop)
	to, err := api.Config(labserver.Admin)
	kit.Must(t, err)
	kit.Must(t, apiserver.InstallCRDs(to, apiserver.CRDs))
	remote, err := connect(rest.CopyConfig(to))
	kit.Must(t, err)
	c := settle(beginAt(t, remote))
	by := startController(t, to)
	c.said()

	before := c.stands()
	api.Kill()
	kit.EventuallySucceeds(t, patience, "the server's end", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if err := remote.Get(ctx, client.ObjectKey{Name: c.node.name}, c.node.object.DeepCopy()); err == nil {
			return errors.New("it answers")
		}
		return nil
	})
	kit.Must(t, api.Resume(t.Context()))
	np := c.policy("back", "{podSelector: {matchLabels: {app: good}}}")
	c.says(np, "False Pending at 1: 1 of 1 node does not enforce generation 1: NODE-a")
	c.node.enforces()
	c.says(np, programmed(1, 1, 1))
	if diff := cmp.Diff(before, c.stands()); diff != "" {
		t.Errorf("after the API server was away (-before +after):\n%s", diff)
	}
	by.end()
}
