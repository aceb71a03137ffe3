package ladder

import (
	"testing"

	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/lab/oracle"
	"github.com/ringfence-io/ringfence/test/gen"
)

// One native fuzz target per seam. The seeds of every difference that was found are in testdata/fuzz, and run with every
// `go test`; `go test ./test/ladder -fuzz FuzzOracleAllows` looks for more.

// flowsPerInput is how many flows a fuzzed cluster is asked about.
const flowsPerInput = 24

// caseOf is the case that a fuzzer's bytes stand for.
func caseOf(data []byte) (gen.Case, []oracle.Flow) {
	s := gen.Bytes(data)
	c := gen.New(s, gen.Options{Invalid: true})
	return c, gen.Flows(s, c, flowsPerInput)
}

// FuzzOracleAllows: API objects judged by their texts, against Node.Allows on what compile makes of them.
func FuzzOracleAllows(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		c, flows := caseOf(data)
		for _, node := range c.Nodes {
			n := nodeOf(c.Cluster, node.Name)
			for _, flow := range flows {
				want, because := c.Cluster.AllowedAt(node.Name, flow)
				if got := n.Allows(PolicyFlow(flow, node.Name)); got.Allowed != want {
					t.Fatalf("oracle %v (%s), Allows %v (%s)\n%v", want, because, got.Allowed, got.Reason, explain(c, flow))
				}
			}
		}
	})
}

// FuzzAllowsTrace: Node.Allows, against a packet's way through the ruleset that is rendered from the same node.
func FuzzAllowsTrace(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		c, flows := caseOf(data)
		for _, node := range c.Nodes {
			j, err := NewJudges(c.Cluster, node)
			if err != nil {
				t.Fatal(err)
			}
			for _, flow := range flows {
				if o := j.Judge(flow); o.TraceError != nil || o.Allows != o.Trace {
					t.Fatalf("%s\n%v", o, explain(c, flow))
				}
			}
		}
	})
}

// FuzzHistory: whatever happens to a cluster, what a compiler makes that has seen it is what a new one makes.
func FuzzHistory(f *testing.F) {
	f.Add([]byte("a cluster of some pods"), []byte("\x00\x10\x20\x30\x40\x50\x60\x70\x80\x90\xa0\xb0\xc0\xd0\xe0\xf0"))
	f.Fuzz(func(t *testing.T, cluster, events []byte) {
		if _, err := walk(HistoryOf(cluster, events), func() *compile.Compiler { return new(compile.Compiler) }, 200); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzDiffApply: the plan from one ruleset to another, applied to a kernel that holds the first, leaves the second.
func FuzzDiffApply(f *testing.F) {
	f.Fuzz(func(t *testing.T, before, after []byte) {
		a, _ := caseOf(before)
		b, _ := caseOf(after)
		if err := checkDiff(Rendered(a.Cluster, "node1"), Rendered(b.Cluster, "node1")); err != nil {
			t.Fatal(err)
		}
	})
}
