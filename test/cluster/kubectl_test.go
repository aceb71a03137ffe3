//go:build cluster

package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// patience is for everything that happens some time after it was asked for: images may have to be pulled.
const patience = 5 * time.Minute

// run runs kubectl, with the text on its standard input, and gives what it printed.
func run(ctx context.Context, input string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "kubectl", args...)
	cmd.Stdin = strings.NewReader(input)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), &failure{args, errs.String(), err}
	}
	return out.String(), nil
}

// failure is a kubectl that did not succeed.
type failure struct {
	args []string
	said string
	err  error
}

func (f *failure) Error() string {
	return "kubectl " + strings.Join(f.args, " ") + ": " + f.err.Error() + "\n" + strings.TrimSpace(f.said)
}

func (f *failure) Unwrap() error { return f.err }

// kubectl runs kubectl, which has to succeed.
func kubectl(t *testing.T, args ...string) string {
	t.Helper()
	return feed(t, "", args...)
}

// feed is kubectl with the text on its standard input.
func feed(t *testing.T, input string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	out, err := run(ctx, input, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// get reads one object, or a list of them.
func get[T any](t *testing.T, args ...string) T {
	t.Helper()
	var into T
	text := kubectl(t, append([]string{"get", "-o", "json"}, args...)...)
	if err := json.Unmarshal([]byte(text), &into); err != nil {
		t.Fatalf("reading what kubectl get %v printed: %v", args, err)
	}
	return into
}

// from is how kubectl is told where manifests are: a directory is kustomize's.
func from(t *testing.T, path string) []string {
	t.Helper()
	path = inRepository(path)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatalf("there are no such manifests: %v", err)
	}
	if info.IsDir() {
		return []string{"-k", path}
	}
	return []string{"-f", path}
}

// inRepository is a path that was given from the top of the repository.
func inRepository(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join("..", "..", path)
}

// rolledOut waits until a workload of ours is as it should be.
func rolledOut(t *testing.T, workload string) {
	t.Helper()
	kubectl(t, "-n", home, "rollout", "status", workload, "--timeout", patience.String())
}
