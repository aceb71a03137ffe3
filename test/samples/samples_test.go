// Package samples holds that each sample of config/samples says at its top what it is for, and that scenarios hold what it promises: the theme samples of
// test/scenario.
package samples

import (
	"io/fs"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/ringfence-io/ringfence/config"
	"github.com/ringfence-io/ringfence/test/scenario"
)

// judged are the samples that scenarios apply.
func judged() []string {
	var files []string
	for _, theme := range scenario.Themes() {
		for _, s := range theme.Scenarios {
			files = append(files, strings.Fields(s.Samples)...)
		}
	}
	return files
}

func TestEverySampleIsJudged(t *testing.T) {
	judged := judged()
	for _, dir := range []string{"namespace", "cluster"} {
		files, err := fs.Glob(config.Samples, path.Join("samples", dir, "*.yaml"))
		if err != nil || len(files) == 0 {
			t.Fatalf("config/samples/%s has no samples (%v)", dir, err)
		}
		for _, file := range files {
			if !slices.Contains(judged, strings.TrimPrefix(file, "samples/")) {
				t.Errorf("config/%s is in no scenario", file)
			}
		}
	}
}

// A person who opens a sample reads at its top whom it is for, what it does, what to change, and what it does not do.
func TestEverySampleSaysWhatItIsFor(t *testing.T) {
	for _, file := range judged() {
		text, err := config.Samples.ReadFile(path.Join("samples", file))
		if err != nil {
			t.Fatal(err)
		}
		at := 0
		for _, word := range []string{"# For whom:  ", "\n# Does:      ", "\n# Change:    ", "\n# Does not:  ", "\napiVersion: "} {
			next := strings.Index(string(text), word)
			if next < at {
				t.Errorf("%s does not say %q where it belongs", file, strings.Trim(word, "\n# "))
			}
			at = next
		}
	}
}
