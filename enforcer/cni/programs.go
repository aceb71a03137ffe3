package cni

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// DefaultBinDirs are the directories in which container runtimes look for plugins, as they are shipped: the CNI project's own, Debian's, Fedora's, GKE's,
// k3s's, and OpenShift's.
var DefaultBinDirs = []string{
	"/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni", "/home/kubernetes/bin", "/var/lib/rancher/k3s/data/cni", "/var/lib/cni/bin",
}

// NotFoundError says that a program of the list is in none of the directories that are looked in: the runtime looks elsewhere, and would not find ours.
type NotFoundError struct {
	Missing string   // the plugin
	Dirs    []string // where it is not
}

func (e *NotFoundError) Error() string {
	return fmt.Sprintf("the program of its plugin %q is not in %s: the container runtime looks for plugins elsewhere, or the plugin is not installed yet. "+
		"With %s in the list no pod would start. Name the runtime's directory by --cni-bin-dir, mounted where this program runs in a container",
		e.Missing, strings.Join(e.Dirs, ", nor in "), Type)
}

// directories are those in which our program has to be, so that a runtime that finds the programs of these plugins finds ours: wherever the rarest of them
// is. For example, of a list of flannel and portmap, where /opt/cni/bin has both and /usr/lib/cni has portmap alone, the runtime can have flannel
// from /opt/cni/bin only, so it looks there. Of programs that two directories have, either may be where it looks, and ours has to be in both.
func directories(candidates, plugins []string) ([]string, error) {
	var rarest []string
	for _, plugin := range plugins {
		var in []string
		for _, dir := range candidates {
			if holds(dir, plugin) {
				in = append(in, dir)
			}
		}
		if len(in) == 0 {
			return nil, &NotFoundError{Missing: plugin, Dirs: candidates}
		}
		if rarest == nil || len(in) < len(rarest) {
			rarest = in
		}
	}
	return rarest, nil
}

// holds reports whether a directory has a program. A link may lead to where only the host sees it (k3s and NixOS have such), and is believed.
func holds(dir, plugin string) bool {
	if plugin != filepath.Base(plugin) {
		return false // runtimes take no path
	}
	file := filepath.Join(dir, plugin)
	link, err := os.Lstat(file)
	if err != nil {
		return false
	}
	info, err := os.Stat(file)
	if err != nil {
		return link.Mode()&fs.ModeSymlink != 0
	}
	return executable(info)
}

func executable(info os.FileInfo) bool {
	return info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0
}

// olderError says that the program could not be replaced, and that the one which is there works.
type olderError struct{ error }

func (e *olderError) Unwrap() error { return e.error }

// installProgram has the program in a directory as it is to be, and fails if a runtime could not run it there. It reads all of it only if it may have
// changed since.
func (k *keeper) installProgram(dir string) error {
	target := filepath.Join(dir, Type)
	if err := runnable(dir); err != nil {
		return fmt.Errorf("installing %s: %w", target, err)
	}
	before, err := stampOf(target)
	if err == nil && k.installed[target] == before {
		return nil
	}
	same, err := sameContent(k.install.Program, target)
	if err == nil && !same {
		err = k.install.copyTo(dir)
	}
	switch {
	case err == nil && same:
		k.remember(target, before)
		return nil
	case err == nil:
		return nil // the next look reads it
	}
	err = fmt.Errorf("installing %s: %w", target, err)
	if wholeLike(k.install.Program, target) {
		return &olderError{fmt.Errorf("another release's program stays: %w", err)}
	}
	return err
}

// remember notes that a program has been found to be as it is to be, unless it may have changed meanwhile: the kernel's times are some milliseconds
// apart.
func (k *keeper) remember(target string, before stamp) {
	if now, err := stampOf(target); err != nil || now != before || time.Since(time.Unix(now.ctime.Unix())).Abs() < time.Second {
		return
	}
	if k.installed == nil {
		k.installed = map[string]stamp{}
	}
	k.installed[target] = before
}

// copyTo replaces the program at once: one that runs goes on, and none is ever found half written.
func (i Install) copyTo(dir string) error {
	from, err := os.Open(i.Program)
	if err != nil {
		return err
	}
	defer from.Close()
	return writing(dir, func() error {
		part, err := writePart(dir, from, 0o755, nil)
		if err != nil {
			return err
		}
		if err := os.Rename(part, filepath.Join(dir, Type)); err != nil {
			return errors.Join(err, os.Remove(part))
		}
		return syncDir(dir)
	})
}

// runnable says why no program of a directory can be run.
func runnable(dir string) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return err
	}
	if fs.Flags&unix.ST_NOEXEC != 0 {
		return errors.New("no program can be run from there: it is mounted noexec")
	}
	return nil
}

// wholeLike reports whether a file is a program for the same machine as another, with nothing missing at its end.
func wholeLike(like, file string) bool {
	info, err := os.Stat(file)
	if err != nil || !executable(info) {
		return false
	}
	a, err := elf.Open(like)
	if err != nil {
		return false
	}
	defer func() { _ = a.Close() }()
	b, err := elf.Open(file)
	if err != nil {
		return false
	}
	defer func() { _ = b.Close() }()
	size := uint64(info.Size())
	return a.Machine == b.Machine && a.Class == b.Class && !slices.ContainsFunc(b.Progs, func(p *elf.Prog) bool { return p.Off+p.Filesz > size })
}

// stamp tells whether a file has changed: whatever that is, the time of the change is another.
type stamp struct {
	dev, ino     uint64
	size         int64
	mode         uint32
	mtime, ctime unix.Timespec
}

func stampOf(file string) (stamp, error) {
	var s unix.Stat_t
	if err := unix.Lstat(file, &s); err != nil {
		return stamp{}, err
	}
	return stamp{uint64(s.Dev), s.Ino, s.Size, s.Mode, s.Mtim, s.Ctim}, nil //nolint:unconvert // not of the same size on every machine
}

// sameContent reports whether two files have the same content, the second with the mode of a program.
func sameContent(a, b string) (bool, error) {
	x, err := os.Open(a)
	if err != nil {
		return false, err
	}
	defer x.Close()
	y, err := os.OpenFile(b, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer y.Close()
	xi, err := x.Stat()
	if err != nil {
		return false, err
	}
	yi, err := y.Stat()
	if err != nil || !yi.Mode().IsRegular() || xi.Size() != yi.Size() || yi.Mode().Perm() != 0o755 {
		return false, err
	}
	const block = 1 << 20
	p, q := make([]byte, block), make([]byte, block)
	for {
		n, errX := io.ReadFull(x, p)
		m, errY := io.ReadFull(y, q)
		if n != m || !bytes.Equal(p[:n], q[:m]) {
			return false, nil
		}
		if errX != nil || errY != nil {
			ended := errors.Is(errX, io.EOF) || errors.Is(errX, io.ErrUnexpectedEOF)
			return ended, nil
		}
	}
}
