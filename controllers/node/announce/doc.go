// Package announce writes the addresses of a node's new pods into their status, so that other nodes let them in before their kubelet has reported them.
//
// Nothing waits for a write, neither a pod's start nor a sync.
package announce
