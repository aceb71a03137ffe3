// Ringfence enforces Kubernetes NetworkPolicy on clusters whose CNI does not.
package main

import (
	"os"

	"github.com/ringfence-io/ringfence/internal/cli"
)

func main() {
	os.Exit(cli.Run(os.Args))
}
