package cli

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"github.com/ringfence-io/ringfence/internal/encode"
)

// version is set with -ldflags by all builds of an image, commit by those that have no repository: Go takes it from there.
var version, commit = "development", ""

// layout names chains and sets otherwise than this version does, in a program that is built to test that versions take over from each other:
//
//	go build -ldflags "-X github.com/ringfence-io/ringfence/internal/cli.layout=2"
//
// It is empty in all others. It is read where it is used: an initialiser of another variable might be computed by the compiler before the linker sets this.
var layout string

// fanOutOfTests is that of a program with another layout: what it takes over differs in more than its names.
const fanOutOfTests = 5

// kept is how long pods are heard of after policies have stopped to name them, in a program that is built for a test which cannot wait that long, as in
//
//	go build -ldflags "-X github.com/ringfence-io/ringfence/internal/cli.kept=1s"
//
// It is empty in all others, as layout is.
var kept string

// keptInTests is what kept says, 0 if it says nothing.
func keptInTests() (time.Duration, error) {
	if kept == "" {
		return 0, nil
	}
	return time.ParseDuration(kept)
}

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

// String is what people read.
func (b build) String() string {
	return fmt.Sprintf("ringfence %s (commit %s, %s, %s/%s)", b.Version, b.Commit, b.Go, b.OS, b.Arch)
}

func newVersionCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			b := thisBuild()
			if printed, err := encode.Value(cmd.OutOrStdout(), output, b); printed {
				return err
			}
			_, err := fmt.Fprintln(cmd.OutOrStdout(), b)
			return err
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "text", outputUsage)
	return cmd
}

// BuildInfo is the metric that says which build a process runs. Its value is always 1.
func BuildInfo() prometheus.Collector {
	b := thisBuild()
	info := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "ringfence_build_info",
		Help: "Always 1; the labels are the version of this process, the commit it was built from and the version of Go.",
	}, []string{"version", "revision", "goversion"})
	info.WithLabelValues(b.Version, b.Commit, b.Go).Set(1)
	return info
}
