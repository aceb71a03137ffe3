package iptables

import (
	"fmt"
	"strings"
)

// Leftover is the error of a plan that is in force as a whole, but for sets that it was to destroy: rules of another program refer to them. They cost memory
// alone.
type Leftover struct {
	Sets []string
	Err  error
}

func (l *Leftover) Error() string {
	return fmt.Sprintf("sets that are needed no more stay: %s: %v", strings.Join(l.Sets, ", "), l.Err)
}

func (l *Leftover) Unwrap() error { return l.Err }
