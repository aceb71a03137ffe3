// Package netns gives tests network namespaces that end with them.
package netns

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/ringfence-io/ringfence/lab/host"
)

// New makes a network namespace for the rest of a test. The prefix is that of the package's namespaces, for Sweep.
func New(t testing.TB, prefix, name string) *host.Host {
	t.Helper()
	h, err := host.New(host.RunPrefix(prefix) + strings.ReplaceAll(t.Name(), "/", "-") + "-" + name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Errorf("removing a network namespace: %v", err)
		}
	})
	return h
}

// Sweep removes what killed runs have left of the network namespaces with a prefix, if this is root. A TestMain calls it.
func Sweep(prefix string) {
	if os.Geteuid() != 0 {
		return
	}
	if _, err := host.Sweep(prefix); err != nil {
		fmt.Fprintln(os.Stderr, "removing what killed runs have left:", err)
	}
}
