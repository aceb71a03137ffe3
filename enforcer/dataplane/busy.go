package dataplane

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// What fails because something is busy says nothing about what a node has: the same may go well a moment later.

// busyErrors are the kernel's words for it, or for want of something that comes and goes.
var busyErrors = []error{
	ErrLocked, ErrSetInUse, context.DeadlineExceeded, context.Canceled, os.ErrDeadlineExceeded, nl.ErrDumpInterrupted,
	unix.EAGAIN, unix.EBUSY, unix.ENOBUFS, unix.EINTR, unix.ENOMEM, unix.ETIMEDOUT, unix.EMFILE, unix.ENFILE,
}

// busyWords are the same as the iptables programs say them.
var busyWords = func() (words []string) {
	for _, err := range busyErrors {
		var errno syscall.Errno
		if errors.As(err, &errno) {
			words = append(words, unix.ErrnoName(errno), errno.Error())
		}
	}
	return append(words, "holding the xtables lock")
}()

// isBusy reports whether an error is no verdict about what was asked for. A program that was killed has given none either.
func isBusy(err error) bool {
	if err == nil {
		return false
	}
	if slices.ContainsFunc(busyErrors, func(busy error) bool { return errors.Is(err, busy) }) {
		return true
	}
	var tool *ToolError
	if !errors.As(err, &tool) {
		return false
	}
	said := strings.ToLower(tool.Stderr)
	if slices.ContainsFunc(busyWords, func(word string) bool { return word != "" && strings.Contains(said, strings.ToLower(word)) }) {
		return true
	}
	var ended *exec.ExitError
	if !errors.As(tool.Err, &ended) {
		return false
	}
	status, ok := ended.Sys().(syscall.WaitStatus)
	return ok && status.Signaled()
}

// The pauses between two attempts at what is busy.
const (
	shortestBusyPause = 20 * time.Millisecond
	longestBusyPause  = 500 * time.Millisecond
)

// patiently calls f until it succeeds, or fails for another reason than that something is busy, or ctx has ended.
func patiently(ctx context.Context, f func() error) error {
	err := context.Cause(ctx)
	if err != nil {
		return fmt.Errorf("it was not asked: %w", errors.Join(ctx.Err(), err))
	}
	for pause := shortestBusyPause; ; pause = min(2*pause, longestBusyPause) {
		if err = f(); !isBusy(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
	}
}
