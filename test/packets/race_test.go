//go:build race

package packets

// slower is how much more time a program has for what it does within a second, when the race detector watches it.
const slower = 10
