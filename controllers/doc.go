// Package controllers watches the API and keeps things at what it says. Two programs live here, which share a binary and no code but what they read:
//
//   - controllers/node is the enforcer's: it keeps the kernel of one node at what the cluster's policies say. Below it, controllers/node/report writes what the
//     node enforces, and controllers/node/announce the addresses of its new pods.
//   - controllers/status is the controller's: it writes of each policy whether the nodes enforce it. Beside it, controllers/startup takes the startup taint
//     from nodes, and controllers/install puts there what the Operator Lifecycle Manager cannot.
//
// Both read the API through controllers/cached. Neither imports the other: what a node and the controller have to tell each other stands in the API.
//
// Reconcilers are thin: get, gather, sync, report. What is enforced is decided in package enforcer and below; the kernel is never touched from here.
package controllers
