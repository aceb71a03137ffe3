// Package kit has what tests of many packages need: a step that has to succeed, root, a context with an end, and waiting for a condition. It
// knows nothing of Ringfence.
package kit

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"testing"
	"time"
)

// Must ends a test at a step that has to succeed before the rest of the test says anything.
func Must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// NeedRoot skips a test that takes root, and says so, where it does not run as root. In CI that is a failure, and so it is of a benchmark: a run
// without its figures would look like one that has none to show. Root that lacks one of the programs is a failure too.
func NeedRoot(t testing.TB, programs ...string) {
	t.Helper()
	_, benchmark := t.(*testing.B)
	if err := rootWith(os.Geteuid() == 0, programs); errors.Is(err, errNotRoot) && !benchmark && os.Getenv("CI") != "true" {
		t.Skipf("LEFT OUT: %s: %v", t.Name(), err)
	} else if err != nil {
		t.Fatalf("%s cannot run: %v", t.Name(), err)
	}
}

// NeedNetfilter is NeedRoot for what sends packets through rules, with the programs that hack/deps.sh installs.
func NeedNetfilter(t testing.TB) {
	t.Helper()
	NeedRoot(t, "iptables", "iptables-legacy", "ip6tables-legacy", "iptables-nft", "ip6tables-nft", "ipset", "nsenter", "ip", "bridge")
}

var errNotRoot = errors.New("it takes root to make network namespaces and mounts")

func rootWith(root bool, programs []string) error {
	if !root {
		return errNotRoot
	}
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			return err
		}
	}
	return nil
}

// Context returns a context that ends when patience does, or the test.
func Context(t testing.TB, patience time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// Start runs something beside the test until the test ends, and fails the test if that ends with an error.
func Start(t testing.TB, what string, run func(context.Context) error) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("%s ended with %v", what, err)
		}
	})
}

// Eventually waits until a condition holds. It ends the test if the condition does not hold within patience. A cleanup may call it too.
func Eventually(t testing.TB, patience time.Duration, what string, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if !poll(ctx, holds) {
		t.Fatalf("not within %s: %s", patience, what)
	}
}

// EventuallySucceeds waits until a try succeeds. It ends the test with the error of the last one if none does within patience. A
// cleanup may call it too.
func EventuallySucceeds(t testing.TB, patience time.Duration, what string, try func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var last error
	succeeded := poll(ctx, func() bool {
		err := try(ctx)
		if ctx.Err() == nil || last == nil || err == nil {
			last = err // an error of a try that the time-out has ended says no more than that
		}
		return err == nil
	})
	if !succeeded {
		t.Fatalf("not within %s: %s: %v", patience, what, last)
	}
}

// shortestPause is the pause between two looks at a condition. What takes longer to look at has a pause as long as that takes, so that a
// test does not keep the machine busy by waiting.
const shortestPause = time.Millisecond

func poll(ctx context.Context, holds func() bool) bool {
	for {
		start := time.Now()
		if holds() {
			return true
		}
		select {
		case <-time.After(max(shortestPause, time.Since(start))):
		case <-ctx.Done():
			return false
		}
	}
}

// Addrs returns the addresses that texts say.
func Addrs(texts ...string) []netip.Addr {
	var all []netip.Addr
	for _, text := range texts {
		all = append(all, netip.MustParseAddr(text))
	}
	return all
}
