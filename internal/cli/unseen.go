package cli

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/go-logr/logr"

	"github.com/ringfence-io/ringfence/enforcer"
)

// unseenFile, beside the socket, is there while connections may be tracked that began when our rules were away, so that an enforcer which starts now does not
// take for denied what has only been tracked the wrong way round (docs/adr/0009). It is empty, and goes with the node's restart, as connections do.
const unseenFile = "unseen"

// remember has connections find what an enforcer before it has noted beside the socket, and note the same.
func remember(connections *enforcer.Connections, socket string, log logr.Logger) {
	if socket == "" {
		return
	}
	dir := filepath.Dir(socket)
	file := filepath.Join(dir, unseenFile)
	_, err := os.Stat(file)
	connections.Remember(!errors.Is(err, fs.ErrNotExist), func(unseen bool) {
		var err error
		if unseen {
			err = errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(file, nil, 0o600))
		} else if err = os.Remove(file); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		if err != nil {
			log.Error(err, "what is not known of live connections cannot be noted: if the next enforcer starts before they have been looked at, "+
				"it may hold off some that policy allows, for as long as connection tracking remembers such")
		}
	})
}
