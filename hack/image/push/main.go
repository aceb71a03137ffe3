// Push puts an image that hack/image has made into a registry, as it is, and prints its digest. It logs in as container tools do, by what docker login
// has written.
//
// usage: push -layout DIR REFERENCE
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

func main() {
	dir := flag.String("layout", "dist/image", "OCI layout of the image")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: push -layout DIR REFERENCE")
		os.Exit(2)
	}
	digest, err := push(context.Background(), *dir, flag.Arg(0))
	if err != nil {
		fmt.Fprintln(os.Stderr, "push:", err)
		os.Exit(1)
	}
	fmt.Println(digest)
}

// push pushes what every tag of a layout stands for to a reference, and returns its digest.
func push(ctx context.Context, dir, reference string) (v1.Hash, error) {
	to, err := name.NewTag(reference, name.WeakValidation)
	if err != nil {
		return v1.Hash{}, fmt.Errorf("reading the reference: %w", err)
	}
	all, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return v1.Hash{}, fmt.Errorf("reading the layout: %w", err)
	}
	what, err := only(all)
	if err != nil {
		return v1.Hash{}, fmt.Errorf("reading the layout %s: %w", dir, err)
	}
	options := []remote.Option{remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain)}
	if what.MediaType.IsIndex() {
		index, err := all.ImageIndex(what.Digest)
		if err != nil {
			return v1.Hash{}, fmt.Errorf("reading the image: %w", err)
		}
		err = remote.WriteIndex(to, index, options...)
		return what.Digest, pushing(to, err)
	}
	image, err := all.Image(what.Digest)
	if err != nil {
		return v1.Hash{}, fmt.Errorf("reading the image: %w", err)
	}
	return what.Digest, pushing(to, remote.Write(to, image, options...))
}

func pushing(to name.Tag, err error) error {
	if err != nil {
		return fmt.Errorf("pushing to %s: %w", to, err)
	}
	return nil
}

// only is what all entries of a layout's index are about.
func only(all v1.ImageIndex) (v1.Descriptor, error) {
	manifest, err := all.IndexManifest()
	if err != nil {
		return v1.Descriptor{}, err
	}
	if len(manifest.Manifests) == 0 {
		return v1.Descriptor{}, errors.New("there is no image")
	}
	first := manifest.Manifests[0]
	for _, other := range manifest.Manifests {
		if other.Digest != first.Digest {
			return v1.Descriptor{}, fmt.Errorf("there are two images, %s and %s", first.Digest, other.Digest)
		}
	}
	return first, nil
}
