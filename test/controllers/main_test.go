// Package controllers holds the tests of the reconcilers against a real API server.
package controllers

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/ringfence-io/ringfence/lab/apiserver"
)

var (
	// restConfig reaches the API server of this test run, with every right.
	restConfig *rest.Config
	// enforcerConfig reaches it with the rights of config/rbac.
	enforcerConfig *rest.Config
)

func TestMain(m *testing.M) {
	status, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		status = 1
	}
	os.Exit(status)
}

func run(m *testing.M) (int, error) {
	assets, err := apiserver.Assets()
	if err != nil {
		return 1, err
	}
	env := &envtest.Environment{BinaryAssetsDirectory: assets}
	if restConfig, err = env.Start(); err != nil {
		return 1, fmt.Errorf("starting the API server of %s: %w", assets, err)
	}
	user, err := env.AddUser(envtest.User{Name: enforcerUser}, nil)
	if err != nil {
		return 1, errors.Join(fmt.Errorf("adding a user: %w", err), env.Stop())
	}
	enforcerConfig = user.Config()
	status := m.Run()
	return status, env.Stop()
}
