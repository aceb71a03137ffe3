package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ringfence-io/ringfence/lab"
	"github.com/ringfence-io/ringfence/lab/scene"
	"github.com/ringfence-io/ringfence/test/kit"
)

// labName tells the labs of this run from others on the machine.
var labName = fmt.Sprintf("e2e-%d", os.Getpid())

// result is what 'ringfence lab run -o json' prints, as far as it is looked at here.
type result struct {
	Steps []struct {
		Name      string
		Objects   []string
		WouldDeny []struct {
			Node, What string
			Packets    int
		}
		Standings []scene.Standing
		Matrix    struct {
			Connections []struct{ Demanded, Connects, AsDemanded bool }
			Differences int
		}
	}
	Differences int
}

// of is what a look at each step gives, by the step's name.
func (r result) of(look func(step int) int) map[string]int {
	all := map[string]int{}
	for i, step := range r.Steps {
		all[step.Name] = look(i)
	}
	return all
}

func TestLabOnce(t *testing.T) {
	out, status := command(t, "lab", "run", "--once", "-o", "json", "--name", labName)
	if status != 0 {
		t.Fatalf("exit status %d", status)
	}
	r := parse(t, out)
	if r.Differences != 0 {
		t.Errorf("%d differences", r.Differences)
	}
	objects := map[string]int{"before": 0, "after": 8, "audit": 1, "enforce": 1, "tiers": 2, "opened": 10}
	if diff := cmp.Diff(objects, r.of(func(i int) int { return len(r.Steps[i].Objects) })); diff != "" {
		t.Errorf("objects in force (-want +got):\n%s", diff)
	}
	// Cells of 54, each over both families, counted by hand. After the policies: 4 of the frontend's, 4 of the backend's, 2 of the database's,
	// 5 of prometheus's, 2 of the visitor's, 3 from outside; a pod's own ports are among them. Enforced tenants: 3 pods of the shop to their 6
	// ports, 2 of prometheus's own, 1 of the visitor's. Tiers: all but 9 from outside and 4 to the database. Opened: as after the
	// policies, but neither prometheus to the database's metrics nor outside to the visitor.
	open := map[string]int{"before": 2 * 54, "after": 2 * 20, "audit": 2 * 54, "enforce": 2 * 21, "tiers": 2 * 41, "opened": 2 * 18}
	if diff := cmp.Diff(open, r.of(func(i int) int { return connecting(r.Steps[i].Matrix.Connections) })); diff != "" {
		t.Errorf("connections that pass (-want +got):\n%s", diff)
	}
	standings := map[string]int{"before": 0, "after": 8, "audit": 0, "enforce": 0, "tiers": 0, "opened": 0}
	if diff := cmp.Diff(standings, r.of(func(i int) int { return len(r.Steps[i].Standings) })); diff != "" {
		t.Errorf("NetworkPolicies of which it is said where they are enforced (-want +got):\n%s", diff)
	}
	pods := map[string]int32{
		"monitoring/prometheus": 1, "shop/backend": 1, "shop/database": 1, "shop/default-deny": 3, "shop/dns": 3, "shop/frontend": 1,
		"shop/metrics": 3, "shop/statsd": 2,
	}
	for _, p := range r.Steps[1].Standings {
		if p.Programmed != "True" || p.Reason != "Programmed" || p.Pods != pods[p.Policy] || p.Enforcing != p.Nodes || p.Nodes < 1 || p.Nodes > 2 {
			t.Errorf("of a sample policy it is said: %+v", p)
		}
	}
	for _, step := range r.Steps {
		for _, c := range step.WouldDeny {
			if step.Name != "audit" || c.Packets == 0 || !strings.HasPrefix(c.What, "NamespaceIsolation tenants ") {
				t.Errorf("%s: %+v", step.Name, c)
			}
		}
		if step.Name == "audit" && len(step.WouldDeny) != 4 {
			t.Errorf("%d counts, not one for each node and direction", len(step.WouldDeny))
		}
	}
	nothingLeft(t)
}

func TestLabWithoutEnforcerFails(t *testing.T) {
	out, status := command(t, "lab", "run", "--once", "-o", "json", "--name", labName, "--no-enforcer")
	if status == 0 {
		t.Error("it succeeds though nothing enforces the policies")
	}
	r := parse(t, out)
	differences := map[string]int{"before": 0, "after": 68, "audit": 0, "enforce": 66, "tiers": 26, "opened": 72}
	if diff := cmp.Diff(differences, r.of(func(i int) int { return r.Steps[i].Matrix.Differences })); diff != "" {
		t.Errorf("differences (-want +got):\n%s", diff)
	}
	if n := len(r.Steps[1].Standings); n != 0 {
		t.Errorf("of %d policies it is said that something enforces them", n)
	}
	nothingLeft(t)
}

func TestLabStaysUpUntilItIsTold(t *testing.T) {
	cmd := exec.Command(ringfence, "lab", "run", "--name", labName)
	var out bytes.Buffer
	cmd.Stdout = &out
	kit.Must(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // only a failed test gets here with it running

	var answers []scene.Answer
	kit.Must(t, lab.Poll(kit.Context(t, patience), func(ctx context.Context) (err error) {
		answers, err = scene.Ask(ctx, labName, "shop/backend", "shop/database:postgres")
		return err
	}))
	for _, a := range answers {
		if !a.Connects || !a.Demanded || a.Port != 5432 {
			t.Errorf("%+v", a)
		}
	}
	if len(answers) != 2 {
		t.Errorf("%d answers, not one per family", len(answers))
	}
	if text, status := command(t, "lab", "probe", "--name", labName, "outside", "shop/database:5432"); status != 0 || !strings.HasPrefix(string(text), "no ") {
		t.Errorf("exit status %d: %s", status, text)
	}
	if _, status := command(t, "lab", "run", "--name", labName, "--once"); status == 0 {
		t.Error("a second lab of the same name starts")
	}
	wrong := exec.Command(ringfence, "lab", "probe", "--name", labName, "shop/nobody", "outside:80")
	if text, err := wrong.CombinedOutput(); err == nil || !strings.Contains(string(text), `pods "nobody" not found`) {
		t.Errorf("%v: %s", err, text)
	}

	kit.Must(t, cmd.Process.Signal(syscall.SIGTERM))
	select {
	case err := <-ended:
		kit.Must(t, err)
	case <-kit.Context(t, patience).Done():
		t.Fatal("it does not end")
	}
	for _, want := range []string{
		"before:  108 connect, 108 of 108 connections are as the API demands",
		"opened:   36 connect, 108 of 108 connections are as the API demands",
		"export KUBECONFIG=" + filepath.Join(scene.Dir(labName), "kubeconfig"),
		"lab probe --name " + labName,
		"NETWORKPOLICY          PROGRAMMED  PODS  NODES\n",
		"shop/backend           True        1     1 of 1\n",
		"kubectl get policyenforcements,clusternetworkpolicies.policy.ringfence.io,namespaceisolations -A -o wide\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it does not print %q", want)
		}
	}
	nothingLeft(t)
}

// TestKilledLab shows that a lab that could not clean up leaves no process, and that the next one removes the rest.
func TestKilledLab(t *testing.T) {
	cmd := exec.Command(ringfence, "lab", "run", "--name", labName)
	kit.Must(t, cmd.Start())
	kit.Must(t, lab.Poll(kit.Context(t, patience), func(ctx context.Context) error {
		_, err := scene.Ask(ctx, labName, "outside", "shop/frontend:http")
		return err
	}))
	kit.Must(t, cmd.Process.Kill())
	_ = cmd.Wait() // it was killed
	kit.Must(t, lab.Poll(kit.Context(t, patience), func(context.Context) error {
		if left := processes(t); len(left) > 0 {
			return fmt.Errorf("processes are left: %v", left)
		}
		return nil
	}))
	left := func() []string {
		names, err := filepath.Glob(fmt.Sprintf("/run/netns/lab-%d-*", cmd.Process.Pid))
		kit.Must(t, err)
		return names
	}
	if len(left()) == 0 {
		t.Error("no network namespace is left by a lab that was killed: this test shows nothing")
	}
	if _, status := command(t, "lab", "run", "--once", "--name", labName); status != 0 {
		t.Errorf("the next lab ends with exit status %d", status)
	}
	if names := left(); len(names) > 0 {
		t.Errorf("the next lab has not removed %v", names)
	}
	nothingLeft(t)
}

// command runs ringfence and returns what it printed on standard output, and its exit status.
func command(t *testing.T, args ...string) ([]byte, int) {
	t.Helper()
	kit.NeedRoot(t)
	cmd := exec.CommandContext(t.Context(), ringfence, args...)
	var progress bytes.Buffer
	cmd.Stderr = &progress
	out, err := cmd.Output()
	t.Logf("ringfence %s:\n%s", strings.Join(args, " "), progress.Bytes())
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out, cmd.ProcessState.ExitCode()
}

func parse(t *testing.T, out []byte) result {
	t.Helper()
	var r result
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("reading the result: %v\n%s", err, out)
	}
	return r
}

func connecting(connections []struct{ Demanded, Connects, AsDemanded bool }) int {
	n := 0
	for _, c := range connections {
		if c.Connects {
			n++
		}
	}
	return n
}

// nothingLeft looks for what a lab might have left.
func nothingLeft(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(scene.Dir(labName)); !os.IsNotExist(err) {
		t.Errorf("%s is left (%v)", scene.Dir(labName), err)
	}
	if left := processes(t); len(left) > 0 {
		t.Errorf("processes are left: %v", left)
	}
}

// processes are those that name the lab's directory among their arguments.
func processes(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	kit.Must(t, err)
	var found []string
	for _, file := range files {
		if line, err := os.ReadFile(file); err == nil && bytes.Contains(line, []byte(scene.Dir(labName)+"/")) {
			found = append(found, file+": "+string(bytes.ReplaceAll(line, []byte{0}, []byte{' '})))
		}
	}
	return found
}
