// Package cached has what the programs of package controllers share: what stands in their caches for the API's objects, how these are watched, and how
// requests are made and tried again.
//
// An entry is made once, by the transform of its cache, and nobody writes to it from then on: snapshots hold pointers to entries.
package cached
