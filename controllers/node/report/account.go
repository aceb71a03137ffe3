package report

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/cached"
	"github.com/ringfence-io/ringfence/enforcer"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// Synced is what came of one sync, with what it was made from.
type Synced struct {
	Report enforcer.Report
	// ResourceVersions are, by resource.group, how far the caches had seen each kind of policy before the snapshot was taken.
	ResourceVersions map[string]string
	Err              error
	At               time.Time
	// Nodes says how many nodes run pods of a namespace, or of any with the empty name: at most as many are concerned by a policy there. Nil counts
	// as one.
	Nodes func(namespace string) int
	// UnknownPods is what there is to say of unknown pods, nil if nothing: their condition.
	UnknownPods *metav1.Condition
	// Sources is what there is to say of what pods send from, and SourceCheck how many links are tied to their pods; nil if nothing.
	Sources     *metav1.Condition
	SourceCheck *v1alpha1.SourceCheckStatus
	// Facts are what there is to say of the node itself from now on, nil if that is what it was.
	Facts *v1alpha1.NodeEnforcementStatus
	// Unpoliced are digests of pods that have traffic which passes no rule: the report does not claim them. Bridges is the condition about them, nil if
	// there is none.
	Unpoliced []uint64
	Bridges   *metav1.Condition
}

// Account is what a node says of itself, sync after sync. It does no I/O, and reads no clock.
type Account struct {
	status   v1alpha1.NodeEnforcementStatus
	applied  map[policy.Object]bool // what the last sync that succeeded has put in force
	from     []policy.Object        // the objects that applied was made of
	without  []enforcer.Refused     // likewise
	texts    string                 // those of applied, for concern
	failing  []policy.Object
	said     *saying // what failing was made of; nil if that was an error
	reported concern // as of the last sync
	fanOut   int     // how many nodes may have something to write because of what the last sync found changed
}

// NewAccount starts from what does not change as long as the enforcer runs.
func NewAccount(facts v1alpha1.NodeEnforcementStatus) *Account {
	a := &Account{status: facts}
	a.take(&facts)
	a.reported = a.concern()
	return a
}

// Status is the account, without the times of its writes.
func (a *Account) Status() v1alpha1.NodeEnforcementStatus { return a.status }

// take takes in what there is to say of the node itself, as far as it may change, in the bounds of the schema.
func (a *Account) take(facts *v1alpha1.NodeEnforcementStatus) {
	a.status.Backend, a.status.IPTablesVersion, a.status.Table = facts.Backend, facts.IPTablesVersion, facts.Table
	a.status.Families = slices.Clone(facts.Families)
	a.status.Findings = nil
	for _, f := range facts.Findings[:min(len(facts.Findings), v1alpha1.MaxFindings)] {
		for _, text := range []*string{&f.Detail, &f.Cost, &f.Remedy} {
			*text = cached.Plain(*text, cached.MaxMessage)
		}
		a.status.Findings = append(a.status.Findings, f)
	}
}

// Note takes in a sync, and reports whether anything that concerns the node has changed: that is worth a write. How far the caches have
// come, and how many addresses the sets hold, changes with every pod and policy of the cluster, and is written with the rest.
func (a *Account) Note(s Synced) (changed bool) {
	applied, failing := a.applied, a.failing
	a.noteRepairs(s)
	if s.Facts != nil {
		a.take(s.Facts)
	}
	if s.Bridges != nil {
		a.set(*s.Bridges, s.At)
	}
	if s.Err != nil {
		a.refused(s)
	} else {
		a.succeeded(s)
	}
	a.status.Addresses = AddressTroubles(s.Report.Concerns)
	says := a.concern()
	changed = says != a.reported
	a.reported, a.fanOut = says, 1
	if changed {
		a.fanOut = fanOutOf(spokenOf(applied, failing), spokenOf(a.applied, a.failing), s.Nodes)
	}
	return changed
}

// spoken are the policies that an account speaks of.
type spoken struct{ applied, failing map[policy.Object]bool }

func spokenOf(applied map[policy.Object]bool, failing []policy.Object) spoken {
	s := spoken{applied, make(map[policy.Object]bool, len(failing))}
	for _, o := range failing {
		s.failing[o] = true
	}
	return s
}

func (s spoken) has(o policy.Object) bool { return s.applied[o] || s.failing[o] }

// fanOutOf is the largest number of nodes that one of the changes may concern.
func fanOutOf(before, after spoken, nodes func(namespace string) int) int {
	fanOut := 1
	if nodes == nil {
		return fanOut
	}
	seen := map[string]bool{}
	for _, change := range [][2]spoken{{before, after}, {after, before}} {
		for _, all := range []map[policy.Object]bool{change[0].applied, change[0].failing} {
			for o := range all {
				if namespace := o.Ref.Namespace; !seen[namespace] && !change[1].has(o) {
					seen[namespace] = true
					fanOut = max(fanOut, nodes(namespace))
				}
			}
		}
	}
	return fanOut
}

func (a *Account) noteRepairs(s Synced) {
	if s.Report.Repairs.Empty() {
		return
	}
	at := metav1.NewTime(s.At)
	var parts []string
	for what, n := range s.Report.Repairs.Counts() {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%s: %d", what, n))
		}
	}
	slices.Sort(parts)
	a.status.Repairs = v1alpha1.Repairs{
		Count: a.status.Repairs.Count + 1, LastTime: &at, Last: "others had changed " + strings.Join(parts, ", "),
	}
}

func (a *Account) succeeded(s Synced) {
	a.apply(s.Report.Concerns.Objects, s.Report.Refused)
	a.sayRefused(s.Report.Refused, s.Report.Waiting)
	c := s.Report.Counts
	pods := s.Report.Concerns.Pods
	policed := slices.DeleteFunc(slices.Clone(pods), func(digest uint64) bool { return slices.Contains(s.Unpoliced, digest) })
	a.status.Applied = &v1alpha1.Applied{
		Time:             metav1.NewMicroTime(s.At),
		ResourceVersions: maps.Clone(s.ResourceVersions),
		PodDigests:       cached.PackDigests(policed[:min(len(policed), v1alpha1.MaxPodDigests)]),
		Counts: v1alpha1.Counts{
			Policies: int32(len(s.Report.Concerns.Objects)), Pods: int32(len(pods)),
			Chains: int32(c.Chains), Rules: int32(c.Rules), Sets: int32(c.Sets), Entries: int32(c.Entries),
		},
	}
	a.condition(metav1.ConditionTrue, v1alpha1.EnforcingReason, enforcingMessage(len(s.Report.Refused), len(s.Report.Waiting)), s.At)
	a.status.SourceCheck = s.SourceCheck
	for _, c := range []*metav1.Condition{s.UnknownPods, s.Sources} {
		if c != nil {
			a.set(*c, s.At)
		}
	}
}

// apply notes what is in force. Where the lists are the very ones of the last sync, it is what it was: a pod elsewhere comes more often than a policy changes.
func (a *Account) apply(concerned []policy.Object, refused []enforcer.Refused) {
	if len(concerned) > 0 && policy.IsOneSlice(concerned, a.from) && policy.IsOneSlice(refused, a.without) {
		return
	}
	a.from, a.without = concerned, refused
	a.applied = make(map[policy.Object]bool, len(concerned))
	for _, o := range concerned {
		a.applied[o] = true
	}
	for _, r := range refused {
		delete(a.applied, r.Object)
	}
	var text []byte
	for _, o := range slices.SortedFunc(maps.Keys(a.applied), compareObjects) {
		text = append(text, o.UID...)
		text = strconv.AppendInt(append(text, ' '), o.Generation, 10)
		text = strconv.AppendQuote(append(text, ' '), o.Mode)
		text = append(strconv.AppendBool(append(text, ' '), o.Audit), '\n')
	}
	a.texts = string(text)
}

// refused keeps what was applied, and names the policies that are not in force as they are now: what the kernel refuses may be one
// policy's, and holds up the others that changed with it.
func (a *Account) refused(s Synced) {
	a.failing, a.said = nil, nil
	for _, o := range s.Report.Concerns.Objects {
		if !a.applied[o] || s.Report.Unread {
			a.failing = append(a.failing, o)
		}
	}
	message := cached.Plain(s.Err.Error(), cached.MaxMessage)
	a.status.Failing = int32(len(a.failing))
	a.status.FailingPolicies = nil
	for _, o := range a.failing[:min(len(a.failing), v1alpha1.MaxFailingPolicies)] {
		a.status.FailingPolicies = append(a.status.FailingPolicies, v1alpha1.FailingPolicy{
			Kind: o.Ref.Kind, Namespace: o.Ref.Namespace, Name: o.Ref.Name, Generation: o.Generation, Message: message,
		})
	}
	reason := v1alpha1.RefusedReason
	if s.Report.Unread {
		reason = v1alpha1.UnreadableReason
	}
	a.condition(metav1.ConditionFalse, reason, message, s.At)
}

func (a *Account) condition(status metav1.ConditionStatus, reason, message string, at time.Time) {
	a.set(metav1.Condition{Type: v1alpha1.EnforcingCondition, Status: status, Reason: reason, Message: message}, at)
}

// set changes a condition; the time of the transition stays where the status does.
func (a *Account) set(c metav1.Condition, at time.Time) {
	c.LastTransitionTime = metav1.NewTime(at)
	meta.SetStatusCondition(&a.status.Conditions, c)
}

// concern is the part of the account whose change is worth a write, as texts that can be compared: those of policies, which may be long and are mostly the very
// same, and all else.
type concern struct{ policies, rest string }

func (a *Account) concern() concern {
	var b strings.Builder
	if a.status.Applied != nil {
		b.Write(a.status.Applied.PodDigests)
	}
	fmt.Fprintln(&b, a.failing, a.status.Repairs.Count)
	// Which addresses are contested, and those of others, change with every pod of the cluster where nodes share a range.
	fmt.Fprintln(&b, a.status.Addresses != nil && a.status.Addresses.Contested > 0)
	fmt.Fprintln(&b, a.status.Backend, a.status.Table, a.status.Families, a.status.Findings)
	b.Write(a.status.Refused)
	for _, c := range a.status.Conditions {
		fmt.Fprintln(&b, c.Status, c.Reason, c.Message)
	}
	return concern{a.texts, b.String()}
}

func compareObjects(a, b policy.Object) int { return a.Ref.Compare(b.Ref) }
