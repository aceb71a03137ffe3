// Package apiserver runs the tests of a package with a real API server, which all of them share, and installs kinds in it.
package apiserver

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/ringfence-io/ringfence/lab/apiserver"
)

// Main is a TestMain: it starts the server, prepares what the tests need of it, runs them, and exits. Environment.Config reaches the server,
// with every right.
func Main(m *testing.M, prepare func(*envtest.Environment) error) { os.Exit(Run(m, prepare)) }

// Run does the same without the exit, and returns the exit status: for a TestMain that has to remove something afterwards.
func Run(m *testing.M, prepare func(*envtest.Environment) error) int {
	status, err := run(m, prepare)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return status
}

func run(m *testing.M, prepare func(*envtest.Environment) error) (int, error) {
	assets, err := apiserver.Assets()
	if err != nil {
		return 1, err
	}
	env := &envtest.Environment{BinaryAssetsDirectory: assets}
	if _, err = env.Start(); err != nil {
		return 1, fmt.Errorf("starting the API server of %s: %w", assets, err)
	}
	if err := prepare(env); err != nil {
		return 1, errors.Join(err, env.Stop())
	}
	status := m.Run()
	return status, env.Stop()
}

// CRDs is the directory of our CustomResourceDefinitions, as a package below test sees it.
const CRDs = "../../config/crd/bases"

// InstallCRDs installs the CustomResourceDefinitions of directories in an API server, and returns when it serves them.
func InstallCRDs(to *rest.Config, dirs ...string) error {
	options := envtest.CRDInstallOptions{Paths: dirs, ErrorIfPathMissing: true, MaxTime: time.Minute}
	if _, err := envtest.InstallCRDs(to, options); err != nil {
		return fmt.Errorf("installing the CustomResourceDefinitions of %s: %w", strings.Join(dirs, ", "), err)
	}
	return nil
}
