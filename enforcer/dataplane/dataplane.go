// Package dataplane reads and writes the kernel: it is the only package that executes iptables or opens netlink.
//
//	Observe  kernel       ──> Ruleset   iptables-save, and one dump of the ipsets
//	Apply    Plan         ──> kernel    netlink for ipsets, one iptables-restore --noflush per family for chains
//	Cleanup  kernel       ──> kernel    without anything of ours
//	Counts   kernel       ──> totals    iptables-save -c: what the points of the rules have counted
//	Cut      kernel       ──> kernel    without some connections, which Connections lists; and held off, what comes back of them
//	Denied   kernel       ──> Packets   NFLOG: samples of what they have denied, or would have
//
// Invariants:
//   - only chains and sets whose name starts with iptables.Prefix, and the rules of base chains that jump to them, are
//     ever changed; everybody else's are byte for byte the same before and after;
//   - what was written reads back equal: rules are brought to one canonical text, whatever the back end and its version print;
//   - a family whose step failed keeps its old policy: its later steps are left out, the other family's go on;
//   - the xtables lock is waited for, for as long as the context allows, and never broken.
//
// The package decides nothing: which rules there are to be is the business of package iptables. It loads no module by itself, changes no setting of the node,
// and mends nothing that is not ours: the preflight says what is missing. A [Fake] does all of this in memory, and passes the same tests.
package dataplane

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"

	"github.com/go-logr/logr"
	"golang.org/x/sys/unix"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// The back ends of iptables.
const (
	Auto   = "auto"   // the one that the kubelet uses
	Legacy = "legacy" // xtables-legacy-multi: the kernel's ip_tables
	NFT    = "nft"    // xtables-nft-multi: the kernel's nf_tables
)

// Options are what New needs to know.
type Options struct {
	// Backend is Auto, Legacy or NFT; empty means Auto.
	Backend string
	Log     logr.Logger
	// Table holds our chains: "security" or "mangle". Empty means security where the kernel has it, else mangle.
	Table string
	// Layout is that of the rules that are written; see [iptables.Options].
	Layout iptables.Layout
}

func (o *Options) defaults() {
	if o.Backend == "" {
		o.Backend = Auto
	}
	if o.Log.GetSink() == nil {
		o.Log = logr.Discard()
	}
}

func (o Options) validate() error {
	switch o.Backend {
	case Auto, Legacy, NFT:
	default:
		return fmt.Errorf("choosing the iptables back end: %q is none of %s, %s, %s", o.Backend, Auto, Legacy, NFT)
	}
	switch o.Table {
	case "", securityTable, mangleTable:
	default:
		return fmt.Errorf("choosing the iptables table: %q is neither %s nor %s", o.Table, securityTable, mangleTable)
	}
	return nil
}

// The tables that can hold our chains. Both have the hooks INPUT and FORWARD.
const (
	securityTable = "security"
	mangleTable   = "mangle"
)

var tables = [...]string{securityTable, mangleTable}

// Dataplane is the network namespace of the thread that calls its methods: all of them read and write the kernel's state
// there. The methods may be called from several goroutines; those that write take turns.
type Dataplane struct {
	mu       sync.Mutex
	tools    *tools
	log      logr.Logger
	table    string // that is asked for, empty for whichever there is
	layout   iptables.Layout
	exchange exchange
	state    atomic.Pointer[state]
	written  atomic.Uint64 // one more when a plan begins, and when it ends: odd while one is carried out
	counting sync.Mutex    // held while counters are read
	counter  Counter
	seen     seen
	filters  filters // of connection tracking
}

// New chooses the back end and runs the preflight. It fails if a program is missing, or with a *PreflightError if nothing
// at all can be enforced; what can be enforced, and what not, is in Capabilities and Findings.
func New(ctx context.Context, o Options) (*Dataplane, error) {
	o.defaults()
	if err := o.validate(); err != nil {
		return nil, err
	}
	t, err := chooseTools(ctx, o)
	if err != nil {
		return nil, err
	}
	d := &Dataplane{tools: t, log: o.Log, table: o.Table, layout: o.Layout, exchange: askKernel}
	d.state.Store(inspect(ctx, &kernelProbes{tools: t}, o.Table))
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("running the preflight: %w", err)
	}
	if len(d.Capabilities().Families) == 0 {
		return nil, &PreflightError{Findings: d.Findings()}
	}
	return d, nil
}

// Backend is the chosen back end: Legacy or NFT.
func (d *Dataplane) Backend() string { return d.tools.backend }

// Version is that of the iptables programs, as in "1.8.9".
func (d *Dataplane) Version() string { return d.tools.version }

// Capabilities are what the kernel was found able to do, by New or by [Dataplane.Look].
func (d *Dataplane) Capabilities() Capabilities { return d.state.Load().capabilities }

// Findings are all that was looked at, found or missing, as of New or the last [Dataplane.Look].
func (d *Dataplane) Findings() []Finding { return d.state.Load().findings() }

// Observe reads our part of the kernel's state. A family that cannot be read is absent from the tables, and a
// *FamilyError in the error names it; a family without anything of ours has a table with empty maps.
func (d *Dataplane) Observe(ctx context.Context) (iptables.Ruleset, error) {
	return d.ObserveReusing(ctx, iptables.Ruleset{})
}

// ObserveReusing is [Dataplane.Observe], but where a set of known has the entries that were read, it is these that stand in the result: a kernel
// that holds what it should takes no second copy of it. It may run beside [Dataplane.Apply]: what is changed meanwhile is shown
// as it was, as it is, or in part.
func (d *Dataplane) ObserveReusing(ctx context.Context, known iptables.Ruleset) (iptables.Ruleset, error) {
	r := iptables.Ruleset{Tables: map[iptables.Family]iptables.Table{}}
	var errs []error
	for _, f := range d.Capabilities().Families {
		t, err := d.observeTable(ctx, f)
		if err != nil {
			errs = append(errs, &FamilyError{Family: f, Op: "reading the " + d.Capabilities().Table + " table", Err: err})
			continue
		}
		r.Tables[f] = t
	}
	if err := d.observeGuards(&r); err != nil {
		errs = append(errs, err)
	}
	sets, err := listSets(d.exchange, d.layout, known.Sets, "")
	if err != nil {
		errs = append(errs, err)
	} else {
		r.Sets = policy.MapOf(sets)
	}
	return r, errors.Join(errs...)
}

// ObserveSets are those of some sets, by name, that are there. Entries of known stand in the result as in that of [Dataplane.ObserveReusing].
func (d *Dataplane) ObserveSets(_ context.Context, names []string, known iptables.Ruleset) (map[string]iptables.Set, error) {
	all := map[string]iptables.Set{}
	for _, name := range names {
		sets, err := listSets(d.exchange, d.layout, known.Sets, name)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return nil, err
		}
		maps.Copy(all, sets)
	}
	return all, nil
}

// observeGuards reads what holds links, where the kernel can.
func (d *Dataplane) observeGuards(r *iptables.Ruleset) error {
	if !d.Capabilities().Guards {
		return nil
	}
	return withGuards(func(g *guards) error {
		inward, err := g.observeInward(d.layout)
		if err != nil {
			return err
		}
		r.Inward = inward
		r.Guards, err = g.observe()
		return err
	})
}

func (d *Dataplane) observeTable(ctx context.Context, f iptables.Family) (iptables.Table, error) {
	name := d.Capabilities().Table
	if d.tools.backend == NFT {
		off, err := nftDormant(f, name)
		if err == nil && off {
			err = errDormant
		}
		if err != nil {
			return iptables.Table{}, err
		}
	}
	out, err := d.tools.save(ctx, f, name)
	if err != nil {
		return iptables.Table{}, err
	}
	saved, err := parseSave(out)
	if err != nil {
		return iptables.Table{}, err
	}
	return saved[name].ours(name), nil
}

// Apply takes the kernel through the plan's steps, in their order. A step that fails ends the plan for its family, and
// the other family's steps go on; the errors, each a *SetError or a *FamilyError, come joined.
func (d *Dataplane) Apply(ctx context.Context, p iptables.Plan) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if p.Empty() {
		return nil
	}
	d.written.Add(1)
	defer d.written.Add(1)
	c, err := openIPSets(d.exchange)
	if err != nil {
		return err
	}
	defer c.close()
	return apply(ctx, &kernel{tools: d.tools, table: d.Capabilities().Table, sets: c}, p)
}

// kernel takes the steps of a plan on the real kernel.
type kernel struct {
	tools *tools
	table string
	sets  *ipsets
}

var _ steps = (*kernel)(nil)

func (k *kernel) createSet(ctx context.Context, s iptables.Set) error { return k.sets.create(ctx, s) }

func (k *kernel) addEntries(ctx context.Context, s iptables.SetEntries) error {
	return k.sets.add(ctx, s)
}

func (k *kernel) delEntries(ctx context.Context, s iptables.SetEntries) error {
	return k.sets.del(ctx, s)
}

func (k *kernel) destroySets(ctx context.Context, sets []iptables.SetRef) error {
	names := make([]string, len(sets))
	for i, s := range sets {
		names[i] = s.Name
	}
	return k.sets.destroyAll(ctx, names)
}

func (k *kernel) restoreAll(ctx context.Context, inputs map[iptables.Family]string) map[iptables.Family]error {
	return k.tools.restoreAll(ctx, inputs)
}

func (k *kernel) fixJump(ctx context.Context, j iptables.JumpFix) error {
	return k.tools.fixJump(ctx, j)
}

func (k *kernel) guard(ctx context.Context, all []iptables.Guard) error {
	return withGuards(func(g *guards) error { return g.write(ctx, all) })
}

func (k *kernel) unguard(_ context.Context, links []string) error {
	return withGuards(func(g *guards) error { return g.remove(links) })
}

func (k *kernel) bringInward(_ context.Context, in iptables.Inward) error {
	return withGuards(func(g *guards) error { return g.writeInward(in) })
}

func (k *kernel) cleanElsewhere(ctx context.Context, families []iptables.Family) error {
	return cleanupTables(ctx, k.tools.log, backendTable{k.tools.backend, k.table}, families)
}
