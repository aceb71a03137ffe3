package proc

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ringfence-io/ringfence/test/kit"
)

func TestUsage(t *testing.T) {
	dir := t.TempDir()
	kit.Must(t, os.WriteFile(filepath.Join(dir, "stat"),
		[]byte("7 (a name) with) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 8 0 12345 1000 200 18446744073709551615\n"), 0o600))
	kit.Must(t, os.WriteFile(filepath.Join(dir, "status"),
		[]byte("Name:\ta name) with\nVmHWM:\t   30 kB\nVmRSS:\t   20 kB\nRssAnon:\t   10 kB\nGroups:\t\n"), 0o600))
	got, err := usageOf(dir)
	kit.Must(t, err)
	if diff := cmp.Diff(Usage{CPU: 3 * time.Second, Peak: 30 << 10, Now: 20 << 10, Anonymous: 10 << 10}, got); diff != "" {
		t.Errorf("usage (-want +got):\n%s", diff)
	}
}

func TestUsageOfThisProcess(t *testing.T) {
	got, err := UsageOf(os.Getpid())
	kit.Must(t, err)
	if got.Now < 1<<20 || got.Peak < got.Now || got.Anonymous < 1 || got.Anonymous > got.Now {
		t.Errorf("this test takes %+v", got)
	}
	if _, err := UsageOf(0); err == nil {
		t.Error("there is a process 0")
	}
}
