// Package query answers questions about who can reach whom, and why.
//
// It asks the enforcer's own model: objects are compiled as each node compiles them, and [policy.Node] gives the verdicts. An answer is therefore what the
// kernel does once the node has programmed what it knows.
//
// Invariants:
//   - it is pure: objects go in, whether they come from files or from an API server, and answers come out;
//   - a verdict has two ends. The node of the source decides about its egress, the node of the destination about its ingress, each by what it compiles;
//   - pods that no node runs yet, and pods that workloads will make, are judged as if one more node ran them all;
//   - names in answers are those that people write: "namespace/name", and "Kind namespace/name" for policies.
package query
