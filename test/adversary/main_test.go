// Package adversary holds isolation against whoever tries: a table of attacks, each tried by a pod that has sockets and by one that has NET_RAW
// besides, on iptables legacy and nft, over IPv4, IPv6 and the link-local IPv6 of a cluster that has IPv4 only, on bridged and routed nodes.
//
//   - An attack is a duel: who sends, who must not receive. Arrival is judged in the victim's namespace, by a sniffer that looks for a random
//     marker in any frame. What the attacker's own sockets say counts for nothing.
//   - Zero means something: after the attack a packet that is allowed takes the same way, and its arrival is waited for.
//   - An attack that is written wrongly cannot pass: TestAttacksWork demands of each that it arrives where nothing is enforced. Where it cannot,
//     the table says why.
//   - What is legitimate beside the attacks goes on: TestWhatIsLegitimateGoesOn.
//
// One network serves all attacks of a combination. RINGFENCE_ADVERSARY=1000 repeats them that many times, in random orders and with payloads of
// random lengths.
package adversary

import (
	"flag"
	"fmt"
	"os"
	"strconv"
	"testing"

	"github.com/ringfence-io/ringfence/test/kit/netns"
)

// hostPrefix begins the names of the network namespaces that this package makes.
const hostPrefix = "rf-adversary"

// repeatEnv says how many times the table is run.
const repeatEnv = "RINGFENCE_ADVERSARY"

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	flag.Parse()
	// The tests wait much and compute little.
	if err := flag.Set("test.parallel", "12"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	netns.Sweep(hostPrefix)
	return m.Run()
}

// repeats is how many times the table is run.
func repeats(t *testing.T) int {
	t.Helper()
	text := os.Getenv(repeatEnv)
	if text == "" {
		return 1
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s=%q is no number of repeats", repeatEnv, text)
	}
	return n
}
