package cached

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"k8s.io/apimachinery/pkg/types"
)

// RefusedPolicy is the digest of a policy that the kernel refuses.
func RefusedPolicy(uid types.UID) uint64 { return digestOf("policy", string(uid)) }

// LargePolicy is the digest of a policy that is over a budget on the node.
func LargePolicy(uid types.UID) uint64 { return digestOf("large", string(uid)) }

// UnsurePolicy is the digest of a policy that names pods which the node does not know yet.
func UnsurePolicy(uid types.UID) uint64 { return digestOf("unsure", string(uid)) }

// RefusedNamespace is the digest of all policies of a namespace, where the node refuses many of them.
func RefusedNamespace(name string) uint64 { return digestOf("namespace", name) }

// WaitingNamespace is the digest of a namespace whose policies are in force as they were.
func WaitingNamespace(name string) uint64 { return digestOf("waiting", name) }

func digestOf(kind, what string) uint64 {
	sum := sha256.Sum256([]byte(kind + "/" + what))
	return binary.BigEndian.Uint64(sum[:])
}

// PackDigests writes digests one after the other, 8 bytes each.
func PackDigests(digests []uint64) []byte {
	var out []byte
	for _, d := range digests {
		out = binary.BigEndian.AppendUint64(out, d)
	}
	return out
}

// UnpackDigests reads what [PackDigests] wrote, ascending. A remainder is left away.
func UnpackDigests(packed []byte) []uint64 {
	out := make([]uint64, 0, len(packed)/8)
	for ; len(packed) >= 8; packed = packed[8:] {
		out = append(out, binary.BigEndian.Uint64(packed))
	}
	slices.Sort(out)
	return out
}
