package cni

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// DefaultConfDir is the directory of network configurations that container runtimes look in unless they are told otherwise.
const DefaultConfDir = "/etc/cni/net.d"

// standInSuffix ends the name of a list of ours that stands for the configuration of one plugin, which cannot be chained to. The list sorts right before
// that configuration, since a digit comes before the letters of ".conf" and ".json", and runtimes use the first.
const standInSuffix = ".00-ringfence.conflist"

// savedSuffix ends the name of a configuration that an earlier release has set aside, and that its list of the same name stood for.
const savedSuffix = ".ringfence-saved"

// Install says where and how the plugin is installed.
type Install struct {
	// ConfDir is the directory of network configurations.
	ConfDir string
	// BinDirs are the directories in which the container runtime may look for plugins. The program goes into those of them that hold the programs of the
	// network in use, by [directories].
	BinDirs []string
	// Program is the file to install as the plugin.
	Program  string
	Settings Settings
	// Tell, if it is set, is told by Keep after each look whether all is in place.
	Tell func(error)
	// Lost, if it is set, is told by Keep that a directory has been removed which is mounted here: what is made in its place is seen by a new container alone.
	Lost func(dir string)
}

// Defaults fills in what is zero.
func (i Install) Defaults() Install {
	if i.ConfDir == "" {
		i.ConfDir = DefaultConfDir
	}
	if len(i.BinDirs) == 0 {
		i.BinDirs = DefaultBinDirs
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
// empty if all was in place. The program comes first, so that no configuration names one that is not there. Where it cannot be put where the runtime
// finds it, it is taken out of the configuration: a runtime that misses one program of a list can neither start a pod nor end one.
func (i Install) Run() (changed string, err error) {
	return (&keeper{install: i}).run()
}

// run is one look. It leaves the configuration with us where the runtime finds us, and without us elsewhere.
func (k *keeper) run() (changed string, err error) {
	i := k.install
	if err := bringBackSaved(i.ConfDir); err != nil {
		return "", err
	}
	files, err := configurations(i.ConfDir)
	if err != nil {
		return "", err
	}
	if len(files) == 0 {
		return "", errors.Join(&NoNetworkError{i.ConfDir}, removeStandIns(i.ConfDir, ""))
	}
	first := files[0]
	l, err := i.listOf(first)
	if err != nil {
		return "", fmt.Errorf("%s is left as it is: %w", first, err)
	}
	older, err := k.ready(first, l)
	if err != nil {
		return "", errors.Join(err, k.takeOut(files, err))
	}
	if isList(first) {
		changed, err = k.insertInto(first)
	} else {
		changed, err = i.standFor(first, l)
	}
	if err != nil {
		return "", err
	}
	k.good = time.Now()
	return changed, errors.Join(older, i.removeFromOthers(files))
}

// ready puts the program where the runtime finds it, and says why that cannot be. Where another release's program stays, which works, older says why.
func (k *keeper) ready(file string, l list) (older, err error) {
	if err := l.speakable(); err != nil {
		return nil, fmt.Errorf("%s is left without %s: %w", file, Type, err)
	}
	dirs, err := directories(k.install.BinDirs, l.others())
	if err != nil {
		return nil, fmt.Errorf("%s is left without %s: %w", file, Type, err)
	}
	for _, dir := range dirs {
		var works *olderError
		switch err := k.installProgram(dir); {
		case errors.As(err, &works):
			older = errors.Join(older, err)
		case err != nil:
			return nil, err
		}
	}
	return older, nil
}

// takeOut takes us out of the configurations, unless what is wrong may pass in a moment.
func (k *keeper) takeOut(files []string, why error) error {
	if k.patient(why) {
		return nil
	}
	return removeAll(k.install.ConfDir, files)
}

// listOf is the list that a file is, or that container runtimes make of it.
func (i Install) listOf(file string) (list, error) {
	text, _, err := readConf(file)
	if err != nil {
		return list{}, err
	}
	if !isList(file) {
		if text, err = fromSingle(text); err != nil {
			return list{}, err
		}
	}
	return readList(text)
}

func isList(file string) bool { return strings.HasSuffix(file, ".conflist") }

// removeFromOthers leaves us in the first of the configurations alone.
func (i Install) removeFromOthers(files []string) error {
	stays := ""
	if !isList(files[0]) {
		stays = standInFor(files[0])
	}
	errs := []error{removeStandIns(i.ConfDir, stays)}
	for _, other := range files[1:] {
		if isList(other) {
			errs = append(errs, removeFrom(other))
		}
	}
	return errors.Join(errs...)
}

// insertInto makes us the last plugin of a list, unless another insists on being that.
func (k *keeper) insertInto(file string) (changed string, err error) {
	moved, settled := false, false
	done, err := edit(file, func(l list) ([]byte, error) {
		ours, err := l.with(k.install.Settings)
		if moved = l.overtaken(k.install.Settings); moved && err == nil && !k.mayMove() {
			settled = true
			return l.text, nil
		}
		return ours, err
	})
	if err != nil {
		return "", err
	}
	k.settle(settled, file)
	if !done {
		return "", nil
	}
	if moved {
		k.move()
	}
	return file, nil
}

// standFor puts a list of ours right before the configuration of one plugin. The configuration itself stays where its owner has it, who may change it and
// remove it: the list follows.
func (i Install) standFor(file string, l list) (changed string, err error) {
	ours, err := l.with(i.Settings)
	if err != nil {
		return "", fmt.Errorf("%s is left as it is: %w", file, err)
	}
	standIn := standInFor(file)
	if now, _, err := readConf(standIn); err == nil && bytes.Equal(now, ours) {
		return "", nil
	}
	_, info, err := readConf(file)
	if err != nil {
		return "", err
	}
	return standIn, writing(i.ConfDir, func() error {
		part, err := writePart(i.ConfDir, bytes.NewReader(ours), info.Mode().Perm(), info)
		if err != nil {
			return fmt.Errorf("writing %s: %w", standIn, err)
		}
		if err := os.Rename(part, standIn); err != nil {
			return errors.Join(fmt.Errorf("writing %s: %w", standIn, err), os.Remove(part))
		}
		return syncDir(i.ConfDir)
	})
}

// standInFor is the name of the list that stands for a single configuration, in its place of the order.
func standInFor(file string) string {
	return strings.TrimSuffix(file, filepath.Ext(file)) + standInSuffix
}

// removeStandIns removes the lists that stand for configurations, but for one.
func removeStandIns(confDir, but string) error {
	all, err := filepath.Glob(filepath.Join(confDir, "*"+standInSuffix))
	if err != nil {
		return fmt.Errorf("looking for lists that stand for configurations: %w", err)
	}
	var errs []error
	for _, standIn := range all {
		if standIn == but {
			continue
		}
		if err := os.Remove(standIn); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("removing a list that stands for a configuration: %w", err))
		}
	}
	return errors.Join(errs...)
}

// Uninstall undoes what Install does in the directories, first the configuration, so that no runtime misses the program. With keepProgram the program
// stays: CRI-O tears pods down by the configuration that they were set up with, and needs it as long as such pods run.
func Uninstall(confDir string, binDirs []string, keepProgram bool) error {
	files, err := configurations(confDir)
	errs := []error{err, bringBackSaved(confDir), removeAll(confDir, files), removeParts(confDir)}
	for _, dir := range binDirs {
		errs = append(errs, removeParts(dir))
	}
	if keepProgram || errors.Join(errs...) != nil {
		return errors.Join(errs...)
	}
	for _, dir := range binDirs {
		if err := os.Remove(filepath.Join(dir, Type)); err != nil && !absent(err) {
			errs = append(errs, fmt.Errorf("removing the plugin: %w", err))
		}
	}
	return errors.Join(errs...)
}

// removeAll takes us out of all configurations.
func removeAll(confDir string, files []string) error {
	errs := []error{removeStandIns(confDir, "")}
	for _, file := range files {
		if isList(file) {
			errs = append(errs, removeFrom(file))
		}
	}
	return errors.Join(errs...)
}

// bringBackSaved brings back the configurations that an earlier release has set aside, whose lists had their names. What the owner has written anew
// meanwhile is newer.
func bringBackSaved(confDir string) error {
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
		list := strings.TrimSuffix(file, filepath.Ext(file)) + ".conflist"
		if err := os.Remove(list); err != nil && !errors.Is(err, fs.ErrNotExist) {
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
