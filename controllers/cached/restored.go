package cached

import (
	"fmt"

	"k8s.io/apimachinery/pkg/util/resourceversion"
)

// A cluster that is restored from a backup begins to count its changes where the backup ended, unless whoever restores it has etcd count on. Watches go on by
// the old count then: nothing is heard of until the new one has come as far, what was made after the backup stays in caches for good, and what was deleted
// after it is missing. No watch tells. What does tell is the count itself, wherever it is given with an answer that cannot be older than the one before.

// RestoredError says that the API server has gone back to older data.
type RestoredError struct{ Before, Now string }

// Error says from where to where, and what follows.
func (e *RestoredError) Error() string {
	return fmt.Sprintf("the API server has gone back from resource version %s to %s, as after a restore from a backup: "+
		"this process ends, for its next start to read everything anew; what is enforced stays in force", e.Before, e.Now)
}

// History is how far the changes of one kind have come, by answers that each have all that was written before they were asked for.
type History struct{ newest string }

// Newest is how far they have come, empty if there was no answer yet.
func (h *History) Newest() string { return h.newest }

// Note takes in a resource version, empty if there was none in the answer. It fails if the changes have gone back.
func (h *History) Note(version string) error {
	if order, err := resourceversion.CompareResourceVersion(version, h.newest); err == nil && order < 0 {
		return &RestoredError{Before: h.newest, Now: version}
	}
	if version != "" {
		h.newest = version
	}
	return nil
}
