package cli

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The linker leaves methods out that nothing calls, unless something in the program may call any method by its name. Then the program is two thirds larger, and
// an enforcer takes 25 MB more of each node's memory.
func TestNothingInTheProgramCallsMethodsByName(t *testing.T) {
	program := filepath.Join(t.TempDir(), "ringfence")
	if out, err := exec.Command("go", "build", "-o", program, "github.com/ringfence-io/ringfence").CombinedOutput(); err != nil {
		t.Fatalf("building ringfence: %v\n%s", err, out)
	}
	symbols, err := exec.Command("go", "tool", "nm", program).Output()
	if err != nil {
		t.Fatalf("listing what is linked: %v", err)
	}
	if !strings.Contains(string(symbols), " main.main\n") {
		t.Fatal("the list has no main.main: it cannot tell what is linked")
	}
	for line := range strings.Lines(string(symbols)) {
		if name := strings.TrimSpace(line); strings.HasSuffix(name, " text/template.(*Template).Execute") {
			t.Errorf("templates are linked (%s), which call methods by their names: find who uses them by 'go build -ldflags=-dumpdep'", name)
		}
	}
}
