package scene

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"

	"golang.org/x/sys/unix"
)

// root is where scenes that are up can be found by other processes.
const root = "/run/ringfence-lab"

var validName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`)

// Dir is the directory of the scene of that name, while it is up.
func Dir(name string) string { return filepath.Join(root, name) }

// claim makes sure that no other scene of that name is up, and clears away what one left that was killed. The directory
// itself is not made yet.
func claim(name string) (dir string, unlock func(), err error) {
	if !validName.MatchString(name) {
		return "", nil, fmt.Errorf("the name %q is not lower-case letters, digits and dashes, 32 at most", name)
	}
	if err := os.MkdirAll(root, 0o755); err != nil {
		return "", nil, fmt.Errorf("making the directory of labs: %w", err)
	}
	lock, err := os.OpenFile(Dir(name)+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", nil, fmt.Errorf("locking the lab %s: %w", name, err)
	}
	err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		lock.Close()
		return "", nil, fmt.Errorf("a lab of the name %s is up already: end it, or choose another --name", name)
	}
	if err != nil {
		lock.Close()
		return "", nil, fmt.Errorf("locking the lab %s: %w", name, err)
	}
	if err := os.RemoveAll(Dir(name)); err != nil {
		lock.Close()
		return "", nil, fmt.Errorf("clearing away what an earlier lab left: %w", err)
	}
	return Dir(name), func() {
		_ = os.Remove(lock.Name()) // the lock is still held: nobody else has taken this very file
		lock.Close()
		_ = os.Remove(root) // stays while another scene is up
	}, nil
}
