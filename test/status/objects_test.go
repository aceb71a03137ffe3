package status

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/test/kit"
)

func (s *story) get(o client.Object) {
	s.t.Helper()
	kit.Must(s.t, s.c.Get(s.t.Context(), client.ObjectKeyFromObject(o), o))
}

// enforcementSays waits until the counts of a PolicyEnforcement are as wanted.
func (s *story) enforcementSays(name, counts string) {
	s.t.Helper()
	kit.EventuallySucceeds(s.t, patience, "the counts of "+name, func(ctx context.Context) error {
		e := s.enforcement(name)
		if err := s.c.Get(ctx, client.ObjectKeyFromObject(e), e); err != nil {
			return err
		}
		if got := figures(&e.Status.EnforcementStatus); got != counts {
			return fmt.Errorf("%s, want %s", got, counts)
		}
		return nil
	})
}

// ownedBy waits until a PolicyEnforcement is owned by this very NetworkPolicy, and says what it says.
func (s *story) ownedBy(np *networkingv1.NetworkPolicy, want string) {
	s.t.Helper()
	kit.EventuallySucceeds(s.t, patience, "a PolicyEnforcement", func(ctx context.Context) error {
		e := s.enforcement(np.Name)
		if err := s.c.Get(ctx, client.ObjectKeyFromObject(e), e); err != nil {
			return err
		}
		owner := []metav1.OwnerReference{{APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicy", Name: np.Name, UID: np.UID}}
		if diff := cmp.Diff(owner, e.OwnerReferences); diff != "" {
			return fmt.Errorf("owner (-want +got):\n%s", diff)
		}
		if got := told(&e.Status.EnforcementStatus, v1alpha1.ProgrammedCondition); got != want {
			return fmt.Errorf("it says %s, want %s", got, want)
		}
		return nil
	})
}

func aPolicyIsMadeAnew(s *story) {
	s.pod("one", s.node)
	np := s.policy("web", everyPod)
	s.node.enforces()
	s.ownedBy(np, programmed(1, 1, 1))
	v := s.follow(&v1alpha1.PolicyEnforcementList{}, s.namespace)

	s.delete(np)
	next := s.policy("web", everyPod)
	pending := "False Pending at 1: 1 of 1 node does not enforce generation 1: " + s.node.name
	s.ownedBy(next, pending)
	e := s.enforcement("web")
	s.get(e)
	for _, o := range v.all(e) {
		line := told(statusIn(o), v1alpha1.ProgrammedCondition)
		if o.GetOwnerReferences()[0].UID == next.UID && line != "nothing" && line != pending {
			s.t.Errorf("of the new policy it was said, before any node had it: %s", line)
		}
	}
	s.node.enforces()
	s.ownedBy(next, programmed(1, 1, 1))

	s.delete(next)
	kit.EventuallySucceeds(s.t, patience, "the PolicyEnforcement to go", func(ctx context.Context) error {
		if err := s.c.Get(ctx, client.ObjectKeyFromObject(e), e); !apierrors.IsNotFound(err) {
			return fmt.Errorf("it is there: %w", err)
		}
		return nil
	})
}

func whatIsSaidIsDeleted(s *story) {
	s.pod("one", s.node)
	np := s.policy("web", everyPod)
	s.node.enforces()
	s.ownedBy(np, programmed(1, 1, 1))
	for range 5 {
		e := s.enforcement("web")
		s.get(e)
		s.delete(e)
		kit.EventuallySucceeds(s.t, patience, "another PolicyEnforcement", func(ctx context.Context) error {
			again := s.enforcement("web")
			if err := s.c.Get(ctx, client.ObjectKeyFromObject(e), again); err != nil {
				return err
			}
			if again.UID == e.UID {
				return errors.New("it is the old one")
			}
			return nil
		})
		s.ownedBy(np, programmed(1, 1, 1))
	}
}

func whatIsSaidIsOverwritten(s *story) {
	s.pod("one", s.node)
	np := s.policy("web", everyPod)
	s.node.enforces()
	s.ownedBy(np, programmed(1, 1, 1))
	for _, nonsense := range []string{
		`{"status":null}`,
		`{"status":{"conditions":null}}`,
		`{"status":{"policyGeneration":77,"mode":"Audit","pods":5}}`,
		`{"status":{"nodes":{"desired":9,"programmed":8,"failed":7,"unknown":6}}}`,
		`{"status":{"nodes":{"notProgrammed":[{"name":"nobody","standing":"Failing","message":"not at all"}]}}}`,
		`{"status":{"conditions":[{"type":"Programmed","status":"False","reason":"No","message":"not at all","observedGeneration":9,"lastTransitionTime":"2020-01-01T00:00:00Z"}]}}`,
	} {
		kit.Must(s.t, s.c.Status().Patch(s.t.Context(), s.enforcement("web"), client.RawPatch(types.MergePatchType, []byte(nonsense))))
		kit.EventuallySucceeds(s.t, patience, "an end of "+nonsense, func(ctx context.Context) error {
			status, err := s.statusOf(ctx, np)
			if err != nil {
				return err
			}
			want := "1 pods, 1 nodes: 1 programmed, 0 failed, 0 unknown, in Enforce at 1, 0 not programmed: " + programmed(1, 1, 1)
			got := fmt.Sprintf("%s, in %s at %d, %d not programmed: %s", figures(status), status.Mode, status.ObservedGeneration, len(status.Nodes.NotProgrammed),
				told(status, v1alpha1.ProgrammedCondition))
			if diff := cmp.Diff(want, got); diff != "" {
				return fmt.Errorf("(-want +got):\n%s", diff)
			}
			return nil
		})
	}
	s.patch(s.enforcement("web"), `{"metadata":{"ownerReferences":null}}`)
	s.ownedBy(np, programmed(1, 1, 1))
}

// aNewGeneration: whatever version of its status anybody reads, it calls no generation programmed that a node has not.
func aNewGeneration(s *story) {
	b := s.newNode("b")
	s.pod("one", s.node)
	s.pod("two", b)
	np := s.policy("web", everyPod)
	s.node.enforces()
	b.enforces()
	s.says(np, programmed(1, 2, 2))
	reports := s.follow(&v1alpha1.NodeEnforcementList{}, "")
	statuses := s.follow(&v1alpha1.PolicyEnforcementList{}, s.namespace)
	born := map[int64]string{} // the resource version of each generation
	for round := range 4 {
		s.patch(np, fmt.Sprintf(`{"spec":{"podSelector":{"matchExpressions":[{"key":"no-%d","operator":"DoesNotExist"}]}}}`, round))
		born[np.Generation] = np.ResourceVersion
		if round%2 == 0 { // the first report comes before anybody can have said anything
			s.node.enforces()
			s.says(np, fmt.Sprintf("False Pending at %d: 1 of 2 nodes do not enforce generation %d: NODE-b", np.Generation, np.Generation))
		} else {
			s.says(np, fmt.Sprintf("False Pending at %d: 2 of 2 nodes do not enforce generation %d: NODE-a, NODE-b", np.Generation, np.Generation))
			s.node.enforces()
		}
		b.enforces()
		s.says(np, programmed(int(np.Generation), 2, 2))
	}
	e := s.enforcement("web")
	s.get(e)
	var all []client.Object
	all = append(all, statuses.all(e)...)
	o := &v1alpha1.NodeEnforcement{ObjectMeta: metav1.ObjectMeta{Name: b.name}}
	s.get(o)
	for _, report := range reports.all(o) {
		if strings.HasPrefix(report.GetName(), s.namespace) {
			all = append(all, report)
		}
	}
	s.judgeVersions(all, born)
}

// judgeVersions goes through reports and statuses in the order in which they were written.
func (s *story) judgeVersions(all []client.Object, born map[int64]string) {
	at := func(version string) int64 {
		n, err := strconv.ParseInt(version, 10, 64)
		kit.Must(s.t, err)
		return n
	}
	good := 0
	for _, o := range all {
		c := meta.FindStatusCondition(conditionsIn(o), v1alpha1.ProgrammedCondition)
		if c == nil || c.Status != metav1.ConditionTrue || c.ObservedGeneration == 1 {
			continue
		}
		for _, node := range []string{"-a", "-b"} {
			last := ""
			for _, r := range all {
				if report, ok := r.(*v1alpha1.NodeEnforcement); ok && report.Name == s.namespace+node && at(report.ResourceVersion) < at(o.GetResourceVersion()) {
					if v := report.Status.Applied.ResourceVersions[kinds[0]]; last == "" || at(v) > at(last) {
						last = v
					}
				}
			}
			if last == "" || at(last) < at(born[c.ObservedGeneration]) {
				s.t.Errorf("version %s says that generation %d is programmed; it was born at %s, and %s was at %q", o.GetResourceVersion(), c.ObservedGeneration,
					born[c.ObservedGeneration], node, last)
			}
		}
		good++
	}
	if good < len(born) {
		s.t.Errorf("%d versions say that a generation is programmed, want one for each of %d", good, len(born))
	}
}

func conditionsIn(o client.Object) []metav1.Condition {
	if status := statusIn(o); status != nil {
		return status.Conditions
	}
	return nil
}

func modes(s *story) {
	const audited = "True Programmed at 1: audited on 1 pod, on 1 node: nothing is denied by it"
	s.pod("one", s.node)
	np := s.policy("web", everyPod)
	s.node.enforces()
	s.says(np, programmed(1, 1, 1))
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.namespace}}
	annotate := func(o client.Object, mode string) {
		s.t.Helper()
		s.patch(o, fmt.Sprintf(`{"metadata":{"annotations":{%q:%s}}}`, v1alpha1.ModeAnnotation, mode))
	}
	pending := "False Pending at 1: 1 of 1 node does not enforce generation 1: NODE-a"
	for _, step := range []struct {
		of   client.Object
		mode string
		want string
		is   v1alpha1.Mode
	}{
		{np, `"Audit"`, audited, v1alpha1.Audit},
		{ns, `"Audit"`, audited, v1alpha1.Audit}, // the policy's own goes first, but its pods are other ones now
		{np, `"Enforce"`, programmed(1, 1, 1), v1alpha1.Enforce},
		{np, `null`, audited, v1alpha1.Audit},
		{ns, `null`, programmed(1, 1, 1), v1alpha1.Enforce},
	} {
		annotate(step.of, step.mode)
		s.says(np, pending)
		s.node.enforces()
		s.says(np, step.want)
		if status, err := s.statusOf(s.t.Context(), np); err != nil || status.Mode != step.is {
			s.t.Errorf("the mode is %q (%v), want %s", status.Mode, err, step.is)
		}
	}
}
