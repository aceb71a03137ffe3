package cli

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ringfence-io/ringfence/internal/kubectl"
)

var update = flag.Bool("update", false, "write docs/reference.md anew, from what the commands say now")

const (
	referencePage  = "../../docs/reference.md"
	referenceBegin = `# Commands and flags

Every command with its flags. ` + "`make golden` writes this page from the code. `ringfence COMMAND --help`" + ` prints the same for your version.
`
)

// The page has every command with all of its flags, as --help shows them.
func TestTheReferenceSaysWhatTheCommandsSay(t *testing.T) {
	t.Setenv("NODE_NAME", "") // a default that comes from where this runs would be no default
	var want strings.Builder
	want.WriteString(referenceBegin)
	reference(&want, newRootCommand())
	reference(&want, kubectl.NewCommand())
	if *update {
		if err := os.WriteFile(referencePage, []byte(want.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	text, err := os.ReadFile(referencePage)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want.String(), string(text)); diff != "" {
		t.Errorf("%s (-code +page; -update writes it anew):\n%s", referencePage, diff)
	}
}

// reference writes what a command says of itself, and then what those below it do.
func reference(to *strings.Builder, cmd *cobra.Command) {
	if cmd.Runnable() || !cmd.HasParent() {
		fmt.Fprintf(to, "\n## %s\n\n", cmd.CommandPath())
		about := cmd.Long
		if about == "" {
			about = cmd.Short + "."
		}
		fmt.Fprintf(to, "%s\n", strings.TrimSpace(about))
	}
	if cmd.Runnable() {
		fmt.Fprintf(to, "\n    %s\n", cmd.UseLine())
		flagTable(to, cmd.Flags())
	}
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() && sub.Name() != "help" && sub.Name() != "completion" {
			reference(to, sub)
		}
	}
}

func flagTable(to *strings.Builder, flags *pflag.FlagSet) {
	header := "\n| flag | value | default | meaning |\n| --- | --- | --- | --- |\n"
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		name := "`--" + f.Name + "`"
		if f.Shorthand != "" {
			name = "`-" + f.Shorthand + "`, " + name
		}
		value, meaning := pflag.UnquoteUsage(f)
		byDefault := strings.Trim(f.DefValue, "[]")
		if byDefault != "" {
			byDefault = "`" + byDefault + "`"
		}
		fmt.Fprintf(to, "%s| %s | %s | %s | %s |\n", header, name, value, byDefault, strings.ReplaceAll(meaning, "|", `\|`))
		header = ""
	})
}
