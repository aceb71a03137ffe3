// Package status holds the stories of what is said of policies: with a real API server and the real controller, and nodes that say what they are
// told to.
package status

import (
	"context"
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

	"github.com/ringfence-io/ringfence/controllers/connections"
	"github.com/ringfence-io/ringfence/controllers/startup"
	"github.com/ringfence-io/ringfence/controllers/status"
	"github.com/ringfence-io/ringfence/test/apiserver"
	"github.com/ringfence-io/ringfence/test/kit"
	"github.com/ringfence-io/ringfence/test/kit/transport"
)

var (
	// restConfig reaches the API server of this test run, with every right.
	restConfig *rest.Config
	server     client.WithWatch
)

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	apiserver.Main(m, func(env *envtest.Environment) error {
		restConfig = env.Config
		if err := apiserver.InstallCRDs(restConfig, apiserver.CRDs); err != nil {
			return err
		}
		var err error
		server, err = connect(restConfig)
		return err
	})
}

// unlimited is a configuration whose clients send requests as fast as they can.
func unlimited(config *rest.Config) *rest.Config {
	config = rest.CopyConfig(config)
	config.QPS = -1
	return config
}

func connect(config *rest.Config) (client.WithWatch, error) {
	scheme := status.Scheme()
	if err := signetv1alpha2.Install(scheme); err != nil {
		return nil, err
	}
	if err := signetv1beta1.Install(scheme); err != nil {
		return nil, err
	}
	if err := apiextensionsv1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	return client.NewWithWatch(unlimited(config), client.Options{Scheme: scheme})
}

// controller is 'ringfence controller' at work in this process.
type controller struct {
	*transport.Transport
	t    *testing.T
	stop context.CancelFunc
	done chan error
}

// startController starts one, with changes of its options. It ends with the test, if not before.
func startController(t *testing.T, to *rest.Config, change ...func(*ctrl.Options)) *controller {
	t.Helper()
	return startReporting(t, connections.ForThoseThatAsk, to, change...)
}

// startReporting is startController with another --connection-reports.
func startReporting(t *testing.T, namespaces string, to *rest.Config, change ...func(*ctrl.Options)) *controller {
	t.Helper()
	skip := true
	c := &controller{Transport: transport.New(), t: t, done: make(chan error, 1)}
	options := ctrl.Options{
		Logger:         logr.Discard(),
		Cache:          status.CacheOptions(),
		Scheme:         status.Scheme(),
		MapperProvider: status.RESTMapper,
		Metrics:        metricsserver.Options{BindAddress: "0"},
		Controller:     config.Controller{SkipNameValidation: &skip},
	}
	for _, f := range change {
		f(&options)
	}
	m, err := ctrl.NewManager(c.To(unlimited(to)), options)
	kit.Must(t, err)
	ctx, stop := context.WithCancel(context.Background())
	policies := &status.Policies{}
	kit.Must(t, policies.SetupWithManager(ctx, m))
	reports := &connections.Reports{For: namespaces, Runs: policies.Runs}
	kit.Must(t, reports.SetupWithManager(ctx, m, policies.Client()))
	kit.Must(t, (&startup.Taint{Key: startup.DefaultTaint}).SetupWithManager(ctx, m))
	metrics.Registry.Unregister(counts{}) // the next controller of this process brings them too
	c.stop = stop
	go func() { c.done <- m.Start(ctx) }()
	t.Cleanup(c.end)
	return c
}

// end stops the controller, and waits until it has ended.
func (c *controller) end() {
	c.Release()
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
	c.Break()
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

func codecs(s *runtime.Scheme) serializer.CodecFactory { return serializer.NewCodecFactory(s) }

// statusWrites are the requests that write statuses.
func statusWrites(q *http.Request) bool {
	return q.Method == http.MethodPatch && strings.HasSuffix(q.URL.Path, "/status")
}
