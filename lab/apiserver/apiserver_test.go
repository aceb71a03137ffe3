package apiserver_test

import (
	"context"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/ringfence-io/ringfence/lab/apiserver"
	"github.com/ringfence-io/ringfence/test/kit"
	"github.com/ringfence-io/ringfence/test/kit/netns"
)

func TestVersionIsTheOneThatIsBuilt(t *testing.T) {
	mod, err := os.ReadFile("../../hack/kube/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if want := "k8s.io/kubernetes " + apiserver.Version; !strings.Contains(string(mod), want) {
		t.Errorf("hack/kube/go.mod does not require %q", want)
	}
}

func TestMissingProgramsAreNamed(t *testing.T) {
	t.Setenv("KUBEBUILDER_ASSETS", t.TempDir())
	_, err := apiserver.Assets()
	if err == nil || !strings.Contains(err.Error(), "kube-apiserver, etcd: run hack/kube/build.sh") {
		t.Errorf("got error %v", err)
	}
}

func TestServer(t *testing.T) {
	kit.NeedRoot(t)
	h := netns.New(t, "rf-apiserver", "test")
	began := time.Now()
	s, err := apiserver.Start(t.Context(), apiserver.Options{
		Host: h, Addresses: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, Dir: t.TempDir(),
	})
	kit.Must(t, err)
	t.Cleanup(s.Stop)
	t.Logf("ready in %s", time.Since(began).Round(time.Millisecond))

	admin := client(t, s, apiserver.Admin)
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}
	_, err = admin.CoreV1().Namespaces().Create(t.Context(), namespace, metav1.CreateOptions{})
	kit.Must(t, err)

	t.Run("RBAC is on", func(t *testing.T) {
		nobody := client(t, s, apiserver.User{Name: "nobody"})
		_, err := nobody.CoreV1().Pods("shop").List(t.Context(), metav1.ListOptions{})
		if !apierrors.IsForbidden(err) {
			t.Errorf("a user without any role lists pods: %v", err)
		}
	})
	t.Run("what was written survives a crash", func(t *testing.T) {
		s.Kill()
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond) // the client would retry for long
		defer cancel()
		if _, err := admin.CoreV1().Namespaces().Get(ctx, "shop", metav1.GetOptions{}); err == nil {
			t.Error("a killed server answers")
		}
		kit.Must(t, s.Resume(t.Context()))
		_, err = admin.CoreV1().Namespaces().Get(t.Context(), "shop", metav1.GetOptions{})
		kit.Must(t, err)
	})
	t.Run("nothing is left", func(t *testing.T) {
		s.Stop()
		if pids := s.PIDs(); len(pids) > 0 {
			t.Errorf("processes %v still run", pids)
		}
	})
}

func client(t *testing.T, s *apiserver.Server, u apiserver.User) *kubernetes.Clientset {
	t.Helper()
	config, err := s.Config(u)
	kit.Must(t, err)
	c, err := kubernetes.NewForConfig(config)
	kit.Must(t, err)
	return c
}
