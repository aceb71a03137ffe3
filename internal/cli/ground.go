package cli

import (
	"context"
	"net/netip"
	"os"
	"strings"

	"github.com/go-logr/logr"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/node"
	"github.com/ringfence-io/ringfence/enforcer"
	"github.com/ringfence-io/ringfence/enforcer/dataplane"
	"github.com/ringfence-io/ringfence/enforcer/denials"
	"github.com/ringfence-io/ringfence/enforcer/iptables"
)

// ground hands what the dataplane finds to whatever depends on it. Its methods are called by the node's one worker.
type ground struct {
	options *enforcerOptions
	plane   *dataplane.Dataplane
	sync    *enforcer.Enforcer
	journal *denials.Journal
	cutting *enforcer.Connections // nil where live connections are left alone
	log     logr.Logger
}

var _ node.Ground = (*ground)(nil)

// Look looks again.
func (g *ground) Look(ctx context.Context) node.Looked {
	before := g.plane.Capabilities()
	g.plane.Look(ctx)
	c := g.plane.Capabilities()
	render := g.options.renderOptions(c)
	g.sync.SetOptions(render)
	if render.NFLogGroup != 0 {
		g.journal.Read(render.NFLogGroup)
	}
	g.follow()
	if len(c.Families) > len(before.Families) || c.Table != before.Table {
		g.log.Info("the node can enforce more than it could, and does from now on", "families", c.Families, "table", c.Table)
	}
	return node.Looked{Facts: *facts(g.plane, logr.Discard()), Unable: unableToClose(c), Unsure: g.plane.Unsure()}
}

// Unseen is as the dataplane's.
func (g *ground) Unseen(addrs []netip.Addr) ([]netip.Addr, error) { return g.plane.Unseen(addrs) }

// cut is what ends live connections, as soon as they can be listed.
func (g *ground) cut(socket string) *enforcer.Connections {
	g.cutting = enforcer.NewConnections(g.plane)
	remember(g.cutting, socket, g.log)
	g.follow()
	return g.cutting
}

// follow has live connections followed to where policy comes to deny them, as soon as they can be listed.
func (g *ground) follow() {
	if g.cutting != nil && g.plane.Capabilities().CutLive {
		g.sync.Follow(g.cutting)
	}
}

// bootIDFile is where kubelets read what they call the boot ID of their node.
const bootIDFile = "/proc/sys/kernel/random/boot_id"

// facts are what a node's report says of the node itself.
func facts(plane *dataplane.Dataplane, logger logr.Logger) *v1alpha1.NodeEnforcementStatus {
	c := plane.Capabilities()
	boot, err := os.ReadFile(bootIDFile)
	if err != nil {
		logger.Info("since when this node runs cannot be told, so that its startup taint stays", "error", err.Error())
	}
	f := &v1alpha1.NodeEnforcementStatus{
		BootID: strings.TrimSpace(string(boot)), Version: thisBuild().Version, Backend: plane.Backend(), IPTablesVersion: plane.Version(), Table: c.Table,
	}
	for _, family := range c.Families {
		name := v1alpha1.IPv4
		if family == iptables.IPv6 {
			name = v1alpha1.IPv6
		}
		f.Families = append(f.Families, name)
	}
	for _, finding := range plane.Findings() {
		if !finding.OK {
			f.Findings = append(f.Findings, v1alpha1.Finding{
				Name: finding.Name, Severity: string(finding.Severity), Detail: finding.Detail, Cost: finding.Cost, Remedy: finding.Remedy,
			})
		}
	}
	return f
}

// renderOptions are what rules can say on a kernel, and what the flags ask of them.
func (o *enforcerOptions) renderOptions(c dataplane.Capabilities) iptables.Options {
	r := iptables.Options{Families: c.Families, Table: c.Table, SelfMatch: c.SelfMatch}
	if c.Log {
		r.NFLogGroup, r.LogDenied = o.nflogGroup, o.logDenied
	}
	r.HopLimit, r.Guards = c.HopLimit, c.Guards
	r.HoldCut = o.cutLive && c.CutLive && c.HoldCut
	if layout != "" {
		r.Layout, r.FanOut = iptables.Layout(layout), fanOutOfTests
	}
	return r
}
