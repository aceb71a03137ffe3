package dataplane

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
)

// Limits are what a Fake refuses, as a kernel does that has little of something. Zero means without limit.
type Limits struct {
	// Sets is how many sets there may be, and Entries how many entries in one of them.
	Sets, Entries int
	// Memory is how many entries and rules there may be in all: beyond it the answer is ENOMEM.
	Memory int
	// Rule, if it is given, says why a rule is not taken, as a match that the kernel lacks.
	Rule func(iptables.Rule) error
	// Silent leaves out which line of a restore it was, as legacy's programs do.
	Silent bool
}

// Limit sets the Fake's limits, from now on.
func (f *Fake) Limit(l Limits) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.limits = l
}

// roomForSet is asked before a set is made, with the lock held.
func (k *fakeSteps) roomForSet(name string) error {
	if _, there := k.sets[name]; !there && k.limits.Sets > 0 && len(k.sets) >= k.limits.Sets {
		return ErrTooManySets
	}
	return nil
}

// roomForEntry is asked before an entry is added to a set that has so many, with the lock held.
func (k *fakeSteps) roomForEntry(set iptables.Set, held int) error {
	switch {
	case k.limits.Entries > 0 && held >= k.limits.Entries:
		return ErrSetFull
	case k.limits.Memory > 0 && k.held()+held-len(k.sets[set.Name].entries) >= k.limits.Memory:
		return errNoMemory
	}
	return nil
}

// held is how many entries and rules there are.
func (k *fakeSteps) held() int {
	n := 0
	for _, s := range k.sets {
		n += len(s.entries)
	}
	for _, t := range k.tables {
		for _, rules := range t.chains {
			n += len(rules)
		}
	}
	return n
}

// refuses is the answer to a restore that the limits forbid, nil if they do not.
func (k *fakeSteps) refuses(input string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	lines := strings.Split(input, "\n")
	rules := 0
	for n, line := range lines {
		if line == "" {
			continue
		}
		_, rule, ok := appended(line)
		if !ok {
			continue
		}
		rules++
		if k.limits.Rule == nil {
			continue
		}
		if err := k.limits.Rule(rule); err != nil {
			return k.refusal(n+1, line, err)
		}
	}
	if k.limits.Memory > 0 && k.held()+rules > k.limits.Memory {
		return k.refusal(len(lines)-1, "COMMIT", errNoMemory)
	}
	return nil
}

var errNoMemory = error(unix.ENOMEM)

func (k *fakeSteps) refusal(line int, text string, err error) error {
	e := &ToolError{Tool: "the fake iptables-restore", Stderr: err.Error(), Line: line, Text: text, Err: errors.New("exit status 1"), Answered: true}
	if k.limits.Silent {
		e.Line, e.Text = 0, ""
	}
	return e
}
