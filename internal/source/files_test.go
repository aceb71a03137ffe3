package source

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var ranges = []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00::/64")}

// readAll reads files of some names and contents.
func readAll(t *testing.T, files map[string]string) (Gathered, error) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return Files([]string{dir}, strings.NewReader(""), ranges)
}

func TestFiles(t *testing.T) {
	g, err := readAll(t, map[string]string{
		"a.yaml": `
# nothing but a comment
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, ports: [{name: http, containerPort: 80}]}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: any}
data: {key: "kind: Pod"}
---
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Pod, metadata: {name: one}, status: {podIP: 10.244.9.9, podIPs: [{ip: 10.244.9.9}]}}
- {apiVersion: batch/v1, kind: CronJob, metadata: {name: nightly}, spec: {jobTemplate: {spec: {template: {metadata: {labels: {app: nightly}}}}}}}
`,
		"below/b.json": `{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "p"}, "spec": {"podSelector": {}}}`,
		"below/e.json": `{"kind": "PodList", "apiVersion": "v1", "items": [{"metadata": {"name": "listed", "namespace": "shop"}}]}`,
		"below/f.yaml": "{apiVersion: policy.ringfence.io/v1alpha1, kind: ConnectionReport, metadata: {name: connections}, status: {rest: {connections: 7}}}",
		"below/c.txt":  "kind: [",
		"d.yml": `
apiVersion: policy.networking.k8s.io/v1beta1
kind: ClusterNetworkPolicy
metadata: {name: sig}
spec: {tier: Admin, priority: 3, subject: {namespaces: {}}}
`,
	})
	if err != nil || len(g.Missing) > 0 {
		t.Fatalf("%v, missing are %q", err, g.Missing)
	}
	var pods []string
	for _, p := range g.Pods {
		pods = append(pods, p.Namespace+"/"+p.Name)
		for i, ip := range p.Status.PodIPs {
			a, err := netip.ParseAddr(ip.IP)
			if g.Invented[a] != (p.Name != "one") {
				t.Errorf("%s of %s is invented: %t", a, p.Name, g.Invented[a])
			}
			if err != nil || !ranges[i].Contains(a) {
				t.Errorf("%s has the address %s, want one of %s", p.Name, ip.IP, ranges[i])
			}
		}
	}
	if diff := cmp.Diff([]string{"shop/web", "default/one", "default/nightly", "shop/listed"}, pods); diff != "" {
		t.Errorf("pods (-want +got):\n%s", diff)
	}
	if got := g.Pods[1].Status.PodIPs; len(got) != 1 || got[0].IP != "10.244.9.9" {
		t.Errorf("a pod with an address has %v", got)
	}
	if len(g.Reports) != 1 || g.Reports[0].Namespace != "default" || g.Reports[0].Status.Rest.Connections != 7 {
		t.Errorf("reports are %+v", g.Reports)
	}
	if len(g.Policies) != 1 || g.Policies[0].Namespace != "default" || len(g.ClusterPolicies) != 1 ||
		g.ClusterPolicies[0].APIVersion != "policy.networking.k8s.io/v1beta1" || g.ClusterPolicies[0].Spec.Priority != 3 {
		t.Errorf("policies are %+v and %+v", g.Policies, g.ClusterPolicies)
	}
}

// What cannot be read is said with its file, its place and its name, and the rest is there.
func TestFilesThatCannotBeRead(t *testing.T) {
	g, err := readAll(t, map[string]string{"a.yaml": `
apiVersion: v1
kind: Pod
metadata: {name: good}
---
kind: [
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: bad, namespace: shop}
spec: {podSelector: 7}
---
metadata: {name: what}
---
apiVersion: v1
kind: List
items: [{metadata: {name: any}}]
`})
	if err != nil || len(g.Pods) != 1 {
		t.Fatalf("%v, pods are %v", err, g.Pods)
	}
	for i, want := range []string{
		"document 2: it is no YAML", "document 3: NetworkPolicy shop/bad: ", "document 4: it is no object: kind or apiVersion is missing",
		"document 5: it is no object: kind or apiVersion is missing",
	} {
		if i >= len(g.Missing) || !strings.Contains(g.Missing[i], "a.yaml, "+want) {
			t.Errorf("missing are %q, want one that has %q", g.Missing, want)
		}
	}
	if _, err := Files([]string{"/nowhere"}, nil, ranges); err == nil {
		t.Error("a file that is not there is no error")
	}
	small := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/31")}
	if _, err := Files([]string{"-"}, strings.NewReader("{apiVersion: v1, kind: Pod, metadata: {name: a}}"), small); err == nil || !strings.Contains(err.Error(), "--pod-cidr") {
		t.Errorf("a range that is too small: %v", err)
	}
}

// Pods that come do not move others to other addresses: a comparison of two states is not to find all pods changed.
func TestAddressesDependOnNames(t *testing.T) {
	pods := func(names ...string) map[string]string {
		text := ""
		for _, name := range names {
			text += "---\n{apiVersion: v1, kind: Pod, metadata: {name: " + name + "}}\n"
		}
		g, err := Files([]string{"-"}, strings.NewReader(text), ranges)
		if err != nil {
			t.Fatal(err)
		}
		addrs := map[string]string{}
		for _, p := range g.Pods {
			addrs[p.Name] = p.Status.PodIP
		}
		return addrs
	}
	few, more := pods("a", "b"), pods("c", "b", "d", "a")
	if few["a"] != more["a"] || few["b"] != more["b"] || more["c"] == more["d"] {
		t.Errorf("%v, then %v", few, more)
	}
}
