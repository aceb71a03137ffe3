package controllers

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/test/kit"
	"github.com/ringfence-io/ringfence/test/kit/transport"
	"github.com/ringfence-io/ringfence/test/sig"
)

// The SIG's CRD is upgraded, downgraded and upgraded again under an enforcer that syncs all the time. Its policies are in each snapshot, as the same objects,
// and what changes about them shows after each step.
func TestTheSIGsPoliciesStayInForceWhileTheirDefinitionChanges(t *testing.T) {
	for _, channel := range sig.Channels {
		t.Run(channel, func(t *testing.T) {
			c := newCluster(t)
			admin := c.admin()
			kit.Must(c.t, admin.Install(t.Context(), sig.V02, channel))
			one := c.create(sigKind(sig.V02, channel), "one", sigExperimental.plain)
			n := c.start(50 * time.Millisecond)
			n.untilNow("the policy", func(s seen) bool { return s.sigs("one") != nil })
			n.untilReadIn(sig.V02)
			began := len(n.all()) - 1

			priority := 7
			for _, release := range []sig.Release{sig.V03, sig.V02, sig.V03} {
				kit.Must(c.t, admin.Change(t.Context(), release, channel))
				n.untilReadIn(release)
				priority++
				one.SetAPIVersion(release.GroupVersion().String())
				c.patch(one, fmt.Sprintf(`{"spec":{"priority":%d}}`, priority))
				n.untilNow("a change after "+release.Name, func(s seen) bool { return s.sigs("one").Spec.Priority == int32(priority) })
				late := c.create(sigKind(release, channel), "late", sigExperimental.plain)
				n.untilNow("a policy after "+release.Name, func(s seen) bool { return s.sigs("late") != nil })
				c.delete(late)
				n.untilNow("its end", func(s seen) bool { return s.sigs("late") == nil })
			}

			generation := int64(1)
			for i, s := range n.all()[began:] {
				p := s.sigs("one")
				if p == nil || p.UID != one.GetUID() || p.Generation < generation {
					t.Fatalf("in snapshot %d of %d the policy is %+v; it was of generation %d before", i, len(n.all())-began, p, generation)
				}
				generation = p.Generation
			}
			if want := int64(4); generation != want {
				t.Errorf("the policy ends at generation %d, want %d", generation, want)
			}
		})
	}
}

// A policy that is deleted while no version of its kind can be read goes as soon as one can.
func TestAPolicyThatIsDeletedWhileTheDefinitionChanges(t *testing.T) {
	c := newCluster(t)
	admin := c.admin()
	kit.Must(c.t, admin.Install(t.Context(), sig.V02, "standard"))
	one := c.create(sigKind(sig.V02, "standard"), "one", sigStandard.plain)
	c.create(sigKind(sig.V02, "standard"), "two", sigStandard.plain)
	n := c.start(50 * time.Millisecond)
	n.untilNow("the policies", func(s seen) bool { return s.sigs("one") != nil && s.sigs("two") != nil })
	n.untilReadIn(sig.V02)

	c.transport.Hold(sigRequests)
	kit.Must(c.t, admin.Change(t.Context(), sig.V03, "standard"))
	kit.Eventually(t, patience, "a request that is held", func() bool { return c.transport.Held() > 0 })
	c.delete(one)
	n.untilNext("with both policies", func(s seen) bool { return s.sigs("one") != nil && s.sigs("two") != nil })
	c.transport.Release()
	n.untilNow("the end of one policy", func(s seen) bool { return s.sigs("one") == nil && s.sigs("two") != nil })
	n.untilReadIn(sig.V03)
}

// API servers hear of another CRD at different times: one may lack a version that another one has shown.
func TestAnAPIServerThatHasNotHeardOfTheNewestVersion(t *testing.T) {
	c := newCluster(t)
	c.transport.Lack(transport.Path(sigExperimental.path))
	c.install(sigExperimental)
	c.create(sigExperimental, "one", sigExperimental.plain)
	n := c.start(time.Hour)
	n.untilNow("the policy", func(s seen) bool { return s.sigs("one") != nil })
	n.untilReadIn(sig.V02)
	c.create(sigExperimental, "two", sigExperimental.plain)
	n.untilNow("another policy", func(s seen) bool { return s.sigs("two") != nil })
}

// The SIG's standard channel has named ports in v0.2, and not in v0.3: an API server then hands out objects without them, in the same generation. What is
// left of such a rule is not what its author wrote, so it is not taken for that.
func TestAFieldThatTheNewDefinitionDoesNotHave(t *testing.T) {
	c := newCluster(t)
	admin := c.admin()
	kit.Must(c.t, admin.Install(t.Context(), sig.V02, "standard"))
	c.create(sigKind(sig.V02, "standard"), "one",
		`{`+selectAll+`, ingress: [{action: Accept, from: [{namespaces: {}}], protocols: [{destinationNamedPort: http}]}]}`)
	n := c.start(time.Hour)
	protocol := func(s seen) v1alpha1.Protocol { return s.sigs("one").Spec.Ingress[0].Protocols[0] }
	n.untilNow("the named port", func(s seen) bool { return s.sigs("one") != nil && protocol(s).DestinationNamedPort == "http" })
	kit.Must(c.t, admin.Change(t.Context(), sig.V03, "standard"))
	n.untilNow("a protocol that says nothing", func(s seen) bool { return protocol(s) == v1alpha1.Protocol{} })
}

// admin is one who changes the SIG's CRD. The kind goes with the test.
func (c *cluster) admin() *sig.Admin {
	c.t.Helper()
	a, err := sig.NewAdmin(restConfig)
	kit.Must(c.t, err)
	c.t.Cleanup(func() { kit.Must(c.t, a.Remove(context.Background())) })
	return a
}

// sigs is the SIG's policy of a name, nil if the snapshot does not have it.
func (s seen) sigs(name string) *v1alpha1.ClusterNetworkPolicy {
	i := slices.IndexFunc(s.ClusterPolicies, func(p *v1alpha1.ClusterNetworkPolicy) bool { return p.APIVersion == theSIGs && p.Name == name })
	if i < 0 {
		return nil
	}
	return s.ClusterPolicies[i]
}

// sigRequests are those for the SIG's policies, in any version.
func sigRequests(q *http.Request) bool {
	return strings.Contains(q.URL.Path, "/policy.networking.k8s.io/")
}

// untilReadIn waits until the SIG's policies are watched in the version that a release stores, and in no other.
func (n *running) untilReadIn(release sig.Release) {
	n.t.Helper()
	n.until("the watch in "+release.Version, func([]seen) bool {
		return n.transport.Watches(transport.Path("/"+release.GroupVersion().String()+"/clusternetworkpolicies")) == 1 && n.transport.Watches(sigRequests) == 1
	})
}

// untilNext waits for a snapshot that comes from now on, and wants it to show something.
func (n *running) untilNext(what string, shown func(seen) bool) {
	n.t.Helper()
	now := len(n.all())
	n.until("another snapshot", func(all []seen) bool { return len(all) > now })
	if !shown(n.all()[now]) {
		n.t.Errorf("a snapshot is not %s", what)
	}
}
