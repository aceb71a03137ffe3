//go:build race

package packets

// slower is how much more time a program has for what it does when the race detector watches it.
const slower = 10
