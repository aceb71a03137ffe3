//go:build cluster

package cluster

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/ringfence-io/ringfence/test/kit"
)

// What a pod does until it is told that it is enough, and a thousand times at most: to try each pair about once a second is as much as small machines
// bear. A connection that takes a second to come about may have lost its first packet, or its turn on a busy machine: the pod's kernel has counted
// whether it sent one again. What is denied is given up before that.
const (
	watchScript = `
on() { [ ! -e /tmp/enough ] && [ "$n" -lt 1000 ]; }
open() {
  n=0
  while on; do
    if took=$(curl -s -o /dev/null -w '%{time_connect}' --connect-timeout 5 --max-time 10 "http://$2/hostname"); then
      case $took in 0.*) ;; *) echo "late $1: took $took s" ;; esac
    else
      echo "wrong $1: denied"
    fi
    n=$((n + 1))
    sleep 1
  done
  echo "allowed $n"
}
closed() {
  n=0
  while on; do
    if curl -s -o /dev/null --connect-timeout 0.5 "http://$2/hostname"; then echo "wrong $1: let through"; fi
    n=$((n + 1))
    sleep 0.5
  done
  echo "denied $n"
}
again() {
  awk '/^TcpExt:/ { if (!n) n = split($0, names); else { split($0, values); for (i in names) if (names[i] == "TCPSynRetrans") print values[i] } }' /proc/net/netstat
}
rm -f /tmp/enough
before=$(again)
`
	watchEnd = `
echo begun >/tmp/begun
wait
[ -e /tmp/enough ] || echo "wrong the time was over before it was enough"
echo "again $(($(again) - before))"
`
)

// watch tries all pairs again and again, from now until the function that it returns is called, which gives the number of tries, and fails the test for
// each that went wrong.
func (app *application) watch(t *testing.T, want reach) (stop func() (allowed, denied int)) {
	t.Helper()
	scripts := map[string]string{}
	for p, yes := range want {
		protocol, addresses := app.addresses(p.to)
		if protocol != "tcp" {
			continue
		}
		loop := "closed"
		if yes {
			loop = "open"
		}
		for _, address := range addresses {
			scripts[p.from] += fmt.Sprintf("%s '%s -> %s' '%s' &\n", loop, p.from, p.to, address)
		}
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	counts := map[string]int{}
	for from, script := range scripts {
		wg.Go(func() {
			out, err := run(t.Context(), "", app.in(from, "sh", "-c", watchScript+script+watchEnd)...)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
			}
			for line := range strings.Lines(out) {
				what, of, _ := strings.Cut(strings.TrimSpace(line), " ")
				if what == "wrong" || what == "late" && !strings.Contains(out, "again 0\n") {
					t.Error(of)
				}
				n, _ := strconv.Atoi(of)
				counts[what] += n
			}
		})
	}
	for from := range scripts {
		kit.EventuallySucceeds(t, patience, from+" has begun", func(ctx context.Context) error {
			_, err := run(ctx, "", app.in(from, "test", "-e", "/tmp/begun")...)
			return err
		})
	}
	return func() (int, int) {
		t.Helper()
		for from := range scripts {
			kubectl(t, app.in(from, "sh", "-c", "touch /tmp/enough; rm /tmp/begun")...)
		}
		wg.Wait()
		if counts["allowed"] == 0 || counts["denied"] == 0 {
			t.Errorf("there were %d tries of what is allowed and %d of what is denied", counts["allowed"], counts["denied"])
		}
		return counts["allowed"], counts["denied"]
	}
}
