package bench

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/ringfence-io/ringfence/lab/host"
)

// hostPrefix begins the names of the network namespaces that this package makes.
const hostPrefix = "rf-bench"

// TestMain prints the tables of what was measured behind the benchmarks' own lines.
func TestMain(m *testing.M) {
	flag.Parse()
	if os.Geteuid() == 0 {
		if _, err := host.Sweep(hostPrefix); err != nil {
			fmt.Fprintln(os.Stderr, "removing what killed runs have left:", err)
		}
	}
	status := m.Run()
	if built != "" {
		os.RemoveAll(built)
	}
	printTables(os.Stdout)
	os.Exit(status)
}

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
