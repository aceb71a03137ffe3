package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// release is what an image says of where it comes from.
type release struct {
	version  string
	revision string // of the source
	created  time.Time
}

// labels are the same that the Dockerfile sets.
func (r release) labels() map[string]string {
	return map[string]string{
		"org.opencontainers.image.title":         "ringfence",
		"org.opencontainers.image.description":   "Kubernetes NetworkPolicy for clusters whose CNI does not enforce it",
		"org.opencontainers.image.url":           "https://github.com/ringfence-io/ringfence",
		"org.opencontainers.image.source":        "https://github.com/ringfence-io/ringfence",
		"org.opencontainers.image.documentation": "https://github.com/ringfence-io/ringfence/tree/main/docs",
		"org.opencontainers.image.vendor":        "The Ringfence authors",
		"org.opencontainers.image.licenses":      "Apache-2.0",
		"org.opencontainers.image.version":       r.version,
		"org.opencontainers.image.revision":      r.revision,
	}
}

// user is nobody's in particular: whoever needs root, as enforcers do, says so in the manifest.
const user = "65532:65532"

// config is how a container of the image starts.
func (r release) config() v1.Config {
	return v1.Config{
		User:       user,
		Env:        []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		Entrypoint: []string{"/usr/bin/ringfence"},
		WorkingDir: "/",
		Labels:     r.labels(),
	}
}

// build makes the image of one architecture: Debian's packages below, which change seldom, and our program above.
func build(r release, arch string, trees ...tree) (v1.Image, error) {
	base := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	base = mutate.ConfigMediaType(base, types.OCIConfigJSON)
	var adds []mutate.Addendum
	for i, t := range trees {
		layer, err := t.layer()
		if err != nil {
			return nil, err
		}
		adds = append(adds, mutate.Addendum{
			Layer: layer, MediaType: types.OCILayer,
			History: v1.History{Created: v1.Time{Time: r.created}, CreatedBy: "hack/image", Comment: [...]string{"Debian", "ringfence"}[i]},
		})
	}
	image, err := mutate.Append(base, adds...)
	if err != nil {
		return nil, fmt.Errorf("putting layers together: %w", err)
	}
	file, err := image.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("reading what was put together: %w", err)
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Config, file.Created = "linux", arch, r.config(), v1.Time{Time: r.created}
	if file.Architecture == "arm64" {
		file.Variant = "v8"
	}
	image, err = mutate.ConfigFile(image, file)
	if err != nil {
		return nil, fmt.Errorf("describing the image: %w", err)
	}
	return image, nil
}

// images are those of all architectures, in the order in which they were asked for.
type images []struct {
	arch  string
	image v1.Image
}

// index is what one name stands for: the image, or the list of those for each architecture.
func (all images) index() (mutate.Appendable, error) {
	if len(all) == 1 {
		return all[0].image, nil
	}
	list := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, one := range all {
		file, err := one.image.ConfigFile()
		if err != nil {
			return nil, fmt.Errorf("reading the image of %s: %w", one.arch, err)
		}
		list = mutate.AppendManifests(list, mutate.IndexAddendum{Add: one.image, Descriptor: v1.Descriptor{Platform: file.Platform()}})
	}
	return list, nil
}

// writeLayout writes an OCI layout in which every tag stands for the same.
func (all images) writeLayout(dir string, tags []name.Tag) (v1.Hash, error) {
	if err := os.RemoveAll(dir); err != nil {
		return v1.Hash{}, fmt.Errorf("removing the layout before: %w", err)
	}
	what, err := all.index()
	if err != nil {
		return v1.Hash{}, err
	}
	list := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, tag := range tags {
		list = mutate.AppendManifests(list, mutate.IndexAddendum{Add: what, Descriptor: v1.Descriptor{Annotations: map[string]string{
			"io.containerd.image.name":          familiar(tag),
			"org.opencontainers.image.ref.name": tag.TagStr(),
		}}})
	}
	if _, err := layout.Write(dir, list); err != nil {
		return v1.Hash{}, fmt.Errorf("writing the OCI layout: %w", err)
	}
	digest, err := what.Digest()
	if err != nil {
		return v1.Hash{}, fmt.Errorf("reading the image's digest: %w", err)
	}
	return digest, nil
}

// familiar is a tag as container runtimes write it in full.
func familiar(tag name.Tag) string {
	return strings.Replace(tag.Name(), name.DefaultRegistry+"/", "docker.io/", 1)
}

// dockerManifest is what `docker load` looks for besides, in versions before 25: for one architecture.
type dockerManifest struct {
	Config   string
	RepoTags []string
	Layers   []string
}

func (all images) dockerManifest(tags []name.Tag) ([]byte, error) {
	of := func(h v1.Hash) string { return "blobs/" + h.Algorithm + "/" + h.Hex }
	image := all[0].image
	config, err := image.ConfigName()
	if err != nil {
		return nil, fmt.Errorf("reading the image: %w", err)
	}
	m := dockerManifest{Config: of(config)}
	for _, tag := range tags {
		m.RepoTags = append(m.RepoTags, strings.TrimPrefix(strings.TrimPrefix(familiar(tag), "docker.io/"), "library/"))
	}
	layers, err := image.Layers()
	if err != nil {
		return nil, fmt.Errorf("reading the image: %w", err)
	}
	for _, layer := range layers {
		digest, err := layer.Digest()
		if err != nil {
			return nil, fmt.Errorf("reading the image: %w", err)
		}
		m.Layers = append(m.Layers, of(digest))
	}
	return json.Marshal([]dockerManifest{m})
}

// pack writes a layout as one file, with what older versions of Docker need in it.
func pack(dir, file string, manifest []byte) (err error) {
	out, err := os.Create(file)
	if err != nil {
		return fmt.Errorf("writing the image: %w", err)
	}
	defer func() {
		if closeErr := out.Close(); err == nil {
			err = closeErr
		}
	}()
	w := tar.NewWriter(out)
	put := func(name string, size int64, content io.Reader) error {
		h := &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: size, ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		_, err := io.Copy(w, content)
		return err
	}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error { // in lexical order
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		return put(filepath.ToSlash(name), int64(len(text)), bytes.NewReader(text))
	})
	if err != nil {
		return fmt.Errorf("writing the image: %w", err)
	}
	if err := put("manifest.json", int64(len(manifest)), bytes.NewReader(manifest)); err != nil {
		return fmt.Errorf("writing the image: %w", err)
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("writing the image: %w", err)
	}
	return nil
}
