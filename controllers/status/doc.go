// Package status is the controller's program: it writes of each policy of the cluster whether it is understood, and whether the nodes enforce it.
//
// A key is one policy. Events mark the keys that they are about; a worker gathers what the caches know of a marked policy, [Judge] makes its status, by
// values alone, and the status is written if it says anything new. No enforcer asks the controller for anything.
package status
