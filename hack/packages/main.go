// Packages writes what others install from: the bundle of the Operator Lifecycle Manager (OLM), and the Helm chart. Both are made of what
// kustomize makes of config, and of nothing else: an object that is added there is in both, or this fails and says why it cannot be.
//
// usage: go run . bundle|chart [DIR]
//
// It writes to the tree that it lies in, or to the same places below DIR, and reads the tree in either case.
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// root is the tree, seen from this module.
const root = "../.."

// files are texts by their paths in the tree.
type files map[string]string

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	to := root
	if len(args) == 2 {
		to = args[1]
	}
	makes := map[string]struct {
		places []string // what is written, and nothing else is there
		make   func() (files, error)
	}{
		"bundle": {[]string{"bundle", "bundle.Dockerfile", "config/olm"}, bundle},
		"chart":  {[]string{"charts/ringfence"}, chart},
	}
	if len(args) == 0 || len(args) > 2 || makes[args[0]].make == nil {
		return errors.New("usage: go run . bundle|chart [DIR]")
	}
	what := makes[args[0]]
	made, err := what.make()
	if err != nil {
		return fmt.Errorf("making the %s: %w", args[0], err)
	}
	for _, place := range what.places {
		if err := os.RemoveAll(filepath.Join(to, place)); err != nil {
			return fmt.Errorf("removing the %s before this one: %w", args[0], err)
		}
	}
	return made.write(to)
}

func (f files) write(to string) error {
	for _, path := range slices.Sorted(maps.Keys(f)) {
		file := filepath.Join(to, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(f[path]), fs.FileMode(0o644))); err != nil {
			return fmt.Errorf("writing %s: %w", path, err)
		}
	}
	return nil
}
