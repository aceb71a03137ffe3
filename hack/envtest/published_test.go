package main

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/controller-runtime/tools/setup-envtest/remote"
	"sigs.k8s.io/controller-runtime/tools/setup-envtest/versions"
)

// fetch takes the programs of v1.36.3 from an index, within tenths of a second.
func fetch(t *testing.T, url, cache string) (dir string, err error) {
	t.Helper()
	p := published{
		index:    &remote.HTTPClient{IndexURL: url},
		platform: versions.Platform{OS: runtime.GOOS, Arch: runtime.GOARCH},
		limits:   limits{index: 500 * time.Millisecond, silence: 500 * time.Millisecond},
		log:      new(bytes.Buffer),
	}
	return p.fetch(t.Context(), versions.Concrete{Major: 1, Minor: 36, Patch: 3}, cache)
}

func TestWhichReleaseIsTaken(t *testing.T) {
	for name, test := range map[string]struct {
		published []string
		want      string // "" for none
	}{
		"the wanted one":                             {[]string{"v1.36.2", "v1.36.3"}, "v1.36.3"},
		"the wanted one, though there are newer":     {[]string{"v1.36.3", "v1.36.4", "v1.37.0"}, "v1.36.3"},
		"the newest patch release of its minor":      {[]string{"v1.35.9", "v1.36.0", "v1.36.10", "v1.36.2", "v1.37.0"}, "v1.36.10"},
		"none where the index has only other minors": {[]string{"v1.35.9", "v1.37.0", "v2.36.3"}, ""},
		"none where the index is empty":              {nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x, cache := serve(t), t.TempDir()
			for _, release := range test.published {
				x.publish(release, programs...)
			}
			dir, err := fetch(t, x.url(), cache)
			if test.want == "" {
				if err == nil {
					t.Errorf("got %s, want none", dir)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range programs {
				text, err := os.ReadFile(filepath.Join(dir, name))
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff("published "+test.want+"\n", string(text)); diff != "" {
					t.Errorf("%s (-want +got):\n%s", name, diff)
				}
			}
			if want := filepath.Join(cache, "envtest-"+test.want); dir != want {
				t.Errorf("the programs are in %s, want %s", dir, want)
			}
			nothingElse(t, cache, filepath.Base(dir))
		})
	}
}

func TestOtherPlatformsDoNotCount(t *testing.T) {
	x := serve(t)
	x.archives["envtest-v1.36.3-plan9-mips.tar.gz"] = packed("v1.36.3", programs...)
	x.publish("v1.36.1", programs...)
	dir, err := fetch(t, x.url(), t.TempDir())
	if err != nil || filepath.Base(dir) != "envtest-v1.36.1" {
		t.Errorf("got %s, %v, want v1.36.1", dir, err)
	}
}

func TestWhatIsThereIsNotDownloadedAgain(t *testing.T) {
	x, cache := serve(t), t.TempDir()
	archive := x.publish("v1.36.3", programs...)
	for range 2 {
		if _, err := fetch(t, x.url(), cache); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(x.asked(), archive); n != 1 {
		t.Errorf("the archive was asked for %d times, want once", n)
	}
}

func TestWhatIsIncompleteIsReplaced(t *testing.T) {
	x, cache := serve(t), t.TempDir()
	x.publish("v1.36.3", programs...)
	dir := filepath.Join(cache, "envtest-v1.36.3")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "etcd"), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := fetch(t, x.url(), cache); err != nil {
		t.Fatal(err)
	}
	if err := missing(dir); err != nil {
		t.Error(err)
	}
}

// What cannot be had, or cannot be trusted, leaves nothing in the cache, and costs no more than the limits allow.
func TestRefused(t *testing.T) {
	for name, test := range map[string]struct {
		prepare func(*index)
		want    string // in the error
	}{
		"another checksum": {func(x *index) { x.sums[x.publish("v1.36.3", programs...)] = strings.Repeat("0", 128) }, "checksum mismatch"},
		"no checksum":      {func(x *index) { x.sums[x.publish("v1.36.3", programs...)] = "" }, "checksum mismatch"},
		"a program is missing": {func(x *index) { x.publish("v1.36.3", "etcd", "kubectl") },
			"the archive has no program kube-apiserver"},
		"no archive, but a text": {func(x *index) { x.archives[x.publish("v1.36.3")] = []byte("<html>log in</html>") }, "unpacking the archive"},
		"the index does not answer": {func(x *index) { x.silent = "index" },
			"asking for envtest's index: the index does not answer within 500ms"},
		"the archive does not come": {func(x *index) { x.publish("v1.36.3", programs...); x.silent = "tar" },
			"downloading the archive: nothing has come for 500ms"},
		"nobody is there": {func(x *index) { x.Close() }, "asking for envtest's index"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x, cache := serve(t), t.TempDir()
			test.prepare(x)
			start := time.Now()
			dir, err := fetch(t, x.url(), cache)
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %s, %v, want one line with %q", dir, err, test.want)
			}
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("it took %s", took)
			}
			nothingElse(t, cache)
		})
	}
}

// nothingElse demands that a directory has nothing but what is named.
func nothingElse(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, entry := range entries {
		got = append(got, entry.Name())
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("in %s (-want +got):\n%s", dir, diff)
	}
}
