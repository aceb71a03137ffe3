package controllers

import (
	"maps"
	"slices"
	"sync"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer/compile"
)

// index is what the controller remembers of policies between two looks at them: which version of each it has seen and since when, whom it
// selects on which nodes, and what was written last.
//
// Goroutines of informers write what they see while workers look at policies. A worker takes a copy, and gives back what it found.
type index struct {
	mu       sync.Mutex
	policies map[policyKey]*known
	spaces   map[string]map[policyKey]*known // by namespace; those of the cluster under the empty name
	nodes    map[string]map[policyKey]bool   // those that run pods which a policy selects, whether they exist or not
}

// known is one policy.
type known struct {
	uid        types.UID
	generation int64
	mode       string // that the policy itself says, in an annotation which has no generation
	object     metav1.Object
	understood *compile.Understood
	since      string    // resource version at which this version was first seen
	seen       time.Time // likewise
	first      bool      // the first version of the policy that this process sees: another may have seen it before

	remarks    []compile.Remark
	unreviewed bool      // what the remarks are about has changed
	marks      int       // how often the policy was marked
	settled    bool      // programmed everywhere, and not marked since
	programmed bool      // everywhere, when it was last looked at
	slippedAt  time.Time // that it was found not to be programmed any more, for want of a report
	timed      bool      // how long programming took has been recorded
	on         []string

	made           bool // a PolicyEnforcement, which the cache may not have yet
	written        *v1alpha1.EnforcementStatus
	writtenVersion string
	writtenAt      time.Time
}

func newIndex() *index {
	return &index{policies: map[policyKey]*known{}, spaces: map[string]map[policyKey]*known{}, nodes: map[string]map[policyKey]bool{}}
}

// see takes in a policy as the API tells of it, and reports whether it is another version than before. One goroutine at a time tells of a policy.
func (x *index) see(key policyKey, o metav1.Object, now time.Time) bool {
	if x.has(key, o) {
		return false
	}
	understood := compile.Understand(objectOf(o)) // without the lock: an object may take long to read, and who wrote it is not who waits
	x.mu.Lock()
	defer x.mu.Unlock()
	before := x.policies[key]
	after := &known{
		uid: o.GetUID(), generation: o.GetGeneration(), mode: ownMode(o), object: o, understood: understood,
		since: o.GetResourceVersion(), seen: now, first: before == nil, unreviewed: true,
	}
	if before != nil {
		after.marks, after.on = before.marks, before.on
	}
	if before != nil && before.uid == o.GetUID() {
		after.made, after.written, after.writtenVersion, after.writtenAt = before.made, before.written, before.writtenVersion, before.writtenAt
	}
	x.policies[key] = after
	if x.spaces[key.namespace] == nil {
		x.spaces[key.namespace] = map[policyKey]*known{}
	}
	x.spaces[key.namespace][key] = after
	return true
}

// has reports whether this version of a policy is known.
func (x *index) has(key policyKey, o metav1.Object) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	k := x.policies[key]
	return k != nil && k.isOf(o)
}

// isOf reports whether k is this version of a policy. The generation alone does not tell: once a CustomResourceDefinition (CRD) has lost a field, the API
// server hands objects out without it, and counts no new generation.
func (k *known) isOf(o metav1.Object) bool { return k.object == o || sameForPolicy(k.object, o) }

// ownMode is the mode that a policy says of itself outside of its spec.
func ownMode(o metav1.Object) string {
	if np, ok := o.(*networkingv1.NetworkPolicy); ok {
		return np.Annotations[v1alpha1.ModeAnnotation]
	}
	return ""
}

func objectOf(o metav1.Object) compile.Object {
	switch o := o.(type) {
	case *networkingv1.NetworkPolicy:
		return compile.Object{NetworkPolicy: o}
	case *v1alpha1.ClusterNetworkPolicy:
		return compile.Object{ClusterNetworkPolicy: o}
	case *v1alpha1.NamespaceIsolation:
		return compile.Object{NamespaceIsolation: o}
	}
	return compile.Object{}
}

// begin is what is known of a policy that a worker looks at now. It is not ok if that is another version than the worker has: the worker read
// a cache before it changed, or the change has not come to see yet.
func (x *index) begin(key policyKey, o metav1.Object) (known, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	k := x.policies[key]
	if k == nil || !k.isOf(o) {
		return known{}, false
	}
	return *k, true
}

// restore takes over since when this version is known from the status that another process wrote, and reports whether it did. A status that
// says nothing of that, and calls the version programmed, was right when it was written: the nodes that were desired then have it, and one that
// is desired since reports its pods. One of another mode than the present one speaks of another version: a mode has no generation. Nor was a
// version seen before it was there: what says so was written by somebody else.
func (k *known) restore(status *v1alpha1.EnforcementStatus, mode v1alpha1.Mode) bool {
	if !k.first || k.written != nil {
		return false
	}
	c := meta.FindStatusCondition(status.Conditions, v1alpha1.ProgrammedCondition)
	if c == nil || c.ObservedGeneration != k.generation || status.Mode != "" && status.Mode != mode {
		return false
	}
	if status.ObservedSince == "" && c.Status != metav1.ConditionTrue || status.ObservedSince != "" && !reached(k.since, status.ObservedSince) {
		return false
	}
	k.since = status.ObservedSince
	return true
}

// restored keeps what restore found.
func (x *index) restored(key policyKey, p known) {
	x.update(key, p, func(k *known) { k.since, k.first, k.timed = p.since, false, true })
}

// update changes what is known of a policy, unless another version of it has come meanwhile.
func (x *index) update(key policyKey, p known, change func(*known)) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if k := x.policies[key]; k != nil && k.uid == p.uid && k.generation == p.generation && k.mode == p.mode {
		change(k)
	}
}

// end takes in what a worker found: on which nodes the policy selects pods, and whether it is programmed on all. It returns those of the
// nodes that were not known to run pods which the policy selects: what has happened to them while the worker looked has marked nothing.
func (x *index) end(key policyKey, p known, nodes map[string]*nodeCase, absent []string, programmed bool, now time.Time) (fresh []string) {
	on := absent
	for name := range nodes {
		on = append(on, name)
	}
	x.update(key, p, func(k *known) {
		for _, name := range on {
			if !x.nodes[name][key] {
				fresh = append(fresh, name)
			}
		}
		x.place(key, k, on)
		k.remarks, k.first, k.programmed = p.remarks, false, programmed
		if k.marks == p.marks {
			k.settled, k.unreviewed = programmed, false
		}
		if programmed && !k.timed {
			k.timed = true
			programmingSeconds.Observe(now.Sub(k.seen).Seconds())
		}
	})
	return fresh
}

// place notes on which nodes a policy selects pods.
func (x *index) place(key policyKey, k *known, on []string) {
	for _, node := range k.on {
		delete(x.nodes[node], key)
	}
	for _, node := range on {
		if x.nodes[node] == nil {
			x.nodes[node] = map[policyKey]bool{}
		}
		x.nodes[node][key] = true
	}
	for _, node := range k.on {
		if len(x.nodes[node]) == 0 {
			delete(x.nodes, node)
		}
	}
	k.on = on
}

// mark notes that something about a policy has changed, and what is known of it is not up to date.
func (x *index) mark(key policyKey, review bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if k := x.policies[key]; k != nil {
		k.marks++
		k.settled = false
		k.unreviewed = k.unreviewed || review
	}
}

// slip notes whether a policy that is written to be programmed is not, for want of a report, and says how long that need not be written yet.
func (x *index) slip(key policyKey, slipped bool, now time.Time) time.Duration {
	x.mu.Lock()
	defer x.mu.Unlock()
	k := x.policies[key]
	switch {
	case k == nil:
		return 0
	case !slipped:
		k.slippedAt = time.Time{}
		return 0
	case k.slippedAt.IsZero():
		k.slippedAt = now
	}
	return k.slippedAt.Add(podGrace).Sub(now)
}

// wrote notes what was written about a policy, and the resource version that came of it.
func (x *index) wrote(key policyKey, uid types.UID, status *v1alpha1.EnforcementStatus, version string, now time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if k := x.policies[key]; k != nil && k.uid == uid {
		k.written, k.writtenVersion, k.writtenAt = status, version, now
	}
}

// made notes that a policy has a PolicyEnforcement now, at a resource version.
func (x *index) made(key policyKey, uid types.UID, version string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if k := x.policies[key]; k != nil && k.uid == uid {
		k.made, k.writtenVersion = true, version
	}
}

// unmade notes that there is none.
func (x *index) unmade(key policyKey) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if k := x.policies[key]; k != nil {
		k.made, k.written, k.writtenVersion = false, nil, ""
	}
}

func (x *index) forget(key policyKey) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.forgetLocked(key)
}

func (x *index) forgetLocked(key policyKey) {
	if k := x.policies[key]; k != nil {
		x.place(key, k, nil)
		delete(x.policies, key)
		delete(x.spaces[key.namespace], key)
		if len(x.spaces[key.namespace]) == 0 {
			delete(x.spaces, key.namespace)
		}
	}
}

// forgetKind forgets all policies of a resource that the API does not have any more.
func (x *index) forgetKind(resource string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for key := range x.policies {
		if key.resource == resource {
			x.forgetLocked(key)
		}
	}
}

// in are the policies of a namespace, or with the empty name those of the cluster.
func (x *index) in(namespace string) []policyKey {
	x.mu.Lock()
	defer x.mu.Unlock()
	return slices.Collect(maps.Keys(x.spaces[namespace]))
}

// selecting are the policies that select a pod.
func (x *index) selecting(p *compile.Pod, ns *compile.Namespace) []policyKey {
	x.mu.Lock()
	defer x.mu.Unlock()
	var keys []policyKey
	for _, space := range []string{"", p.Namespace} {
		for key, k := range x.spaces[space] {
			if k.understood.Selects(p, ns) {
				keys = append(keys, key)
			}
		}
	}
	return keys
}

// clusterPolicies are all ClusterNetworkPolicies, the SIG's too.
func (x *index) clusterPolicies() []*compile.Understood {
	x.mu.Lock()
	defer x.mu.Unlock()
	var all []*compile.Understood
	for _, k := range x.spaces[""] {
		all = append(all, k.understood)
	}
	return all
}

// on are the policies that select pods on a node.
func (x *index) on(node string) []policyKey {
	x.mu.Lock()
	defer x.mu.Unlock()
	return slices.Collect(maps.Keys(x.nodes[node]))
}

// waitingFor are those of them that are not programmed everywhere, as far as is known.
func (x *index) waitingFor(node string) []policyKey {
	x.mu.Lock()
	defer x.mu.Unlock()
	var keys []policyKey
	for key := range x.nodes[node] {
		if !x.policies[key].settled {
			keys = append(keys, key)
		}
	}
	return keys
}

// standing is what policies are counted by.
type standing struct {
	resource   string
	programmed bool
}

// count counts the policies, by what was found when they were last looked at.
func (x *index) count() map[standing]int {
	x.mu.Lock()
	defer x.mu.Unlock()
	counts := map[standing]int{}
	for key, k := range x.policies {
		counts[standing{key.resource, k.programmed}]++
	}
	return counts
}
