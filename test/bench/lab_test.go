package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/ringfence-io/ringfence/lab"
	"github.com/ringfence-io/ringfence/lab/apiserver"
	"github.com/ringfence-io/ringfence/lab/host"
	"github.com/ringfence-io/ringfence/lab/process"
	"github.com/ringfence-io/ringfence/test/kit"
	"github.com/ringfence-io/ringfence/test/scale"
)

// patience bounds every wait for the cluster.
const patience = 8 * time.Minute

// program builds the enforcer, once for all benchmarks.
var program = sync.OnceValues(func() (string, error) { return scale.Build(scratch) })

// startLab starts a cluster of one node that ends with the benchmark.
func startLab(b *testing.B, o lab.Options) (*lab.Lab, kubernetes.Interface) {
	b.Helper()
	kit.NeedNetfilter(b)
	path, err := program()
	kit.Must(b, err)
	o.Nodes, o.EnforcerBinary = 1, path
	o.Report = func(err error) { b.Log(err) }
	l, err := lab.Start(kit.Context(b, patience), o)
	kit.Must(b, err)
	b.Cleanup(func() { kit.Must(b, l.Close()) })
	return l, clientFor(b, l.Config)
}

// server is an API server without anything around it, in a network namespace of its own: for clusters that are too large to be played.
type server struct {
	*apiserver.Server
	host *host.Host
	dir  string
}

func startServer(b *testing.B) (*server, kubernetes.Interface) {
	b.Helper()
	kit.NeedNetfilter(b)
	h, err := host.New(host.RunPrefix(hostPrefix) + "apiserver")
	kit.Must(b, err)
	b.Cleanup(func() { kit.Must(b, h.Close()) })
	s := &server{host: h, dir: b.TempDir()}
	s.Server, err = apiserver.Start(kit.Context(b, patience), apiserver.Options{
		Host: h, Addresses: []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}, Dir: s.dir,
	})
	kit.Must(b, err)
	b.Cleanup(s.Stop)
	config, err := s.Config(apiserver.Admin)
	kit.Must(b, err)
	return s, clientFor(b, config)
}

func clientFor(b *testing.B, config *rest.Config) kubernetes.Interface {
	b.Helper()
	config = rest.CopyConfig(config)
	config.ContentType = runtime.ContentTypeProtobuf
	client, err := kubernetes.NewForConfig(config)
	kit.Must(b, err)
	return client
}

// resync is how often the enforcer reads everything back from the kernel, which takes memory too.
const resync = 2 * time.Second

// startEnforcer starts the enforcer of a node beside the server, with further flags, and waits until it has enforced what it found.
func startEnforcer(b *testing.B, s *server, node string, more ...string) *process.Process {
	b.Helper()
	path, err := program()
	kit.Must(b, err)
	kubeconfig := filepath.Join(s.dir, "kubeconfig")
	kit.Must(b, s.WriteKubeconfig(kubeconfig, s.URL(netip.AddrFrom4([4]byte{127, 0, 0, 1})), apiserver.Admin))
	const health = "127.0.0.1:9440"
	args := append([]string{"enforcer", "--kubeconfig", kubeconfig, "--node-name", node,
		"--log-format", "text", "--cni-socket", "", "--health-probe-bind-address", health, "--metrics-bind-address", "0", "--resync-interval", resync.String()}, more...)
	cmd := s.host.Command(context.Background(), path, args...)
	cmd.Env = append(os.Environ(), "XTABLES_LOCKFILE="+filepath.Join(s.dir, "xtables.lock"))
	e, err := process.Start(cmd, "the enforcer", filepath.Join(s.dir, "enforcer.log"))
	kit.Must(b, err)
	b.Cleanup(func() { e.Stop(5 * time.Second) })

	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
			err = s.host.Do(func() error {
				conn, err = (&net.Dialer{}).DialContext(ctx, network, addr)
				return err
			})
			return conn, err
		},
	}}
	kit.Must(b, lab.Poll(kit.Context(b, patience), func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+health+"/readyz", nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return errors.Join(err, e.Err())
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("the enforcer is not ready: %s", resp.Status)
		}
		return nil
	}))
	return e
}
