package cli

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/go-logr/logr"

	"github.com/ringfence-io/ringfence/enforcer"
	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/dataplane"
	"github.com/ringfence-io/ringfence/enforcer/iptables"
)

// What is noted is there from the sync that brings the rules to the look at the connections, for whoever runs next, and goes with cleanup.
func TestWhatIsNotKnownOfConnectionsIsNoted(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	socket := filepath.Join(dir, "cni.sock")
	noted := func() bool {
		_, err := os.Stat(filepath.Join(dir, unseenFile))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		return err == nil
	}
	kernel := dataplane.NewFake(dataplane.Capabilities{})
	run := func() *enforcer.Connections {
		e, live := enforcer.New(kernel, iptables.Options{Families: iptables.Families[:], Table: "security"}), enforcer.NewConnections(kernel)
		remember(live, socket, logr.Discard())
		e.Follow(live)
		if _, err := e.Sync(t.Context(), compile.Snapshot{Node: "n1"}, false); err != nil {
			t.Fatal(err)
		}
		return live
	}
	run()
	if !noted() {
		t.Error("rules have come, the connections have not been looked at, and nothing is noted")
	}
	live := run()
	if !noted() {
		t.Error("the next run has not looked either, and the note is gone")
	}
	if _, err := live.Cut(t.Context()); err != nil {
		t.Fatal(err)
	}
	if noted() {
		t.Error("the connections have been looked at, and the note stays")
	}
	if err := os.WriteFile(filepath.Join(dir, unseenFile), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := (&leftovers{confDir: t.TempDir(), binDirs: []string{t.TempDir()}, socket: socket}).remove(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory is still there: %v", err)
	}
}
