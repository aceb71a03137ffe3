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

	"golang.org/x/sys/unix"
)

// The directories that container runtimes look in unless they are told otherwise.
const (
	DefaultConfDir = "/etc/cni/net.d"
	DefaultBinDir  = "/opt/cni/bin"
)

// partPrefix begins the names of files that are being written, savedSuffix ends that of a configuration that a list of ours stands for. No runtime reads
// either.
const (
	partPrefix  = ".ringfence-"
	savedSuffix = ".ringfence-saved"
)

// maxConf bounds what is read as a network configuration.
const maxConf = 1 << 20

// Install says where and how the plugin is installed.
type Install struct {
	ConfDir, BinDir string
	// Program is the file to install as the plugin.
	Program  string
	Settings Settings
	// Tell, if it is set, is told by Keep after each look whether all is in place.
	Tell func(error)
}

// Defaults fills in what is zero.
func (i Install) Defaults() Install {
	if i.ConfDir == "" {
		i.ConfDir = DefaultConfDir
	}
	if i.BinDir == "" {
		i.BinDir = DefaultBinDir
	}
	i.Settings = i.Settings.Defaults()
	return i
}

// NoNetworkError says that there is no network configuration to be part of yet.
type NoNetworkError struct{ Dir string }

func (e *NoNetworkError) Error() string {
	return "no network configuration is in " + e.Dir + " yet: the main CNI plugin writes it"
}

// Run installs the program, and then makes it the last plugin of the network configuration that runtimes use. It returns the file that was changed,
// empty if all was in place. The program comes first, so that no configuration names one that is not there.
func (i Install) Run() (changed string, err error) {
	if err := i.installProgram(); err != nil {
		return "", err
	}
	return i.insert()
}

func (i Install) program() string { return filepath.Join(i.BinDir, Type) }

// installProgram replaces the program at once: one that runs goes on, and none is ever found half written.
func (i Install) installProgram() error {
	target := i.program()
	same, err := sameContent(i.Program, target)
	if same || err != nil {
		return wrap(err, "installing %s", target)
	}
	from, err := os.Open(i.Program)
	if err != nil {
		return fmt.Errorf("installing %s: %w", target, err)
	}
	defer from.Close()
	part, err := writePart(i.BinDir, from, 0o755, nil)
	if err != nil {
		return fmt.Errorf("installing %s: %w", target, err)
	}
	if err := os.Rename(part, target); err != nil {
		return errors.Join(fmt.Errorf("installing %s: %w", target, err), os.Remove(part))
	}
	return syncDir(i.BinDir)
}

// insert brings us into the first configuration, and out of all others.
func (i Install) insert() (changed string, err error) {
	files, err := configurations(i.ConfDir)
	if err != nil {
		return "", err
	}
	if len(files) == 0 {
		return "", &NoNetworkError{i.ConfDir}
	}
	changed, err = i.insertInto(files[0])
	if err != nil {
		return "", err
	}
	for _, other := range files[1:] {
		if other != changed && strings.HasSuffix(other, ".conflist") {
			if err := removeFrom(other); err != nil {
				return changed, err
			}
		}
	}
	return changed, nil
}

func (i Install) insertInto(file string) (changed string, err error) {
	if !strings.HasSuffix(file, ".conflist") {
		return i.standFor(file)
	}
	done, err := edit(file, func(l list) ([]byte, error) { return l.with(i.Settings) })
	if !done || err != nil {
		return "", err
	}
	return file, nil
}

// standFor puts a list in the place of the configuration of one plugin, which cannot be chained to. A file without a list sorts before the same with
// one, so that it is set aside, once the list is there.
func (i Install) standFor(file string) (changed string, err error) {
	text, info, err := readConf(file)
	if err != nil {
		return "", err
	}
	single, err := fromSingle(text)
	if err != nil {
		return "", fmt.Errorf("%s is left as it is: %w", file, err)
	}
	l, err := readList(single)
	if err != nil {
		return "", fmt.Errorf("%s is left as it is: %w", file, err)
	}
	ours, err := l.with(i.Settings)
	if err != nil {
		return "", fmt.Errorf("%s is left as it is: %w", file, err)
	}
	standIn := standInFor(file)
	if _, err := os.Lstat(standIn); err == nil {
		if _, err := os.Lstat(file + savedSuffix); errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("%s is left as it is: %s, which would stand for it, is somebody else's", file, standIn)
		}
	}
	part, err := writePart(i.ConfDir, bytes.NewReader(ours), info.Mode().Perm(), info)
	if err != nil {
		return "", fmt.Errorf("writing %s: %w", standIn, err)
	}
	if err := os.Rename(part, standIn); err != nil {
		return "", errors.Join(fmt.Errorf("writing %s: %w", standIn, err), os.Remove(part))
	}
	if err := os.Rename(file, file+savedSuffix); err != nil {
		return "", fmt.Errorf("setting %s aside: %w", file, err)
	}
	return standIn, syncDir(i.ConfDir)
}

// standInFor is the name of the list that stands for a single configuration, in the same place of the order.
func standInFor(file string) string {
	return strings.TrimSuffix(file, filepath.Ext(file)) + ".conflist"
}

// Uninstall undoes what Install does in the directories, first the configuration, so that no runtime misses the program. With keepProgram the program
// stays: CRI-O tears pods down by the configuration that they were set up with, and needs it as long as such pods run.
func Uninstall(confDir, binDir string, keepProgram bool) error {
	var errs []error
	files, err := configurations(confDir)
	if err != nil {
		errs = append(errs, err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, ".conflist") {
			errs = append(errs, removeFrom(file))
		}
	}
	errs = append(errs, restoreSaved(confDir), removeParts(confDir), removeParts(binDir))
	if !keepProgram && errors.Join(errs...) == nil {
		if err := os.Remove(filepath.Join(binDir, Type)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("removing the plugin: %w", err))
		}
	}
	return errors.Join(errs...)
}

// restoreSaved brings back the configurations that lists of ours stand for. What the owner has written anew meanwhile is newer.
func restoreSaved(confDir string) error {
	saved, err := filepath.Glob(filepath.Join(confDir, "*"+savedSuffix))
	if err != nil {
		return fmt.Errorf("looking for what was set aside: %w", err)
	}
	var errs []error
	for _, s := range saved {
		file := strings.TrimSuffix(s, savedSuffix)
		if _, err := os.Lstat(file); err == nil {
			errs = append(errs, os.Remove(s))
		} else {
			errs = append(errs, os.Rename(s, file))
		}
		if err := os.Remove(standInFor(file)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return wrap(errors.Join(errs...), "bringing back what was set aside in %s", confDir)
}

func removeFrom(file string) error {
	text, _, err := readConf(file)
	if err != nil || !bytes.Contains(text, []byte(Type)) {
		return err
	}
	_, err = edit(file, func(l list) ([]byte, error) { return l.without(), nil })
	return err
}

// configurations are the files that runtimes take for network configurations, in their order: they use the first.
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
		if slices.Contains([]string{".conf", ".conflist", ".json"}, filepath.Ext(e.Name())) && !e.IsDir() {
			files = append(files, filepath.Join(dir, e.Name()))
		}
	}
	slices.Sort(files)
	return files, nil
}

func readConf(file string) ([]byte, os.FileInfo, error) {
	f, err := os.Open(file)
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
func replace(target string, before, after []byte, info os.FileInfo) (bool, error) {
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

// removeParts removes what a process left that died while it wrote.
func removeParts(dir string) error {
	parts, err := filepath.Glob(filepath.Join(dir, partPrefix+"*.part"))
	for _, p := range parts {
		err = errors.Join(err, os.Remove(p))
	}
	return wrap(err, "removing what is left of earlier writes in %s", dir)
}

func sameContent(a, b string) (bool, error) {
	x, err := os.Open(a)
	if err != nil {
		return false, err
	}
	defer x.Close()
	y, err := os.Open(b)
	if errors.Is(err, fs.ErrNotExist) {
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
	if err != nil || xi.Size() != yi.Size() || yi.Mode().Perm() != 0o755 {
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

// syncDir makes renames in a directory outlive a power cut.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("flushing %s: %w", dir, err)
	}
	defer d.Close()
	return wrap(d.Sync(), "flushing %s", dir)
}

func wrap(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf(format+": %w", append(args, err)...)
}
