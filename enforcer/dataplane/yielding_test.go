package dataplane

import (
	"testing"
)

// A program that has time gives way to all others, and no other does.
func TestProgramsThatHaveTimeGiveWay(t *testing.T) {
	shell := program{name: "sh", path: "/bin/sh"}
	// It is asked once it runs, so that the program looks until it has been.
	const gaveWay = `i=0; while [ $i -lt 5000 ]; do [ "$(nice)" = 19 ] && { echo yes; exit; }; i=$((i+1)); done; nice`
	out, err := shell.run(new(Dataplane).Yielding(t.Context()), "", "-c", gaveWay)
	if err != nil || string(out) != "yes\n" {
		t.Errorf("%q, %v", out, err)
	}
	own, err := shell.run(t.Context(), "", "-c", "nice")
	if err != nil || string(own) == "19\n" {
		t.Errorf("a program that others wait for has the priority %q, %v", own, err)
	}
}
