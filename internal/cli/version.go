package cli

import (
	"cmp"
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set with -ldflags by all builds of an image, commit by those that have no repository: Go takes it from there.
var version, commit = "development", ""

// layout names chains and sets otherwise than this version does, in a program that is built to test that versions take over from each other:
//
//	go build -ldflags "-X github.com/ringfence-io/ringfence/internal/cli.layout=2"
//
// It is empty in all others. It is read where it is used: an initialiser of another variable might be computed by the compiler, before the linker sets this one.
var layout string

// fanOutOfTests is that of a program with another layout: what it takes over differs in more than its names.
const fanOutOfTests = 5

// build says which source and toolchain made this binary.
type build struct {
	Version string `json:"version"`
	Commit  string `json:"commit"`
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
}

func thisBuild() build {
	b := build{Version: version, Commit: cmp.Or(commit, "unknown"), Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
	if made, ok := debug.ReadBuildInfo(); ok {
		for _, s := range made.Settings {
			if s.Key == "vcs.revision" {
				b.Commit = s.Value
			}
		}
	}
	return b
}

func newVersionCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b := thisBuild()
			switch output {
			case "json":
				return json.NewEncoder(cmd.OutOrStdout()).Encode(b)
			case "text":
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "ringfence %s (commit %s, %s, %s/%s)\n", b.Version, b.Commit, b.Go, b.OS, b.Arch)
				return err
			}
			return fmt.Errorf("--output %q is not known: text or json", output)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	return cmd
}
