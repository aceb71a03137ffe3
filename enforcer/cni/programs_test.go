package cni

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/ringfence-io/ringfence/test/disk"
	"github.com/ringfence-io/ringfence/test/kit"
)

func TestWhereTheProgramGoes(t *testing.T) {
	tests := []struct {
		name    string
		have    map[string][]string // of each directory
		plugins []string
		want    []string
		missing string
	}{
		{"all in one", map[string][]string{"opt": {"bridge", "portmap"}, "usr": nil}, []string{"bridge", "portmap"}, []string{"opt"}, ""},
		{"all in another", map[string][]string{"opt": {"README"}, "usr": {"bridge", "portmap"}}, []string{"bridge", "portmap"}, []string{"usr"}, ""},
		{"a package of the distribution beside them", map[string][]string{"opt": {"flannel", "portmap"}, "usr": {"bridge", "portmap"}},
			[]string{"flannel", "portmap"}, []string{"opt"}, ""},
		{"a runtime that looks in two", map[string][]string{"opt": {"multus"}, "usr": {"bridge", "portmap"}}, []string{"multus", "portmap"}, []string{"opt"}, ""},
		{"the same in two: either may be it", map[string][]string{"opt": {"bridge", "portmap"}, "usr": {"bridge", "portmap"}},
			[]string{"bridge", "portmap"}, []string{"opt", "usr"}, ""},
		{"none has one of them", map[string][]string{"opt": {"portmap"}, "usr": {"portmap"}}, []string{"ptp", "portmap"}, nil, "ptp"},
		{"nothing is there", map[string][]string{"opt": nil}, []string{"ptp"}, nil, "ptp"},
		{"a path, which no runtime takes", map[string][]string{"opt": {"ptp"}}, []string{"../opt/ptp"}, nil, "../opt/ptp"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := newDirs(t, nil)
			top := t.TempDir()
			var candidates, want []string
			for _, name := range slices.Sorted(maps.Keys(tt.have)) {
				candidates = append(candidates, filepath.Join(top, name))
				d.have(filepath.Join(top, name), tt.have[name]...)
			}
			for _, name := range tt.want {
				want = append(want, filepath.Join(top, name))
			}
			candidates = append(candidates, filepath.Join(top, "absent"))
			got, err := directories(candidates, tt.plugins)
			var notFound *NotFoundError
			if diff := cmp.Diff(want, got); diff != "" || errors.As(err, &notFound) != (tt.missing != "") {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
			if notFound != nil && (notFound.Missing != tt.missing || !strings.Contains(err.Error(), candidates[0])) {
				t.Errorf("missing is %q, want %q: %v", notFound.Missing, tt.missing, err)
			}
		})
	}
}

func TestWhatIsAProgramOfTheRuntime(t *testing.T) {
	dir := t.TempDir()
	d := newDirs(t, nil)
	d.have(dir, "program", "text")
	kit.Must(d.t, os.Chmod(filepath.Join(dir, "text"), 0o644))
	kit.Must(d.t, os.Mkdir(filepath.Join(dir, "directory"), 0o755))
	kit.Must(d.t, os.Symlink("program", filepath.Join(dir, "link")))
	kit.Must(d.t, os.Symlink("text", filepath.Join(dir, "linked-text")))
	kit.Must(d.t, os.Symlink("/var/lib/somewhere/only/the/host/sees", filepath.Join(dir, "elsewhere")))
	for name, want := range map[string]bool{
		"program": true, "link": true, "elsewhere": true, "text": false, "linked-text": false, "directory": false, "absent": false, ".": false, "": false,
	} {
		if got := holds(dir, name); got != want {
			t.Errorf("%q: %v, want %v", name, got, want)
		}
	}
}

// elsewhere is a node whose runtime looks for plugins in a directory that is not the first of those we know.
func elsewhere(t *testing.T) (d dirs, runtimes string) {
	t.Helper()
	d = newDirs(t, map[string]string{"10-flannel.conflist": flannel})
	kit.Must(d.t, os.RemoveAll(d.bin()))
	kit.Must(d.t, os.Mkdir(d.bin(), 0o755))
	runtimes = filepath.Join(t.TempDir(), "lib", "cni")
	d.have(runtimes, "flannel", "portmap", "bridge")
	return d, runtimes
}

// TestARuntimeThatLooksElsewhere: a list that names a program which the runtime does not find starts no pod and ends none, so it stays as it is, and that is
// said. Where the runtime's directory is known, the program goes there and nowhere else.
func TestARuntimeThatLooksElsewhere(t *testing.T) {
	d, runtimes := elsewhere(t)
	err := d.install()
	if diff := cmp.Diff([]string{"flannel", "portmap"}, d.chosen()); diff != "" {
		t.Errorf("the network that is used (-want +got):\n%s", diff)
	}
	if err == nil || !strings.Contains(err.Error(), `"flannel"`) || !strings.Contains(err.Error(), d.bin()) {
		t.Errorf("the error is %v, want one that says which program is not where", err)
	}
	d.BinDirs = append(d.BinDirs, runtimes)
	kit.Must(d.t, d.install())
	if diff := cmp.Diff([]string{"flannel", "portmap", Type}, d.chosen()); diff != "" {
		t.Errorf("the network that is used (-want +got):\n%s", diff)
	}
	if len(d.ours(d.bin())) != 0 || d.ours(runtimes)[Type] != "a program" {
		t.Errorf("programs are %v, and %v where the runtime looks", d.ours(d.bin()), d.ours(runtimes))
	}
	kit.Must(d.t, d.uninstall())
	if len(d.ours(runtimes)) != 0 {
		t.Errorf("after uninstall there are %v", d.ours(runtimes))
	}
}

// TestANodeIsHealed has a list with our element that no program belongs to, as an earlier release has left it.
func TestANodeIsHealed(t *testing.T) {
	for name, file := range map[string]string{"a list": "10-net.conflist", "a list that stands for a single configuration": "10-net" + standInSuffix} {
		t.Run(name, func(t *testing.T) {
			d, _ := elsewhere(t)
			kit.Must(d.t, os.Remove(filepath.Join(d.ConfDir, "10-flannel.conflist")))
			if file != "10-net.conflist" {
				d.write("10-net.conf", single)
			}
			d.write(file, `{"name":"n","plugins":[{"type":"bridge"}, {"type":"ringfence-cni"}]}`)
			if err := d.install(); err == nil {
				t.Error("nothing is said")
			}
			if text := d.used(); strings.Contains(text, Type) {
				t.Errorf("the network that is used is %s", text)
			}
		})
	}
}

// keeping has the installation kept until the test ends.
func (d dirs) keeping() (told <-chan error) {
	d.t.Helper()
	tell := make(chan error, 1)
	d.Tell = func(err error) {
		select {
		case old := <-tell: // which nobody has heard
			_ = old
		default:
		}
		tell <- err
	}
	ctx, cancel := context.WithCancel(d.t.Context())
	var keeping sync.WaitGroup
	keeping.Go(func() { d.Keep(ctx, logr.Discard()) })
	d.t.Cleanup(func() { cancel(); keeping.Wait() })
	return tell
}

func (d dirs) listed() bool { return strings.Contains(d.used(), `"`+Type+`"`) }

// TestItStaysWhereTheRuntimeFindsIt: whatever happens to our program, it comes back as it was, and where it cannot, the list is without us.
func TestItStaysWhereTheRuntimeFindsIt(t *testing.T) {
	t.Parallel()
	d := newDirs(t, map[string]string{"10-flannel.conflist": flannel})
	program := filepath.Join(d.bin(), Type)
	whole := func() bool {
		text, err := os.ReadFile(program)
		info, statErr := os.Stat(program)
		return err == nil && statErr == nil && string(text) == "a program" && info.Mode().Perm() == 0o755
	}
	told := d.keeping()
	kit.Eventually(d.t, time.Minute, "it is installed", func() bool { return d.listed() && whole() })
	for name, harm := range map[string]func(){
		"removed":     func() { kit.Must(d.t, os.Remove(program)) },
		"cut short":   func() { kit.Must(d.t, os.Truncate(program, 3)) },
		"overwritten": func() { kit.Must(d.t, os.WriteFile(program, []byte("a PROGRAM"), 0o755)) },
		"not to run":  func() { kit.Must(d.t, os.Chmod(program, 0o644)) },
		"a link":      func() { kit.Must(d.t, os.Remove(program)); kit.Must(d.t, os.Symlink("/nowhere", program)) },
		"replaced": func() {
			kit.Must(d.t, os.WriteFile(program+".x", []byte("?"), 0o755))
			kit.Must(d.t, os.Rename(program+".x", program))
		},
		"all directory": func() { kit.Must(d.t, os.RemoveAll(d.bin())); d.have(d.bin(), "flannel", "portmap") },
	} {
		harm()
		kit.Eventually(d.t, time.Minute, "after it was "+name+" it is as it was", func() bool { return whole() && d.listed() })
	}
	// The runtime's programs are elsewhere from now on.
	kit.Must(d.t, os.Rename(filepath.Join(d.bin(), "portmap"), filepath.Join(d.bin(), "portmap-1.2")))
	kit.Eventually(d.t, time.Minute, "the list is without us", func() bool { return !d.listed() })
	kit.Eventually(d.t, time.Minute, "that is said", func() bool { return (<-told) != nil })
	if d.used() != flannel {
		t.Errorf("the owner's list has become %s", d.used())
	}
	d.have(d.bin(), "portmap")
	kit.Eventually(d.t, time.Minute, "the list is with us again", d.listed)
	kit.Eventually(d.t, time.Minute, "that is said", func() bool { return (<-told) == nil })
}

// onDisk is a node whose programs are on a disk that only the goroutine of the test sees.
func onDisk(t *testing.T) dirs {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Fatal("this needs Linux")
	}
	top := disk.Small(t)
	d := newDirs(t, map[string]string{"10-flannel.conflist": flannel})
	d.BinDirs = []string{filepath.Join(top, "bin")}
	d.have(d.bin(), "flannel", "portmap")
	return d
}

func (d dirs) remount(flags uintptr) {
	d.t.Helper()
	kit.Must(d.t, unix.Mount("", filepath.Dir(d.bin()), "", unix.MS_REMOUNT|flags, ""))
}

// TestAProgramThatCannotBeRun: where no program can be run, or ours cannot be written and none is there, the list is without us.
func TestAProgramThatCannotBeRun(t *testing.T) {
	t.Run("mounted noexec", func(t *testing.T) {
		d := onDisk(t)
		kit.Must(d.t, d.install())
		d.remount(unix.MS_NOEXEC)
		if err := d.install(); err == nil || !strings.Contains(err.Error(), "noexec") || d.listed() {
			t.Errorf("%v, and the list is %s", err, d.used())
		}
		d.remount(0)
		kit.Must(d.t, d.install())
		if !d.listed() {
			t.Error("when it can be run again, the list is without us")
		}
	})
	t.Run("read-only, and ours is not there", func(t *testing.T) {
		d := onDisk(t)
		d.remount(unix.MS_RDONLY)
		if err := d.install(); !errors.Is(err, unix.EROFS) || d.listed() {
			t.Errorf("%v, and the list is %s", err, d.used())
		}
	})
	t.Run("read-only, and ours is", func(t *testing.T) {
		d := onDisk(t)
		kit.Must(d.t, d.install())
		d.remount(unix.MS_RDONLY)
		kit.Must(d.t, d.install())
		if !d.listed() {
			t.Error("the list is without us")
		}
	})
	t.Run("read-only, and half of another is", func(t *testing.T) {
		d := onDisk(t)
		kit.Must(d.t, d.install())
		kit.Must(d.t, os.WriteFile(filepath.Join(d.bin(), Type), []byte("a pro"), 0o755))
		d.remount(unix.MS_RDONLY)
		if err := d.install(); !errors.Is(err, unix.EROFS) || d.listed() {
			t.Errorf("%v, and the list is %s", err, d.used())
		}
	})
}

// TestAnotherReleasesProgramIsGoodEnough: one that is whole, and of this machine, goes on being called while it cannot be replaced.
func TestAnotherReleasesProgramIsGoodEnough(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	other := filepath.Join(dir, "other")
	for name, tt := range map[string]struct {
		text []byte
		mode os.FileMode
		want bool
	}{
		"another release's":  {append(slices.Clone(whole), 'x'), 0o755, true},
		"cut short":          {whole[:len(whole)/2], 0o755, false},
		"nothing but a head": {whole[:64], 0o755, false},
		"of another machine": {machine(whole, 0xf3), 0o755, false},
		"not to run":         {whole, 0o644, false},
		"a script":           {[]byte("#!/bin/sh\n"), 0o755, false},
		"empty":              {nil, 0o755, false},
	} {
		if err := errors.Join(os.WriteFile(other, tt.text, tt.mode), os.Chmod(other, tt.mode)); err != nil {
			t.Fatal(err)
		}
		if got := wholeLike(self, other); got != tt.want {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
	if wholeLike(self, filepath.Join(dir, "absent")) {
		t.Error("what is not there is good enough")
	}
}

// machine is a program with another machine in its head.
func machine(program []byte, number byte) []byte {
	other := slices.Clone(program)
	other[18], other[19] = number, 0
	return other
}

// TestAListThatWeCannotBeCalledBy: a version of the specification that we do not speak would fail ADD and DEL of the plugins before us.
func TestAListThatWeCannotBeCalledBy(t *testing.T) {
	for name, text := range map[string]string{
		"a version that is to come": `{"cniVersion":"2.0.0","name":"n","plugins":[{"type":"ptp"}]}`,
		"one of several":            `{"cniVersion":"1.0.0","cniVersions":["0.4.0","1.0.0","1.9.0"],"name":"n","plugins":[{"type":"ptp"}]}`,
		"no version":                `{"cniVersion":"newest","name":"n","plugins":[{"type":"ptp"}]}`,
		"with us, from before":      `{"cniVersion":"2.0.0","name":"n","plugins":[{"type":"ptp"},{"type":"ringfence-cni"}]}`,
	} {
		d := newDirs(t, map[string]string{"10.conflist": text})
		if err := d.install(); err == nil || !strings.Contains(err.Error(), "cniVersion") || d.listed() {
			t.Errorf("%s: %v, and the list is %s", name, err, d.used())
		}
	}
}
