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

// BenchmarkQuestions measures how long people wait for an answer out of files, on one processor: from the command line to what is printed.
func BenchmarkQuestions(b *testing.B) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	dir, changed, full := writtenCluster(b)
	t := tableOf(fmt.Sprintf("Answers from files: %d namespaces, %d pods on %d nodes, %d policies; one processor, seconds",
		askedNamespaces, askedNamespaces*podsOfEach, askedNodes, askedNamespaces*policiesOfEach), "question", "seconds", "goal")
	for _, q := range []struct {
		name string
		args []string
		goal float64 // none if 0
	}{
		{"why one pod reaches another", []string{"why", "team-1/web-0", "team-2/db-5:80", "-f", dir}, 1},
		{"the same, of files that need the full parser of YAML", []string{"why", "team-1/web-0", "team-2/db-5:80", "-f", full}, 0},
		{"map of one namespace", []string{"map", "-n", "team-7", "-o", "mermaid", "-f", dir}, 2},
		{"diff of one policy", []string{"diff", "-f", changed, "--against", dir}, 5},
	} {
		start := time.Now()
		cmd := kubectl.NewCommand()
		cmd.SetArgs(q.args)
		cmd.SetOut(io.Discard)
		cmd.SetErr(io.Discard)
		if err := cmd.ExecuteContext(b.Context()); err != nil && err.Error() != "no" { // "no" is an answer
			b.Fatal(err)
		}
		seconds := time.Since(start).Seconds()
		report(b, q.name, map[string]float64{"s": seconds})
		goal := "none"
		if q.goal > 0 {
			goal = fmt.Sprintf("%.0f: %s", q.goal, verdict(seconds, q.goal))
		}
		t.add(q.name, fmt.Sprintf("%.2f", seconds), goal)
	}
}

// writtenCluster writes a cluster to files; once more with one policy less; and once more so that only the full parser of YAML reads it.
func writtenCluster(b *testing.B) (dir, changed, full string) {
	b.Helper()
	dir, changed, full = filepath.Join(b.TempDir(), "before"), filepath.Join(b.TempDir(), "after"), filepath.Join(b.TempDir(), "full")
	for _, d := range []string{dir, changed, full} {
		kit.Must(b, os.MkdirAll(d, 0o755))
	}
	for i := range askedNamespaces {
		text := writtenNamespace(i)
		name := fmt.Sprintf("team-%d.yaml", i)
		kit.Must(b, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
		escaped := strings.ReplaceAll(text, "metadata:\n", "metadata:\n  annotations: {note: \"a\\tb\"}\n")
		kit.Must(b, os.WriteFile(filepath.Join(full, name), []byte(escaped), 0o600))
		if i == 7 {
			text = text[:strings.LastIndex(text, "---\n")]
		}
		kit.Must(b, os.WriteFile(filepath.Join(changed, name), []byte(text), 0o600))
	}
	return dir, changed, full
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
