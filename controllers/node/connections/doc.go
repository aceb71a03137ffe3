// Package connections keeps what a node has seen of denied connections, and writes it into the node's NodeConnections.
//
//	samples, counts ──> ledger ──> NodeConnections ──> (the controller) ──> ConnectionReports
//
// Invariants:
//   - the size of a ledger, and of what is written, depends on nobody's traffic: the rest is counted;
//   - no namespace takes another's place, and within one no other end takes those of others;
//   - counts and times that were written are never less in what is written next, whatever process writes it;
//   - nothing waits for the API server: while it is away, the ledger goes on.
//
// It knows no rules: a sample says which policy decided.
package connections
