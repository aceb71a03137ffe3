// Package controllers holds the tests of the reconcilers against a real API server.
package controllers

import (
	"fmt"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/ringfence-io/ringfence/test/apiserver"
)

// patience is for everything that happens some time after it was asked for.
const patience = 30 * time.Second

var (
	// restConfig reaches the API server of this test run, with every right.
	restConfig *rest.Config
	// enforcerConfig reaches it with the rights of config/rbac.
	enforcerConfig *rest.Config
)

func TestMain(m *testing.M) {
	apiserver.Main(m, func(env *envtest.Environment) error {
		restConfig = env.Config
		user, err := env.AddUser(envtest.User{Name: enforcerUser}, nil)
		if err != nil {
			return fmt.Errorf("adding a user: %w", err)
		}
		enforcerConfig = user.Config()
		return nil
	})
}
