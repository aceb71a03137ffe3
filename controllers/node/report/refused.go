package report

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/cached"
	"github.com/ringfence-io/ringfence/enforcer"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// What a node refuses of single policies is reported by digests, which take 8 bytes each: the status of a policy must never say that it is in force where it is
// not, and one tenant with many such policies must not take the room of others.

// refusedDigests are at most limit digests: where there are more policies, those namespaces that have most of them are named as a whole. Namespaces that wait
// come first.
func refusedDigests(refused []enforcer.Refused, waiting []string, limit int) []byte {
	var all []uint64
	for _, namespace := range waiting[:min(len(waiting), limit)] {
		all = append(all, cached.WaitingNamespace(namespace))
	}
	limit -= len(all)
	of := map[string][]uint64{}
	for _, r := range refused {
		digest := cached.RefusedPolicy
		switch {
		case r.TooLarge:
			digest = cached.LargePolicy
		case r.Unknown:
			digest = cached.UnsurePolicy
		}
		of[r.Object.Ref.Namespace] = append(of[r.Object.Ref.Namespace], digest(types.UID(r.Object.UID)))
	}
	left := len(refused)
	largest := slices.SortedFunc(maps.Keys(of), func(a, b string) int { return cmp.Or(len(of[b])-len(of[a]), cmp.Compare(a, b)) })
	for _, namespace := range largest {
		if left <= limit {
			break
		}
		left -= len(of[namespace]) - 1
		of[namespace] = []uint64{cached.RefusedNamespace(namespace)}
	}
	var rest []uint64
	for _, digests := range of {
		rest = append(rest, digests...)
	}
	slices.Sort(rest)
	all = append(all, rest[:min(len(rest), limit)]...)
	slices.Sort(all)
	return cached.PackDigests(all)
}

// byTurns are at most limit of the policies, by turns of their namespaces: one with many leaves room for the others.
func byTurns(refused []enforcer.Refused, limit int) []enforcer.Refused {
	turn := map[string]int{}
	turns := map[policy.Ref]int{}
	for _, r := range refused {
		turns[r.Object.Ref] = turn[r.Object.Ref.Namespace]
		turn[r.Object.Ref.Namespace]++
	}
	sorted := slices.Clone(refused)
	slices.SortStableFunc(sorted, func(a, b enforcer.Refused) int {
		return cmp.Or(turns[a.Object.Ref]-turns[b.Object.Ref], a.Object.Ref.Compare(b.Object.Ref))
	})
	return sorted[:min(len(sorted), limit)]
}

// sayRefused notes the policies of which the node refuses a part. Each has the word about itself alone. Those of namespaces that wait are not in force as they
// are now either.
func (a *Account) sayRefused(refused []enforcer.Refused, waiting []string) {
	a.status.Failing, a.status.FailingPolicies = int32(len(refused)), nil
	a.status.Refused = refusedDigests(refused, waiting, v1alpha1.MaxRefused)
	for _, r := range byTurns(refused, v1alpha1.MaxFailingPolicies) {
		a.failing = append(a.failing, r.Object)
		ref, message := r.Object.Ref, r.Word
		if !r.TooLarge && !r.Unknown {
			message = "the kernel refuses a part of it, which is closed: " + r.Word
		}
		a.status.FailingPolicies = append(a.status.FailingPolicies, v1alpha1.FailingPolicy{
			Kind: ref.Kind, Namespace: ref.Namespace, Name: ref.Name, Generation: r.Object.Generation,
			Message: cached.Plain(message, cached.MaxMessage),
		})
	}
}

// enforcingMessage is what Enforcing says while it is True.
func enforcingMessage(refused, waiting int) string {
	message := "the kernel holds what the API says"
	if refused > 0 {
		message += fmt.Sprintf(", but for parts of %d policies that are refused or in doubt, and closed: see failingPolicies", refused)
	}
	if waiting > 0 {
		message += fmt.Sprintf("; the policies of %d namespaces have changed so much that they are in force as they were, until all is ready", waiting)
	}
	return message
}
