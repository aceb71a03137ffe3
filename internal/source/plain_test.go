package source

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

// plainDocuments are read without the full parser.
var plainDocuments = []string{
	"a: b",
	"apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  labels: {team: \"7\", app: web}\n  creationTimestamp: null\nstatus: {}\n",
	"spec:\n  policyTypes: [Ingress, Egress]\n  ingress:\n  - from:\n    - ipBlock:\n        cidr: 10.0.0.0/8\n        except:\n        - 10.1.0.0/16\n" +
		"    ports:\n    - port: 80\n      protocol: TCP\n    - port: http\n  egress: []\n",
	"items:\n  - a: 1\n\n    b:\n    # a comment\n    - 'it: is # text'\n    c:\n  -   d: true\n      e: false\n  - /bin/sh\n",
	"metadata:\n  annotations:\n    last: |\n      {\"a\":\"\\n\"}\n    text: |-\n      one\n\n        two\n\n\n  name: 5d4f\n  uid: 1-2x\n",
	"containers: [{name: c, ports: [{name: http, containerPort: 80}]}]\nimage: example.com/web:1@sha256:0\nhost: 0.0.0.0/0\ncount: 0\nnone: [ ]\n",
	"a: b # one\nc: 'd # e'  # two: three\nf: [g] #\nh: # four\n- i #j\nk: l#m\nn1: |-\n  # o\n  p # q\nr: {s: \"#t\"} # u\n",
	"a: J\u00fcrgen\nb: '\u4e2d\u6587'\nc: \u00dcber [alles]\nd: [\u00e9, \"\U0001f600\"]\ne: |\n  \u00e9\n# \u00e9\nf: g\n",
	"resources:\n  cpu: 100m\n  memory: 1Gi\n  url: http://a/b?c=d#e, or so [maybe] {not}\n",
}

// otherDocuments are left to the full parser: they have what plain ones have not, or a mistake.
var otherDocuments = []string{
	"", "a", "- a", "a: b\n c: d", "a: b\n  and more", "a: b: c", "a: &x b", "a: *x", "a: !!str 1", "a: 010", "a: 1e3", "a: 0x10", "a: 1_000", "a: 1.5",
	"a: -1", "a: .5", "a: ~", "a: Yes", "on: b", "a: 1\na: 2", "a: 1\nA: 2", "a: \"b\\n\"", "a: 'it''s'", "a: [b", "a: [b,]", "a: [b: c]", "a: {b}",
	"a: >\n  b\nc: d", "a: |\n  b", "a: |+\n  b\nc: d", "a: |\n\n  b\nc: d", "a:\tb", "a: b\u00a0c", "a: \x00", "a: b\x80", "\u00e9: b", "a: b\u2028c: d",
	"a: b\u0085c: d", "a: \ufeffb", "---\na: b", "a:\n  - - b", "a:\n- b\n c", "a: {b: 1, b: 2}", "a:\n    b: 1\n  c: 2", "? a", "a: |\n    b\n  c\nd: e",
	"a: 'b", "a: \"b\" c", "a: \"b\"#c", "a: [b]#c", "a: b #c\n  d", "a:\n- #c\n  b", "a: b:", "a: {b: {c: 1}", "a: -", "a:b", "<<: {a: b}", "a: 1:30",
	"a: [http://b]", "a: 12345678901234567890",
}

func TestPlainDocumentsAreReadAsByTheFullParser(t *testing.T) {
	for _, document := range plainDocuments {
		if !isReadAlike(t, document) {
			t.Errorf("this is not taken for plain:\n%s", document)
		}
	}
	for _, document := range otherDocuments {
		if isReadAlike(t, document) {
			t.Errorf("this is taken for plain:\n%s", document)
		}
	}
}

// FuzzPlainYAML: what is taken for plain is to the full parser what it is here.
func FuzzPlainYAML(f *testing.F) {
	for _, document := range append(plainDocuments, otherDocuments...) {
		f.Add(document)
	}
	f.Fuzz(func(t *testing.T, document string) { isReadAlike(t, document) })
}

// isReadAlike reports whether a document is plain. If it is, the full parser has to say the same of it.
func isReadAlike(t *testing.T, document string) bool {
	t.Helper()
	trimmed := bytes.TrimSpace([]byte(document))
	got, ok := plainYAML(trimmed)
	if !ok {
		return false
	}
	want, err := yaml.YAMLToJSON(trimmed)
	if err != nil {
		t.Fatalf("it is plain, and no YAML: %v\n%s", err, document)
	}
	if diff := cmp.Diff(decoded(t, want), decoded(t, got)); diff != "" {
		t.Fatalf("read otherwise than by the full parser (-full +plain):\n%s\n%s", diff, document)
	}
	return true
}

func decoded(t *testing.T, text []byte) any {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var value any
	if err := d.Decode(&value); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	if d.More() {
		t.Fatalf("there is more than one value in %s", text)
	}
	return value
}
