// Package status holds the stories of what is said of policies: with a real API server and the real controller, and nodes that say what they are
// told to.
package status

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	signetv1alpha2 "sigs.k8s.io/network-policy-api/apis/v1alpha2"
	signetv1beta1 "sigs.k8s.io/network-policy-api/apis/v1beta1"

	"github.com/ringfence-io/ringfence/controllers"
	"github.com/ringfence-io/ringfence/test/apiserver"
)

// bases is where our CustomResourceDefinitions are.
const bases = "../../config/crd/bases"

var (
	// restConfig reaches the API server of this test run, with every right.
	restConfig *rest.Config
	server     client.WithWatch
)

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	apiserver.Main(m, func(env *envtest.Environment) error {
		restConfig = env.Config
		if err := install(restConfig, bases); err != nil {
			return err
		}
		var err error
		server, err = connect(restConfig)
		return err
	})
}

func install(config *rest.Config, dir string) error {
	if _, err := envtest.InstallCRDs(config, envtest.CRDInstallOptions{Paths: []string{dir}, ErrorIfPathMissing: true}); err != nil {
		return fmt.Errorf("installing the CustomResourceDefinitions of %s: %w", dir, err)
	}
	return nil
}

func connect(config *rest.Config) (client.WithWatch, error) {
	config = rest.CopyConfig(config)
	config.QPS = -1
	scheme := controllers.Scheme()
	if err := signetv1alpha2.Install(scheme); err != nil {
		return nil, err
	}
	if err := signetv1beta1.Install(scheme); err != nil {
		return nil, err
	}
	if err := apiextensionsv1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	return client.NewWithWatch(config, client.Options{Scheme: scheme})
}

// controller is 'ringfence controller' at work in this process.
type controller struct {
	*road
	t    *testing.T
	stop context.CancelFunc
	done chan error
}

// startController starts one, with changes of its options. It ends with the test, if not before.
func startController(t *testing.T, to *rest.Config, change ...func(*ctrl.Options)) *controller {
	t.Helper()
	skip := true
	c := &controller{road: newRoad(), t: t, done: make(chan error, 1)}
	options := ctrl.Options{
		Logger:         logr.Discard(),
		Cache:          controllers.ControllerCacheOptions(),
		Scheme:         controllers.Scheme(),
		MapperProvider: controllers.ControllerRESTMapper,
		Metrics:        metricsserver.Options{BindAddress: "0"},
		Controller:     config.Controller{SkipNameValidation: &skip},
	}
	for _, f := range change {
		f(&options)
	}
	m, err := ctrl.NewManager(c.road.to(to), options)
	must(t, err)
	ctx, stop := context.WithCancel(context.Background())
	must(t, (&controllers.Policies{}).SetupWithManager(ctx, m))
	must(t, (&controllers.StartupTaint{Key: controllers.DefaultStartupTaint}).SetupWithManager(ctx, m))
	metrics.Registry.Unregister(counts{}) // the next controller of this process brings them too
	c.stop = stop
	go func() { c.done <- m.Start(ctx) }()
	t.Cleanup(c.end)
	return c
}

// end stops the controller, and waits until it has ended.
func (c *controller) end() {
	c.bar(nil)
	c.stop()
	if err, running := <-c.done; running {
		if err != nil && !strings.Contains(err.Error(), "leader election lost") {
			c.t.Errorf("the controller ended with %v", err)
		}
		close(c.done)
	}
}

// crash ends the controller as a kill would: it says no more.
func (c *controller) crash() {
	c.breakUp()
	c.end()
}

// counts are the metrics by which policies and nodes are counted, of which a process has one set.
type counts struct{}

// Describe names them.
func (counts) Describe(to chan<- *prometheus.Desc) {
	for _, name := range []string{"ringfence_policies", "ringfence_nodes"} {
		to <- prometheus.NewDesc(name, "", nil, nil)
	}
}

// Collect collects nothing.
func (counts) Collect(chan<- prometheus.Metric) {}

// patience is for everything that happens some time after it was asked for.
const patience = 30 * time.Second

// until polls until done returns nil.
func until(t *testing.T, what string, done func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		err := done(ctx)
		if err == nil {
			return
		}
		if ctx.Err() == nil || last == nil {
			last = err // rather than that time was up
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waiting for %s: %v", what, last)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func codecs(s *runtime.Scheme) serializer.CodecFactory { return serializer.NewCodecFactory(s) }

// statusWrites are the requests that write statuses.
func statusWrites(q *http.Request) bool {
	return q.Method == http.MethodPatch && strings.HasSuffix(q.URL.Path, "/status")
}
