package lab_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/ringfence-io/ringfence/lab"
	"github.com/ringfence-io/ringfence/test/kit"
)

// standIn is a program that says how it was called, and goes on until it is ended.
const standIn = "#!/bin/sh\necho \"$@\"\nexec sleep 600\n"

// Our programs are to the API server who they are on a cluster, and several controllers run beside each other.
func TestPrograms(t *testing.T) {
	program := filepath.Join(t.TempDir(), "stand-in")
	kit.Must(t, os.WriteFile(program, []byte(standIn), 0o700))
	l := start(t, lab.Options{NoEnforcer: true, Controller: true, EnforcerBinary: program})

	t.Run("each has a token of its own", func(t *testing.T) {
		for file, want := range map[string]string{
			"n1":         "system:serviceaccount:ringfence-system:ringfence-enforcer on [n1]",
			"n2":         "system:serviceaccount:ringfence-system:ringfence-enforcer on [n2]",
			"controller": "system:serviceaccount:ringfence-system:ringfence-controller on []",
		} {
			user := whoIs(t, l, filepath.Join(l.Dir, file+".kubeconfig"))
			got := fmt.Sprintf("%s on %s", user.Username, user.Extra["authentication.kubernetes.io/node-name"])
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", file, diff)
			}
		}
	})
	t.Run("each controller has its ports", func(t *testing.T) {
		kit.Must(t, l.StartController("c2"))
		for name, port := range map[string]int{"c1": 9500, "c2": 9502} {
			calledWith(t, l, name, 1, fmt.Sprintf("controller --kubeconfig %s/controller.kubeconfig --leader-elect --leader-elect-namespace ringfence-system "+
				"--log-format text --metrics-bind-address 127.0.0.1:%d --metrics-secure=false --health-probe-bind-address 127.0.0.1:%d", l.Dir, port, port+1))
		}
	})
	t.Run("one does not run twice", func(t *testing.T) {
		if err := l.StartController("c1"); err == nil || !strings.Contains(err.Error(), "controller c1: it is running") {
			t.Errorf("started twice: %v", err)
		}
	})
	t.Run("one that is ended starts again, where it was", func(t *testing.T) {
		for i, end := range []func(string){l.KillController, l.StopController} {
			end("c1")
			if err := l.ControllerReady(kit.Context(t, time.Minute), "c1"); err == nil || !strings.Contains(err.Error(), "controller c1 ended") {
				t.Errorf("after its end: %v", err)
			}
			kit.Must(t, l.StartController("c1"))
			calledWith(t, l, "c1", i+2, "--metrics-bind-address 127.0.0.1:9500")
		}
	})
	t.Run("one that does not answer is not ready", func(t *testing.T) {
		err := l.ControllerReady(kit.Context(t, time.Minute), "c2")
		if err == nil || !strings.Contains(err.Error(), "asking controller c2") || !strings.Contains(err.Error(), "127.0.0.1:9503/readyz") {
			t.Errorf("it is ready: %v", err)
		}
	})
	t.Run("what has never been there", func(t *testing.T) {
		l.StopController("c9")
		l.KillController("c9")
		if err := l.ControllerReady(kit.Context(t, time.Minute), "c9"); err == nil || !strings.Contains(err.Error(), "there is no controller c9") {
			t.Errorf("it is ready: %v", err)
		}
	})
}

// whoIs asks the API server, which is reached by the test's own way, whom it takes the holder of a kubeconfig for.
func whoIs(t *testing.T, l *lab.Lab, kubeconfig string) authenticationv1.UserInfo {
	t.Helper()
	file, err := clientcmd.LoadFromFile(kubeconfig)
	kit.Must(t, err)
	config := rest.AnonymousClientConfig(l.Config)
	config.BearerToken = file.AuthInfos[file.Contexts[file.CurrentContext].AuthInfo].Token
	client, err := kubernetes.NewForConfig(config)
	kit.Must(t, err)
	review, err := client.AuthenticationV1().SelfSubjectReviews().Create(kit.Context(t, time.Minute), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	kit.Must(t, err)
	return review.Status.UserInfo
}

// calledWith waits until a controller's log has as many lines, and checks the last.
func calledWith(t *testing.T, l *lab.Lab, name string, lines int, want string) {
	t.Helper()
	var all []string
	kit.Must(t, lab.Poll(kit.Context(t, time.Minute), func(context.Context) error {
		text, err := os.ReadFile(l.ControllerLog(name))
		if all = strings.Split(strings.TrimSuffix(string(text), "\n"), "\n"); err != nil || len(text) == 0 || len(all) < lines {
			return fmt.Errorf("controller %s has said %q: %w", name, text, err)
		}
		return nil
	}))
	if got := all[len(all)-1]; !strings.Contains(got, want) {
		t.Errorf("controller %s was called with\n%s\nwant\n%s", name, got, want)
	}
}
