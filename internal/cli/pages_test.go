package cli

import (
	"testing"

	"github.com/prometheus/procfs"
)

// TestWhatOnlyTheStartHasUsedIsLetGo: less than half of what this program's start has read of its file is needed to say so.
func TestWhatOnlyTheStartHasUsedIsLetGo(t *testing.T) {
	before := ofFiles(t)
	if err := letGoOfFile(); err != nil {
		t.Fatal(err)
	}
	if after := ofFiles(t); after > before/2 {
		t.Errorf("%d of %d bytes of files are still in memory", after, before)
	}
}

// ofFiles is how many bytes of files this process has in memory.
func ofFiles(t *testing.T) uint64 {
	t.Helper()
	self, err := procfs.Self()
	if err != nil {
		t.Fatal(err)
	}
	s, err := self.NewStatus()
	if err != nil {
		t.Fatal(err)
	}
	return s.RssFile
}
