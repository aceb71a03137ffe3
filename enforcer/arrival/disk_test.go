package arrival

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"golang.org/x/sys/unix"

	"github.com/ringfence-io/ringfence/test/disk"
)

// Pods go on starting, and wait for their policy as ever. What was written down before stays readable, nothing half written lies around, and it is said,
// once in the log; as soon as there is room, all is written down.
func TestPodsStartThoughTheDiskIsFull(t *testing.T) {
	dir := disk.Small(t)
	file := filepath.Join(dir, StateFile)
	var log []string
	table := NewTable(file, funcr.New(func(_, args string) { log = append(log, args) }, funcr.Options{}))
	var told []error
	table.OnSave(func(err error) { told = append(told, err) })

	table.Into(snapshot())(always(nil))
	// Added by this goroutine, since no other sees the disk.
	add := func(p Pod) {
		table.mu.Lock()
		defer table.mu.Unlock()
		table.pods[p.UID] = &arrived{Pod: p}
	}
	add(came("first", "10.0.0.1"))
	table.Into(snapshot(shown("first")))(always(nil))
	before, err := os.ReadFile(file)
	if err != nil || !strings.Contains(string(before), "10.0.0.1") {
		t.Fatalf("the file holds %s: %v", before, err)
	}

	empty := disk.Fill(t, dir, 0)
	for range 3 {
		add(came("second", "10.0.0.2"))
		s := snapshot(shown("first"), shown("second"))
		table.Into(s)(always(nil))
		if got := s.Local[1].Addrs; len(got) != 1 {
			t.Errorf("a pod that started has the addresses %s", got)
		}
	}
	if now, err := os.ReadFile(file); err != nil || string(now) != string(before) {
		t.Errorf("the file holds %s: %v, want what was there before", now, err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
		t.Errorf("on the disk are %v: %v, want the file and what fills the disk", entries, err)
	}
	if len(told) != 5 || told[1] != nil || !errors.Is(told[4], unix.ENOSPC) {
		t.Errorf("told %v, want twice that it went well and three times why not", told)
	}
	if len(log) != 1 || !strings.Contains(log[0], "no space left on device") {
		t.Errorf("the log says %q, want one line that says why", log)
	}

	empty()
	table.Into(snapshot(shown("first"), shown("second")))(always(nil))
	if again := NewTable(file, logr.Discard()); len(again.pods) != 2 || told[len(told)-1] != nil {
		t.Errorf("with room again, %d pods of 2 are known to the next enforcer: %v", len(again.pods), told)
	}

	// When the last of them has gone, and that cannot be written down, it is tried again all the same.
	empty = disk.Fill(t, dir, 0)
	table.Into(snapshot(shown("first", "10.0.0.1"), shown("second", "10.0.0.2")))(always(nil))
	if len(table.pods) != 0 || told[len(told)-1] == nil {
		t.Errorf("%d pods are left, and told was %v", len(table.pods), told[len(told)-1])
	}
	empty()
	table.Into(snapshot())(always(nil))
	if text, err := os.ReadFile(file); string(text) != "[]" || err != nil || told[len(told)-1] != nil {
		t.Errorf("the file holds %s: %v", text, err)
	}
}
