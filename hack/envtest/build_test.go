package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// fakeGo stands in for go: what it builds comes at once, and is no program. Everything else is left to the real one.
const fakeGo = `#!/bin/bash
case "$1 $2" in
  'mod download') ;;
  'list -deps') echo one-package ;;
  'build -v')
    while [[ $1 != -o ]]; do shift; done
    echo built >"$2"
    chmod +x "$2"
    ;;
  *) exec "$REAL_GO" "$@" ;;
esac
`

// script is a call of hack/kube/build.sh, with a cache of its own. It can reach nothing but servers on this machine.
type script struct {
	t     *testing.T
	cache string
	env   []string
}

func newScript(t *testing.T, x *index) *script {
	t.Helper()
	bin, home := t.TempDir(), t.TempDir()
	must(t, os.WriteFile(filepath.Join(bin, "go"), []byte(fakeGo), 0o755))
	real, err := exec.LookPath("go")
	must(t, err)
	s := &script{t: t, cache: filepath.Join(home, "ringfence")}
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		switch strings.ToUpper(name) {
		case "CI", "KUBEBUILDER_ASSETS", "KUBE_VERSION", "KUBE_FROM", "KUBE_INDEX", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "PATH", "XDG_CACHE_HOME":
		default:
			s.env = append(s.env, v)
		}
	}
	s.env = append(s.env, "PATH="+bin+":"+os.Getenv("PATH"), "REAL_GO="+real, "XDG_CACHE_HOME="+home, "KUBE_INDEX="+x.url(),
		// Nothing listens there, so that no mistake of this test can ask the real index. Servers of this machine need no proxy.
		"HTTP_PROXY=http://127.0.0.1:1", "HTTPS_PROXY=http://127.0.0.1:1", "GOPROXY=off", "GOSUMDB=off")
	for _, name := range []string{"GOCACHE", "GOMODCACHE"} {
		value, err := exec.Command("go", "env", name).Output()
		must(t, err)
		s.env = append(s.env, name+"="+strings.TrimSpace(string(value)))
	}
	return s
}

// run runs the script, and returns what it prints on standard error.
func (s *script) run(env ...string) (said string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "../kube/build.sh", "kube")
	cmd.Env = append(s.env, env...)
	var out, log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &log
	if err := cmd.Run(); err != nil {
		s.t.Fatalf("%v:\n%s", err, log.Bytes())
	}
	if want := "export KUBEBUILDER_ASSETS=" + s.assets() + "\n"; out.String() != want {
		s.t.Errorf("it prints %q, want %q", out.String(), want)
	}
	return log.String()
}

func (s *script) assets() string { return filepath.Join(s.cache, "kube-"+pinned(s.t)) }

// want demands that all programs have the same text.
func (s *script) want(text string) {
	s.t.Helper()
	for _, name := range programs {
		got, err := os.ReadFile(filepath.Join(s.assets(), name))
		must(s.t, err)
		if diff := cmp.Diff(text+"\n", string(got)); diff != "" {
			s.t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// pinned is the release of Kubernetes that hack/kube pins.
func pinned(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../kube/go.mod")
	must(t, err)
	found := regexp.MustCompile(`(?m)^\s*k8s\.io/kubernetes (v\S+)`).FindSubmatch(text)
	if found == nil {
		t.Fatal("hack/kube/go.mod pins no k8s.io/kubernetes")
	}
	return string(found[1])
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestPublishedProgramsAreTakenOnce(t *testing.T) {
	t.Parallel()
	x := serve(t)
	x.publish(pinned(t), programs...)
	s := newScript(t, x)
	s.run()
	s.want("published " + pinned(t))
	asked := x.asked()
	s.run()
	s.want("published " + pinned(t))
	if x.asked() != asked {
		t.Errorf("with all programs in the cache it asks again:\n%s\nafter\n%s", x.asked(), asked)
	}
}

func TestWhatCannotBeHadIsBuilt(t *testing.T) {
	for name, test := range map[string]struct {
		prepare func(*testing.T, *index)
		why     string // in the one line that says so
	}{
		"another checksum": {func(t *testing.T, x *index) { x.sums[x.publish(pinned(t), programs...)] = strings.Repeat("0", 128) },
			"checksum mismatch"},
		"nobody is there":           {func(_ *testing.T, x *index) { x.Close() }, "connection refused"},
		"the index does not answer": {func(_ *testing.T, x *index) { x.silent = "index" }, "the index does not answer within 5s"},
		"the index has no release":  {func(_ *testing.T, _ *index) {}, "the index has no release of 1."},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := serve(t)
			test.prepare(t, x)
			s := newScript(t, x)
			said := s.run()
			s.want("built")
			if n := strings.Count(said, "cannot be had"); n != 1 || !strings.Contains(said, test.why) {
				t.Errorf("it says %d times, want once, that they cannot be had, and why: %q:\n%s", n, test.why, said)
			}
			nothingElse(t, s.cache, "kube-"+pinned(t))
		})
	}
}

// What CI tests is the same each time: it asks nobody, and takes nothing that an earlier run has taken from the index.
func TestCIBuildsFromSource(t *testing.T) {
	for _, env := range []string{"CI=true", "KUBE_FROM=source"} {
		t.Run(env, func(t *testing.T) {
			t.Parallel()
			x := serve(t)
			x.publish(pinned(t), programs...)
			s := newScript(t, x)
			s.run(env)
			s.want("built")
			if asked := x.asked(); asked != "" {
				t.Errorf("it asks for %s", asked)
			}
			must(t, os.RemoveAll(s.cache))
			s.run()
			s.want("published " + pinned(t))
			s.run(env)
			s.want("built")
		})
	}
}

func TestAnInterruptedBuildIsReplaced(t *testing.T) {
	t.Parallel()
	x := serve(t)
	x.publish(pinned(t), programs...)
	s := newScript(t, x)
	must(t, os.MkdirAll(s.assets(), 0o755))
	must(t, os.WriteFile(filepath.Join(s.assets(), "etcd"), []byte("built\n"), 0o755))
	s.run()
	s.want("published " + pinned(t))
}

func TestALinkToNothingIsReplaced(t *testing.T) {
	t.Parallel()
	x := serve(t)
	s := newScript(t, x)
	must(t, os.MkdirAll(s.cache, 0o755))
	must(t, os.Symlink(filepath.Join(s.cache, "envtest-v1.0.0"), s.assets()))
	s.run()
	s.want("built")
	if _, err := os.Stat(filepath.Join(s.cache, "envtest-v1.0.0")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what the link led to: %v, want nothing", err)
	}
}
