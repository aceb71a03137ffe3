// Package e2e runs whole labs: API server, nodes, pods, and the real enforcer as a process on each node.
package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/config"
	"github.com/ringfence-io/ringfence/lab"
	"github.com/ringfence-io/ringfence/test/kit"
)

// patience is for everything that happens some time after it was asked for.
const patience = time.Minute

// ringfence is the program under test, built once.
var ringfence string

func TestMain(m *testing.M) {
	if os.Geteuid() != 0 && os.Getenv("CI") == "true" {
		fmt.Fprintln(os.Stderr, "end-to-end tests need root to make network namespaces")
		os.Exit(1)
	}
	ctrl.SetLogger(logr.Discard()) // what its clients have to say, they return
	dir, err := os.MkdirTemp("", "ringfence-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	ringfence = filepath.Join(dir, "ringfence")
	build := exec.Command("go", "build", "-o", ringfence, "github.com/ringfence-io/ringfence")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building ringfence: %v\n%s", err, out)
		os.Exit(1)
	}
	status := m.Run()
	os.RemoveAll(dir)
	os.Exit(status)
}

// start starts a lab that ends with the test. A test that fails shows the enforcers' logs.
func start(t *testing.T, opts lab.Options) *lab.Lab {
	t.Helper()
	kit.NeedRoot(t)
	opts.EnforcerBinary = ringfence
	opts.Report = func(err error) { t.Log(err) }
	began := time.Now()
	l, err := lab.Start(kit.Context(t, patience), opts)
	kit.Must(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			for _, n := range l.Nodes {
				log, _ := os.ReadFile(n.EnforcerLog())
				t.Logf("the enforcer of %s:\n%s", n.Name, log)
			}
			if log, err := os.ReadFile(l.ControllerLog("c1")); err == nil {
				t.Logf("the controller c1:\n%s", log)
			}
		}
		kit.Must(t, l.Close())
	})
	if !opts.NoEnforcer {
		kit.Must(t, l.WaitEnforcers(kit.Context(t, patience)))
	}
	t.Logf("a lab of %d nodes is up after %s", len(l.Nodes), time.Since(began).Round(10*time.Millisecond))
	return l
}

// application starts the sample application.
func application(t *testing.T, l *lab.Lab) {
	t.Helper()
	kit.Must(t, l.ApplyDir(kit.Context(t, patience), config.Samples, "samples/application"))
	_, err := l.WaitReady(kit.Context(t, patience))
	kit.Must(t, err)
}

// reportOf is a node's report as it is now.
func reportOf(ctx context.Context, l *lab.Lab, node string) (*v1alpha1.NodeEnforcement, error) {
	var r v1alpha1.NodeEnforcement
	text, err := l.Client.Discovery().RESTClient().Get().AbsPath("/apis/policy.ringfence.io/v1alpha1/nodeenforcements/" + node).DoRaw(ctx)
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	return &r, err
}
