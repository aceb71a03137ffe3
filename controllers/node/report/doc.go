// Package report writes what one node enforces into its NodeEnforcement.
//
// An [Account] takes in one sync after another, by values alone; a [Reporter] writes it, soon after something that concerns the node has changed, and as a
// heartbeat. Enforcement never waits for a write.
package report
