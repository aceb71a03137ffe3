package cli

import (
	"strings"
	"testing"
)

// As another user than root nothing can be asked, and no module is said to be missing for that.
func TestPreflightNeedsRoot(t *testing.T) {
	if err := needRoot("preflight", 0); err != nil {
		t.Errorf("root: %v", err)
	}
	err := needRoot("preflight", 65534)
	if err == nil || !strings.Contains(err.Error(), "as root") {
		t.Errorf("another user: %v, want that it has to run as root", err)
	}
}
