package cni

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/go-logr/logr"
)

// How long the owner of a configuration may take to write it, and how often it is looked at without a sign that somebody has.
const (
	settleTime = 50 * time.Millisecond
	lookTime   = 10 * time.Second
)

// Keep installs the plugin, and again whenever somebody else has changed the configuration, until ctx ends.
func (i Install) Keep(ctx context.Context, log logr.Logger) {
	events, stop := watchDir(i.ConfDir, log)
	defer func() { stop() }()
	k := keeper{install: i, log: log}
	due := time.NewTimer(0)
	defer due.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case _, ok := <-events:
			if ok {
				due.Reset(settleTime)
			} else {
				events = nil // the directory has gone: it is looked at all the same
			}
		case <-due.C:
			k.look()
			if events == nil {
				stop()
				events, stop = watchDir(i.ConfDir, log)
			}
			due.Reset(lookTime)
		}
	}
}

// keeper remembers what it has said.
type keeper struct {
	install   Install
	log       logr.Logger
	installed os.FileInfo // the program as it was installed
	said      string
}

// run is Install.Run, which reads the whole program only if somebody has changed it.
func (k *keeper) run() (changed string, err error) {
	is, err := os.Stat(k.install.program())
	if err == nil && k.installed != nil && os.SameFile(is, k.installed) && is.ModTime().Equal(k.installed.ModTime()) {
		return k.install.insert()
	}
	if changed, err = k.install.Run(); err == nil {
		k.installed, err = os.Stat(k.install.program())
	}
	return changed, err
}

func (k *keeper) look() {
	changed, err := k.run()
	if k.install.Tell != nil {
		k.install.Tell(err)
	}
	switch {
	case err == nil && changed != "":
		k.log.Info("the CNI plugin is in the network configuration: pods are policed from their first packet", "file", changed)
		k.said = ""
	case err == nil:
		k.said = ""
	case err.Error() != k.said:
		k.said = err.Error()
		k.log.Info("the CNI plugin is not in the network configuration: pods that start are policed once the API shows their addresses; tried again",
			"error", k.said, "every", lookTime.String())
	}
}

// watchDir tells of changes in a directory. Where that cannot be watched, there is nothing to hear.
func watchDir(dir string, log logr.Logger) (<-chan fsnotify.Event, func()) {
	w, err := fsnotify.NewWatcher()
	if err == nil {
		if err = w.Add(dir); err == nil {
			return w.Events, func() { _ = w.Close() }
		}
		_ = w.Close()
	}
	if !errors.Is(err, os.ErrNotExist) {
		log.V(1).Info("changes of the network configuration are not heard of, only looked for", "directory", dir, "error", err.Error())
	}
	return nil, func() {}
}

func ownerOf(info os.FileInfo) (uid, gid uint32) {
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0
	}
	return s.Uid, s.Gid
}
