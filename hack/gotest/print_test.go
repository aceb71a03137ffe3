package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPrint(t *testing.T) {
	for _, tt := range []struct {
		name   string
		events string
		want   string
		total  totals
	}{{
		name: "a test that passes: its result and what it logs, but not what its subtests log",
		events: `
{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:7: seed 42\n"}
{"Action":"output","Package":"p","Test":"TestA","Output":"a line of the code under test\n"}
{"Action":"output","Package":"p","Test":"TestA/row","Output":"    a_test.go:9: detail\n"}
{"Action":"output","Package":"p","Test":"TestA","Output":"--- PASS: TestA (0.10s)\n"}
{"Action":"output","Package":"p","Test":"TestA/row","Output":"--- PASS: TestA/row (0.00s)\n"}
{"Action":"pass","Package":"p","Test":"TestA/row"}
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Output":"PASS\n"}
{"Action":"output","Package":"p","Output":"ok  \tp\t0.1s\n"}
{"Action":"pass","Package":"p"}`,
		want:  "    a_test.go:7: seed 42\n--- PASS: TestA (0.10s)\nok  \tp\t0.1s\n",
		total: totals{passed: 2},
	}, {
		name: "a test that fails: all that it and its failed subtests have printed",
		events: `
{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"output","Package":"p","Test":"TestA","Output":"a line of the code under test\n"}
{"Action":"output","Package":"p","Test":"TestA/good","Output":"    a_test.go:9: fine\n"}
{"Action":"pass","Package":"p","Test":"TestA/good"}
{"Action":"output","Package":"p","Test":"TestA/row","Output":"    a_test.go:9: got 1, want 2\n"}
{"Action":"output","Package":"p","Test":"TestA","Output":"--- FAIL: TestA (0.10s)\n"}
{"Action":"fail","Package":"p","Test":"TestA/row"}
{"Action":"fail","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Output":"FAIL\tp\t0.1s\n"}
{"Action":"fail","Package":"p"}`,
		want: "a line of the code under test\n    a_test.go:9: got 1, want 2\n--- FAIL: TestA (0.10s)\n" +
			"FAIL\tp\t0.1s\n",
		total: totals{passed: 1, failed: 2},
	}, {
		name: "a skipped subtest is counted and shown although its test passes",
		events: `
{"Action":"output","Package":"p","Test":"TestA/row","Output":"        a_test.go:9: LEFT OUT: needs root\n"}
{"Action":"skip","Package":"p","Test":"TestA/row"}
{"Action":"pass","Package":"p","Test":"TestA"}`,
		want:  "        a_test.go:9: LEFT OUT: needs root\n",
		total: totals{passed: 1, skipped: 1},
	}, {
		name: "a package without tests is neither shown nor counted",
		events: `
{"Action":"output","Package":"p","Output":"?   \tp\t[no test files]\n"}
{"Action":"skip","Package":"p"}`,
		want: "",
	}, {
		name: "a package that does not build, and what is no event",
		events: `
go: warning
{"ImportPath":"p","Action":"build-output","Output":"p/a.go:1: undefined: x\n"}
{"Action":"output","Package":"p","Output":"FAIL\tp [build failed]\n"}
{"Action":"fail","Package":"p"}`,
		want: "go: warning\np/a.go:1: undefined: x\nFAIL\tp [build failed]\n",
	}, {
		name: "a process that dies with its test unfinished",
		events: `
{"Action":"output","Package":"p","Test":"TestA","Output":"panic: boom\n"}
{"Action":"fail","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Output":"FAIL\tp\t0.1s\n"}
{"Action":"fail","Package":"p"}`,
		want:  "panic: boom\nFAIL\tp\t0.1s\n",
		total: totals{failed: 1},
	}} {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			total, err := printEvents(&out, strings.NewReader(strings.TrimPrefix(tt.events, "\n")))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, out.String()); diff != "" {
				t.Errorf("printed (-want +got):\n%s", diff)
			}
			if total != tt.total {
				t.Errorf("counted %+v, want %+v", total, tt.total)
			}
		})
	}
}
