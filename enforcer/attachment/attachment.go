// Package attachment knows which link of the node leads to which pod.
//
//	kernel: links, and the addresses at their other ends ─┐
//	libcni's cache: results of CNI plugins                ─┴─> Into(snapshot)
//
// A container runtime calls CNI plugins through libcni, which keeps the result of each attachment until it is deleted: whose it is, which interfaces the
// plugins have made on the host, and all addresses that they have given. Where a result is there, it is believed: root on the host has written it. Where none
// is, the kernel's answer stands alone, which a pod that may configure its own interface can add to.
//
// Invariants:
//   - a result counts only as long as the link that it is about is there, with one of its addresses: a cache may hold what is gone;
//   - a file that cannot be read, or means nothing, is left out and named in the log once; all else goes on;
//   - nothing is written, neither to the kernel nor to the cache.
package attachment

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"
	"github.com/go-logr/logr"

	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/dataplane"
)

// DefaultCacheDir is where libcni keeps results unless a runtime says otherwise; containerd and CRI-O do not.
const DefaultCacheDir = "/var/lib/cni"

// Limits of what is read of a cache, far beyond what runtimes write: one file for each attachment of a node's pods.
const (
	maxFiles = 10_000
	maxBytes = 1 << 20
)

// Kernel is the node's kernel.
type Kernel interface {
	// Links are the links that lead to other network namespaces, and what of the node's own is worth knowing beside them.
	Links() (dataplane.Links, error)
}

var _ Kernel = (*dataplane.Dataplane)(nil)

// Table says which link is whose. It may be used by several goroutines at once.
type Table struct {
	Kernel Kernel
	// Dir is libcni's cache; results are in its directory "results". Without one, the kernel alone is asked.
	Dir   string
	Check compile.SourceCheck
	Log   logr.Logger

	mu      sync.Mutex
	results map[string]result // by file
	logged  map[string]bool   // what is wrong with the cache, logged already
}

// result is one file of the cache.
type result struct {
	size     int64
	modified time.Time
	given    *compile.Given // nil if the file means nothing to us
	onHost   []string       // the interfaces that the plugins have made outside of the pod
	wrong    string         // why it cannot be read, empty if it can
}

// Into gives a snapshot the node's links, and its own addresses. With an error it gives what could be read.
func (t *Table) Into(s *compile.Snapshot) error {
	found, err := t.Kernel.Links()
	if err != nil {
		return fmt.Errorf("reading which links there are: %w", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	s.SourceCheck, s.Own, s.Tunnels, s.Broadcasts = t.Check, found.Own, found.Tunnels, found.Broadcasts
	t.read()
	s.Links = make([]compile.Link, 0, len(found.Links))
	for _, l := range found.Links {
		s.Links = append(s.Links, compile.Link{
			Name: l.Name, Index: l.Index, Bridged: l.Bridged, Guarded: l.Guarded, Held: l.Addrs, MAC: l.MAC, Given: t.given(l),
		})
	}
	return nil
}

// given is what a result says of a link: one that names it, or whose plugins name no interface of the host's, and that gives an address which its other end
// has. Where the kernel does not say what the other end has, the name alone has to do. Of several, the one that fits best is believed, then the newest: a
// cache may hold what an earlier sandbox had, and whoever configures the other end may have taken the address of another.
func (t *Table) given(l dataplane.Link) *compile.Given {
	var best result
	var fits int
	for _, r := range t.results {
		n := r.fits(l)
		if n > fits || n > 0 && n == fits && r.modified.After(best.modified) {
			best, fits = r, n
		}
	}
	return best.given
}

// fits says how well a result fits a link, 0 if it is not about it: by the link's name, by the hardware address of its other end, or by an address alone.
func (r *result) fits(l dataplane.Link) int {
	const byAddress, byHardware, byName = 1, 2, 3
	switch {
	case r.given == nil:
		return 0
	case len(l.Addrs) > 0 && !slices.ContainsFunc(r.given.Addrs, func(a netip.Addr) bool { return slices.Contains(l.Addrs, a) }):
		return 0
	case slices.Contains(r.onHost, l.Name):
		return byName
	case len(r.onHost) > 0 || len(l.Addrs) == 0:
		return 0
	case r.given.MAC != "" && r.given.MAC == l.MAC:
		return byHardware
	}
	return byAddress
}

// read takes in the files that have changed. Where the cache cannot be listed, what was read of it stands.
func (t *Table) read() {
	if t.Dir == "" {
		return
	}
	var wrong []string
	defer func() { t.say(wrong) }()
	dir := filepath.Join(t.Dir, "results")
	files, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist): // no pod yet, or a runtime that keeps none
	case err != nil:
		wrong = append(wrong, fmt.Sprintf("reading %s: %v", dir, err))
		return
	case len(files) > maxFiles:
		wrong = append(wrong, fmt.Sprintf("%s has more than %d files: the rest is not read", dir, maxFiles))
	}
	before := t.results
	t.results = make(map[string]result, len(files))
	for _, f := range files[:min(len(files), maxFiles)] {
		info, err := f.Info()
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		r, ok := before[f.Name()]
		if !ok || r.wrong != "" || r.size != info.Size() || !r.modified.Equal(info.ModTime()) {
			r = parse(filepath.Join(dir, f.Name()), info.Size())
			r.size, r.modified = info.Size(), info.ModTime()
		}
		if r.wrong != "" {
			wrong = append(wrong, r.wrong)
		}
		t.results[f.Name()] = r
	}
}

// cached is what libcni writes for one attachment.
type cached struct {
	IfName  string          `json:"ifName"`
	CNIArgs [][2]string     `json:"cniArgs"`
	Result  json.RawMessage `json:"result"`
}

// parse reads a file of a size. What is wrong with it is in the result.
func parse(file string, size int64) result {
	if size > maxBytes {
		return result{wrong: fmt.Sprintf("%s: has more than %d bytes", file, maxBytes)}
	}
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return result{} // the attachment has gone meanwhile
	}
	var c cached
	if err == nil {
		err = json.Unmarshal(text, &c)
	}
	var r result
	if err == nil {
		r, err = c.result()
	}
	if err != nil {
		return result{wrong: fmt.Sprintf("%s: %v", file, err)}
	}
	return r
}

// result is nothing if it is of no pod.
func (c cached) result() (result, error) {
	args := map[string]string{}
	for _, a := range c.CNIArgs {
		args[a[0]] = a[1]
	}
	g := &compile.Given{Namespace: args["K8S_POD_NAMESPACE"], Name: args["K8S_POD_NAME"], UID: args["K8S_POD_UID"]}
	if g.Namespace == "" || g.Name == "" || len(c.Result) == 0 {
		return result{}, nil
	}
	full, err := decode(c.Result)
	if err != nil {
		return result{}, err
	}
	r := result{given: g}
	for _, i := range full.Interfaces {
		switch {
		case i == nil:
		case isHosts(i, full.Interfaces):
			r.onHost = append(r.onHost, i.Name)
		case i.Name == c.IfName:
			if mac, err := net.ParseMAC(i.Mac); err == nil {
				g.MAC = string(mac)
			}
		}
	}
	for _, ip := range full.IPs {
		if ip == nil || ofHost(ip.Interface, full.Interfaces) {
			continue
		}
		if a, ok := netip.AddrFromSlice(ip.Address.IP); ok {
			g.Addrs = append(g.Addrs, a.Unmap())
		}
	}
	slices.SortFunc(g.Addrs, netip.Addr.Compare)
	g.Addrs = slices.Compact(g.Addrs)
	return r, nil
}

// isHosts reports whether an interface is outside of the pod. Of plugins that name one interface, and no sandbox, it is the pod's.
func isHosts(i *current.Interface, all []*current.Interface) bool {
	return i != nil && i.Sandbox == "" && len(all) > 1
}

// ofHost reports whether an index is that of an interface outside of the pod.
func ofHost(i *int, all []*current.Interface) bool {
	return i != nil && *i >= 0 && *i < len(all) && isHosts(all[*i], all)
}

// decode reads a result of any version that libcni knows. The library takes for granted that lists have no null in them.
func decode(text []byte) (full *current.Result, err error) {
	defer func() {
		if recover() != nil {
			full, err = nil, errors.New("the result cannot be converted: it lacks what it must have")
		}
	}()
	made, err := create.CreateFromBytes(text)
	if err != nil {
		return nil, err
	}
	return current.NewResultFromResult(made)
}

// maxLogged is how many things that are wrong with the cache are logged at once.
const maxLogged = 10

// say logs what is wrong with the cache, each thing once as long as it lasts.
func (t *Table) say(wrong []string) {
	before := t.logged
	t.logged = make(map[string]bool, len(wrong))
	for _, text := range wrong {
		if !before[text] && len(t.logged) < maxLogged {
			t.Log.Info("a result of CNI plugins cannot be read: the pod's link is found by its addresses alone", "error", text)
		}
		t.logged[text] = true
	}
}
