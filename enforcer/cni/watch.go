package cni

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/fsnotify/fsnotify"
	"github.com/go-logr/logr"
)

// watch tells of changes in directories, those included that are removed and made anew. Where none can be watched, there is nothing to hear.
type watch struct {
	w      *fsnotify.Watcher
	events <-chan fsnotify.Event
	errors <-chan error
	on     map[string]os.FileInfo // the directories that are watched
	gone   string                 // the last that was found to be removed though its name is there
	log    logr.Logger
}

func newWatch(log logr.Logger) *watch {
	w := &watch{on: map[string]os.FileInfo{}, log: log}
	var err error
	if w.w, err = fsnotify.NewWatcher(); err != nil {
		w.w = nil
		log.V(1).Info("changes of the network configuration are not heard of, only looked for", "error", err.Error())
		return w
	}
	w.events, w.errors = w.w.Events, w.w.Errors
	return w
}

// renew watches the directories that have these names now, and reports whether one of them has been removed: that is still seen under its name, as a
// directory that is mounted into a container is.
func (w *watch) renew(dirs []string) (lost bool) {
	var watched []string
	if w.w != nil {
		watched = w.w.WatchList() // without those that have ended with their directory, whose inode may be the new one's
	}
	for _, dir := range dirs {
		dir = filepath.Clean(dir) // as it is listed
		is, err := os.Stat(dir)
		was := w.on[dir]
		switch {
		case err != nil:
			delete(w.on, dir)
			continue
		case was != nil && os.SameFile(was, is) && (w.w == nil || slices.Contains(watched, dir)):
			if links(was) > 0 && links(is) == 0 {
				w.on[dir], w.gone, lost = is, dir, true
			}
			continue
		}
		w.add(dir, is, was != nil)
	}
	return lost
}

func (w *watch) add(dir string, is os.FileInfo, again bool) {
	if w.w == nil {
		w.on[dir] = is
		return
	}
	if again {
		_ = w.w.Remove(dir) // it may have ended with the directory
	}
	if err := w.w.Add(dir); err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			w.log.V(1).Info("changes in a directory are not heard of, only looked for", "directory", dir, "error", err.Error())
		}
		return
	}
	w.on[dir] = is
}

func (w *watch) close() {
	if w.w != nil {
		_ = w.w.Close()
	}
}

// links is how many names a directory has: none once it is removed. Where nobody counts them, it is one.
func links(info os.FileInfo) uint64 {
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 1
	}
	return uint64(s.Nlink) //nolint:unconvert // not of the same size on every machine
}
