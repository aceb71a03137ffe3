// Package apiserver runs a real kube-apiserver over a real etcd: what the lab's nodes, the tests and the benchmarks
// talk to.
//
//	this process ── 127.0.0.1:free port ──> proxy ─┐
//	                                               ├─> kube-apiserver :6443 ──> etcd 127.0.0.1:2379
//	other hosts ── address:6443 ───────────────────┘   └──────── inside one host ────────┘
//
// Invariants:
//   - both programs run inside the given host, so that any number of servers can run beside each other;
//   - RBAC is on; certificates are made anew for each server and signed by an authority of its own;
//   - no controller manager and no scheduler runs: what these would do is up to the caller. The admission plugins that
//     wait for them (service accounts, taints of new nodes) are off;
//   - Stop leaves no process, no port and no goroutine.
package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/rest"

	"github.com/ringfence-io/ringfence/lab/host"
	"github.com/ringfence-io/ringfence/lab/process"
)

// Port is where the server listens inside its host.
const Port = 6443

// startTimeout is generous: two seconds to five are usual, but a busy machine with two cores takes its time.
const startTimeout = 90 * time.Second

// Options say where a server runs.
type Options struct {
	// Host is the network namespace in which both programs run.
	Host *host.Host
	// Addresses are those of the host at which others reach the server. The first one is advertised.
	Addresses []netip.Addr
	// Dir is an existing directory for certificates, etcd's data and the programs' logs.
	Dir string
	// Args are further flags of kube-apiserver.
	Args []string
}

// Server is a running API server.
type Server struct {
	opts   Options
	assets string
	ca     *authority
	admin  *rest.Config

	proxy *proxy
	etcd  *process.Process
	api   *process.Process
}

// User is whom a client certificate names: RBAC binds roles to it.
type User struct {
	Name   string
	Groups []string
}

// Admin is allowed everything, without any role.
var Admin = User{Name: "lab-admin", Groups: []string{"system:masters"}}

// Start starts etcd and kube-apiserver, and returns when the server is ready for everything.
func Start(ctx context.Context, opts Options) (*Server, error) {
	assets, err := Assets()
	if err != nil {
		return nil, err
	}
	s := &Server{opts: opts, assets: assets}
	if err := s.start(ctx); err != nil {
		s.Stop()
		return nil, err
	}
	return s, nil
}

func (s *Server) start(ctx context.Context) error {
	if err := s.writeCredentials(); err != nil {
		return err
	}
	var err error
	if s.proxy, err = newProxy(s.opts.Host, s.local()); err != nil {
		return err
	}
	if s.admin, err = s.Config(Admin); err != nil {
		return err
	}
	if err := s.store(); err != nil {
		return err
	}
	return s.Resume(ctx)
}

// store starts etcd.
func (s *Server) store() error {
	var err error
	s.etcd, err = s.run("etcd",
		"--data-dir="+s.file("etcd"),
		"--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379",
		"--listen-peer-urls=http://127.0.0.1:2380", "--log-level=warn",
		"--unsafe-no-fsync", // nothing here has to survive a power cut
	)
	return err
}

// local is where the server listens for its own host, and so for the proxy.
func (s *Server) local() netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), Port)
}

func (s *Server) file(name string) string { return filepath.Join(s.opts.Dir, name) }

// writeCredentials makes the authority and the files that kube-apiserver reads.
func (s *Server) writeCredentials() error {
	var err error
	if s.ca, err = newAuthority(); err != nil {
		return err
	}
	if err := os.WriteFile(s.file("ca.crt"), s.ca.pem, 0o644); err != nil {
		return fmt.Errorf("writing the lab's authority: %w", err)
	}
	server, err := s.ca.server(append([]netip.Addr{s.local().Addr()}, s.opts.Addresses...),
		"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")
	if err != nil {
		return err
	}
	tokens, err := s.ca.client(User{Name: "service-account-tokens"})
	if err != nil {
		return err
	}
	return errors.Join(server.write(s.opts.Dir, "apiserver"), tokens.write(s.opts.Dir, "tokens"))
}

// run starts one of the two programs inside the host. It outlives any context: Stop ends it.
func (s *Server) run(name string, args ...string) (*process.Process, error) {
	cmd := s.opts.Host.Command(context.Background(), filepath.Join(s.assets, name), args...)
	return process.Start(cmd, name, s.file(name+".log"))
}

// Resume starts kube-apiserver, as Start does and after a [Server.Kill], and returns when it is ready.
func (s *Server) Resume(ctx context.Context) error {
	var err error
	s.api, err = s.run("kube-apiserver", append([]string{
		"--etcd-servers=http://127.0.0.1:2379",
		"--bind-address=::", "--secure-port=" + fmt.Sprint(Port),
		"--advertise-address=" + s.opts.Addresses[0].String(), "--endpoint-reconciler-type=none",
		"--service-cluster-ip-range=10.96.0.0/16,fd00:10:96::/112",
		"--authorization-mode=RBAC", "--anonymous-auth=false", "--allow-privileged",
		"--disable-admission-plugins=ServiceAccount,TaintNodesByCondition,DefaultTolerationSeconds",
		"--client-ca-file=" + s.file("ca.crt"),
		"--tls-cert-file=" + s.file("apiserver.crt"), "--tls-private-key-file=" + s.file("apiserver.key"),
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + s.file("tokens.crt"), "--service-account-signing-key-file=" + s.file("tokens.key"),
		"--shutdown-delay-duration=0s", "--profiling=false",
	}, s.opts.Args...)...)
	if err != nil {
		return err
	}
	return s.waitReady(ctx)
}

// waitReady asks until the server says that it is ready, a program has ended, or time is up.
func (s *Server) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout,
		fmt.Errorf("it is not ready after %s; see %s", startTimeout, s.file("kube-apiserver.log")))
	defer cancel()
	client, err := rest.HTTPClientFor(s.admin)
	if err != nil {
		return fmt.Errorf("making a client of the API server: %w", err)
	}
	defer client.CloseIdleConnections()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !ready(ctx, client, s.admin.Host) {
		select {
		case <-tick.C:
		case <-s.etcd.Done():
			return fmt.Errorf("starting the API server: %w", s.etcd.Err())
		case <-s.api.Done():
			return fmt.Errorf("starting the API server: %w", s.api.Err())
		case <-ctx.Done():
			return fmt.Errorf("starting the API server: %w", context.Cause(ctx))
		}
	}
	return nil
}

func ready(ctx context.Context, client *http.Client, url string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/readyz", nil)
	if err != nil {
		return false
	}
	resp, err := client.Do(req)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// Kill ends kube-apiserver at once, as a crash would; etcd and all it holds stay. [Server.Resume] brings it back.
func (s *Server) Kill() { s.api.Kill() }

// Backup keeps what the server holds now for [Server.Restore]. The server is away meanwhile.
func (s *Server) Backup(ctx context.Context) error {
	return s.offline(ctx, "backing up etcd", func() error {
		if err := os.RemoveAll(s.file("backup")); err != nil {
			return err
		}
		return os.CopyFS(s.file("backup"), os.DirFS(s.file("etcd")))
	})
}

// Restore takes the server back to what it held at the [Server.Backup], its count of changes included: resource versions begin there again, and come to
// mean something else than they did. An administrator's restore looks like this unless etcd is told to count on (etcdutl --bump-revision).
func (s *Server) Restore(ctx context.Context) error {
	return s.offline(ctx, "restoring etcd", func() error {
		if err := os.RemoveAll(s.file("etcd")); err != nil {
			return err
		}
		return os.CopyFS(s.file("etcd"), os.DirFS(s.file("backup")))
	})
}

// offline does something to etcd's files while nobody uses them.
func (s *Server) offline(ctx context.Context, what string, do func() error) error {
	s.api.Kill()
	s.etcd.Kill()
	if err := errors.Join(do(), s.store()); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return s.Resume(ctx)
}

// PIDs are the processes that run now.
func (s *Server) PIDs() []int {
	var pids []int
	for _, p := range []*process.Process{s.etcd, s.api} {
		if p != nil && p.Running() {
			pids = append(pids, p.PID())
		}
	}
	return pids
}

// PID is the process of kube-apiserver, which must run.
func (s *Server) PID() int { return s.api.PID() }

// Stop ends everything. The files in [Options.Dir] are the caller's to remove. It may be called twice.
func (s *Server) Stop() {
	if s.proxy != nil {
		s.proxy.close() // open watches would hold up the server's stop
	}
	for _, p := range []*process.Process{s.api, s.etcd} {
		if p != nil {
			// Nothing of what they hold is wanted any more, so that there is nothing to wait for.
			p.Kill()
		}
	}
}
