// Package node is the enforcer's program: it keeps one node's kernel at what the cluster's policies say.
//
// All events are one key, the node. One worker takes a snapshot of the caches, has it synced, and tells the outcome to whoever has to know: the
// report, the log, the metrics. Nothing is written to the kernel before all caches have synced, and nothing of a cluster that has gone back to older data. The
// package decides nothing about packets and touches no kernel: that is package enforcer's.
package node
