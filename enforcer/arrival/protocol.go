// Package arrival knows the addresses of pods that have just come to the node, before the API does.
//
//	CNI plugin ── socket ──> Server ──> Table ── Into(snapshot) ──> the next sync
//	     ^                                │
//	     └──────── answer <── ended ──────┘
//
// A pod gets its addresses from the CNI plugins, and its program may run a moment later; the API shows them when the kubelet has written the
// pod's status, some hundred milliseconds to seconds after. The last plugin of the chain hands them over here, and waits until a
// sync that knew them has succeeded: from its first packet on, the pod is what policy says of it.
//
// Invariants:
//   - who asks about a pod is answered "in force" only after a sync whose snapshot had the pod's labels, its namespace and its addresses;
//   - the API is believed as soon as it shows an address that was handed over, and entries of pods that are gone or finished go;
//   - many pods at once are as many syncs as one or two;
//   - what is known outlives the process: it stands in a file beside the socket, which lives as long as the sandboxes do, until the node restarts;
//   - whatever bytes come through the socket, the enforcer goes on.
//
// The package opens its socket and its file, and nothing else; it never touches the kernel's rules nor the API.
package arrival

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/ringfence-io/ringfence/enforcer/compile"
)

// DefaultSocket is where the plugin finds the enforcer.
const DefaultSocket = "/run/ringfence/cni.sock"

// protocolVersion is raised when an old side would misunderstand a new one. Fields that are added do not raise it.
const protocolVersion = 1

// maxLine bounds a request and an answer. A request to collect names each container of the node.
const maxLine = 1 << 20

// Verb is what is asked for.
type Verb string

// The verbs.
const (
	Add     Verb = "add"     // hand a pod over, and wait until its policy is in force
	Check   Verb = "check"   // wait for a look at whether the policy of a pod is in force
	Delete  Verb = "delete"  // the sandbox has gone
	Collect Verb = "collect" // all sandboxes but the named ones have gone
)

// Request is one line of JSON. A connection carries one, and its answer.
type Request struct {
	Version int  `json:"version"`
	Verb    Verb `json:"verb"`
	// Pod is of all verbs but Collect; Delete needs no more of it than the container.
	Pod Pod `json:"pod"`
	// WaitMillis is how long the answer is waited for.
	WaitMillis int64 `json:"waitMillis,omitempty"`
	// Containers are, for Collect, those that are still there.
	Containers []string `json:"containers,omitempty"`
}

// Pod is a pod's sandbox with its addresses, as the plugins before ours have made it.
type Pod struct {
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
	// UID is empty where the container runtime does not say it: the pod is then found by its name, if it can be.
	UID       string       `json:"uid,omitempty"`
	Container string       `json:"container"`
	Addrs     []netip.Addr `json:"addrs,omitempty"`
	// Extra are addresses of other interfaces that the plugins have made for it, such as one for egress in the other family. The API never shows them.
	Extra []netip.Addr `json:"extra,omitempty"`
}

// Answer is one line of JSON.
type Answer struct {
	Version int `json:"version"`
	// Error is empty if what was asked for has come to be.
	Error string `json:"error,omitempty"`
}

// RefusedError is an answer of the enforcer's that is not the one hoped for.
type RefusedError struct{ Reason string }

func (e *RefusedError) Error() string { return e.Reason }

// Limits of what is believed of a request.
const (
	maxName  = 253 // a pod's, in the API
	maxID    = 256
	maxAddrs = 32
	maxWait  = 5 * time.Minute
)

// validate says why a request means nothing.
func (r Request) validate() error {
	if r.Version != protocolVersion {
		return fmt.Errorf("version %d of the protocol is not spoken here, but %d: install the plugin of the enforcer's release", r.Version, protocolVersion)
	}
	switch r.Verb {
	case Add, Check:
		return r.Pod.validate()
	case Delete:
		if r.Pod.Container == "" || len(r.Pod.Container) > maxID {
			return errors.New("the container has no usable id")
		}
		return nil
	case Collect:
		return nil
	}
	return fmt.Errorf("verb %q is not known", r.Verb)
}

func (p Pod) validate() error {
	for _, field := range []struct {
		name, value string
		least, most int
	}{{"namespace", p.Namespace, 1, maxName}, {"name", p.Name, 1, maxName}, {"uid", p.UID, 0, maxID}, {"container", p.Container, 1, maxID}} {
		if len(field.value) < field.least || len(field.value) > field.most {
			return fmt.Errorf("the pod's %s is %d bytes long: from %d to %d are possible", field.name, len(field.value), field.least, field.most)
		}
	}
	if len(p.Addrs) == 0 || len(p.Addrs)+len(p.Extra) > maxAddrs {
		return fmt.Errorf("the pod has %d addresses: from 1 to %d are possible", len(p.Addrs)+len(p.Extra), maxAddrs)
	}
	for _, a := range slices.Concat(p.Addrs, p.Extra) {
		if !compile.IsPossible(a.Unmap().WithZone("")) {
			return fmt.Errorf("%s is no address of a pod", a)
		}
	}
	return nil
}

// canonical is the pod with its addresses as the rest of the program has them: sorted, each once, none of them IPv4 in IPv6.
func (p Pod) canonical() Pod {
	p.Addrs, p.Extra = canonicalAddrs(p.Addrs), canonicalAddrs(p.Extra)
	return p
}

func canonicalAddrs(list []netip.Addr) []netip.Addr {
	var addrs []netip.Addr
	for _, a := range list {
		addrs = append(addrs, a.Unmap().WithZone(""))
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.Compact(addrs)
}

// wait is how long an answer is of use.
func (r Request) wait() time.Duration {
	return time.Duration(min(max(r.WaitMillis, 0), maxWait.Milliseconds())) * time.Millisecond
}

// Ask asks the enforcer behind a socket. A RefusedError is its answer; every other error means that there was none.
func Ask(ctx context.Context, socket string, r Request) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return fmt.Errorf("asking the enforcer: %w", err)
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	r.Version = protocolVersion
	if err := writeLine(conn, r); err != nil {
		return fmt.Errorf("asking the enforcer: %w", err)
	}
	var a Answer
	if err := readLine(conn, &a); err != nil {
		return fmt.Errorf("reading the enforcer's answer: %w", err)
	}
	if a.Error != "" {
		return &RefusedError{a.Error}
	}
	if a.Version != protocolVersion {
		return fmt.Errorf("reading the enforcer's answer: version %d of the protocol is not known", a.Version)
	}
	return nil
}

func writeLine(to io.Writer, value any) error {
	line, err := json.Marshal(value)
	if err != nil {
		return err
	}
	_, err = to.Write(append(line, '\n'))
	return err
}

// readLine reads one line of at most maxLine bytes.
func readLine(from io.Reader, value any) error {
	line, err := bufio.NewReader(io.LimitReader(from, maxLine)).ReadBytes('\n')
	if err != nil {
		return err
	}
	return json.Unmarshal(line, value)
}
