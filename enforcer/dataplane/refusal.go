package dataplane

import (
	"errors"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
)

// What the kernel answers is either about what it was asked for, or about its own state. Only the former is a refusal: whoever asked for less would have got
// it. The latter passes, whatever anybody asks for.

// noRoom are the answers that say that there is too much already.
var noRoom = []error{ErrTooManySets, ErrSetFull, unix.ENOMEM, unix.ENOSPC, unix.E2BIG, unix.EMSGSIZE}

// notAsSuch are the answers that say that the kernel has no such thing, or takes none with this content.
var notAsSuch = []error{errNoSetType, unix.EINVAL, unix.ERANGE, unix.EOPNOTSUPP, unix.EAFNOSUPPORT}

// own are the numbers of ipset's own that are about the state in which it finds a set, and not about what is asked of it.
var own = []nl.IPSetError{nl.IPSET_ERR_PROTOCOL, nl.IPSET_ERR_BUSY, nl.IPSET_ERR_REFERENCED, nl.IPSET_ERR_EXIST, nl.IPSET_ERR_EXIST_SETNAME2}

// Refusal is what the kernel refuses of a set, if that is why the step failed.
func (e *SetError) Refusal() (iptables.Refusal, bool) {
	r := iptables.Refusal{Family: e.Family, Set: e.Set, Word: e.Err.Error()}
	for _, known := range noRoom {
		r.Full = r.Full || errors.Is(e.Err, known)
	}
	if r.Full {
		return r, true
	}
	for _, known := range notAsSuch {
		if errors.Is(e.Err, known) {
			return r, true
		}
	}
	var word nl.IPSetError
	if !errors.As(e.Err, &word) {
		return r, false
	}
	for _, state := range own {
		if word == state {
			return r, false
		}
	}
	return r, true
}

// InFamily is the family whose later steps were left out because of the error; 0 if that is none.
func (e *SetError) InFamily() iptables.Family { return e.Family }

// The words of the programs, in lower case, that say there is no room, and those that say that something is the matter with the node or that another program
// has interfered.
var (
	noRoomWords = []string{"cannot allocate memory", "memory allocation problem", "no space left", "argument list too long", "message too long",
		"no buffer space"}
	nobodysWords = []string{"permission denied", "operation not permitted", "table does not exist", "temporarily unavailable", "resource busy",
		"xtables lock", "is incompatible", "doesn't exist", "does not exist", "bad file", "could not fetch rule set generation"}
)

// Refusal is what the kernel, or the program that writes to it, refuses of a restore, if that is why it failed.
func (e *FamilyError) Refusal() (iptables.Refusal, bool) {
	r := iptables.Refusal{Family: e.Family}
	var tool *ToolError
	if !errors.As(e.Err, &tool) || !tool.Answered {
		return r, false
	}
	says := strings.ToLower(tool.Stderr)
	contains := func(word string) bool { return strings.Contains(says, word) }
	for _, word := range nobodysWords {
		if contains(word) {
			return r, false
		}
	}
	for _, word := range noRoomWords {
		r.Full = r.Full || contains(word)
	}
	if tool.Text != "" {
		if _, rule, ok := appended(tool.Text); ok {
			r.Rule = rule
		}
	}
	r.Word = strings.Join(strings.Fields(tool.Stderr), " ")
	return r, true
}

// InFamily is the family whose later steps were left out because of the error.
func (e *FamilyError) InFamily() iptables.Family { return e.Family }
