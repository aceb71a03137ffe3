package kubectl

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
)

var update = flag.Bool("update", false, "write what commands print to testdata")

const samples = "../../config/samples"

// run runs a command line, and returns what it printed and its exit status.
func run(t *testing.T, args ...string) (string, int) {
	t.Helper()
	return runCommand(t, NewCommand(), args...)
}

func runCommand(t *testing.T, root *cobra.Command, args ...string) (string, int) {
	t.Helper()
	var out bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&out)
	root.SetArgs(args)
	err := root.ExecuteContext(t.Context())
	switch {
	case err == nil:
		return out.String(), exitYes
	case errors.Is(err, errNo):
		return out.String(), exitNo
	}
	return out.String() + "error: " + err.Error() + "\n", exitTrouble
}

// What commands print about the samples, as people see it: testdata has it all.
func TestWhatIsPrinted(t *testing.T) {
	application, policies, report := samples+"/application", samples+"/policies", "testdata/recommend/report.yaml"
	for name, tt := range map[string]struct {
		args []string
		want int
	}{
		"why-allowed":     {[]string{"why", "shop/frontend", "shop/backend:8080"}, exitYes},
		"why-denied":      {[]string{"why", "outsider/visitor", "shop/database:5432"}, exitNo},
		"why-both-ends":   {[]string{"why", "shop/frontend", "shop/database:5432", "-o", "yaml"}, exitNo},
		"why-from-world":  {[]string{"why", "outside", "shop/frontend:http"}, exitYes},
		"why-ports":       {[]string{"why", "monitoring/prometheus", "shop/database"}, exitYes},
		"why-nobody":      {[]string{"why", "shop/nobody", "shop/database:5432"}, exitTrouble},
		"who-can-reach":   {[]string{"who-can", "reach", "shop/database"}, exitYes},
		"who-can-be":      {[]string{"who-can", "be-reached-by", "shop/frontend", "-o", "csv"}, exitYes},
		"map-mermaid":     {[]string{"map", "-n", "shop", "-o", "mermaid"}, exitYes},
		"map-dot":         {[]string{"map", "-A", "-o", "dot"}, exitYes},
		"map-table":       {[]string{"map", "-A"}, exitYes},
		"lint":            {[]string{"lint"}, exitYes},
		"lint-strict":     {[]string{"lint", "--strict", "-o", "json"}, exitNo},
		"test":            {[]string{"test", "testdata/connectivity.yaml"}, exitNo},
		"test-junit":      {[]string{"test", "testdata/connectivity.yaml", "-o", "junit"}, exitNo},
		"test-broken":     {[]string{"test", "testdata/broken.yaml"}, exitTrouble},
		"recommend":       {[]string{"recommend", "-n", "shop", "-f", report, "-f", "testdata/recommend/dns.yaml"}, exitNo},
		"recommend-json":  {[]string{"recommend", "-n", "shop", "-f", report, "--since", "45s", "-o", "json"}, exitYes},
		"recommend-none":  {[]string{"recommend", "-n", "monitoring", "-f", report}, exitTrouble},
		"diff-opened":     {[]string{"diff", "--against", application, "--fail-on", "opened", "-o", "markdown"}, exitYes},
		"diff-closed":     {[]string{"diff", "--against", application, "--fail-on", "closed"}, exitNo},
		"unknown-output":  {[]string{"lint", "-o", "svg"}, exitTrouble},
		"unknown-fail-on": {[]string{"diff", "--fail-on", "all"}, exitTrouble},
	} {
		t.Run(name, func(t *testing.T) {
			got, status := run(t, append(tt.args, "-f", application, "-f", policies)...)
			if status != tt.want {
				t.Errorf("the exit status is %d, want %d:\n%s", status, tt.want, got)
			}
			golden := filepath.Join("testdata", name+".txt")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil { //nolint:gosec // it is for everybody to read
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("it prints (-want +got; write it by -update):\n%s", diff)
			}
		})
	}
}

// A change that is proposed is applied as it is printed.
func TestTheProposedChangeCanBeApplied(t *testing.T) {
	files := []string{"-f", samples + "/application", "-f", samples + "/policies"}
	question := []string{"why", "outsider/visitor", "shop/database:5432"}
	printed, _ := run(t, append(question, files...)...)
	_, manifest, ok := strings.Cut(printed, "and nothing else:\n")
	if !ok {
		t.Fatalf("no change is proposed:\n%s", printed)
	}
	manifest, _, _ = strings.Cut(manifest, "\nNote:")
	file := filepath.Join(t.TempDir(), "change.yaml")
	if err := os.WriteFile(file, []byte(manifest), 0o600); err != nil {
		t.Fatal(err)
	}
	if printed, status := run(t, append(append(question, files...), "-f", file)...); status != exitYes {
		t.Errorf("it is still denied:\n%s", printed)
	}
}
