package scene

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/lab"
	"github.com/ringfence-io/ringfence/lab/host"
	"github.com/ringfence-io/ringfence/lab/matrix"
	"github.com/ringfence-io/ringfence/lab/oracle"
	"github.com/ringfence-io/ringfence/lab/probe"
)

// Answer is what became of one attempt at a connection.
type Answer struct {
	From     string     `json:"from"`
	To       string     `json:"to"`
	Src      netip.Addr `json:"source"`
	Dst      netip.Addr `json:"destination"`
	Protocol string     `json:"protocol"`
	Port     uint16     `json:"port"`
	Connects bool       `json:"connects"`
	Outcome  string     `json:"outcome"`
	Demanded bool       `json:"demanded"`
	Because  string     `json:"because"`
	// Audited is what objects in audit mode would have denied of it, as "Kind namespace/name direction".
	Audited []string `json:"audited,omitempty"`
}

func socket(name string) string { return filepath.Join(Dir(name), "control.sock") }

// Ask has the scene of that name try a connection: from a pod (namespace/name) or from "outside", to a pod's port by its
// number or name (namespace/name:port) or to an address and port, by TCP unless "/udp" or "/sctp" follows.
func Ask(ctx context.Context, name, from, to string) ([]Answer, error) {
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket(name))
	}}}
	defer client.CloseIdleConnections()
	query := url.Values{"from": {from}, "to": {to}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://lab/probe?"+query.Encode(), nil)
	if err != nil {
		return nil, fmt.Errorf("asking the lab %s: %w", name, err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("asking the lab %s (is it up?): %w", name, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
		return nil, errors.New(strings.TrimSpace(string(text)))
	}
	var answers []Answer
	if err := json.NewDecoder(resp.Body).Decode(&answers); err != nil {
		return nil, fmt.Errorf("reading the answer of the lab %s: %w", name, err)
	}
	return answers, nil
}

// serve answers Ask until stop is called.
func (s *scene) serve(ctx context.Context) (stop func(), err error) {
	listener, err := net.Listen("unix", socket(s.opts.Name))
	if err != nil {
		return nil, fmt.Errorf("listening for other processes: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /probe", func(w http.ResponseWriter, r *http.Request) {
		answers, err := s.answer(r.Context(), r.FormValue("from"), r.FormValue("to"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		_ = json.NewEncoder(w).Encode(answers) // the asker may have left
	})
	server := &http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	go func() { _ = server.Serve(listener) }() // ends with Close
	return func() { _ = server.Close() }, nil
}

// place is one end of a connection.
type place struct {
	name  string
	host  *host.Host // nil where it is not the lab's
	addrs []netip.Addr
	pod   *corev1.Pod
}

// answer tries a connection in every family that both ends have.
func (s *scene) answer(ctx context.Context, from, to string) ([]Answer, error) {
	source, err := s.place(ctx, from)
	if err != nil {
		return nil, err
	}
	if source.host == nil {
		return nil, fmt.Errorf("%s is not a place to connect from: name a pod as namespace/name, or outside", from)
	}
	to, protocol, err := cutProtocol(to)
	if err != nil {
		return nil, err
	}
	colon := strings.LastIndexByte(to, ':')
	if colon < 0 {
		return nil, fmt.Errorf("%s names no port: try namespace/name:80 or 10.0.0.1:80", to)
	}
	target, err := s.place(ctx, strings.Trim(to[:colon], "[]"))
	if err != nil {
		return nil, err
	}
	port, err := target.port(to[colon+1:], protocol)
	if err != nil {
		return nil, err
	}
	cluster, err := s.lab.Cluster(ctx)
	if err != nil {
		return nil, err
	}
	answers := []Answer{}
	for _, f := range iptables.Families {
		src, dst := address(source.addrs, f), address(target.addrs, f)
		if !src.IsValid() || !dst.IsValid() {
			continue
		}
		a := Answer{From: source.name, To: target.name, Src: src, Dst: dst, Protocol: protocol.String(), Port: port}
		flow := oracle.Flow{Src: src, Dst: dst, Protocol: oracle.Protocol(protocol), DstPort: port}
		a.Demanded, a.Because = cluster.Allowed(flow)
		for _, n := range s.lab.Nodes {
			a.Audited = append(a.Audited, notes(s.lab, cluster, flow)[n.Name]...)
		}
		result := probe.Dial(source.host, probe.Flow{Protocol: protocol, Src: src, Dst: dst, Port: port},
			probe.Patience{Timeout: time.Second, Retry: 300 * time.Millisecond})
		a.Connects, a.Outcome = result.Outcome == probe.Reached, result.String()
		answers = append(answers, a)
	}
	return answers, nil
}

// place finds what a name means.
func (s *scene) place(ctx context.Context, name string) (place, error) {
	if name == matrix.Outside {
		return place{name: name, host: s.lab.World, addrs: s.lab.WorldAddresses()}, nil
	}
	if addr, err := netip.ParseAddr(name); err == nil {
		return place{name: name, addrs: []netip.Addr{addr}}, nil
	}
	namespace, pod, ok := strings.Cut(name, "/")
	if !ok {
		return place{}, fmt.Errorf("%s is neither namespace/name of a pod, nor an address, nor outside", name)
	}
	p, err := s.lab.Pod(ctx, namespace, pod)
	if err != nil {
		return place{}, err
	}
	return place{name: name, host: p.Host, addrs: p.Addresses, pod: p.Object}, nil
}

// port reads a port's number, or its name in the pod.
func (p place) port(text string, protocol policy.Protocol) (uint16, error) {
	if n, err := strconv.ParseUint(text, 10, 16); err == nil {
		return uint16(n), nil
	}
	if p.pod != nil {
		for _, c := range p.pod.Spec.Containers {
			for _, port := range c.Ports {
				if port.Name == text && strings.EqualFold(string(port.Protocol), protocol.String()) {
					return uint16(port.ContainerPort), nil
				}
			}
		}
	}
	return 0, fmt.Errorf("%s has no %s port named %q", p.name, protocol, text)
}

// cutProtocol parts "to/udp".
func cutProtocol(to string) (string, policy.Protocol, error) {
	slash := strings.LastIndexByte(to, '/')
	if slash < 0 || slash < strings.LastIndexByte(to, ':') {
		return to, policy.TCP, nil
	}
	for _, p := range []policy.Protocol{policy.TCP, policy.UDP, policy.SCTP} {
		if strings.EqualFold(to[slash+1:], p.String()) {
			return to[:slash], p, nil
		}
	}
	return "", 0, fmt.Errorf("protocol %q is not known: tcp, udp or sctp", to[slash+1:])
}

func address(addrs []netip.Addr, f iptables.Family) netip.Addr {
	return (&lab.Pod{Addresses: addrs}).Address(f)
}
