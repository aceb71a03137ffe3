// Package source gathers the objects that questions are answered from: out of files, or from an API server with what its caller may read.
//
// Invariants:
//   - what cannot be read is said, with its file or its resource, and the rest goes on: [Gathered.Missing];
//   - objects of kinds that say nothing about policy are passed over;
//   - in files, a workload stands for one of its pods, and a pod without an address has one from the range of the pods.
package source
