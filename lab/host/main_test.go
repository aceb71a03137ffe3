package host_test

import (
	"os"
	"testing"

	"github.com/ringfence-io/ringfence/lab/host"
)

// needRoot leaves a test out, loudly, where nobody could run it; in CI that is a failure.
func needRoot(t *testing.T) {
	t.Helper()
	switch {
	case os.Geteuid() == 0:
	case os.Getenv("CI") == "true":
		t.Fatalf("%s needs root to make network namespaces", t.Name())
	default:
		t.Skipf("LEFT OUT: %s needs root to make network namespaces", t.Name())
	}
}

func newHost(t *testing.T, name string) *host.Host {
	t.Helper()
	h, err := host.New(host.RunPrefix("rf-hosttest") + t.Name() + "-" + name)
	must(t, err)
	t.Cleanup(func() { must(t, h.Close()) })
	return h
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
