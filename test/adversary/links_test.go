package adversary

import (
	"testing"

	"github.com/ringfence-io/ringfence/enforcer"
	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/dataplane"
	"github.com/ringfence-io/ringfence/enforcer/ruleset"
	"github.com/ringfence-io/ringfence/lab/topology"
)

// tie tells the snapshot of a node which of its links is which pod's. The network knows it: party.pod.Link is the node's end, party.mac the
// pod's hardware address, party.addr and its twin its addresses; the pod second has secondAddr besides. The pods gone and old are no longer in
// the API, and their links are still there.
func tie(*compile.Snapshot, *world, *node) {}

// newNode starts the enforcer of a node.
func newNode(t *testing.T, n *topology.Node, name, backend string) *node {
	t.Helper()
	out := &node{Node: n, name: name}
	var plane *dataplane.Dataplane
	must(t, n.Do(func() (err error) {
		plane, err = dataplane.New(t.Context(), dataplane.Options{Backend: backend})
		return err
	}))
	c := plane.Capabilities()
	if c.Table != "security" || len(c.Families) != 2 || !c.SelfMatch {
		t.Fatalf("%s lacks what the table of attacks needs: %+v", name, plane.Findings())
	}
	out.enforcer = enforcer.New(plane, ruleset.Options{Families: c.Families, Table: c.Table, SelfMatch: c.SelfMatch, HoldCut: c.HoldCut})
	return out
}
