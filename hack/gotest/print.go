package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strings"
)

// event is one line of `go test -json`, as `go doc test2json` describes it.
type event struct {
	Action  string
	Package string
	Test    string
	Output  string
}

// top is the name of the top-level test that the event belongs to.
func (e event) top() string {
	name, _, _ := strings.Cut(e.Test, "/")
	return name
}

// totals count tests, subtests included.
type totals struct {
	passed, failed, skipped int
}

func (t totals) String() string {
	return fmt.Sprintf("%d tests passed, %d failed, %d skipped", t.passed, t.failed, t.skipped)
}

// test names a test, or a package where name is empty.
type test struct{ pkg, name string }

// printed is one line, and the test or subtest that printed it.
type printed struct{ by, text string }

// printer holds what tests that still run have printed, until it is known whether it is to be shown.
type printer struct {
	to     io.Writer
	total  totals
	held   map[test][]printed // by top-level test
	passed map[test]bool
}

// printEvents reads events and prints what is worth a person's time.
func printEvents(to io.Writer, events io.Reader) (totals, error) {
	p := &printer{to: to, held: map[test][]printed{}, passed: map[test]bool{}}
	lines := bufio.NewReader(events)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			p.line(line)
		}
		if err == io.EOF {
			return p.total, nil
		}
		if err != nil {
			return p.total, fmt.Errorf("reading the output of go test: %w", err)
		}
	}
}

func (p *printer) line(line []byte) {
	var e event
	if json.Unmarshal(line, &e) != nil {
		fmt.Fprintf(p.to, "%s", line) // what go itself says before it runs a test
		return
	}
	top := test{e.Package, e.top()}
	switch e.Action {
	case "build-output":
		fmt.Fprint(p.to, e.Output)
	case "output":
		p.held[top] = append(p.held[top], printed{e.Test, e.Output})
	case "pass", "fail", "skip":
		p.count(e)
		if e.Test == top.name {
			p.end(top)
		}
	}
}

func (p *printer) count(e event) {
	switch {
	case e.Test == "": // a package; go test calls one without tests skipped
		p.passed[test{e.Package, ""}] = e.Action != "fail"
	case e.Action == "pass":
		p.passed[test{e.Package, e.Test}] = true
		p.total.passed++
	case e.Action == "fail":
		p.total.failed++
	case e.Action == "skip":
		p.total.skipped++
	}
}

var (
	// worthwhile are the lines of a test in which all is well: its result, and what it logs itself.
	worthwhile = regexp.MustCompile(`^(--- PASS: |    \w+_test\.go:\d+: )`)
	// verdict is the line about a package. One without tests says nothing.
	verdict = regexp.MustCompile(`^(ok  |FAIL)\t`)
	// ceremony is what every test prints.
	ceremony = regexp.MustCompile(`^=== (RUN|PAUSE|CONT|NAME) `)
)

// end prints what a top-level test or a package has printed, now that its result is known: of what passed only the essence, and all
// of what failed, was skipped, or never came to its end.
func (p *printer) end(top test) {
	essence := worthwhile
	if top.name == "" {
		essence = verdict
	}
	for _, line := range p.held[top] {
		own := line.by == top.name
		if own && essence.MatchString(line.text) || !p.passed[test{top.pkg, line.by}] && !ceremony.MatchString(line.text) {
			fmt.Fprint(p.to, line.text)
		}
	}
	delete(p.held, top)
}
