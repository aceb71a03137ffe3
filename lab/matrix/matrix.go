// Package matrix finds out who reaches whom, and compares that with what the API texts demand.
//
// Rows are sources, columns are ports of destinations; a cell holds one connection attempt per family, with the verdict
// of an independent judge beside it. The matrix is data: how it was measured, how it reads as text, and how it reads as
// JSON are apart.
//
// Invariants:
//   - an attempt that passes is counted only when the server that answers is the one that was meant;
//   - measuring never changes what is measured: all connections are short and new.
package matrix

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/lab/host"
	"github.com/ringfence-io/ringfence/lab/probe"
)

// parallel bounds the attempts under way at once: enough to wait for many silent ones together, few enough that the
// machine does not become so slow that silence means nothing.
const parallel = 48

// Source is a row: where connections come from.
type Source struct {
	Name      string
	Host      *host.Host
	Addresses []netip.Addr
}

// Target is a column: a port of a destination.
type Target struct {
	Name      string
	Addresses []netip.Addr
	Protocol  policy.Protocol
	Port      uint16
	// Server is the name that answers.
	Server string
}

// Judge says whether a connection must pass, and why.
type Judge func(src, dst netip.Addr, protocol policy.Protocol, port uint16) (bool, string)

// Attempt is one connection, tried in one family.
type Attempt struct {
	Source, Target int // indexes into the matrix's rows and columns
	Family         iptables.Family
	Src, Dst       netip.Addr
	Want           bool
	Why            string // by what Want is so
	Got            bool
	Result         probe.Result
}

// AsDemanded reports whether the network does what the API texts say.
func (a Attempt) AsDemanded() bool { return a.Got == a.Want }

// Matrix holds the attempts of all sources on all targets.
type Matrix struct {
	Sources  []Source
	Targets  []Target
	Attempts []Attempt // by source, then target, then family
}

// New lays out the attempts, in every family that both ends have, and judges them. Measure fills in the rest.
func New(sources []Source, targets []Target, judge Judge) *Matrix {
	m := &Matrix{Sources: sources, Targets: targets}
	for i, s := range sources {
		for j, t := range targets {
			for _, f := range iptables.Families {
				src, dst := address(s.Addresses, f), address(t.Addresses, f)
				if !src.IsValid() || !dst.IsValid() {
					continue
				}
				a := Attempt{Source: i, Target: j, Family: f, Src: src, Dst: dst}
				a.Want, a.Why = judge(src, dst, t.Protocol, t.Port)
				m.Attempts = append(m.Attempts, a)
			}
		}
	}
	return m
}

func address(addrs []netip.Addr, f iptables.Family) netip.Addr {
	for _, addr := range addrs {
		if iptables.FamilyOf(addr) == f {
			return addr
		}
	}
	return netip.Addr{}
}

// Measure tries all connections, with the patience that suits each one's expectation.
func (m *Matrix) Measure(ctx context.Context) error {
	return m.measure(ctx, probe.Expect, func(Attempt) bool { return true })
}

// Settle measures until everything is as demanded, or ctx ends. What is as demanded already is not tried again until all
// the rest is; then everything is measured once more. Its error says how many differences were left.
func (m *Matrix) Settle(ctx context.Context) error {
	every := func(Attempt) bool { return true }
	wrong := func(a Attempt) bool { return !a.AsDemanded() }
	which := every
	for {
		if err := m.measure(ctx, impatient, which); err != nil {
			return err
		}
		if m.Differences() > 0 {
			which = wrong
			if ctx.Err() != nil {
				return fmt.Errorf("%d of %d connections are not as demanded: %w", m.Differences(), len(m.Attempts), context.Cause(ctx))
			}
			continue
		}
		if err := m.Measure(ctx); err != nil {
			return err
		}
		if m.Differences() == 0 {
			return nil
		}
		which = wrong
	}
}

// impatient is for looking again and again.
func impatient(allowed bool) probe.Patience {
	if allowed {
		return probe.Patience{Timeout: time.Second, Retry: 250 * time.Millisecond}
	}
	return probe.Patience{Timeout: 250 * time.Millisecond, Retry: 250 * time.Millisecond}
}

// measure tries the attempts that which picks.
func (m *Matrix) measure(ctx context.Context, patience func(bool) probe.Patience, which func(Attempt) bool) error {
	var all sync.WaitGroup
	slots := make(chan struct{}, parallel)
	for i := range m.Attempts {
		a := &m.Attempts[i]
		if !which(*a) {
			continue
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			all.Wait()
			return fmt.Errorf("measuring who reaches whom: %w", context.Cause(ctx))
		}
		all.Go(func() {
			m.try(a, patience(a.Want))
			<-slots
		})
	}
	all.Wait()
	return nil
}

// try fills in what became of one attempt.
func (m *Matrix) try(a *Attempt, patience probe.Patience) {
	source, target := m.Sources[a.Source], m.Targets[a.Target]
	flow := probe.Flow{Protocol: target.Protocol, Src: a.Src, Dst: a.Dst, Port: target.Port}
	a.Result = probe.Dial(source.Host, flow, patience)
	a.Got = m.reached(*a)
}

// reached reports whether the server that was meant has answered.
func (m *Matrix) reached(a Attempt) bool {
	return a.Result.Outcome == probe.Reached && a.Result.Identity == m.Targets[a.Target].Server
}

// Differences counts the attempts that are not as demanded.
func (m *Matrix) Differences() int {
	n := 0
	for _, a := range m.Attempts {
		if !a.AsDemanded() {
			n++
		}
	}
	return n
}

// Connecting counts the attempts that passed.
func (m *Matrix) Connecting() int {
	n := 0
	for _, a := range m.Attempts {
		if a.Got {
			n++
		}
	}
	return n
}

// explained is how many differences Explain tells in full.
const explained = 12

// Explain says of the first differences what was demanded, why, and what came instead. It is nil if there is none.
func (m *Matrix) Explain() error {
	var errs []error
	for _, a := range m.Attempts {
		if a.AsDemanded() {
			continue
		}
		if len(errs) == explained {
			return errors.Join(append(errs, fmt.Errorf("and %d more", m.Differences()-explained))...)
		}
		target := m.Targets[a.Target]
		errs = append(errs, fmt.Errorf("%s -> %s %s/%d (%s -> %s): demanded %s (%s), got %s",
			m.Sources[a.Source].Name, target.Name, target.Protocol, target.Port, a.Src, a.Dst, verdict(a.Want), a.Why, a.Result))
	}
	return errors.Join(errs...)
}

func verdict(pass bool) string {
	if pass {
		return "yes"
	}
	return "no"
}
