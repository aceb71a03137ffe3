// Package compile turns API objects into what one node must enforce.
//
//	Snapshot ── Compile ──> policy.Node + []Problem
//	Object   ── Understand ──> the pods that one policy selects, and Remarks for its author
//
// It is a pure function of the Snapshot: no client, no clock, no logger, and the order of the objects in the
// Snapshot does not matter. The problems of one policy alone come from the same parsers.
//
// To read it, start with Compiler.Compile (compile.go), which is the order of everything else. A policy is parsed (parse.go, parsecluster.go, isolation.go)
// into rules, whose remote ends are of a few kinds (peer.go, and a file for each). Rules name sets (rulesets.go), whose members are found once and then
// follow what changes (known.go). What is over a budget (budget.go) is refused (resolve.go).
//
// A [Compiler] keeps all of that, and takes it from one snapshot to the next. The invariant: what a step returns depends on the present snapshot alone, and a
// step that read nothing which has changed returns the very same memory, by which the next step knows that it has nothing to do. So
//
//   - the list of policies, the endpoints and the problems are the same slices as long as nothing of them changes;
//   - a set is visited if a pod has come or gone where it looks (scopes), and no other set is;
//   - the policies of a namespace are counted again if a set that one of them was weighed by has become larger or smaller (resolver);
//   - the sets of the node are a [policy.Map], made of the last one by those that have other members.
//
// What decides is the text of networking.k8s.io/v1. What that text forbids, and the API server's validation would have
// refused, never opens traffic: the smallest part that cannot be understood matches nothing, a policy whose subject cannot be
// understood isolates its whole namespace, and each such part is named in a [Problem].
package compile
