package dataplane

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/go-logr/logr"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// Count is what one point of the rules has counted in one family since its chain was written.
type Count struct {
	// Point is what the chain's name says. The name of the object, and of its rule, are in the comment alone.
	Point   policy.Point
	Comment string
	Packets uint64
}

// Counts are the packets that each point of the rules has counted, of both families, by the point's ID: as long as a point is there, its
// count never falls, although the kernel's counters restart when a chain is rewritten. With an error the counts of what could
// not be read are those of the last reading.
func (d *Dataplane) Counts(ctx context.Context) (map[string]uint64, error) {
	d.counting.Lock()
	defer d.counting.Unlock()
	found, err := d.readCounts(ctx)
	for f, counts := range found {
		d.counter.Add(f, packetsByID(counts))
	}
	return d.counter.Totals(), err
}

// countsBeside is how often counters are read beside what writes. What was written meanwhile may have had a part of them left out.
const countsBeside = 2

// readCounts reads what could be read. No plan waits for it, unless the last attempts were disturbed.
func (d *Dataplane) readCounts(ctx context.Context) (map[iptables.Family][]Count, error) {
	for range countsBeside {
		before := d.written.Load()
		found, err := d.countsNow(ctx)
		if before%2 == 0 && d.written.Load() == before {
			return found, err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.countsNow(ctx)
}

func (d *Dataplane) countsNow(ctx context.Context) (map[iptables.Family][]Count, error) {
	found := map[iptables.Family][]Count{}
	var errs []error
	for _, f := range d.Capabilities().Families {
		out, err := d.tools.saveCounters(ctx, f, d.Capabilities().Table)
		if err == nil {
			found[f], err = parseCounts(out, d.layout)
		}
		if err != nil {
			delete(found, f)
			errs = append(errs, familyError(f, "reading the counters", err))
		}
	}
	if d.Capabilities().Guards {
		counts, err := guardCounts()
		if err != nil {
			errs = append(errs, err)
		} else {
			found[ofGuards] = counts
		}
	}
	return found, errors.Join(errs...)
}

// ofGuards stands in place of a family for the counters of guards, which are of none.
const ofGuards iptables.Family = 0

func packetsByID(counts []Count) map[string]uint64 {
	packets := map[string]uint64{}
	for _, c := range counts {
		packets[c.Point.ID] += c.Packets
	}
	return packets
}

// Counted is what every point of this node's rules has counted, whatever back end and table they stand in, one entry per family; enforced
// says whether there are any rules of ours. Nothing is written, and no Dataplane is needed. Rules of another layout than this, whose counts nobody but a
// version with that layout can tell, are an error.
func Counted(ctx context.Context, layout iptables.Layout, log logr.Logger) (counts []Count, enforced bool, err error) {
	err = eachBackend(log, "reading the counters of", func(t *tools, f iptables.Family) error {
		out, err := t.saveCounters(ctx, f, "")
		if noKernelSupport(err) {
			return nil
		}
		if err != nil {
			return err
		}
		found, err := parseCounts(out, layout)
		counts = append(counts, found...)
		enforced = enforced || bytes.Contains(out, []byte("\n:"+iptables.Prefix))
		return errors.Join(err, otherLayout(out, layout))
	})
	if probeGuards() != nil {
		return counts, enforced, err // a kernel without nf_tables has no guards
	}
	of, guardErr := guardCounts()
	return append(counts, of...), enforced, errors.Join(err, guardErr)
}

// otherLayout names a chain of another layout than this in what iptables-save prints, if there is one.
func otherLayout(out []byte, layout iptables.Layout) error {
	for line := range bytes.Lines(out) {
		declared, isChain := strings.CutPrefix(string(line), ":")
		chain, _, _ := strings.Cut(declared, " ")
		if isChain && chain != probeChain && layout.IsOther(chain) {
			return fmt.Errorf("some rules, such as the chain %s, are of another version of Ringfence: its own program tells what they have counted", chain)
		}
	}
	return nil
}

// parseCounts takes the counts of points from what iptables-save -c prints: the counter of the first rule of each chain that is a point's.
func parseCounts(out []byte, layout iptables.Layout) ([]Count, error) {
	var counts []Count
	last, table := "", ""
	for n, line := range logicalLines(out) {
		if err := foreignTable(line); err != nil {
			return nil, err
		}
		if name, ok := strings.CutPrefix(line, "*"); ok {
			table = name
		}
		if !strings.HasPrefix(line, "[") || table != "" && !slices.Contains(tables[:], table) {
			continue
		}
		chain, rule, ok := appended(line)
		if !ok {
			return nil, fmt.Errorf("reading iptables-save: line %d is no rule: %s", n+1, line)
		}
		first := chain != last // a chain's rules stand together
		last = chain
		point, isPoint := layout.PointOfChain(chain)
		if !first || !isPoint {
			continue
		}
		packets, _, _ := strings.Cut(line[1:], ":")
		count, err := strconv.ParseUint(packets, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("reading iptables-save: line %d has no counters: %s", n+1, line)
		}
		counts = append(counts, Count{Point: point, Comment: valueOf(rule, "--comment"), Packets: count})
	}
	return counts, nil
}

// Counter makes totals that never fall of the kernel's counters, which restart with every chain that is rewritten. The zero Counter is ready.
type Counter struct {
	families map[iptables.Family]map[string]counted
}

// counted is one counter of the kernel's.
type counted struct {
	last  uint64 // reading
	total uint64
}

// Add takes the next reading of a family's counters, by ID. A value below the one before is that of a counter that has restarted meanwhile. An
// ID that the reading lacks is gone, and forgotten.
func (c *Counter) Add(f iptables.Family, reading map[string]uint64) {
	next := make(map[string]counted, len(reading))
	for id, value := range reading {
		before := c.families[f][id]
		grown := value - before.last
		if value < before.last {
			grown = value
		}
		next[id] = counted{last: value, total: before.total + grown}
	}
	if c.families == nil {
		c.families = map[iptables.Family]map[string]counted{}
	}
	c.families[f] = next
}

// Totals are what was counted by each ID of the last readings, of all families.
func (c *Counter) Totals() map[string]uint64 {
	totals := map[string]uint64{}
	for _, counters := range c.families {
		for id, n := range counters {
			totals[id] += n.total
		}
	}
	return totals
}
