package cli

import (
	"crypto/tls"

	"github.com/spf13/pflag"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

// metricsFlags say where a process has its metrics, and for whom.
type metricsFlags struct {
	address string
	secure  bool
}

func (m *metricsFlags) add(f *pflag.FlagSet, address string) {
	f.StringVar(&m.address, "metrics-bind-address", address, "address that serves the Prometheus metrics; 0 turns it off")
	f.BoolVar(&m.secure, "metrics-secure", true,
		"serve the metrics by HTTPS, to clients whose token the API server allows to get /metrics; false serves them by HTTP to everybody")
}

// options are those of a manager. The certificate is made anew at each start: it encrypts, and proves nothing. Who asks is known by a token.
func (m *metricsFlags) options() metricsserver.Options {
	o := metricsserver.Options{BindAddress: m.address}
	if m.secure {
		o.SecureServing = true
		o.FilterProvider = guardMetrics
		// HTTP/2 lets one client open and reset streams without end before anybody knows who it is; nobody needs it here.
		o.TLSOpts = []func(*tls.Config){func(c *tls.Config) { c.NextProtos = []string{"http/1.1"} }}
	}
	return o
}
