package cni

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// partPrefix begins the names of files that are being written. No runtime reads them.
const partPrefix = ".ringfence-"

// maxConf bounds what is read as a network configuration.
const maxConf = 1 << 20

// configurations are the files that runtimes take for network configurations, in their order: they use the first. Lists of ours that stand for one of them
// are left out.
func configurations(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("looking for network configurations: %w", err)
	}
	var files []string
	for _, e := range entries {
		if slices.Contains([]string{".conf", ".conflist", ".json"}, filepath.Ext(e.Name())) && !e.IsDir() && !strings.HasSuffix(e.Name(), standInSuffix) {
			files = append(files, filepath.Join(dir, e.Name()))
		}
	}
	slices.Sort(files)
	return files, nil
}

// readConf reads a configuration. What is no regular file, such as a pipe that nobody writes to, is not waited for.
func readConf(file string) ([]byte, os.FileInfo, error) {
	f, err := os.OpenFile(file, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("reading %s: %w", file, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return nil, nil, errors.Join(fmt.Errorf("reading %s: it is no regular file", file), err)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxConf+1))
	if err == nil && len(text) > maxConf {
		err = fmt.Errorf("it is larger than %d bytes", maxConf)
	}
	return text, info, wrap(err, "reading %s", file)
}

// maxAttempts bounds how often a file is edited that its owner writes at the same time.
const maxAttempts = 10

// edit changes a list in its place, and reports whether there was something to change. Where a link leads elsewhere, the file there is changed.
func edit(file string, change func(list) ([]byte, error)) (bool, error) {
	target, err := filepath.EvalSymlinks(file)
	if err != nil {
		return false, fmt.Errorf("changing %s: %w", file, err)
	}
	for range maxAttempts {
		before, info, err := readConf(target)
		if err != nil {
			return false, err
		}
		l, err := readList(before)
		if err != nil {
			return false, fmt.Errorf("%s is left as it is: %w", file, err)
		}
		after, err := change(l)
		if err != nil {
			return false, fmt.Errorf("%s is left as it is: %w", file, err)
		}
		if bytes.Equal(after, before) {
			return false, nil
		}
		done, err := replace(target, before, after, info)
		if err != nil {
			return false, fmt.Errorf("changing %s: %w", file, err)
		}
		if done {
			return true, syncDir(filepath.Dir(target))
		}
	}
	return false, fmt.Errorf("changing %s: its owner writes it all the time", file)
}

// replace puts a text in the place of a file that holds another, and reports whether it did. The two files change places, and what comes out is looked at:
// if it is not what was expected, its owner has written it meanwhile, or is about to, and gets its place back.
func replace(target string, before, after []byte, info os.FileInfo) (done bool, err error) {
	err = writing(filepath.Dir(target), func() error {
		done, err = exchange(target, before, after, info)
		return err
	})
	return done, err
}

func exchange(target string, before, after []byte, info os.FileInfo) (bool, error) {
	part, err := writePart(filepath.Dir(target), bytes.NewReader(after), info.Mode().Perm(), info)
	if err != nil {
		return false, err
	}
	err = unix.Renameat2(unix.AT_FDCWD, part, unix.AT_FDCWD, target, unix.RENAME_EXCHANGE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		err = os.Rename(part, target) // the file system cannot exchange
		return err == nil, err
	}
	if err != nil {
		return false, errors.Join(err, os.Remove(part))
	}
	out, _, err := readConf(part)
	if err != nil || !bytes.Equal(out, before) {
		return false, errors.Join(err, os.Rename(part, target))
	}
	return true, os.Remove(part)
}

// lockTime is how long another process of ours may take to write in a directory: it copies a program at most.
const lockTime = 10 * time.Second

// writing calls f as the only process of ours that writes in a directory, so that whatever is there of earlier writes is what a process left which has
// died. It is removed first: else a process that dies again and again would fill the disk. The lock ends with the process, however that ends.
func writing(dir string, f func() error) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("writing in %s: %w", dir, err)
	}
	defer d.Close()
	if err := lock(d); err != nil {
		return fmt.Errorf("writing in %s: %w", dir, err)
	}
	if err := removeParts(dir); err != nil {
		return err
	}
	return f()
}

// lock waits for the lock of a directory. A file system that knows no locks is written to without.
func lock(d *os.File) error {
	for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		err := unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil, !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR):
			return nil
		case time.Since(start) > lockTime:
			return errors.New("another process of Ringfence writes there, and does not end")
		}
	}
}

// removeParts removes what a process left that died while it wrote.
func removeParts(dir string) error {
	parts, err := filepath.Glob(filepath.Join(dir, partPrefix+"*.part"))
	for _, p := range parts {
		if e := os.Remove(p); e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return wrap(err, "removing what is left of earlier writes in %s", dir)
}

// writePart writes a file that is not in its place yet, as safe as it is going to be, with the mode and the owner that it is to have.
func writePart(dir string, from io.Reader, mode os.FileMode, owner os.FileInfo) (string, error) {
	f, err := os.CreateTemp(dir, partPrefix+"*.part")
	if err != nil {
		return "", err
	}
	_, err = io.Copy(f, from)
	if owner != nil {
		err = errors.Join(err, own(f, owner))
	}
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return "", errors.Join(err, os.Remove(f.Name()))
	}
	return f.Name(), nil
}

// own gives a file the owner of another.
func own(f *os.File, like os.FileInfo) error {
	var is unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &is); err != nil {
		return err
	}
	uid, gid := ownerOf(like)
	if is.Uid == uid && is.Gid == gid {
		return nil
	}
	return f.Chown(int(uid), int(gid))
}

func ownerOf(info os.FileInfo) (uid, gid uint32) {
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0
	}
	return s.Uid, s.Gid
}

// syncDir makes renames in a directory outlive a power cut.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("flushing %s: %w", dir, err)
	}
	defer d.Close()
	return wrap(d.Sync(), "flushing %s", dir)
}

// absent reports whether an error says that a file is not there, nor can be.
func absent(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) }

func wrap(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf(format+": %w", append(args, err)...)
}
