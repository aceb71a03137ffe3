package status

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/controller-runtime/pkg/client"
	signetv1alpha2 "sigs.k8s.io/network-policy-api/apis/v1alpha2"
	signetv1beta1 "sigs.k8s.io/network-policy-api/apis/v1beta1"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/test/kit"
	"github.com/ringfence-io/ringfence/test/sig"
)

// The SIG's CRD is upgraded, downgraded and upgraded again under a controller. What is said of a policy stays, and goes on to follow the policy, in whichever
// version is served.
func TestWhatIsSaidOfTheSIGsPoliciesWhileTheirDefinitionChanges(t *testing.T) {
	for _, channel := range sig.Channels {
		t.Run(channel, func(t *testing.T) {
			admin := sigAdmin(t)
			kit.Must(t, admin.Install(t.Context(), sig.V02, channel))
			by := startController(t, restConfig)
			s := begin(t)
			s.pod("one", s.node)
			s.node.enforces()
			s.clusterPolicy("p", fmt.Sprintf(denyAll, 40), &signetv1alpha2.ClusterNetworkPolicy{})
			s.says(s.sigs(sig.V02), "False Pending at 1: 1 of 1 node does not enforce generation 1: NODE-a")
			s.node.enforces()
			s.says(s.sigs(sig.V02), programmed(1, 1, 1))

			present := sig.V02
			for i, release := range []sig.Release{sig.V03, sig.V02, sig.V03} {
				generation, p := i+1, s.sigs(release)
				before, writes := s.conditions(s.sigs(present)), by.Writes(s.sigPath())
				kit.Must(t, admin.Change(t.Context(), release, channel))
				present = release

				// A policy that is made after the change shows when the controller has heard of it.
				later := s.sigs(release)
				s.clusterPolicy("later", fmt.Sprintf(denyAll, 90+i), later)
				s.says(later, "False Pending at 1: 1 of 1 node does not enforce generation 1: NODE-a")
				s.node.enforces()
				s.says(later, programmed(1, 1, 1))
				s.delete(later)
				if diff := cmp.Diff(before, s.conditions(p)); diff != "" {
					t.Errorf("after the change to %s the conditions are others (-before +after):\n%s", release.Name, diff)
				}
				if diff := cmp.Diff(writes, by.Writes(s.sigPath())); diff != "" {
					t.Errorf("after the change to %s the controller has written (-before +after):\n%s", release.Name, diff)
				}

				s.patch(p, fmt.Sprintf(`{"spec":{"priority":%d}}`, 50+i))
				s.says(p, fmt.Sprintf("False Pending at %[1]d: 1 of 1 node does not enforce generation %[1]d: NODE-a", generation+1))
				s.node.enforces()
				s.says(p, programmed(generation+1, 1, 1))
				written := by.Writes(s.sigPath())
				if last := written[len(written)-1]; !strings.Contains(last, "/"+release.Version+"/") {
					t.Errorf("after the change to %s the controller writes %s", release.Name, last)
				}
			}
		})
	}
}

// The SIG's standard channel has named ports in v0.2, and not in v0.3: what an API server then hands out is not what the policy's author wrote, and the
// policy says so.
func TestAPolicyThatTheNewDefinitionCutsShort(t *testing.T) {
	admin := sigAdmin(t)
	kit.Must(t, admin.Install(t.Context(), sig.V02, "standard"))
	startController(t, restConfig)
	s := begin(t)
	s.pod("one", s.node)
	s.clusterPolicy("p", `{tier: Admin, priority: 40, subject: {namespaces: {matchLabels: {story: NAMESPACE}}},
		ingress: [{action: Accept, from: [{namespaces: {}}], protocols: [{destinationNamedPort: http}]}]}`, s.sigs(sig.V02))
	s.saysOf(s.sigs(sig.V02), v1alpha1.AcceptedCondition, "True Accepted at 1: the policy is understood in full")
	kit.Must(t, admin.Change(t.Context(), sig.V03, "standard"))
	p := s.sigs(sig.V03)
	kit.EventuallySucceeds(t, patience, "what is not understood", func(ctx context.Context) error {
		status, err := s.statusOf(ctx, p)
		if err != nil {
			return err
		}
		if line := told(status, v1alpha1.AcceptedCondition); !strings.HasPrefix(line, "False NotUnderstood at 1: spec.ingress[0].protocols[0]: ") {
			return fmt.Errorf("it says %s", line)
		}
		return nil
	})
}

// sigAdmin is one who changes the SIG's CRD. The kind goes with the test.
func sigAdmin(t *testing.T) *sig.Admin {
	t.Helper()
	a, err := sig.NewAdmin(restConfig)
	kit.Must(t, err)
	kit.Must(t, a.Remove(t.Context())) // another test may have left it
	t.Cleanup(func() { kit.Must(t, a.Remove(context.Background())) })
	return a
}

// sigs is the story's policy p, as it is written and read in a release's version.
func (s *story) sigs(release sig.Release) client.Object {
	var o client.Object = &signetv1beta1.ClusterNetworkPolicy{}
	if release == sig.V02 {
		o = &signetv1alpha2.ClusterNetworkPolicy{}
	}
	o.SetName(s.namespace + "-p")
	return o
}

// sigPath is a part of the paths of requests for the status of the story's policy p.
func (s *story) sigPath() string { return "/clusternetworkpolicies/" + s.namespace + "-p/status" }

// conditions are all that is said of a policy.
func (s *story) conditions(p client.Object) []string {
	s.t.Helper()
	status, err := s.statusOf(s.t.Context(), p)
	kit.Must(s.t, err)
	var all []string
	for _, c := range status.Conditions {
		all = append(all, fmt.Sprint(c))
	}
	return all
}
