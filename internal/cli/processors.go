package cli

import (
	"os"
	"runtime"
)

const (
	// startProcessors are how many processors run an enforcer's Go code at the same time until the first sync has succeeded. Go's default is all that the node
	// has: each would hold memory of its own, and a quarter of them collect garbage together.
	startProcessors = 2
	// steadyProcessors are how many do so from then on. What an enforcer does is one step after the other. With a second one, Go wakes it up for each event
	// that comes, to find nothing to do: that took an eighth of the processor's time of a node that follows pods which come and go elsewhere. Programs that
	// it starts, and the kernel, are not bound by this.
	steadyProcessors = 1
)

// useProcessors has Go code run on n processors at the most at the same time. GOMAXPROCS, where it is set, says otherwise.
func useProcessors(n int) {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(min(n, runtime.NumCPU()))
	}
}
