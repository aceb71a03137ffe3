package dataplane

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/go-logr/logr"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
)

// Cleanup removes every chain, jump and set of ours: from both families, both back ends and both tables that can hold them. It
// needs no Dataplane, so that it works on a node that can no longer enforce anything.
func Cleanup(ctx context.Context, log logr.Logger) error {
	if log.GetSink() == nil {
		log = logr.Discard()
	}
	return cleanup(ctx, log, askKernel)
}

func cleanup(ctx context.Context, log logr.Logger, x exchange) error {
	err := cleanupTables(ctx, log, backendTable{}, iptables.Families[:])
	return errors.Join(err, cleanupGuards(), cleanupSets(ctx, x))
}

// Cleanup removes every chain, jump and set of ours, as the function of that name does.
func (d *Dataplane) Cleanup(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return cleanup(ctx, d.log, d.exchange)
}

// backendTable is a back end and a table of it.
type backendTable struct{ backend, table string }

// cleanupTables removes chains and jumps of ours, of every layout, from everywhere but the one table that is to be kept.
func cleanupTables(ctx context.Context, log logr.Logger, keep backendTable, families []iptables.Family) error {
	return eachBackend(log, "cleaning up", func(t *tools, f iptables.Family) error {
		if !slices.Contains(families, f) {
			return nil
		}
		return t.cleanup(ctx, f, keep)
	})
}

// eachBackend visits both families of each back end in which something of ours can be. The errors say what is being done to it.
func eachBackend(log logr.Logger, doing string, visit func(*tools, iptables.Family) error) error {
	var errs []error
	for _, backend := range []string{NFT, Legacy} {
		if backend == Legacy && !legacyInUse() {
			continue // nothing of ours can be there, and to ask would bring the tables into being
		}
		t, err := findTools(backend, Options{Log: log})
		switch {
		case errors.Is(err, errNoProgram) && backend == NFT:
			// Without the program there is no knowing; where it never was, nothing of ours is.
			log.Info("Left the nft back end out: its programs are not installed", "doing", doing)
		case err != nil:
			errs = append(errs, fmt.Errorf("%s the %s back end: %w", doing, backend, err))
		default:
			for _, f := range iptables.Families {
				errs = append(errs, familyError(f, doing+" the "+backend+" back end", visit(t, f)))
			}
		}
	}
	return errors.Join(errs...)
}

// legacyInUse reports whether a table of the legacy back end exists in this thread's network namespace.
func legacyInUse() bool {
	for _, names := range []string{"ip_tables_names", "ip6_tables_names"} {
		text, err := os.ReadFile("/proc/thread-self/net/" + names)
		if err != nil {
			continue // no such module
		}
		for _, name := range strings.Fields(string(text)) {
			if slices.Contains(tables[:], name) {
				return true
			}
		}
	}
	return false
}

func (t *tools) cleanup(ctx context.Context, f iptables.Family, keep backendTable) error {
	out, err := t.save(ctx, f, "")
	if noKernelSupport(err) {
		return nil
	}
	if err != nil {
		return err
	}
	saved, err := parseSave(out)
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range tables {
		if keep == (backendTable{t.backend, name}) {
			continue
		}
		errs = append(errs, t.remove(ctx, f, name, saved[name], isOurs))
	}
	return errors.Join(errs...)
}

// remove takes those of our chains out of a table that are meant, with all that leads there.
func (t *tools) remove(ctx context.Context, f iptables.Family, name string, found savedTable, meant func(chain string) bool) error {
	found = found.only(meant)
	if found.removal(name) == "" {
		return nil
	}
	if t.backend == NFT {
		dropped, err := t.dropUnshownJumps(ctx, f, name, meant)
		if err != nil {
			return err
		}
		for _, base := range dropped {
			found.chains[base] = nil
		}
	}
	return t.restore(ctx, f, found.removal(name))
}

// only is the table with those of our chains that are meant and what leads there, and nothing else of ours.
func (t savedTable) only(meant func(chain string) bool) savedTable {
	rest := savedTable{chains: map[string][]iptables.Rule{}}
	for _, c := range t.order {
		if isOurs(c) && !meant(c) {
			continue
		}
		rest.order = append(rest.order, c)
		rest.chains[c] = slices.DeleteFunc(slices.Clone(t.chains[c]), func(r iptables.Rule) bool {
			to := targetOf(r)
			return isOurs(to) && !meant(to)
		})
	}
	return rest
}

// noKernelSupport recognises iptables-nft on a kernel without nf_tables, and either back end on one without the family.
func noKernelSupport(err error) bool {
	var e *ToolError
	return errors.As(err, &e) &&
		(strings.Contains(e.Stderr, "Protocol not supported") || strings.Contains(e.Stderr, "Failed to initialize nft"))
}

// removal is the input of iptables-restore that takes everything of ours out of the table at once, empty if there is nothing.
func (t savedTable) removal(name string) string {
	var rules, declared, removed strings.Builder
	for _, chain := range t.order {
		if isOurs(chain) {
			fmt.Fprintf(&declared, ":%s - [0:0]\n", chain) // which empties it, so that none refers to another
			fmt.Fprintf(&removed, "-X %s\n", chain)
			continue
		}
		for _, r := range jumpsToUs(t.chains[chain]) {
			fmt.Fprintf(&rules, "-D %s %s\n", chain, r)
		}
	}
	if declared.Len() == 0 {
		return ""
	}
	return fmt.Sprintf("*%s\n%s%s%sCOMMIT\n", name, declared.String(), rules.String(), removed.String())
}

// cleanupGuards removes what holds links. A kernel without nf_tables holds none.
func cleanupGuards() error {
	if probeGuards() != nil {
		return nil
	}
	return withGuards(func(g *guards) error { return g.removeAll() })
}

func cleanupSets(ctx context.Context, x exchange) error {
	c, err := openIPSets(x)
	if err != nil {
		return err
	}
	defer c.close()
	names, err := setNames(x)
	if err != nil {
		if errors.Is(c.hasType(iptables.HashIP, iptables.IPv4), errNoIPSets) {
			return nil
		}
		return err
	}
	return c.destroyAll(ctx, names)
}
