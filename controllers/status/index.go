package status

import (
	"maps"
	"slices"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/cached"
	"github.com/ringfence-io/ringfence/enforcer/compile"
)

// index is what the controller remembers of policies between two looks at them: which version of each it has seen and since when, whom it
// selects on which nodes, and what was written last.
//
// Goroutines of informers write what they see, by see, mark and forget. A worker begins a [transaction] with a policy, which has a copy of what is known, and
// commits what it has found. One worker at a time has a policy.
type index struct {
	mu       sync.Mutex
	policies map[policyKey]*known
	spaces   map[string]map[policyKey]*known // by namespace; those of the cluster under the empty name
	nodes    map[string]map[policyKey]bool   // those that run pods which a policy selects, whether they exist or not
}

func newIndex() *index {
	return &index{policies: map[policyKey]*known{}, spaces: map[string]map[policyKey]*known{}, nodes: map[string]map[policyKey]bool{}}
}

// see takes in a policy as the API shows it, and reports whether it is another version than before. One goroutine at a time shows a policy.
func (x *index) see(key policyKey, o metav1.Object, now time.Time) bool {
	if x.has(key, o) {
		return false
	}
	seen := versionOf(o, now) // without the lock: an object may take long to read, and who wrote it is not who waits
	x.mu.Lock()
	defer x.mu.Unlock()
	before := x.policies[key]
	seen.first = before == nil
	x.policies[key] = before.becomes(seen)
	if x.spaces[key.namespace] == nil {
		x.spaces[key.namespace] = map[policyKey]*known{}
	}
	x.spaces[key.namespace][key] = x.policies[key]
	return true
}

// has reports whether this version of a policy is known. What is known of it is of o from then on, so that a worker that has o need not compare, and the
// object that o has taken the place of is not kept.
func (x *index) has(key policyKey, o metav1.Object) bool {
	k := x.known(key)
	if k == nil || !k.version.isOf(o) { // without the lock, as in see: nobody else writes to the object of the version
		return false
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	k.version.object = o
	return true
}

func (x *index) known(key policyKey) *known {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.policies[key]
}

// begin begins a worker's transaction with a policy. It is not ok if the index knows another version than the worker has: the worker read a cache
// before it changed, or the change has not come to see yet.
func (x *index) begin(key policyKey, o metav1.Object, now time.Time) (tx *transaction, ok bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	k := x.policies[key]
	if k == nil || !k.version.isOf(o) {
		return nil, false
	}
	return &transaction{known: *k, index: x, key: key, now: now}, true
}

// place notes on which nodes a policy selects pods, and returns those of them that were not known to run such pods.
func (x *index) place(key policyKey, k *known, on []string) (fresh []string) {
	for _, node := range on {
		if !x.nodes[node][key] {
			fresh = append(fresh, node)
		}
	}
	for _, node := range k.judged.on {
		delete(x.nodes[node], key)
	}
	for _, node := range on {
		if x.nodes[node] == nil {
			x.nodes[node] = map[policyKey]bool{}
		}
		x.nodes[node][key] = true
	}
	for _, node := range k.judged.on {
		if len(x.nodes[node]) == 0 {
			delete(x.nodes, node)
		}
	}
	k.judged.on = on
	return fresh
}

// mark notes that something about a policy has changed, and what is known of it is not up to date. It returns how long the last look at this version took.
func (x *index) mark(key policyKey, review bool) (look time.Duration) {
	x.mu.Lock()
	defer x.mu.Unlock()
	k := x.policies[key]
	if k == nil {
		return 0
	}
	k.marks.count++
	k.marks.settled = false
	k.marks.review = k.marks.review || review
	return k.judged.took
}

// wrote reports whether an object that has a policy's status is as this process last wrote it, or older: what stood there before is what that write took the
// place of. The object's coming to the cache is no news then.
func (x *index) wrote(key policyKey, o metav1.Object) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	k := x.policies[key]
	return k != nil && k.written.resourceVersion != "" && cached.Reached(k.written.resourceVersion, o.GetResourceVersion())
}

// enforcementGone notes that a policy has no PolicyEnforcement any more.
func (x *index) enforcementGone(key policyKey) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if k := x.policies[key]; k != nil {
		k.written.gone()
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

// tied are the ClusterNetworkPolicies of the same tier and priority as one of these objects: what is said of conflicts depends on these alone.
func (x *index) tied(to ...metav1.Object) []policyKey {
	x.mu.Lock()
	defer x.mu.Unlock()
	var keys []policyKey
	for key, k := range x.spaces[""] {
		if slices.ContainsFunc(to, func(o metav1.Object) bool { return areTied(k.version.object, o) }) {
			keys = append(keys, key)
		}
	}
	return keys
}

func areTied(a, b metav1.Object) bool {
	p, ok := a.(*v1alpha1.ClusterNetworkPolicy)
	q, ranked := b.(*v1alpha1.ClusterNetworkPolicy)
	return ok && ranked && p.Spec.Priority == q.Spec.Priority && (p.Spec.Tier == v1alpha1.BaselineTier) == (q.Spec.Tier == v1alpha1.BaselineTier)
}

// selecting are the policies that select a pod.
func (x *index) selecting(p *compile.Pod, ns *compile.Namespace) []policyKey {
	x.mu.Lock()
	defer x.mu.Unlock()
	var keys []policyKey
	for _, space := range []string{"", p.Namespace} {
		for key, k := range x.spaces[space] {
			if k.version.understood.Selects(p, ns) {
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
		all = append(all, k.version.understood)
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
		if !x.policies[key].marks.settled {
			keys = append(keys, key)
		}
	}
	return keys
}

// countKey is what policies are counted by.
type countKey struct {
	resource   string
	programmed bool
}

// count counts the policies, by what was found when they were last judged.
func (x *index) count() map[countKey]int {
	x.mu.Lock()
	defer x.mu.Unlock()
	counts := map[countKey]int{}
	for key, k := range x.policies {
		counts[countKey{key.resource, k.judged.programmed}]++
	}
	return counts
}
