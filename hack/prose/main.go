// Prose checks the pages that people read: line and cell length, turns that make readers stumble, and links to headings. It prints what it finds, and fails
// then. It judges no style beyond that: a page that passes may still be bad.
//
//	go run ./hack/prose FILE...
package main

import (
	"fmt"
	"os"
)

func main() {
	failed, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "prose:", err)
	}
	if failed || err != nil {
		os.Exit(1)
	}
}

// run checks files, which are named relative to the working directory, and prints the problems.
func run(files []string) (failed bool, err error) {
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return failed, fmt.Errorf("reading a page: %w", err)
		}
		p := parse(string(text))
		for _, problem := range append(p.problems(), brokenLinks(file, p, os.ReadFile)...) {
			fmt.Printf("%s:%d: %s\n", file, problem.line, problem.text)
			failed = true
		}
	}
	return failed, nil
}
