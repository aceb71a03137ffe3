package scene

import (
	"bytes"
	"context"
	"fmt"

	"github.com/ringfence-io/ringfence/config"
	"github.com/ringfence-io/ringfence/lab/matrix"
)

// act is a part of the scene: something is changed in the cluster, and then everybody tries to reach everybody.
type act struct {
	name  string // short, as the summary and JSON have it
	title string // above the matrix
	doing string // said meanwhile
	do    func(*scene, context.Context) error
	tells bool // what is said of the NetworkPolicies is shown too
}

// acts are all, in their order: first what the owners of namespaces can do, then what a cluster's administrator can.
var acts = []act{{
	name:  "before",
	title: "Who reaches whom, before any policy",
	doing: "starting the sample application",
	do: func(s *scene, ctx context.Context) error {
		return s.lab.ApplyDir(ctx, config.Samples, "samples/application")
	},
}, {
	name:  "after",
	title: "Who reaches whom, after the NetworkPolicies of config/samples",
	doing: "applying the sample policies",
	do:    (*scene).applyPolicies,
	tells: true,
}, {
	name:  "audit",
	title: "Without them, but tenants isolated by a NamespaceIsolation in mode Audit: nobody is denied anything",
	doing: "deleting them; isolating tenants, in Audit",
	do: func(s *scene, ctx context.Context) error {
		if err := s.lab.DeleteDir(ctx, config.Samples, "samples/policies"); err != nil {
			return err
		}
		return s.applyCluster(ctx, isolationFile)
	},
}, {
	name:  "enforce",
	title: "The same NamespaceIsolation in mode Enforce: a tenant reaches itself, and nobody else",
	doing: "isolating tenants, in Enforce",
	do: func(s *scene, ctx context.Context) error {
		text, err := readCluster(isolationFile)
		if err != nil {
			return err
		}
		return s.lab.Apply(ctx, bytes.Replace(text, []byte("mode: Audit"), []byte("mode: Enforce"), 1))
	},
}, {
	name:  "tiers",
	title: "In its place, tier Admin denies the database to other tenants, and tier Baseline denies what comes from outside",
	doing: "applying two ClusterNetworkPolicies in its place",
	do: func(s *scene, ctx context.Context) error {
		text, err := readCluster(isolationFile)
		if err != nil {
			return err
		}
		if err := s.lab.Delete(ctx, text); err != nil {
			return err
		}
		return s.applyCluster(ctx, "database-wall.yaml", "deny-from-outside.yaml")
	},
}, {
	name:  "opened",
	title: "The NetworkPolicies beside them: what Baseline denies they open (outside), what Admin denies they do not (database)",
	doing: "applying the sample policies again",
	do:    (*scene).applyPolicies,
}}

// isolationFile is a sample whose mode is Audit.
const isolationFile = "tenant-isolation.yaml"

func (s *scene) applyPolicies(ctx context.Context) error {
	return s.lab.ApplyDir(ctx, config.Samples, "samples/policies")
}

// applyCluster applies samples for all of a cluster.
func (s *scene) applyCluster(ctx context.Context, files ...string) error {
	for _, file := range files {
		text, err := readCluster(file)
		if err != nil {
			return err
		}
		if err := s.lab.Apply(ctx, text); err != nil {
			return err
		}
	}
	return nil
}

func readCluster(file string) ([]byte, error) {
	text, err := config.Samples.ReadFile("samples/cluster/" + file)
	if err != nil {
		return nil, fmt.Errorf("reading a sample: %w", err)
	}
	return text, nil
}

// Step is what was found in one act.
type Step struct {
	Name  string `json:"name"`
	Title string `json:"title"`
	// Objects are those in force, as "Kind namespace/name", in audit mode with " (Audit)" behind it.
	Objects []string `json:"objects"`
	// Standings are what is said of the NetworkPolicies.
	Standings []Standing `json:"standings,omitempty"`
	// WouldDeny is what the nodes' rules have counted of what objects in audit mode would have denied.
	WouldDeny []Counted `json:"wouldDeny,omitempty"`
	// Matrix is who reaches whom.
	Matrix *matrix.Matrix `json:"matrix"`
}

// Counted is what a node's rules have counted for one audited object and direction.
type Counted struct {
	Node    string `json:"node"`
	What    string `json:"what"` // "Kind namespace/name direction"
	Packets uint64 `json:"packets"`
}
