package cli

import (
	"errors"
	"math"
	"os"
	"runtime/debug"
	"testing"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/go-logr/logr"
)

func TestGoStaysBelowTheContainersMemoryLimit(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	t.Cleanup(func() { debug.SetMemoryLimit(before) })
	const unlimited = int64(math.MaxInt64)
	broken := errors.New("no such file")
	for _, tt := range []struct {
		name       string
		env        string // GOMEMLIMIT
		limit      memlimit.Provider
		want       int64
		wantsError bool
	}{
		{"a limit", "", memlimit.Limit(1000 << 20), 900 << 20, false},
		{"none", "", func() (uint64, error) { return 0, memlimit.ErrNoLimit }, unlimited, false},
		{"a limit that cannot be read", "", func() (uint64, error) { return 0, broken }, unlimited, true},
		{"somebody has decided", "100MiB", memlimit.Limit(1000 << 20), unlimited, false}, // which the runtime reads by itself
	} {
		t.Run(tt.name, func(t *testing.T) {
			debug.SetMemoryLimit(unlimited)
			t.Setenv("GOMEMLIMIT", tt.env)
			if tt.env == "" {
				if err := os.Unsetenv("GOMEMLIMIT"); err != nil {
					t.Fatal(err)
				}
			}
			if err := limitMemory(t.Context(), tt.limit, memoryShare, logr.Discard()); (err != nil) != tt.wantsError {
				t.Errorf("the error is %v", err)
			}
			if got := debug.SetMemoryLimit(-1); got != tt.want {
				t.Errorf("Go may take %d bytes, want %d", got, tt.want)
			}
		})
	}
}
