package cni

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"

	"github.com/ringfence-io/ringfence/test/kit"
)

// flannel is a configuration as its owner writes it, with fields that only its owner knows.
const flannel = `{
  "name": "cbr0",
  "cniVersion": "0.3.1",
  "x-owner": {"plugins": [1, 2], "big": 12345678901234567890},
  "plugins": [
    {"type": "flannel", "delegate": {"hairpinMode": true, "isDefaultGateway": true}},
    {
      "type": "portmap",
      "capabilities": {"portMappings": true}
    }
  ]
}
`

// single is the configuration of one plugin, of the kind that cannot be chained to.
const single = `{"cniVersion": "1.0.0", "name": "old", "type": "bridge", "ipam": {"type": "host-local"}}`

// dirs are a node's CNI directories, and a program to install.
type dirs struct {
	t *testing.T
	Install
}

func newDirs(t *testing.T, files map[string]string) dirs {
	t.Helper()
	top := t.TempDir()
	d := dirs{t, Install{
		ConfDir: filepath.Join(top, "net.d"), BinDirs: []string{filepath.Join(top, "bin")}, Program: filepath.Join(top, "ringfence"),
	}.Defaults()}
	for _, dir := range []string{d.ConfDir, d.bin()} {
		kit.Must(d.t, os.Mkdir(dir, 0o755))
	}
	d.have(d.bin(), "bridge", "flannel", "ptp", "portmap", "bandwidth", "multus")
	kit.Must(d.t, os.WriteFile(d.Program, []byte("a program"), 0o700))
	for name, text := range files {
		d.write(name, text)
	}
	return d
}

// bin is the first directory of programs.
func (d dirs) bin() string { return d.BinDirs[0] }

// have puts programs into a directory.
func (d dirs) have(dir string, names ...string) {
	d.t.Helper()
	kit.Must(d.t, os.MkdirAll(dir, 0o755))
	for _, name := range names {
		kit.Must(d.t, os.WriteFile(filepath.Join(dir, name), []byte("of others"), 0o755))
	}
}

// ours are what we have in a directory of programs, and what is left there of writing it.
func (d dirs) ours(dir string) map[string]string {
	d.t.Helper()
	files := d.files(dir)
	for name, text := range files {
		if text == "of others" {
			delete(files, name)
		}
	}
	return files
}

func (d dirs) write(name, text string) {
	d.t.Helper()
	kit.Must(d.t, os.WriteFile(filepath.Join(d.ConfDir, name), []byte(text), 0o600))
}

func (d dirs) install() error {
	_, err := d.Run()
	return err
}

func (d dirs) uninstall() error { return Uninstall(d.ConfDir, d.BinDirs, false) }

// files are the names and contents of a directory.
func (d dirs) files(dir string) map[string]string {
	d.t.Helper()
	entries, err := os.ReadDir(dir)
	kit.Must(d.t, err)
	files := map[string]string{}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if errors.Is(err, os.ErrNotExist) {
			continue // it has gone meanwhile
		}
		kit.Must(d.t, err)
		files[e.Name()] = string(text)
	}
	return files
}

// used is the text of the configuration that a container runtime would use.
func (d dirs) used() string {
	d.t.Helper()
	files := d.files(d.ConfDir)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if strings.Contains(filepath.Ext(name), ".conf") || filepath.Ext(name) == ".json" {
			return files[name]
		}
	}
	return ""
}

// chosen is the network that a container runtime would use: the types of its plugins in their order.
func (d dirs) chosen() []string {
	d.t.Helper()
	files, err := libcni.ConfFiles(d.ConfDir, []string{".conf", ".conflist", ".json"})
	kit.Must(d.t, err)
	first := ""
	for _, f := range files {
		if first == "" || f < first {
			first = f
		}
	}
	list, err := libcni.ConfListFromFile(first)
	kit.Must(d.t, err)
	var types []string
	for _, p := range list.Plugins {
		types = append(types, p.Network.Type)
	}
	return types
}

func TestInstallAndUninstall(t *testing.T) {
	tests := []struct {
		name  string
		files map[string]string
		want  []string // of the network that is used then
	}{
		{"a list", map[string]string{"10-flannel.conflist": flannel}, []string{"flannel", "portmap", Type}},
		{"a list in one line", map[string]string{"10.conflist": `{"name":"n","plugins":[{"type":"ptp"}]}`}, []string{"ptp", Type}},
		{"the first of several", map[string]string{"10-flannel.conflist": flannel, "20-other.conflist": `{"name":"n","plugins":[{"type":"ptp"}]}`,
			"99-loopback.conf": single, "README": "text"}, []string{"flannel", "portmap", Type}},
		{"a single plugin", map[string]string{"10-old.conf": single, "20-other.conflist": flannel}, []string{"bridge", Type}},
		{"a single plugin, as JSON", map[string]string{"10-old.json": single}, []string{"bridge", Type}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := newDirs(t, tt.files)
			kit.Must(d.t, d.install())
			if diff := cmp.Diff(tt.want, d.chosen()); diff != "" {
				t.Errorf("the network that is used (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(map[string]string{Type: "a program"}, d.ours(d.bin())); diff != "" {
				t.Errorf("the programs (-want +got):\n%s", diff)
			}
			once := d.files(d.ConfDir)
			kit.Must(d.t, d.install())
			if diff := cmp.Diff(once, d.files(d.ConfDir)); diff != "" {
				t.Errorf("installed again (-once +twice):\n%s", diff)
			}
			kit.Must(d.t, d.uninstall())
			if diff := cmp.Diff(tt.files, d.files(d.ConfDir)); diff != "" {
				t.Errorf("after uninstall (-before +after):\n%s", diff)
			}
			if left := d.ours(d.bin()); len(left) != 0 {
				t.Errorf("after uninstall the programs are %v", left)
			}
			kit.Must(d.t, d.uninstall()) // nothing to do
		})
	}
}

func TestWhatOthersWroteStaysToTheByte(t *testing.T) {
	d := newDirs(t, map[string]string{"10-flannel.conflist": flannel})
	kit.Must(d.t, d.install())
	got := d.files(d.ConfDir)["10-flannel.conflist"]
	ours := `,
    {"type":"ringfence-cni","socket":"/run/ringfence/cni.sock","onUnavailable":"block","timeoutSeconds":15}`
	if diff := cmp.Diff(flannel, strings.Replace(got, ours, "", 1)); diff != "" {
		t.Errorf("but for ours (-want +got):\n%s", diff)
	}
}

func TestInstallingAnew(t *testing.T) {
	d := newDirs(t, map[string]string{"10-flannel.conflist": flannel})
	kit.Must(d.t, d.install())
	list := filepath.Join(d.ConfDir, "10-flannel.conflist")

	t.Run("another setting replaces ours", func(t *testing.T) {
		d.Settings.OnUnavailable = Allow
		kit.Must(d.t, d.install())
		text, err := os.ReadFile(list)
		kit.Must(d.t, err)
		if bytes.Count(text, []byte(Type)) != 1 || !bytes.Contains(text, []byte(`"onUnavailable":"allow"`)) {
			t.Errorf("the file reads\n%s", text)
		}
	})
	t.Run("somebody has put a plugin behind ours", func(t *testing.T) {
		d.write("10-flannel.conflist", `{"name":"n","plugins":[{"type":"ringfence-cni"},{"type":"ptp"},{"type":"ringfence-cni"}, {"type":"bandwidth"}]}`)
		kit.Must(d.t, d.install())
		if diff := cmp.Diff([]string{"ptp", "bandwidth", Type}, d.chosen()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
	t.Run("another network comes before", func(t *testing.T) {
		d.write("05-multus.conf", `{"cniVersion":"0.3.1","name":"multus","type":"multus"}`)
		kit.Must(d.t, d.install())
		if diff := cmp.Diff([]string{"multus", Type}, d.chosen()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if text := d.files(d.ConfDir)["10-flannel.conflist"]; strings.Contains(text, Type) {
			t.Errorf("the network that is not used any more reads\n%s", text)
		}
	})
	t.Run("the owner writes the single configuration anew", func(t *testing.T) {
		newer := `{"cniVersion":"0.3.1","name":"multus","type":"multus","newer":true}`
		d.write("05-multus.conf", newer)
		kit.Must(d.t, d.install())
		if got := d.files(d.ConfDir)["05-multus"+standInSuffix]; !strings.Contains(got, `"newer":true`) {
			t.Errorf("in its place stands %q", got)
		}
		kit.Must(d.t, d.uninstall())
		if got := d.files(d.ConfDir)["05-multus.conf"]; got != newer {
			t.Errorf("after uninstall it is %q", got)
		}
	})
}

func TestWhatIsLeftAlone(t *testing.T) {
	tests := []struct{ name, text string }{
		{"half a file", flannel[:100]},
		{"no JSON", "# none"},
		{"no plugins", `{"name":"n","plugins":[]}`},
		{"no name", `{"plugins":[{"type":"ptp"}]}`},
		{"a plugin without a type", `{"name":"n","plugins":[{"type":"ptp"},{}]}`},
		{"two lists", `{"name":"n","plugins":[{"type":"ptp"}],"plugins":[{"type":"bridge"}]}`},
		{"nobody but us", `{"name":"n","plugins":[{"type":"ringfence-cni"}]}`},
		{"more behind it", `{"name":"n","plugins":[{"type":"ptp"}]} {}`},
	}
	for _, tt := range tests {
		d := newDirs(t, map[string]string{"10.conflist": tt.text, "20.conflist": flannel})
		if err := d.install(); err == nil || !strings.Contains(err.Error(), "left as it is") {
			t.Errorf("%s: %v", tt.name, err)
		}
		if diff := cmp.Diff(map[string]string{"10.conflist": tt.text, "20.conflist": flannel}, d.files(d.ConfDir)); diff != "" {
			t.Errorf("%s (-before +after):\n%s", tt.name, diff)
		}
	}
}

func TestWithoutANetworkThereIsNothingToDoYet(t *testing.T) {
	d := newDirs(t, nil)
	var none *NoNetworkError
	if err := d.install(); !errors.As(err, &none) {
		t.Errorf("%v", err)
	}
	kit.Must(d.t, os.Remove(d.ConfDir))
	if err := d.install(); !errors.As(err, &none) {
		t.Errorf("without the directory: %v", err)
	}
}

func TestAFileKeepsItsModeAndALinkItsTarget(t *testing.T) {
	d := newDirs(t, nil)
	elsewhere := filepath.Join(t.TempDir(), "real")
	kit.Must(d.t, os.WriteFile(elsewhere, []byte(flannel), 0o640))
	kit.Must(d.t, os.Chmod(elsewhere, 0o640))
	link := filepath.Join(d.ConfDir, "10-flannel.conflist")
	kit.Must(d.t, os.Symlink(elsewhere, link))
	kit.Must(d.t, d.install())
	if got, err := os.Readlink(link); err != nil || got != elsewhere {
		t.Errorf("the link leads to %q, %v", got, err)
	}
	info, err := os.Stat(elsewhere)
	kit.Must(d.t, err)
	if info.Mode().Perm() != 0o640 {
		t.Errorf("the file has mode %o", info.Mode().Perm())
	}
	if diff := cmp.Diff([]string{"flannel", "portmap", Type}, d.chosen()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestTheOwnersLastWordCounts writes the file between our look at it and our change, as its owner may.
func TestTheOwnersLastWordCounts(t *testing.T) {
	d := newDirs(t, map[string]string{"10.conflist": flannel})
	file := filepath.Join(d.ConfDir, "10.conflist")
	const newer = `{"name":"newer","plugins":[{"type":"ptp"}]}`
	written := false
	_, err := edit(file, func(l list) ([]byte, error) {
		if !written {
			written = true
			d.write("10.conflist", newer)
		}
		return l.with(d.Settings)
	})
	kit.Must(d.t, err)
	if diff := cmp.Diff([]string{"ptp", Type}, d.chosen()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestItKeepsItselfThere has an owner who rewrites the file all the time, while a runtime reads it.
func TestItKeepsItselfThere(t *testing.T) {
	d := newDirs(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	var keeping sync.WaitGroup
	keeping.Go(func() { d.Keep(ctx, logr.Discard()) })
	defer keeping.Wait()
	defer cancel()
	file := filepath.Join(d.ConfDir, "10.conflist")
	for i := range 12 {
		text := fmt.Sprintf(`{"name":"n%d","plugins":[{"type":"ptp"}]}`, i)
		part := filepath.Join(t.TempDir(), "part")
		kit.Must(d.t, os.WriteFile(part, []byte(text), 0o600))
		kit.Must(d.t, os.Rename(part, file))
		kit.EventuallySucceeds(t, 30*time.Second, "the list has us after its owner has written it", func(context.Context) error {
			now, err := os.ReadFile(file)
			kit.Must(t, err)
			l, err := readList(now)
			if err != nil {
				t.Fatalf("a runtime would have read %q: %v", now, err)
			}
			if l.count() != 1 || !bytes.Contains(now, fmt.Appendf(nil, `"n%d"`, i)) {
				return fmt.Errorf("the file reads %s", now)
			}
			return nil
		})
	}
	program := filepath.Join(d.bin(), Type)
	kit.Must(d.t, os.Remove(program))
	d.write("10.conflist", flannel)
	kit.Eventually(t, 30*time.Second, "the program is there again", func() bool {
		_, err := os.Stat(program)
		return err == nil
	})
}

// FuzzList edits bytes as a network configuration list. What is not understood is left alone; what is edited is a list with us at the end, and without us
// again what it was.
func FuzzList(f *testing.F) {
	for _, seed := range []string{flannel, single, `{"name":"n","plugins":[{"type":"ptp"}]}`, `{"name":"n","plugins":[{"type":"ringfence-cni"},{"type":"ptp"}]}`,
		`{"name":"n","plugins":[{"type":"ptp"}, {"type":"ringfence-cni"} ,{"type":"ptp"}]}`, `{"plugins":{},"name":"n","Plugins":[{"type":"p"}]}`, `{"name":"n","plugins":null}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		before, err := readList([]byte(text))
		if err != nil {
			return
		}
		with, err := before.with(Settings{}.Defaults())
		if err != nil {
			return
		}
		after, err := readList(with)
		if err != nil {
			t.Fatalf("%q became %q: %v", text, with, err)
		}
		if last := after.plugins[len(after.plugins)-1]; last.kind != Type || after.count() != 1 {
			t.Errorf("%q became %q", text, with)
		}
		if without := string(after.without()); before.count() == 0 && without != text {
			t.Errorf("%q came back as %q", text, without)
		}
	})
}
