package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"sigs.k8s.io/controller-runtime/tools/setup-envtest/remote"
	"sigs.k8s.io/controller-runtime/tools/setup-envtest/store"
	"sigs.k8s.io/controller-runtime/tools/setup-envtest/versions"
)

// programs are what an archive has to have.
var programs = []string{"kube-apiserver", "etcd", "kubectl"}

// published is what envtest publishes for one platform.
type published struct {
	index    remote.Client
	platform versions.Platform
	limits   limits
	log      io.Writer
}

// limits are how long to wait for the other side.
type limits struct {
	index   time.Duration // for the index, from the first packet to its last byte
	silence time.Duration // for the next bytes of an archive
}

// fetch returns the directory in cache that has the programs of a release, or of another patch release of its minor. It unpacks them there
// unless they are there already. The directory gets its name last, so that an interrupted fetch leaves nothing that looks whole.
func (p published) fetch(ctx context.Context, wanted versions.Concrete, cache string) (string, error) {
	release, archive, err := p.choose(ctx, wanted)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "envtest-v"+release.String())
	if missing(dir) == nil {
		return dir, nil
	}
	fmt.Fprintf(p.log, "taking kube-apiserver, etcd and kubectl v%s from envtest's published archive\n", release)
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", fmt.Errorf("making a cache: %w", err)
	}
	part, err := os.MkdirTemp(cache, ".envtest-")
	if err != nil {
		return "", fmt.Errorf("making a directory for the archive: %w", err)
	}
	defer os.RemoveAll(part)
	file, err := os.Create(filepath.Join(part, archive.ArchiveName(release)))
	if err != nil {
		return "", fmt.Errorf("making a file for the archive: %w", err)
	}
	defer file.Close()
	if err := p.download(ctx, release, archive, file); err != nil {
		return "", err
	}
	unpacked, err := unpack(ctx, store.Item{Version: release, Platform: archive.Platform}, file, part)
	if err != nil {
		return "", err
	}
	if err := os.RemoveAll(dir); err != nil { // what was there is not complete
		return "", fmt.Errorf("removing an incomplete directory: %w", err)
	}
	if err := os.Rename(unpacked, dir); err != nil && missing(dir) != nil { // another process may have been faster
		return "", fmt.Errorf("putting the programs in their place: %w", err)
	}
	return dir, nil
}

// choose returns the release to take, and its archive: the wanted release, else the newest patch release of its minor in the index.
func (p published) choose(ctx context.Context, wanted versions.Concrete) (release versions.Concrete, archive versions.PlatformItem, err error) {
	silent := fmt.Errorf("the index does not answer within %s", p.limits.index)
	ctx, cancel := context.WithTimeoutCause(ctx, p.limits.index, silent)
	defer cancel()
	sets, err := p.index.ListVersions(ctx) // the newest first
	if err != nil {
		return release, archive, because(ctx, "asking for envtest's index", err)
	}
	minor := versions.PatchSelector{Major: wanted.Major, Minor: wanted.Minor, Patch: versions.AnyPoint}
	found := false
	for _, set := range sets {
		at := slices.IndexFunc(set.Platforms, func(i versions.PlatformItem) bool { return i.Platform == p.platform })
		if at < 0 || !minor.Matches(set.Version) || found && set.Version != wanted {
			continue
		}
		release, archive, found = set.Version, set.Platforms[at], true
	}
	if !found {
		return release, archive, fmt.Errorf("the index has no release of %s for %s", minor, p.platform)
	}
	return release, archive, nil
}

// download writes an archive to a file. It returns an error if the checksum is not the one that the index gives, or if nothing comes for
// longer than the limit.
func (p published) download(ctx context.Context, release versions.Concrete, archive versions.PlatformItem, to *os.File) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(p.limits.silence, func() { cancel(fmt.Errorf("nothing has come for %s", p.limits.silence)) })
	defer silence.Stop()
	arriving := writer(func(b []byte) (int, error) {
		silence.Reset(p.limits.silence)
		return to.Write(b)
	})
	if err := p.index.GetVersion(ctx, release, archive, arriving); err != nil {
		return because(ctx, "downloading the archive", err)
	}
	if _, err := to.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("reading the archive: %w", err)
	}
	return nil
}

// because names the reason why a context ended, where that is why something failed: the error itself would only say that it was canceled.
func because(ctx context.Context, what string, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return fmt.Errorf("%s: %w", what, err)
}

// writer is a function that writes.
type writer func([]byte) (int, error)

// Write calls w.
func (w writer) Write(b []byte) (int, error) { return w(b) }

// unpack unpacks an archive below a directory, and returns where its programs are. It returns an error if not all are there.
func unpack(ctx context.Context, item store.Item, archive io.Reader, below string) (string, error) {
	s := store.NewAt(below)
	if err := s.Add(logr.NewContext(ctx, logr.Discard()), item, archive); err != nil {
		return "", fmt.Errorf("unpacking the archive: %w", err)
	}
	dir, err := s.Path(item)
	if err != nil {
		return "", fmt.Errorf("looking for the unpacked programs: %w", err)
	}
	if err := os.Chmod(dir, 0o755); err != nil { // the store's directories are read-only, and such ones cannot move
		return "", fmt.Errorf("making the programs movable: %w", err)
	}
	return dir, missing(dir)
}

// missing returns an error that names the programs that a directory lacks.
func missing(dir string) error {
	var names []string
	for _, name := range programs {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode()&0o111 == 0 || info.Size() == 0 {
			names = append(names, name)
		}
	}
	if len(names) > 0 {
		return fmt.Errorf("the archive has no program %s", strings.Join(names, ", "))
	}
	return nil
}
