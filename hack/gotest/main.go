// Command gotest runs `go test` with the arguments that it is given and prints what a person wants to see of it: a line for every
// package and top-level test, what top-level tests log, and all that a failed test has printed.
//
//	gotest [-race] [-p 1] ... PACKAGE...
//
// A skipped test fails the run where it could have been run: as root, or with CI=true. A suite that leaves out what the machine
// happens to lack would be green for the wrong reason.
package main

import (
	"fmt"
	"os"
	"os/exec"
)

func main() {
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = os.Stderr
	events, err := cmd.StdoutPipe()
	if err != nil {
		return fail(err)
	}
	if err := cmd.Start(); err != nil {
		return fail(err)
	}
	total, readErr := printEvents(os.Stdout, events)
	if err := cmd.Wait(); err != nil || readErr != nil {
		fmt.Printf("FAILED: %s\n", total)
		if readErr != nil {
			return fail(readErr)
		}
		return 1
	}
	fmt.Println(total)
	if total.skipped > 0 && (os.Geteuid() == 0 || os.Getenv("CI") == "true") {
		return fail(fmt.Errorf("%d tests were skipped, and nothing may be skipped here", total.skipped))
	}
	return 0
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, "gotest:", err)
	return 1
}
