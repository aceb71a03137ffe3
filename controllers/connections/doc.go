// Package connections makes of what nodes have seen of denied connections what each namespace may read: its ConnectionReport.
//
//	NodeConnections of all nodes ──> merge, by namespace ──> a ConnectionReport in each namespace that asks
//
// Invariants:
//   - a report follows from the objects that the nodes have written, and from nothing that this process remembers: a restart loses nothing;
//   - a node is believed about connections of its own pods alone, names stand at what each has said, and none takes the place of others';
//   - a report says of other namespaces' pods no more than that they were at the other end, and of other namespaces' policies nothing.
//
// Enforcement does not depend on it.
package connections
