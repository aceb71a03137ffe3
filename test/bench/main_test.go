package bench

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/ringfence-io/ringfence/lab/host"
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
	if os.Geteuid() == 0 {
		if _, err := host.Sweep(hostPrefix); err != nil {
			fmt.Fprintln(os.Stderr, "removing what killed runs have left:", err)
		}
	}
	status := m.Run()
	printTables(os.Stdout)
	return status
}

// scratch is a directory of this run's.
var scratch string

// needRoot ends a benchmark that nobody but root can run. It fails rather than skips: a run that left the figures out would look like
// one that has none to show.
func needRoot(b *testing.B) {
	b.Helper()
	if os.Geteuid() != 0 {
		b.Fatal("NOT ROOT: this measures packets between network namespaces, and making these takes root: run `sudo make bench`, " +
			"or without root only `go test -run '^$' -bench CompileRenderDiff ./test/bench`")
	}
	for _, program := range []string{"iptables-legacy", "iptables-nft", "nsenter"} {
		if _, err := exec.LookPath(program); err != nil {
			b.Fatalf("this measures the kernel, by way of programs that are not all here: %v: `make deps` installs them", err)
		}
	}
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
