package kubectl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// Name is that of the program, by which kubectl finds it.
const Name = "kubectl-ringfence"

// IsName reports whether a program is called by that name, in whatever directory it is.
func IsName(program string) bool { return strings.TrimSuffix(filepath.Base(program), ".exe") == Name }

// The exit status, as of 'kubectl auth can-i' and 'kubectl diff': what was asked can be seen by it.
const (
	exitYes     = 0 // allowed; nothing is found
	exitNo      = 1 // denied; something is found
	exitTrouble = 2 // there is no answer
)

// errNo has the program end with exitNo. The answer is printed already.
var errNo = errors.New("no")

// Run runs the command line without the program's name, and returns the exit status.
func Run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := NewCommand()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil:
		return exitYes
	case errors.Is(err, errNo):
		return exitNo
	}
	fmt.Fprintln(os.Stderr, "ringfence:", err)
	return exitTrouble
}

// NewCommand is the command line.
func NewCommand() *cobra.Command { return newCommand(&options{}) }

func newCommand(o *options) *cobra.Command {
	root := &cobra.Command{
		Use:   Name,
		Short: "Ask who can reach whom in a cluster, and why",
		Long: `Ask who can reach whom in a cluster, and why.

Answers come from the model that the enforcers on the nodes use. They are about the cluster that your
kubeconfig names, and made of what you may read there; or with -f, about the objects of files.`,
		Annotations:   map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl ringfence"},
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	o.addTo(root.PersistentFlags())
	root.AddCommand(newWhyCommand(o), newWhoCanCommand(o), newDiffCommand(o), newMapCommand(o), newTestCommand(o), newLintCommand(o),
		newDeniedCommand(o), newAuditCommand(o), newRecommendCommand(o), newStatusCommand(o))
	return root
}
