package compile

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
)

// digestVersion begins what [Pod.Digest] hashes. Whoever changes the encoding changes it too: digests of different versions never agree,
// and a policy is then not programmed until both sides are of one release.
const digestVersion = "ringfence pod 1"

// Digest is a pod's state as policy sees it: everything by which policies select it (its namespace, the namespace's labels and mode, its own
// labels), its UID, addresses and named ports. Whether it terminates is not in it: it is enforced until it is gone. ns is the pod's
// namespace, nil if it is not known. Digests of different releases are compared with each other, so that the encoding is written out here: each
// text carries its length, each list its count.
func (p *Pod) Digest(ns *Namespace) uint64 {
	e := make(encoding, 0, 1024)
	e.text(digestVersion)
	e.text(p.UID)
	e.text(p.Namespace)
	e.flag(ns != nil)
	if ns != nil {
		e.labels(ns.Labels)
		e.flag(ns.Mode == string(v1alpha1.Audit)) // whatever else it says enforces
	}
	e.labels(p.Labels)
	e.number(len(p.Addrs))
	for _, a := range p.Addrs {
		e.text(string(a.AsSlice()))
	}
	// A port that another container has too, and the order of containers, change nothing.
	ports := slices.Clone(p.Ports)
	slices.SortFunc(ports, func(a, b NamedPort) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Port, b.Port))
	})
	ports = slices.Compact(ports)
	e.number(len(ports))
	for _, port := range ports {
		e.text(port.Name)
		e.number(int(port.Protocol))
		e.number(int(port.Port))
	}
	sum := sha256.Sum256(e)
	return binary.BigEndian.Uint64(sum[:])
}

// encoding is bytes that no two lists of values share.
type encoding []byte

func (e *encoding) number(n int) { *e = binary.AppendUvarint(*e, uint64(n)) }

func (e *encoding) text(s string) {
	e.number(len(s))
	*e = append(*e, s...)
}

func (e *encoding) flag(set bool) {
	n := 0
	if set {
		n = 1
	}
	e.number(n)
}

func (e *encoding) labels(l Labels) {
	e.number(len(l))
	for i := range l {
		e.text(l[i].Key)
		e.text(l[i].Value)
	}
}
