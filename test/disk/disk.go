// Package disk gives tests a disk that is soon full.
package disk

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ringfence-io/ringfence/test/kit"
)

// Small mounts a disk of 64 KB, that no other program sees, for the goroutine of the test: others see an empty directory. The goroutine keeps its thread,
// which ends with it, and the disk with the thread.
func Small(t *testing.T) (dir string) {
	t.Helper()
	kit.NeedRoot(t)
	dir = t.TempDir()
	runtime.LockOSThread()
	if err := errors.Join(
		unix.Unshare(unix.CLONE_NEWNS),
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount("small", dir, "tmpfs", 0, "size=64k"),
	); err != nil {
		t.Fatalf("mounting a small disk: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmounting the small disk: %v", err)
		}
	})
	return dir
}

// Fill leaves no room on a disk, but for so many bytes, and returns what makes room again. It counts in pages, as the disk does.
func Fill(t *testing.T, dir string, but int) (empty func()) {
	t.Helper()
	name := filepath.Join(dir, "filling")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, os.Getpagesize()))
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("filling the disk: %v", err)
	}
	size, err := f.Seek(0, 1)
	if err == nil {
		err = f.Truncate(size - int64(but))
	}
	if err != nil {
		t.Fatalf("filling the disk: %v", err)
	}
	return func() {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
}
