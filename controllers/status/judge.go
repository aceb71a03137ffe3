package status

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/cached"
	"github.com/ringfence-io/ringfence/enforcer/compile"
)

// What the controller knows of a policy and of the nodes becomes the policy's status here, by values alone.

// PolicyCase is what is known of one policy at one moment.
type PolicyCase struct {
	Resource   string // resource.group of its kind
	UID        types.UID
	Namespace  string
	Name       string
	Generation int64
	Mode       v1alpha1.Mode
	// Since is the resource version at which this generation was first seen. Empty: it was programmed before anybody here looked, so that
	// every report is recent enough.
	Since   string
	Remarks []compile.Remark
	// Nodes are those that run a selected pod, by name.
	Nodes map[string]*NodeCase
}

// NodeCase is a node that runs pods which a policy selects.
type NodeCase struct {
	Pods   []uint64            // digests of these
	Family v1alpha1.Family     // one that the pods have addresses of and the node does not enforce; empty if there is none
	Report *cached.ReportEntry // nil if the node has never reported
	Heard  bool                // the report is recent

	Presumed bool // it is, as long as nobody knows better: it was there before this process
}

// Judge makes the status of a policy. The previous conditions give the times of the transitions.
func Judge(c PolicyCase, previous []metav1.Condition) v1alpha1.EnforcementStatus {
	status := v1alpha1.EnforcementStatus{
		Conditions:         slices.Clone(previous),
		ObservedGeneration: c.Generation,
		ObservedSince:      c.Since,
		Mode:               c.Mode,
	}
	var troubles []v1alpha1.NodeTrouble
	for name, n := range c.Nodes {
		status.Pods += int32(len(n.Pods))
		status.Nodes.Desired++
		standing, message := n.standing(c)
		switch standing {
		case "":
			status.Nodes.Programmed++
			continue
		case v1alpha1.NodeFailing:
			status.Nodes.Failed++
		case v1alpha1.NodeUnknown:
			status.Nodes.Unknown++
		}
		troubles = append(troubles, v1alpha1.NodeTrouble{Name: name, Standing: standing, Message: cached.Shortened(message, cached.MaxMessage)})
	}
	slices.SortFunc(troubles, func(a, b v1alpha1.NodeTrouble) int {
		return cmp.Or(cmp.Compare(rank(a.Standing), rank(b.Standing)), cmp.Compare(a.Name, b.Name))
	})
	status.Nodes.Ready = fmt.Sprintf("%d/%d", status.Nodes.Programmed, status.Nodes.Desired)
	status.Nodes.NotProgrammed = troubles[:min(len(troubles), maxNamedNodes)]
	understood, enforced := accepted(c), programmed(c, &status)
	for _, condition := range []metav1.Condition{understood, enforced, ready(understood, enforced)} {
		condition.ObservedGeneration = c.Generation
		meta.SetStatusCondition(&status.Conditions, condition)
	}
	return status
}

// maxNamedNodes is how many nodes a status names.
const maxNamedNodes = 10

func rank(s v1alpha1.NodeStanding) int {
	return slices.Index([]v1alpha1.NodeStanding{v1alpha1.NodeFailing, v1alpha1.NodeUnknown, v1alpha1.NodePending}, s)
}

// The message about a node that fails. Its own words are for administrators.
const (
	refusedMessage = "it cannot put a change in force, and keeps what it had: its NodeEnforcement and its enforcer's log " +
		"have the reason, for administrators"
	refusedPartMessage = "its kernel refuses a part of it, which is closed: its NodeEnforcement and its enforcer's log have the reason, for administrators"
	largeMessage       = "it asks for more than the budget of a policy, of its namespace or of that node allows, and allows nothing there: " +
		"make it smaller, or several policies of it; the NodeEnforcement and the enforcer's log have the number, for administrators"
	unsureMessage = "the API server has not shown it all pods that the policy names, and what the policy says of these is closed until it does: " +
		"the NodeEnforcement and the enforcer's log say of which namespace they are, for administrators"
	refusedNamespaceMessage = "many policies of its namespace are refused there in part, and what is refused is closed: " +
		"the NodeEnforcement and the enforcer's log have the reasons, for administrators"
	waitingMessage    = "the policies of its namespace have changed so much that this takes it a while: until all is ready they are in force as they were"
	passedMessage     = "packets between pods of one bridge pass no rule there: its NodeEnforcement has the reason, for administrators"
	unreadableMessage = "it cannot tell what its kernel holds: its NodeEnforcement and its enforcer's log have the reason, for administrators"
)

// standing is empty if the node enforces the policy as it is now, on all of its pods.
func (n *NodeCase) standing(c PolicyCase) (v1alpha1.NodeStanding, string) {
	switch {
	case n.Report == nil:
		return v1alpha1.NodeUnknown, "no enforcer has reported from this node: see that a pod of the DaemonSet runs there"
	case !n.Heard:
		return v1alpha1.NodeUnknown, "its enforcer has not been heard of for too long: see what its pod says; what it enforced is still in force"
	case n.Report.Void:
		return v1alpha1.NodePending, "its enforcer has seen changes that the API server has lost, and is about to start anew"
	case n.Report.Unread:
		return v1alpha1.NodeFailing, unreadableMessage
	case n.Family != "":
		return v1alpha1.NodeFailing, fmt.Sprintf(
			"it does not enforce %s, and selected pods have such addresses: see the findings in its NodeEnforcement", n.Family)
	case n.Report.Reached(c.Resource, c.Since) && n.Report.Covers(n.Pods):
		if word := refusal(n.Report, c); word != "" {
			return v1alpha1.NodeFailing, word
		}
		if n.Report.Waits(c.Namespace) {
			return v1alpha1.NodePending, waitingMessage
		}
		return "", ""
	case n.Report.Failing:
		return v1alpha1.NodeFailing, refusedMessage
	case n.Report.Passed && !n.Report.Covers(n.Pods):
		return v1alpha1.NodeFailing, passedMessage
	case len(n.Report.Digests) >= v1alpha1.MaxPodDigests:
		return v1alpha1.NodeFailing, fmt.Sprintf("it has more than %d pods, and can report no more of them", v1alpha1.MaxPodDigests)
	}
	return v1alpha1.NodePending, "its next report is waited for"
}

// refusal says what a node refuses of a policy, empty if nothing.
func refusal(e *cached.ReportEntry, c PolicyCase) string {
	if len(e.Refused) == 0 {
		return ""
	}
	for _, one := range []struct {
		digest  uint64
		message string
	}{
		{cached.RefusedPolicy(c.UID), refusedPartMessage}, {cached.LargePolicy(c.UID), largeMessage},
		{cached.UnsurePolicy(c.UID), unsureMessage},
		{cached.RefusedNamespace(c.Namespace), refusedNamespaceMessage},
	} {
		if e.HasRefused(one.digest) {
			return one.message
		}
	}
	return ""
}

// accepted says how the policy was understood.
func accepted(c PolicyCase) metav1.Condition {
	condition := metav1.Condition{
		Type: v1alpha1.AcceptedCondition, Status: metav1.ConditionTrue,
		Reason: v1alpha1.AcceptedReason, Message: "the policy is understood in full",
	}
	if len(c.Remarks) == 0 {
		return condition
	}
	condition.Reason = c.Remarks[0].Reason
	if condition.Reason == v1alpha1.NotUnderstoodReason || condition.Reason == v1alpha1.TooLargeReason {
		condition.Status = metav1.ConditionFalse
	}
	const limit = 10
	var lines []string
	for _, r := range c.Remarks[:min(len(c.Remarks), limit)] {
		line := r.Detail
		if r.Field != "" {
			line = r.Field + ": " + line
		}
		lines = append(lines, cached.Shortened(line, 2*cached.MaxMessage))
	}
	if more := len(c.Remarks) - limit; more > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", more))
	}
	condition.Message = strings.Join(lines, "; ")
	return condition
}

// programmed says whether the nodes enforce the policy.
func programmed(c PolicyCase, s *v1alpha1.EnforcementStatus) metav1.Condition {
	condition := metav1.Condition{Type: v1alpha1.ProgrammedCondition, Status: metav1.ConditionTrue}
	switch {
	case s.Nodes.Desired == 0:
		condition.Reason = v1alpha1.NoPodsReason
		condition.Message = "no running pod is selected: there is nothing to enforce yet"
		return condition
	case s.Nodes.Programmed == s.Nodes.Desired:
		condition.Reason = v1alpha1.ProgrammedReason
		condition.Message = fmt.Sprintf("enforced on %s, on %s", cached.Counted(s.Pods, "pod"), cached.Counted(s.Nodes.Desired, "node"))
		if c.Mode == v1alpha1.Audit {
			condition.Message = fmt.Sprintf("audited on %s, on %s: nothing is denied by it",
				cached.Counted(s.Pods, "pod"), cached.Counted(s.Nodes.Desired, "node"))
		}
		return condition
	}
	condition.Status = metav1.ConditionFalse
	condition.Reason = map[v1alpha1.NodeStanding]string{
		v1alpha1.NodeFailing: v1alpha1.NodesFailingReason,
		v1alpha1.NodeUnknown: v1alpha1.NodesUnknownReason,
		v1alpha1.NodePending: v1alpha1.PendingReason,
	}[s.Nodes.NotProgrammed[0].Standing]
	missing := s.Nodes.Desired - s.Nodes.Programmed
	var names []string
	for _, t := range s.Nodes.NotProgrammed {
		names = append(names, t.Name)
	}
	if more := int(missing) - len(names); more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	condition.Message = fmt.Sprintf("%d of %s not enforce generation %d: %s", missing, doing(s.Nodes.Desired), c.Generation, strings.Join(names, ", "))
	if first := s.Nodes.NotProgrammed[0]; first.Standing != v1alpha1.NodePending {
		condition.Message += fmt.Sprintf("; %s: %s", first.Name, first.Message)
	}
	return condition
}

// ready says both in one.
func ready(accepted, programmed metav1.Condition) metav1.Condition {
	both := programmed
	if programmed.Status == metav1.ConditionTrue && accepted.Status != metav1.ConditionTrue {
		both = accepted
	}
	both.Type = v1alpha1.ReadyCondition
	return both
}

func doing(nodes int32) string {
	if nodes == 1 {
		return "1 node does"
	}
	return fmt.Sprintf("%d nodes do", nodes)
}

// sameStatus compares what two statuses say. Since when a generation is known may differ between two controllers, and is no news.
func sameStatus(a, b *v1alpha1.EnforcementStatus) bool {
	return a.ObservedGeneration == b.ObservedGeneration && a.Mode == b.Mode && a.Pods == b.Pods &&
		sameProgress(a, b) && sameConditions(a.Conditions, b.Conditions)
}

func sameProgress(a, b *v1alpha1.EnforcementStatus) bool {
	return a.Nodes.Ready == b.Nodes.Ready && a.Nodes.Desired == b.Nodes.Desired && a.Nodes.Programmed == b.Nodes.Programmed &&
		a.Nodes.Failed == b.Nodes.Failed &&
		a.Nodes.Unknown == b.Nodes.Unknown && slices.Equal(a.Nodes.NotProgrammed, b.Nodes.NotProgrammed)
}

// ourConditions are the types that we write.
var ourConditions = []string{v1alpha1.AcceptedCondition, v1alpha1.ProgrammedCondition, v1alpha1.ReadyCondition}

// sameConditions compares our conditions, whatever others the object has.
func sameConditions(a, b []metav1.Condition) bool {
	for _, kind := range ourConditions {
		x, y := meta.FindStatusCondition(a, kind), meta.FindStatusCondition(b, kind)
		if x == nil && y == nil {
			continue
		}
		if x == nil || y == nil || x.Status != y.Status || x.Reason != y.Reason || x.Message != y.Message || x.ObservedGeneration != y.ObservedGeneration {
			return false
		}
	}
	return true
}

// pendingAgain reports whether a version that was programmed everywhere merely waits for a report again.
func pendingAgain(before, now *v1alpha1.EnforcementStatus) bool {
	x, y := meta.FindStatusCondition(before.Conditions, v1alpha1.ProgrammedCondition), meta.FindStatusCondition(now.Conditions, v1alpha1.ProgrammedCondition)
	return x != nil && x.Status == metav1.ConditionTrue && x.Reason == v1alpha1.ProgrammedReason &&
		x.ObservedGeneration == y.ObservedGeneration && before.Mode == now.Mode &&
		y.Reason == v1alpha1.PendingReason
}

// recoveryIsPresumed reports whether a policy with unknown nodes would be called programmed, or pending, by mere presumption. Another process has said so who
// had listened for long enough; nodes that live are heard of in a moment, and the others are soon unknown again.
func recoveryIsPresumed(before, now *v1alpha1.EnforcementStatus, nodes map[string]*NodeCase) bool {
	x, y := meta.FindStatusCondition(before.Conditions, v1alpha1.ProgrammedCondition), meta.FindStatusCondition(now.Conditions, v1alpha1.ProgrammedCondition)
	if x == nil || x.Reason != v1alpha1.NodesUnknownReason || x.ObservedGeneration != y.ObservedGeneration ||
		y.Status != metav1.ConditionTrue && y.Reason != v1alpha1.PendingReason {
		return false
	}
	for _, n := range nodes {
		if n.Presumed {
			return true
		}
	}
	return false
}

// sameVerdict reports whether nothing that a person waits for differs: neither what the conditions say, nor of which generation.
func sameVerdict(a, b *v1alpha1.EnforcementStatus) bool {
	for _, kind := range []string{v1alpha1.AcceptedCondition, v1alpha1.ProgrammedCondition} {
		x, y := meta.FindStatusCondition(a.Conditions, kind), meta.FindStatusCondition(b.Conditions, kind)
		if x == nil || y == nil || x.Status != y.Status || x.Reason != y.Reason || x.ObservedGeneration != y.ObservedGeneration {
			return false
		}
	}
	return a.Mode == b.Mode
}
