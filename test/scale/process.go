package scale

import (
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/ringfence-io/ringfence/lab/process"
)

// Sorts of requests of the controller.
const (
	Statuses     = "statuses"
	Enforcements = "PolicyEnforcements" // made or deleted; their statuses are among the others
	Events       = "Events"
	Leases       = "leases" // and Events about who leads
	Reads        = "reads"  // watches too
	Others       = "others"
)

// sortOf says what a request of the controller is for.
func sortOf(r *http.Request) string {
	switch path := r.URL.Path; {
	case r.Method == http.MethodGet:
		return Reads
	case strings.HasSuffix(path, "/status"):
		return Statuses
	case strings.Contains(path, "/policyenforcements"):
		return Enforcements
	case strings.Contains(path, "/namespaces/"+systemNamespace+"/"):
		return Leases
	case strings.HasSuffix(path, "/events") || strings.Contains(path, "/events/"):
		return Events
	}
	return Others
}

// says reports whether requests of a sort say something of policies.
func says(sort string) bool { return sort != Reads && sort != Leases }

// counter stands between a program and the API server, and counts what goes through.
type counter struct {
	server *httptest.Server
	*traffic
}

// newCounter listens on loopback for requests to the server of config, and leaves to the caller who they are from.
func newCounter(config *rest.Config) (*counter, error) {
	target, err := url.Parse(config.Host)
	if err != nil {
		return nil, fmt.Errorf("reading the API server's address: %w", err)
	}
	base, err := rest.TransportFor(rest.AnonymousClientConfig(config))
	if err != nil {
		return nil, fmt.Errorf("making a transport to the API server: %w", err)
	}
	c := &counter{traffic: newTraffic()}
	c.server = httptest.NewUnstartedServer(&httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport:     counting{to: c.traffic, sort: sortOf, base: base},
		FlushInterval: -1,                         // watches
		ErrorLog:      log.New(io.Discard, "", 0), // a program that ends gives up what it has asked for
	})
	c.server.EnableHTTP2 = true
	c.server.StartTLS()
	return c, nil
}

// writeKubeconfig writes one for the holder of a token.
func (c *counter) writeKubeconfig(path, token string) error {
	config := clientcmdapi.NewConfig()
	config.Clusters["counted"] = &clientcmdapi.Cluster{
		Server:                   c.server.URL,
		CertificateAuthorityData: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.server.Certificate().Raw}),
	}
	config.AuthInfos["controller"] = &clientcmdapi.AuthInfo{Token: token}
	config.Contexts["counted"] = &clientcmdapi.Context{Cluster: "counted", AuthInfo: "controller"}
	config.CurrentContext = "counted"
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		return fmt.Errorf("writing the kubeconfig of the controller: %w", err)
	}
	return nil
}

// Build builds the program into a directory.
func Build(dir string) (string, error) {
	path := filepath.Join(dir, "ringfence")
	build := exec.Command("go", "build", "-o", path, "github.com/ringfence-io/ringfence")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as `make build` does
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building ringfence: %w: %s", err, out)
	}
	return path, nil
}

// startProgram starts a controller as its Deployment does.
func startProgram(program, kubeconfig, log string) (*process.Process, error) {
	cmd := exec.CommandContext(context.Background(), program, "controller", "--kubeconfig", kubeconfig,
		"--leader-elect", "--leader-elect-namespace", systemNamespace, "--log-format", "text",
		"--metrics-bind-address", "0", "--health-probe-bind-address", "0")
	return process.Start(cmd, "the controller", log)
}
