package bench

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/ringfence-io/ringfence/internal/kubectl"
	"github.com/ringfence-io/ringfence/test/kit"
)

// The cluster of the files: namespaces of ten pods and five policies each.
const (
	askedNamespaces = 1000
	podsOfEach      = 10
	policiesOfEach  = 5
	askedNodes      = 100
)

// BenchmarkQuestions measures how long people wait for an answer out of files, on one processor: from the command line to what is printed. The files are as
// kubectl prints what there is, and as people write it. To read YAML takes longer than to answer.
func BenchmarkQuestions(b *testing.B) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	t := tableOf(fmt.Sprintf("Answers from files: %d namespaces, %d pods on %d nodes, %d policies; one processor, seconds",
		askedNamespaces, askedNamespaces*podsOfEach, askedNodes, askedNamespaces*policiesOfEach), "question", "goal", "of JSON", "of YAML, which has no goal")
	asJSON, asYAML := writtenCluster(b, jsonOf), writtenCluster(b, func(_ *testing.B, text string) string { return text })
	for _, q := range []struct {
		name string
		args []string
		goal float64
	}{
		{"why one pod reaches another", []string{"why", "team-1/web-0", "team-2/db-5:80", "-f", "before"}, 1},
		{"map of one namespace", []string{"map", "-n", "team-7", "-o", "mermaid", "-f", "before"}, 2},
		{"diff of one policy", []string{"diff", "-f", "after", "--against", "before"}, 5},
	} {
		json, yaml := answerSeconds(b, asJSON, q.args), answerSeconds(b, asYAML, q.args)
		report(b, q.name, map[string]float64{"s": json, "s-of-YAML": yaml})
		t.add(q.name, fmt.Sprint(q.goal), fmt.Sprintf("%.2f: %s", json, verdict(json, q.goal)), fmt.Sprintf("%.2f", yaml))
	}
}

// answerSeconds is how long the answer takes to a question about a directory.
func answerSeconds(b *testing.B, dir string, args []string) float64 {
	b.Helper()
	b.Chdir(dir)
	start := time.Now()
	cmd := kubectl.NewCommand()
	cmd.SetArgs(args)
	cmd.SetOut(io.Discard)
	cmd.SetErr(io.Discard)
	if err := cmd.ExecuteContext(b.Context()); err != nil && err.Error() != "no" { // "no" is an answer
		b.Fatal(err)
	}
	return time.Since(start).Seconds()
}

// writtenCluster writes a cluster to files of the directory "before" in some form, and with one policy less, to "after".
func writtenCluster(b *testing.B, form func(b *testing.B, text string) string) string {
	b.Helper()
	dir := b.TempDir()
	for _, d := range []string{"before", "after"} {
		kit.Must(b, os.MkdirAll(filepath.Join(dir, d), 0o755))
		for i := range askedNamespaces {
			text := writtenNamespace(i)
			if i == 7 && d == "after" {
				text = text[:strings.LastIndex(text, "---\n")]
			}
			kit.Must(b, os.WriteFile(filepath.Join(dir, d, fmt.Sprintf("team-%d.yaml", i)), []byte(form(b, text)), 0o600))
		}
	}
	return dir
}

// jsonOf is a List of the documents of a text.
func jsonOf(b *testing.B, text string) string {
	b.Helper()
	var items []string
	for document := range strings.SplitSeq(text, "---\n") {
		item, err := yaml.YAMLToJSON([]byte(document))
		kit.Must(b, err)
		items = append(items, string(item))
	}
	return `{"apiVersion": "v1", "kind": "List", "items": [` + strings.Join(items, ",\n") + "]}"
}

func writtenNamespace(i int) string {
	var text strings.Builder
	ns := fmt.Sprintf("team-%d", i)
	fmt.Fprintf(&text, "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: %s\n  labels: {team: \"%d\"}\n", ns, i%10)
	for p := range podsOfEach {
		app := []string{"web", "db"}[p/5]
		fmt.Fprintf(&text, `---
apiVersion: v1
kind: Pod
metadata:
  name: %s-%d
  namespace: %s
  labels:
    app: %s
    tier: any
spec:
  nodeName: node-%d
  containers:
  - name: main
    image: example.com/%s:1
    ports:
    - name: http
      containerPort: 80
status:
  phase: Running
  podIP: 10.%d.%d.%d
  podIPs:
  - ip: 10.%d.%d.%d
`, app, p, ns, app, (i*podsOfEach+p)%askedNodes, app, 64+i/250, i%250, p+1, 64+i/250, i%250, p+1)
	}
	for n := range policiesOfEach {
		fmt.Fprintf(&text, `---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: policy-%d
  namespace: %s
spec:
  podSelector:
    matchLabels:
      app: %s
  policyTypes: [Ingress, Egress]
  ingress:
  - from:
    - namespaceSelector:
        matchLabels:
          team: "%d"
      podSelector:
        matchLabels:
          app: web
    ports:
    - port: %d
  egress:
  - to:
    - namespaceSelector: {}
    ports:
    - port: http
    - port: 53
      protocol: UDP
`, n, ns, []string{"web", "db"}[n%2], (i+n)%10, 80+n)
	}
	return text.String()
}
