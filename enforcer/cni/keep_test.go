package cni

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/ringfence-io/ringfence/test/kit"
)

// TestTheOwnerOfASingleConfigurationRemovesIt: the list that stands for it goes with it, since nobody but us would ever remove it, and the next
// network is used.
func TestTheOwnerOfASingleConfigurationRemovesIt(t *testing.T) {
	other := `{"name":"other","plugins":[{"type":"ptp"}]}`
	for _, tt := range []struct {
		name  string
		files map[string]string
		then  string // what the owner does
		want  []string
	}{
		{"removed, and no other is there", map[string]string{"10-old.conf": single}, "remove", nil},
		{"removed, and another is", map[string]string{"10-old.conf": single, "20-other.conflist": other}, "remove", []string{"ptp", Type}},
		{"removed, as JSON", map[string]string{"10-old.json": single, "20-other.conflist": other}, "remove", []string{"ptp", Type}},
		{"renamed", map[string]string{"10-old.conf": single, "20-other.conflist": other}, "rename", []string{"ptp", Type}},
		{"replaced by a list", map[string]string{"10-old.conf": single}, "list", []string{"ptp", Type}},
		{"another of the same name", map[string]string{"10-old.conf": single, "10-old.json": strings.Replace(single, "bridge", "ptp", 1)}, "remove", []string{"ptp", Type}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDirs(t, tt.files)
			kit.Must(d.t, d.install())
			if diff := cmp.Diff([]string{"bridge", Type}, d.chosen()); diff != "" {
				t.Fatalf("the network that is used (-want +got):\n%s", diff)
			}
			names := slices.DeleteFunc(slices.Sorted(maps.Keys(tt.files)), func(name string) bool { return !strings.HasPrefix(name, "10-old.") })
			file := filepath.Join(d.ConfDir, names[0])
			switch tt.then {
			case "remove":
				kit.Must(d.t, os.RemoveAll(file)) // as rm -f does
			case "rename":
				_ = os.Rename(file, file+".bak")
			case "list":
				kit.Must(d.t, os.RemoveAll(file))
				d.write("10-old.conflist", other)
			}
			_, err := d.Run()
			if tt.want == nil {
				if files := d.files(d.ConfDir); len(files) != 0 || err == nil {
					t.Errorf("%v, and there are still %v", err, files)
				}
				return
			}
			kit.Must(d.t, err)
			if diff := cmp.Diff(tt.want, d.chosen()); diff != "" {
				t.Errorf("then the network that is used (-want +got):\n%s", diff)
			}
		})
	}
}

// TestWhatAnEarlierReleaseSetAsideComesBack: it renamed the configuration, and gave its list the same name.
func TestWhatAnEarlierReleaseSetAsideComesBack(t *testing.T) {
	d := newDirs(t, map[string]string{
		"10-old.conf" + savedSuffix: single, "10-old.conflist": `{"name":"old","plugins":[` + single + `,{"type":"ringfence-cni"}]}`,
	})
	kit.Must(d.t, d.install())
	if diff := cmp.Diff([]string{"bridge", Type}, d.chosen()); diff != "" {
		t.Errorf("the network that is used (-want +got):\n%s", diff)
	}
	want := []string{"10-old" + standInSuffix, "10-old.conf"}
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(d.files(d.ConfDir)))); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	kit.Must(d.t, d.uninstall())
	if diff := cmp.Diff(map[string]string{"10-old.conf": single}, d.files(d.ConfDir)); diff != "" {
		t.Errorf("after uninstall (-want +got):\n%s", diff)
	}
}

// rival is another program that changes the network configuration as soon as we have, until it has not had to for three seconds, or has had to that often.
// It returns how often it had to.
func (d dirs) rival(often int, change func(list) []byte) int {
	d.t.Helper()
	file := filepath.Join(d.ConfDir, "10.conflist")
	count, last := 0, time.Now()
	for ; count < often && time.Since(last) < 3*time.Second; time.Sleep(time.Millisecond) {
		now, err := os.ReadFile(file)
		kit.Must(d.t, err)
		l, err := readList(now)
		if err != nil {
			d.t.Fatalf("a runtime would have read %q: %v", now, err)
		}
		after := change(l)
		if bytes.Equal(after, now) {
			continue
		}
		kit.Must(d.t, os.WriteFile(file+".part", after, 0o600))
		kit.Must(d.t, os.Rename(file+".part", file))
		count, last = count+1, time.Now()
	}
	return count
}

// TestAPluginThatInsistsOnBeingTheLast gets its way: ours stays in the list, and sees the pod's addresses wherever it is behind those that give them.
func TestAPluginThatInsistsOnBeingTheLast(t *testing.T) {
	t.Parallel()
	const insisting = `{"type":"insists"}`
	d := newDirs(t, map[string]string{"10.conflist": `{"name":"n","plugins":[{"type":"ptp"}]}`})
	d.have(d.bin(), "insists")
	d.keeping()
	kit.Eventually(d.t, time.Minute, "it is installed", d.listed)
	count := d.rival(20, func(l list) []byte {
		if l.plugins[len(l.plugins)-1].kind == "insists" {
			return l.text
		}
		text := strings.Replace(string(l.text), ",\n    "+insisting, "", 1)
		at := strings.LastIndex(text, "]")
		return []byte(text[:at] + ",\n    " + insisting + text[at:])
	})
	if diff := cmp.Diff([]string{"ptp", Type, "insists"}, d.chosen()); diff != "" || count > movesAtOnce+1 {
		t.Errorf("after %d changes by the other plugin the list is (-want +got):\n%s", count, diff)
	}
}

// TestAProgramThatTakesUsOutAllTheTime: we come back, at once at first, and then once a second, not as fast as both can write.
func TestAProgramThatTakesUsOutAllTheTime(t *testing.T) {
	t.Parallel()
	d := newDirs(t, map[string]string{"10.conflist": `{"name":"n","plugins":[{"type":"ptp"}]}`})
	d.keeping()
	kit.Eventually(d.t, time.Minute, "it is installed", d.listed)
	start := time.Now()
	count := d.rival(changesAtOnce+4, func(l list) []byte { return l.without() })
	if took := time.Since(start); count < changesAtOnce+4 || took < 3*changeTime {
		t.Errorf("it was put back %d times in %s, want no more than once a second after the first %d", count, took, changesAtOnce)
	}
}

// TestAnOwnerWhoNeverStopsWriting: what nobody hears the end of is looked at all the same.
func TestAnOwnerWhoNeverStopsWriting(t *testing.T) {
	d := newDirs(t, map[string]string{"10.conflist": `{"name":"n","plugins":[{"type":"ptp"}]}`})
	d.keeping()
	kit.Eventually(d.t, time.Minute, "it is installed", d.listed)
	d.write("05.conflist", `{"name":"first","plugins":[{"type":"bridge"}]}`)
	start := time.Now()
	for i := 0; !d.listed(); i++ {
		d.write("notes", fmt.Sprint(i)) // a thousand times in the time that a file is let settle
		if time.Since(start) > lookTime/2 {
			t.Fatalf("after %s in which somebody wrote all the time the network that is used is %s", time.Since(start), d.used())
		}
	}
}

// TestWhatWasLeftHalfWrittenGoes: a process that dies while it writes, again and again, fills no disk.
func TestWhatWasLeftHalfWrittenGoes(t *testing.T) {
	half := func(d dirs) {
		for i := range 20 {
			for _, dir := range []string{d.ConfDir, d.bin()} {
				kit.Must(d.t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("%s%d.part", partPrefix, i)), make([]byte, 1<<16), 0o600))
			}
		}
	}
	none := func(d dirs) bool {
		for _, dir := range []string{d.ConfDir, d.bin()} {
			for name := range d.files(dir) {
				if strings.HasPrefix(name, partPrefix) {
					return false
				}
			}
		}
		return true
	}
	t.Run("when it is installed", func(t *testing.T) {
		d := newDirs(t, map[string]string{"10-flannel.conflist": flannel})
		half(d)
		kit.Must(d.t, d.install())
		if !none(d) {
			t.Error("it is still there")
		}
	})
	t.Run("when an enforcer starts, and all is in place", func(t *testing.T) {
		d := newDirs(t, map[string]string{"10-flannel.conflist": flannel})
		kit.Must(d.t, d.install())
		half(d)
		d.keeping()
		kit.Eventually(d.t, time.Minute, "it is gone", func() bool { return none(d) })
	})
	t.Run("when nothing can be installed", func(t *testing.T) {
		d := newDirs(t, nil)
		half(d)
		d.keeping()
		kit.Eventually(d.t, time.Minute, "it is gone", func() bool { return none(d) })
	})
	t.Run("what another process writes just now stays", func(t *testing.T) {
		d := newDirs(t, map[string]string{"10-flannel.conflist": flannel})
		writes, ended := make(chan struct{}), make(chan error)
		go func() {
			ended <- writing(d.ConfDir, func() error {
				part, err := writePart(d.ConfDir, strings.NewReader("text"), 0o600, nil)
				close(writes)
				if err != nil {
					return err
				}
				defer func() { _ = os.Remove(part) }()
				<-writes
				for start := time.Now(); time.Since(start) < 100*time.Millisecond; { // while the other one tries
					if _, err := os.Stat(part); err != nil {
						return err
					}
				}
				return nil
			})
		}()
		<-writes
		kit.Must(d.t, d.install())
		kit.Must(d.t, <-ended)
		if !d.listed() {
			t.Error("who came second has given up")
		}
	})
}

// TestDirectoriesThatAreMadeAnew: changes are heard in the new ones, too, as soon as in those that were there at the start.
func TestDirectoriesThatAreMadeAnew(t *testing.T) {
	soon := func(d dirs, what string) { // before the next look without a sign
		d.t.Helper()
		start := time.Now()
		kit.Eventually(d.t, time.Minute, what, d.listed)
		if took := time.Since(start); took > lookTime/2 {
			d.t.Errorf("%s: only after %s", what, took)
		}
	}
	for name, remove := range map[string]func(string) error{
		"removed":   os.RemoveAll,
		"set aside": func(dir string) error { return os.Rename(dir, dir+".old") },
	} {
		t.Run(name, func(t *testing.T) {
			d := newDirs(t, map[string]string{"10-flannel.conflist": flannel})
			d.keeping()
			soon(d, "it is installed")
			for range 3 {
				kit.Must(d.t, remove(d.ConfDir))
				kit.Must(d.t, os.Mkdir(d.ConfDir, 0o755))
				d.write("10-flannel.conflist", flannel)
				soon(d, "the list of the new directory has us")
				d.write("10-flannel.conflist", flannel)
				soon(d, "the list has us after its owner has written it again")
				_ = os.RemoveAll(d.ConfDir + ".old")
			}
		})
	}
	t.Run("it was not there at the start", func(t *testing.T) {
		d := newDirs(t, nil)
		kit.Must(d.t, os.Remove(d.ConfDir))
		told := d.keeping()
		kit.Eventually(d.t, time.Minute, "the first look", func() bool { return (<-told) != nil })
		kit.Must(d.t, os.Mkdir(d.ConfDir, 0o755))
		d.write("10-flannel.conflist", flannel)
		soon(d, "the list of the new directory has us")
	})
}

// TestAMountedDirectoryThatIsRemoved: a container goes on seeing what was removed on its node, and never what was made in its place.
func TestAMountedDirectoryThatIsRemoved(t *testing.T) {
	kit.NeedRoot(t)
	runtime.LockOSThread() // and never unlocked: the mount ends with the thread
	d := newDirs(t, map[string]string{"10-flannel.conflist": flannel})
	mounted := filepath.Join(t.TempDir(), "net.d")
	kit.Must(d.t, os.Mkdir(mounted, 0o755))
	kit.Must(d.t, unix.Unshare(unix.CLONE_NEWNS))
	kit.Must(d.t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	kit.Must(d.t, unix.Mount(d.ConfDir, mounted, "", unix.MS_BIND, ""))
	defer func() { kit.Must(d.t, unix.Unmount(mounted, unix.MNT_DETACH)) }()
	w := newWatch(logr.Discard())
	defer w.close()
	for range 2 {
		if w.renew([]string{mounted}) {
			t.Error("it is lost while it is there")
		}
	}
	kit.Must(d.t, os.RemoveAll(d.ConfDir))
	kit.Must(d.t, os.Mkdir(d.ConfDir, 0o755))
	if !w.renew([]string{mounted}) || w.gone != mounted {
		t.Errorf("that it is lost is not noticed: %q", w.gone)
	}
	if w.renew([]string{mounted}) {
		t.Error("it is lost twice")
	}
}

// TestAConfigurationThatNobodyWrites is a pipe: whoever opens it to read would wait for ever.
func TestAConfigurationThatNobodyWrites(t *testing.T) {
	d := newDirs(t, map[string]string{"10-flannel.conflist": flannel})
	kit.Must(d.t, syscall.Mkfifo(filepath.Join(d.ConfDir, "05-pipe.conflist"), 0o600))
	done := make(chan error, 1)
	go func() { done <- d.install() }()
	select {
	case err := <-done:
		if err == nil || !strings.Contains(err.Error(), "05-pipe.conflist") {
			t.Errorf("%v", err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("it waits for somebody to write to the pipe")
	}
}
