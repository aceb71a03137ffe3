package arrival

import (
	"strings"

	"github.com/ringfence-io/ringfence/enforcer/compile"
)

// key is what a pod is known by here: its UID or, where the runtime does not say that, its name, which no UID looks like.
func (p Pod) key() string {
	if p.UID == "" {
		return p.Namespace + "/" + p.Name
	}
	return p.UID
}

// byName reports whether a pod has to be found by its name: the runtime does not say its UID, or says one that the API does not know.
func (p Pod) byName() bool { return p.UID == "" || isStatic(p.UID) }

// isStatic reports whether a UID is one that a kubelet has given to a pod of its own: a hash without the dashes of the API server's. The API
// shows such a pod under its name, with another UID.
func isStatic(uid string) bool { return uid != "" && !strings.Contains(uid, "-") }

// wanted is a pod that is looked for by its name.
type wanted struct {
	Pod
	as string // the UID of the pod that it has been found to be, empty if none yet
}

// is reports whether a pod of the node's with that name is the one that has come. Without a UID the name alone may be that of a pod which was there
// before it, with other labels, and is not quite gone. So it has to be a pod that waits for a sandbox, or shows the addresses of this one already. The one that
// it was found to be it stays, also while that is being deleted, until another of that name waits.
func (w wanted) is(p *compile.Pod) bool {
	return w.UID != "" || w.as == p.UID || showsOneOf(p, w.Pod) || waitsForSandbox(p)
}

// waitsForSandbox reports whether a pod has no addresses yet, or none but those that its node announced for a sandbox which has failed since.
func waitsForSandbox(p *compile.Pod) bool {
	return !p.HostNetwork && !p.Finished && !p.Terminating && (len(p.Addrs) == 0 || p.Source != compile.Shown)
}

// which says what has not been found.
func (p Pod) which() string {
	if p.UID == "" {
		return "a pod of that name on it that waits for its addresses, and the container runtime does not say which UID it has"
	}
	return "a pod of that name with UID " + p.UID
}
