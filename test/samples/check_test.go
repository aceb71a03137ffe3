package samples

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const root = "../.."

// The check that repositories run on their policies passes for the samples as they are, and fails for a change that opens something: by what the assertions
// say, and by what the comparison finds.
func TestTheCheckOfARepository(t *testing.T) {
	program := filepath.Join(t.TempDir(), "kubectl-ringfence")
	command(t, root, nil, "go", "build", "-o", program, ".")
	repository := t.TempDir()
	if err := os.CopyFS(filepath.Join(repository, "config/samples"), os.DirFS(filepath.Join(root, "config/samples"))); err != nil {
		t.Fatal(err)
	}
	git := []string{"-c", "user.name=any", "-c", "user.email=any@example.com"}
	command(t, repository, nil, "git", "init", "-q")
	command(t, repository, nil, "git", "add", ".")
	command(t, repository, nil, "git", append(git, "commit", "-qm", "before")...)
	env := []string{
		"PROGRAM=" + program, "FILES=config/samples/application config/samples/policies", "TESTS=config/samples/connectivity.yaml", "BASE=HEAD", "FAIL_ON=opened",
	}
	check, err := filepath.Abs(filepath.Join(root, ".github/actions/policy/check.sh"))
	if err != nil {
		t.Fatal(err)
	}
	out, err := run(repository, env, check)
	if err != nil || !strings.Contains(out, "9 of 9 hold") || !strings.Contains(out, "opens and closes no connection") {
		t.Errorf("without a change: %v\n%s", err, out)
	}

	policy := filepath.Join(repository, "config/samples/policies/shop-database.yaml")
	text, err := os.ReadFile(policy)
	if err != nil {
		t.Fatal(err)
	}
	opened := bytes.Replace(text, []byte("- podSelector:\n        matchLabels:\n          app: backend\n"), []byte("- namespaceSelector: {}\n"), 1)
	if bytes.Equal(opened, text) {
		t.Fatalf("the sample has no peer to widen:\n%s", text)
	}
	if err := os.WriteFile(policy, opened, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err = run(repository, env, check)
	if err == nil || !strings.Contains(out, "FAILS  nothing but backend reaches database on tcp/5432") || !strings.Contains(out, "| opens | `outsider/visitor` | `shop/database` | tcp 5432") {
		t.Errorf("with a change that opens something: %v\n%s", err, out)
	}
}

func run(dir string, env []string, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func command(t *testing.T, dir string, env []string, name string, args ...string) {
	t.Helper()
	if out, err := run(dir, env, name, args...); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}
