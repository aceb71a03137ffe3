package bench

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/ringfence-io/ringfence/test/kit/netns"
)

// hostPrefix begins the names of the network namespaces that this package makes.
const hostPrefix = "rf-bench"

// TestMain prints the tables of what was measured behind the benchmarks' own lines.
func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", hostPrefix)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	scratch = dir
	// The lock of xtables is a file, and so the same in all network namespaces: nobody else's programs shall hold up ours.
	if err := os.Setenv("XTABLES_LOCKFILE", filepath.Join(dir, "xtables.lock")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	netns.Sweep(hostPrefix)
	status := m.Run()
	printTables(os.Stdout)
	if missed > 0 && *goalsFlag {
		fmt.Printf("\n%d goals were missed\n", missed)
		return 1
	}
	return status
}

var goalsFlag = flag.Bool("bench.goals", false, "whether the run fails if a goal is missed")

// scratch is a directory of this run's.
var scratch string
