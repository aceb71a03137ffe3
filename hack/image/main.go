// Image makes the container image without a container runtime: Debian's packages as apt fetches and verifies them, and our program. It writes an
// OCI layout, the same as one file that container runtimes load, and a list of what is in it (SPDX).
//
// Invariants: the same packages, program, version and time make the same digest, on any machine; no script of a package runs, and none of its files that
// could give rights to whoever runs it comes in; nothing of the machine itself does, but how apt reaches its mirrors.
//
// What it does not: sign. Command push, below it, puts the image into a registry.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// withoutDependencies is in the image by itself: what release of Debian it is, for scanners, and the texts of licences. It depends on an awk.
var withoutDependencies = []string{"base-files"}

// options are the flags.
type options struct {
	release  release
	created  int64
	arches   string
	program  string
	sources  string
	packages string
	cache    string
	out      string
	tags     string
}

func main() {
	o := options{}
	flag.StringVar(&o.release.version, "version", "development", "version of the image")
	flag.StringVar(&o.release.revision, "revision", "", "commit of the source")
	flag.Int64Var(&o.created, "created", 0, "when the image was made, in seconds since 1970: that of the commit, so that it is the same for everybody")
	flag.StringVar(&o.arches, "arch", "amd64", "architectures, with commas: amd64, arm64. Docker before 25 takes the first alone")
	flag.StringVar(&o.program, "program", "", "file of our program; {arch} stands for the architecture")
	flag.StringVar(&o.sources, "sources", "debian.sources", "where apt takes packages from: sources.list(5), in the form of deb822")
	flag.StringVar(&o.packages, "packages", "packages", "file that names the packages")
	flag.StringVar(&o.cache, "cache", "", "directory for indexes and packages, which is kept (default ringfence/debian in the user's cache)")
	flag.StringVar(&o.out, "out", "dist", "directory to write image/, ringfence-image.tar and ringfence.spdx.json to")
	flag.StringVar(&o.tags, "tags", "", "names of the image, with commas (default ringfence:VERSION)")
	flag.Parse()
	if err := o.run(); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

// architectures that the image is for, of those that Debian has.
var architectures = []string{"amd64", "arm64"}

func (o *options) complete() ([]name.Tag, error) {
	o.release.created = time.Unix(o.created, 0).UTC()
	if o.program == "" {
		return nil, errors.New("-program is empty")
	}
	if o.tags == "" {
		o.tags = "ringfence:" + o.release.version
	}
	if o.cache == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return nil, fmt.Errorf("finding a place for packages: %w", err)
		}
		o.cache = filepath.Join(cache, "ringfence", "debian")
	}
	cache, err := filepath.Abs(o.cache)
	if err != nil {
		return nil, fmt.Errorf("finding a place for packages: %w", err)
	}
	o.cache = cache
	for _, arch := range strings.Split(o.arches, ",") {
		if !slices.Contains(architectures, arch) {
			return nil, fmt.Errorf("-arch %q is not known: %s", arch, strings.Join(architectures, ", "))
		}
	}
	var tags []name.Tag
	for _, text := range strings.Split(o.tags, ",") {
		tag, err := name.NewTag(text, name.WeakValidation)
		if err != nil {
			return nil, fmt.Errorf("-tags: %w", err)
		}
		tags = append(tags, tag)
	}
	return tags, nil
}

func (o *options) run() error {
	tags, err := o.complete()
	if err != nil {
		return err
	}
	var all images
	var contents []content
	for _, arch := range strings.Split(o.arches, ",") {
		image, c, err := o.one(arch)
		if err != nil {
			return err
		}
		all = append(all, struct {
			arch  string
			image v1.Image
		}{arch, image})
		contents = append(contents, c)
	}
	dir := filepath.Join(o.out, "image")
	digest, err := all.writeLayout(dir, tags)
	if err != nil {
		return err
	}
	manifest, err := all.dockerManifest(tags)
	if err != nil {
		return err
	}
	if err := pack(dir, filepath.Join(o.out, "ringfence-image.tar"), manifest); err != nil {
		return err
	}
	doc, err := bill(o.release, digest.String(), contents)
	if err != nil {
		return err
	}
	if err := writeBill(filepath.Join(o.out, "ringfence.spdx.json"), doc); err != nil {
		return err
	}
	fmt.Printf("%s %s\n", o.tags, digest)
	return nil
}

// one makes the image of an architecture.
func (o *options) one(arch string) (v1.Image, content, error) {
	wanted, err := readPackages(o.packages)
	if err != nil {
		return nil, content{}, err
	}
	a, err := openArchive(o.cache, arch, o.sources)
	if err != nil {
		return nil, content{}, err
	}
	debs, err := a.fetch(wanted, withoutDependencies)
	if err != nil {
		return nil, content{}, err
	}
	debian, err := debianTree(debs)
	if err != nil {
		return nil, content{}, err
	}
	file := strings.ReplaceAll(o.program, "{arch}", arch)
	program, err := programTree(file)
	if err != nil {
		return nil, content{}, err
	}
	image, err := build(o.release, arch, debian, program)
	if err != nil {
		return nil, content{}, fmt.Errorf("building the image of %s: %w", arch, err)
	}
	digest, err := image.Digest()
	if err != nil {
		return nil, content{}, fmt.Errorf("reading the digest of the image of %s: %w", arch, err)
	}
	return image, content{arch: arch, digest: digest.String(), debs: debs, tree: debian, program: file}, nil
}

// readPackages reads names, one to a line, with comments.
func readPackages(file string) ([]string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading which packages are wanted: %w", err)
	}
	var names []string
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		names = append(names, strings.Fields(line)...)
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("%s names no package", file)
	}
	return names, nil
}
