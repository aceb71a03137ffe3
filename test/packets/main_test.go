// Package packets judges the whole pipeline by what the kernel lets through: Kubernetes objects go in, real packets
// between network namespaces come out, or don't.
//
// It is the judge of test/scenario that has a network. Every scenario runs on iptables legacy and nft, over IPv4 and IPv6, on bridged and on routed nodes. Besides,
// this package holds what a scenario cannot state: what happens while policies change, while enforcers die, and to connections that are open.
package packets

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/ringfence-io/ringfence/lab/host"
)

// hostPrefix begins the names of the network namespaces that this package makes.
const hostPrefix = "rf-packets"

// programs is the directory of those that tests build.
var programs string

func TestMain(m *testing.M) {
	if os.Getenv(enforcerEnv) != "" {
		os.Exit(enforcerProcess(os.Stdin, os.Stdout))
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	flag.Parse()
	// The tests wait much and compute little.
	if err := flag.Set("test.parallel", "32"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if os.Geteuid() == 0 {
		if _, err := host.Sweep(hostPrefix); err != nil {
			fmt.Fprintln(os.Stderr, "removing what killed runs have left:", err)
		}
	}
	var err error
	if programs, err = os.MkdirTemp("", "rf-packets-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(programs)
	return m.Run()
}

// needRoot leaves a test out, loudly, where nobody could run it. In CI, and where only a program is missing, that is a failure.
func needRoot(t *testing.T) {
	t.Helper()
	var missing error
	for _, program := range []string{"iptables-legacy", "ip6tables-legacy", "iptables-nft", "ip6tables-nft", "ipset", "nsenter"} {
		if _, err := exec.LookPath(program); err != nil {
			missing = err
		}
	}
	switch {
	case os.Geteuid() == 0 && missing == nil:
	case os.Geteuid() == 0:
		t.Fatalf("%s cannot run: %v", t.Name(), missing)
	case os.Getenv("CI") == "true":
		t.Fatalf("%s needs root to make network namespaces", t.Name())
	default:
		t.Skipf("LEFT OUT: %s sends real packets, and needs root to make network namespaces for them", t.Name())
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
