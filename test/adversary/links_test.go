package adversary

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/go-logr/logr/testr"

	"github.com/ringfence-io/ringfence/enforcer"
	"github.com/ringfence-io/ringfence/enforcer/attachment"
	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/dataplane"
	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/lab/topology"
	"github.com/ringfence-io/ringfence/lab/twin"
	"github.com/ringfence-io/ringfence/test/kit"
)

// node is a node with its enforcer, which lives in the node's namespace: all its methods run there.
type node struct {
	*topology.Node
	name     string
	enforcer *enforcer.Enforcer
	links    *attachment.Table
}

// newNode starts the enforcer of a node. The results of CNI plugins are where libcni would have kept them: of each pod that was ever started there.
func newNode(t *testing.T, w *world, n *topology.Node, name string) *node {
	t.Helper()
	out := &node{Node: n, name: name}
	var plane *dataplane.Dataplane
	kit.Must(t, n.Do(func() (err error) {
		plane, err = dataplane.New(t.Context(), dataplane.Options{Backend: w.backend})
		return err
	}))
	c := plane.Capabilities()
	if c.Table != "security" || len(c.Families) != 2 || !c.SelfMatch || !c.Guards || !c.HopLimit {
		t.Fatalf("%s lacks what the table of attacks needs: %+v", name, plane.Findings())
	}
	out.enforcer = enforcer.New(plane, iptables.Options{
		Families: c.Families, Table: c.Table, SelfMatch: c.SelfMatch, HoldCut: c.HoldCut, Guards: c.Guards, HopLimit: c.HopLimit,
	})
	out.links = &attachment.Table{Kernel: plane, Dir: t.TempDir(), Check: compile.SourceCheckEnforce, Log: testr.New(t)}
	w.writeResults(t, out)
	return out
}

// writeResults writes what CNI plugins have said of each pod of the node, as libcni keeps it.
func (w *world) writeResults(t *testing.T, n *node) {
	t.Helper()
	dir := filepath.Join(n.links.Dir, "results")
	kit.Must(t, os.MkdirAll(dir, 0o700))
	for _, p := range w.parties {
		if p.pod == nil || p.node != n.name {
			continue
		}
		addrs := []netip.Addr{p.addr}
		if w.stack != linkLocal {
			addrs = append(addrs, twin.Of(p.addr))
		}
		if p.name == "second" {
			addrs = append(addrs, secondAddr)
			if w.stack != linkLocal {
				addrs = append(addrs, twin.Of(secondAddr))
			}
		}
		var ips []map[string]any
		for _, a := range addrs {
			ips = append(ips, map[string]any{"interface": 1, "address": netip.PrefixFrom(a, a.BitLen()).String()})
		}
		text, err := json.Marshal(map[string]any{
			"kind": "cniCacheV1", "containerId": p.name, "ifName": "eth0", "networkName": "test",
			"cniArgs": [][2]string{{"K8S_POD_NAMESPACE", "default"}, {"K8S_POD_NAME", p.name}, {"K8S_POD_UID", uid(p.name)}},
			"result": map[string]any{
				"cniVersion": "1.0.0",
				"interfaces": []map[string]any{{"name": p.pod.Link()}, {"name": "eth0", "mac": p.mac.String(), "sandbox": "/run/netns/" + p.name}},
				"ips":        ips,
			},
		})
		kit.Must(t, err)
		kit.Must(t, os.WriteFile(filepath.Join(dir, "test-"+p.name+"-eth0"), text, 0o600))
	}
}

// uid is a pod's, in the form of the API server's.
func uid(name string) string { return "uid-" + name }

// tie tells the snapshot of a node which of its links is which pod's.
func tie(s *compile.Snapshot, n *node) error { return n.links.Into(s) }
