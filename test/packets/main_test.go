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
	"testing"

	"github.com/ringfence-io/ringfence/test/kit/netns"
)

// hostPrefix begins the names of the network namespaces that this package makes.
const hostPrefix = "rf-packets"

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
	netns.Sweep(hostPrefix)
	return m.Run()
}
