package main

import (
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// What is pushed is what the layout has, to the digest: an image of one architecture, or the list of those of several.
func TestWhatIsPushedIsWhatTheLayoutHas(t *testing.T) {
	one, err := random.Image(1000, 2)
	must(t, err)
	two, err := random.Index(1000, 1, 2)
	must(t, err)
	for what, image := range map[string]mutate.Appendable{"an image": one, "a list": two} {
		t.Run(what, func(t *testing.T) {
			want, err := image.Digest()
			must(t, err)
			to := registryHost(t) + "/ringfence:v1.2.3"
			got, err := push(t.Context(), written(t, image, image), to)
			must(t, err)
			if got != want {
				t.Errorf("the digest is %s, want %s", got, want)
			}
			reference, err := name.ParseReference(to)
			must(t, err)
			there, err := remote.Head(reference)
			must(t, err)
			if there.Digest != want {
				t.Errorf("the registry has %s, want %s", there.Digest, want)
			}
		})
	}
}

func TestWhatIsNotPushed(t *testing.T) {
	one, err := random.Image(100, 1)
	must(t, err)
	other, err := random.Image(100, 1)
	must(t, err)
	to := registryHost(t) + "/ringfence:v1.2.3"
	for _, tt := range []struct{ dir, to, why string }{
		{written(t, one, other), to, "there are two images"},
		{written(t), to, "there is no image"},
		{t.TempDir(), to, "reading the layout"},
		{written(t, one), "no reference", "reading the reference"},
		{written(t, one), "127.0.0.1:1/ringfence:v1", "pushing to 127.0.0.1:1/ringfence:v1"},
	} {
		if _, err := push(t.Context(), tt.dir, tt.to); err == nil || !strings.Contains(err.Error(), tt.why) {
			t.Errorf("got %v, want: %s", err, tt.why)
		}
	}
}

// written is a layout with these entries.
func written(t *testing.T, entries ...mutate.Appendable) string {
	t.Helper()
	list := v1.ImageIndex(empty.Index)
	for i, e := range entries {
		list = mutate.AppendManifests(list, mutate.IndexAddendum{Add: e, Descriptor: v1.Descriptor{
			Annotations: map[string]string{"org.opencontainers.image.ref.name": fmt.Sprint(i)},
		}})
	}
	dir := t.TempDir()
	_, err := layout.Write(dir, list)
	must(t, err)
	return dir
}

// registryHost is where a registry answers.
func registryHost(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
