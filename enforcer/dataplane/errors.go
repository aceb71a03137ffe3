package dataplane

import (
	"errors"
	"fmt"
	"strings"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
)

// ErrLocked is in the chain of an error when another program held the xtables lock for longer than we were allowed to wait.
var ErrLocked = errors.New("another program holds the xtables lock")

// ErrSetInUse is in the chain of an error when a set cannot be destroyed because a rule still refers to it.
var ErrSetInUse = errors.New("a rule still refers to the set")

// errDormant is why a table is not what it seems, whatever stands in it.
var errDormant = errors.New("another program has switched the table off, and no packet meets our rules: its flag dormant is set " +
	"('nft add table' without the flag takes it away)")

// ErrTooManySets is in the chain of an error when the kernel holds as many sets as it takes, of all programs together.
var ErrTooManySets = errors.New("the kernel takes no more sets: the maximal number of sets is reached")

// ErrSetFull is in the chain of an error when a set takes no more entries.
var ErrSetFull = errors.New("the set is full")

// FamilyError is a failure that concerns one family's tables.
type FamilyError struct {
	Family iptables.Family
	Op     string // what was being done, as in "restoring the chains"
	Err    error
}

func (e *FamilyError) Error() string { return fmt.Sprintf("%s: %s: %v", e.Family, e.Op, e.Err) }

func (e *FamilyError) Unwrap() error { return e.Err }

// SetError is a failure that concerns one ipset.
type SetError struct {
	Set string
	Op  string // what was being done, as in "adding entries"
	Err error
	// Family is the one whose later steps of a plan were left out because of this; 0 if that is none.
	Family iptables.Family
}

func (e *SetError) Error() string { return fmt.Sprintf("set %s: %s: %v", e.Set, e.Op, e.Err) }

func (e *SetError) Unwrap() error { return e.Err }

// ToolError is what an iptables program said when it failed.
type ToolError struct {
	Tool   string // its name, as in "iptables-nft-restore"
	Stderr string
	// Line is the line of the input that the program named, counted from 1 and quoted in Text; 0 if it named none.
	Line int
	Text string
	Err  error // how it ended
	// Answered is set if the program ended by itself, and said no.
	Answered bool
}

func (e *ToolError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "running %s: %v", e.Tool, e.Err)
	if e.Stderr != "" {
		fmt.Fprintf(&b, ": %s", strings.Join(strings.Fields(e.Stderr), " "))
	}
	if e.Line > 0 {
		fmt.Fprintf(&b, " (line %d of the input: %s)", e.Line, e.Text)
	}
	return b.String()
}

func (e *ToolError) Unwrap() error { return e.Err }

// PreflightError says that nothing can be enforced on this node, and why.
type PreflightError struct {
	Findings []Finding
}

func (e *PreflightError) Error() string {
	var lacking []string
	for _, f := range e.Findings {
		if !f.OK && f.Severity == Fatal {
			lacking = append(lacking, f.String())
		}
	}
	return "no policy can be enforced on this node: " + strings.Join(lacking, "; ")
}
