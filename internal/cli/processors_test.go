package cli

import (
	"runtime"
	"testing"
)

func TestProcessorsAreBoundUnlessTheEnvironmentSaysOtherwise(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	t.Cleanup(func() { runtime.GOMAXPROCS(before) })
	runtime.GOMAXPROCS(3)
	t.Setenv("GOMAXPROCS", "3")
	useProcessors(1)
	if got := runtime.GOMAXPROCS(0); got != 3 {
		t.Errorf("Go code runs on %d processors, want those 3 that GOMAXPROCS says", got)
	}
	t.Setenv("GOMAXPROCS", "")
	useProcessors(1)
	if got := runtime.GOMAXPROCS(0); got != 1 {
		t.Errorf("Go code runs on %d processors, want 1", got)
	}
	useProcessors(1000)
	if got := runtime.GOMAXPROCS(0); got != min(1000, runtime.NumCPU()) {
		t.Errorf("Go code runs on %d processors, and the machine has %d", got, runtime.NumCPU())
	}
}
