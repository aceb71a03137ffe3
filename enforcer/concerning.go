package enforcer

import (
	"errors"
	"net/netip"
	"slices"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
)

// Concerning is the part of a sync's error for which a pod with these addresses is not policed as it should be; nil if all that is about it is in force. What
// one family lacks is nothing to a pod that has no address of it, and what could not be tidied up behind the rules is nothing to any. What the kernel refuses
// of a policy is no error of the sync: the policy is in force, and closed there.
func Concerning(err error, addrs []netip.Addr) error {
	var part []error
	eachError(err, func(one error) bool {
		switch lacking := one.(type) { //nolint:errorlint // each error of the tree is looked at by itself
		case interface{ InFamily() iptables.Family }:
			f := lacking.InFamily()
			if f != 0 && slices.ContainsFunc(addrs, func(a netip.Addr) bool { return iptables.FamilyOf(a.Unmap()) == f }) {
				part = append(part, one)
			}
			return false
		case interface{ Unwrap() []error }:
			return true
		}
		if errors.Unwrap(one) == nil {
			part = append(part, one)
		}
		return true
	})
	return errors.Join(part...)
}

// refusalsIn are the refusals in an error, one for each.
func refusalsIn(err error) []iptables.Refusal {
	var all []iptables.Refusal
	eachError(err, func(one error) bool {
		refusing, ok := one.(interface {
			Refusal() (iptables.Refusal, bool)
		})
		if !ok {
			return true
		}
		if r, refused := refusing.Refusal(); refused {
			all = append(all, r)
		}
		return false
	})
	return all
}

// eachError shows an error and, as long as visit says so, those that it wraps.
func eachError(err error, visit func(error) bool) {
	if err == nil || !visit(err) {
		return
	}
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		for _, one := range many.Unwrap() {
			eachError(one, visit)
		}
		return
	}
	eachError(errors.Unwrap(err), visit)
}
