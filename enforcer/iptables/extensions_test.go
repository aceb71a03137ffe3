package iptables

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// used are the matches and targets that a rule's text names. A verb of fmt stands for names that the text does not say.
var used = regexp.MustCompile(`(?:^|[\s"` + "`" + `])-([mj]) ([A-Za-z0-9%][A-Za-z0-9_]*)`)

// verdicts are the targets that every table has.
var verdicts = []string{"RETURN", "DROP"}

// unknownExtensions are what a text names and the table of extensions does not have. Chains of ours begin with [Prefix].
func unknownExtensions(text string) []string {
	var unknown []string
	for _, m := range used.FindAllStringSubmatch(text, -1) {
		isTarget, name := m[1] == "j", m[2]
		if isTarget && (slices.Contains(verdicts, name) || name == "RF") {
			continue
		}
		if !slices.ContainsFunc(Extensions, func(e Extension) bool { return e.Name == name && e.Target == isTarget }) {
			unknown = append(unknown, "-"+m[1]+" "+name)
		}
	}
	return unknown
}

// literals are the texts that stand in this package's source, but for its tests and the table itself.
func literals(t *testing.T) map[string]string {
	t.Helper()
	files := token.NewFileSet()
	all := map[string]string{}
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") || name == "extensions.go" {
			continue
		}
		file, err := parser.ParseFile(files, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
				if text, err := strconv.Unquote(l.Value); err == nil {
					all[files.Position(l.Pos()).String()] = text
				}
			}
			return true
		})
	}
	return all
}

// Whatever a rule is made of stands in the table, so that a node is asked for it first. The only name that the source leaves open is the protocol's, of TCP and
// UDP: the test of what is rendered holds those.
func TestTheSourceNamesNoMatchThatIsNotInTheTable(t *testing.T) {
	found := 0
	for at, text := range literals(t) {
		found += len(used.FindAllString(text, -1))
		for _, name := range unknownExtensions(text) {
			if name != "-m %s" || !strings.HasPrefix(text, "-p %s -m %s --dport") {
				t.Errorf("%s: %s is not among the extensions that a node is asked for: %s", at, name, text)
			}
		}
	}
	if found < 10 {
		t.Errorf("only %d matches and targets were found in the source", found)
	}
}

func TestTheTableOfExtensionsIsWhole(t *testing.T) {
	for _, e := range Extensions {
		if e.Name == "" || e.Module == "" || e.Cost == "" || len(e.Families) == 0 {
			t.Errorf("%+v says too little", e)
		}
		for _, f := range e.Families {
			text := e.Probe(f, "RF-SET")
			option := map[bool]string{true: "-j ", false: "-m "}[e.Target] + e.Name
			if !strings.Contains(text+" ", option+" ") || len(unknownExtensions(text)) > 0 {
				t.Errorf("%s is probed by %q", e.Name, text)
			}
		}
	}
	for text, want := range map[string]int{
		"-p tcp -m tcp --dport 80 -m nosuch -j RETURN": 1, "-p sctp -m sctp --dport 80 -j NOSUCH": 2, "-j RF-v1-DENY": 0,
		`-m comment --comment "x" -j TPROXY`: 1, "-m hl --hl-eq 255 -j DROP": 0,
	} {
		if got := unknownExtensions(text); len(got) != want {
			t.Errorf("%q: %v are unknown, want %d", text, got, want)
		}
	}
}
