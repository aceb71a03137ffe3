package iptables

import (
	"fmt"
	"strings"
)

// Leftover is the error of a plan of which everything is in force, and some sets are still there that it does away with: rules of somebody else refer to them.
// They cost memory, and nothing else.
type Leftover struct {
	Sets []string
	Err  error
}

func (l *Leftover) Error() string {
	return fmt.Sprintf("sets that are needed no more stay: %s: %v", strings.Join(l.Sets, ", "), l.Err)
}

func (l *Leftover) Unwrap() error { return l.Err }
