package cni

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/ringfence-io/ringfence/test/disk"
	"github.com/ringfence-io/ringfence/test/kit"
)

// Whatever does not fit, all files are as they were, nothing half written lies around, and the error says so; with room it goes on where it was.
func TestInstallingOnAFullDisk(t *testing.T) {
	large := strings.Replace(flannel, "12345678901234567890", strings.Repeat("1", 6000), 1) // two pages
	for _, tt := range []struct {
		name, file, conf string
		room             int
		program          []byte
		installed        bool // the program, before the room ran out
	}{
		{"no room for the program", "10-net.conflist", flannel, 8192, bytes.Repeat([]byte("p"), 20_000), false},
		{"room for the program alone", "10-net.conflist", large, 8192, bytes.Repeat([]byte("p"), 8192), true},
		{"room for half of the list", "10-net.conflist", large, 4096, nil, true},
		{"no room for the list that stands in", "10-net.conf", single, 0, nil, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			top := disk.Small(t)
			d := newDirs(t, nil)
			d.ConfDir, d.BinDirs = filepath.Join(top, "net.d"), []string{filepath.Join(top, "bin")}
			kit.Must(d.t, os.Mkdir(d.ConfDir, 0o755))
			d.have(d.bin(), "flannel", "portmap", "bridge")
			kit.Must(d.t, os.WriteFile(d.Program, tt.program, 0o700))
			d.write(tt.file, tt.conf)
			empty := disk.Fill(t, top, tt.room)
			for range 2 {
				err := d.install()
				if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), top) {
					t.Errorf("the error is %v, want one that says where no room is left", err)
				}
				if diff := cmp.Diff(map[string]string{tt.file: tt.conf}, d.files(d.ConfDir)); diff != "" {
					t.Errorf("configurations (-want +got):\n%s", diff)
				}
				want := map[string]string{}
				if tt.installed {
					want[Type] = string(tt.program)
				}
				if diff := cmp.Diff(want, d.ours(d.bin())); diff != "" {
					t.Errorf("programs (-want +got):\n%.2000s", diff)
				}
			}
			empty()
			kit.Must(d.t, d.install())
			if text := d.used(); !strings.Contains(text, Type) {
				t.Errorf("with room again the list is %s", text)
			}
		})
	}
}
