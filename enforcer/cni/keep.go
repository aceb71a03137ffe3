package cni

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/time/rate"
)

// How long the owner of a configuration may take to write it, and how often it is looked at without a sign that it has.
const (
	settleTime = 50 * time.Millisecond
	lookTime   = 10 * time.Second
)

// How often a configuration is changed that others change too. Whoever takes our element out all the time is followed at once some times, and then once a
// second. Whoever moves it from the end is not fought with: we hear of the pod's addresses wherever we are behind the plugin that gives them.
const (
	changesAtOnce = 10
	changeTime    = time.Second
	movesAtOnce   = 3
	moveTime      = 10 * time.Minute
)

// Keep installs the plugin, and again whenever another program has changed the configuration or the program, until ctx ends.
func (i Install) Keep(ctx context.Context, log logr.Logger) {
	w := newWatch(log)
	defer w.close()
	k := newKeeper(i, log)
	next := time.Now()
	due := time.NewTimer(0)
	defer due.Stop()
	soon := func() { // however often files are written, it is looked at in between
		if at := time.Now().Add(max(settleTime, time.Until(k.notBefore))); at.Before(next) {
			next = at
			due.Reset(time.Until(at))
		}
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.events:
			soon()
		case err := <-w.errors: // some events were lost
			log.V(1).Info("changes of the network configuration may have gone unheard", "error", fmt.Sprint(err))
			soon()
		case <-due.C:
			if w.renew(i.watched()) { // first, so that nothing changes unheard after the look
				k.lost(w.gone)
			}
			k.look()
			next = time.Now().Add(lookTime)
			due.Reset(lookTime)
		}
	}
}

// watched are the directories in which changes matter. The one above the configurations' is told of when that is made anew.
func (i Install) watched() []string {
	return append([]string{filepath.Dir(i.ConfDir), i.ConfDir}, i.BinDirs...)
}

// keeper is what is known from one look to the next.
type keeper struct {
	install   Install
	log       logr.Logger
	installed map[string]stamp // the programs as they were installed
	good      time.Time        // when all was in place for the last time
	cleaned   bool
	logged    string

	changes   *rate.Limiter // of the configuration, none of which is bounded without it
	notBefore time.Time     // the next look
	moves     *rate.Limiter // to the end of a list
	settled   string        // the file in which another plugin is the last
}

func newKeeper(i Install, log logr.Logger) *keeper {
	return &keeper{
		install: i, log: log,
		changes: rate.NewLimiter(rate.Every(changeTime), changesAtOnce), moves: rate.NewLimiter(rate.Every(moveTime), movesAtOnce),
	}
}

func (k *keeper) look() {
	if !k.cleaned {
		k.clean()
		k.cleaned = true
	}
	changed, err := k.run()
	if k.install.Tell != nil {
		k.install.Tell(err)
	}
	if changed != "" {
		k.pace(changed)
	}
	switch {
	case err == nil && changed != "":
		k.log.Info("the CNI plugin is in the network configuration: pods are policed from their first packet", "file", changed)
		k.logged = ""
	case err == nil:
		k.logged = ""
	case err.Error() != k.logged:
		k.logged = err.Error()
		k.log.Info("the CNI plugin is not installed as it should be: where it is not in the network configuration, pods that start are policed once the API "+
			"shows their addresses; tried again", "error", k.logged, "every", lookTime.String())
	}
}

// clean removes what a process before this one left that died while it wrote.
func (k *keeper) clean() {
	for _, dir := range append([]string{k.install.ConfDir}, k.install.BinDirs...) {
		if err := writing(dir, func() error { return nil }); err != nil && !absent(err) {
			k.log.Info("what an earlier enforcer left half written stays", "error", err.Error())
		}
	}
}

// pace puts the next look off if the configuration has been changed often of late.
func (k *keeper) pace(file string) {
	if k.changes == nil {
		return
	}
	if wait := k.changes.Reserve().Delay(); wait > 0 {
		if time.Since(k.notBefore) > lookTime { // the first time for long
			k.log.Info("another program changes the network configuration again and again: the CNI plugin is put back once a second at most", "file", file)
		}
		k.notBefore = time.Now().Add(wait)
	}
}

// mayMove reports whether we may take the end of a list from another plugin once more.
func (k *keeper) mayMove() bool { return k.moves == nil || k.moves.Tokens() >= 1 }

func (k *keeper) move() {
	if k.moves != nil {
		k.moves.Allow()
	}
}

// settle says that another plugin is the last of a list, and stays it.
func (k *keeper) settle(settled bool, file string) {
	if settled && k.settled != file {
		k.log.Info("another plugin insists on being the last of the network configuration: Ringfence's stays before it, and does not see "+
			"what it changes of a pod's addresses", "file", file, "tried again after", moveTime.String())
	}
	if k.settled = ""; settled {
		k.settled = file
	}
}

// patient reports whether something may be wrong for a moment only: the programs of other plugins are gone while they are replaced, and no pod
// starts without them anyway.
func (k *keeper) patient(why error) bool {
	var notFound *NotFoundError
	return errors.As(why, &notFound) && !k.good.IsZero() && time.Since(k.good) < lookTime
}

// lost says that a directory is gone from the host that is mounted here.
func (k *keeper) lost(dir string) {
	k.log.Info("a directory has been removed from the node, and what is made in its place cannot be seen from here", "directory", dir)
	if k.install.Lost != nil {
		k.install.Lost(dir)
	}
}
