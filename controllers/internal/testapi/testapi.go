// Package testapi makes what the tests of several packages of controllers speak of: policies, what a sync says of them, and what stands in a condition. No
// program imports it.
package testapi

import (
	"fmt"
	"net/netip"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ringfence-io/ringfence/enforcer"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// KindOfPolicy is the resource of NetworkPolicies, as reports name it.
const KindOfPolicy = "networkpolicies.networking.k8s.io"

// Object is a NetworkPolicy at a generation.
func Object(name string, generation int64) policy.Object {
	return policy.Object{Ref: policy.Ref{Kind: "NetworkPolicy", Namespace: "shop", Name: name}, UID: "uid-of-" + name, Generation: generation}
}

// Report is what a sync says that is about these policies and pods.
func Report(objects []policy.Object, pods ...uint64) enforcer.Report {
	return enforcer.Report{Concerns: policy.Concerns{Objects: objects, Pods: pods}, Counts: enforcer.Counts{Chains: 1, Rules: 2, Sets: 3, Entries: 4}}
}

// RefusedIn are policies of a namespace that a kernel refuses.
func RefusedIn(namespace string, n int) []enforcer.Refused {
	var all []enforcer.Refused
	for i := range n {
		ref := policy.Ref{Kind: "NetworkPolicy", Namespace: namespace, Name: fmt.Sprintf("p%04d", i)}
		all = append(all, enforcer.Refused{Object: policy.Object{Ref: ref, UID: namespace + ref.Name, Generation: 3}, Word: "no room"})
	}
	return all
}

// Contested are concerns with some contested and impossible addresses.
func Contested(here, elsewhere, impossible int) policy.Concerns {
	var c policy.Concerns
	c.Contested.Here, c.Contested.Elsewhere, c.Impossible.Elsewhere = here, elsewhere, impossible
	addr := netip.MustParseAddr("10.0.0.0")
	for i := range min(here+elsewhere, policy.MaxNamed) {
		addr = addr.Next()
		holder := owner("mine", "n1")
		if i >= here {
			holder = owner("theirs", "n2")
		}
		c.Contested.First = append(c.Contested.First, policy.Contest{Addr: addr, Here: i < here, Pods: 3, Holder: holder, Other: owner("thief", "n3")})
	}
	for i := range min(impossible, policy.MaxNamed) {
		c.Impossible.First = append(c.Impossible.First, owner(fmt.Sprint("bad", i), "n2"))
	}
	return c
}

// owner is a pod on a node.
func owner(name, on string) policy.Owner {
	return policy.Owner{Ref: policy.Ref{Kind: "Pod", Namespace: "shop", Name: name}, Node: on}
}

// ConditionLine is a condition in a line.
func ConditionLine(conditions []metav1.Condition, kind string) string {
	c := meta.FindStatusCondition(conditions, kind)
	if c == nil {
		return "no condition " + kind
	}
	return fmt.Sprintf("%s %s at %d: %s", c.Status, c.Reason, c.ObservedGeneration, c.Message)
}
