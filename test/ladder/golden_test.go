package ladder

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/lab/host"
	"github.com/ringfence-io/ringfence/lab/oracle"
	"github.com/ringfence-io/ringfence/test/kit"
)

var update = flag.Bool("update", false, "write the golden files anew, from what is rendered now")

// TestGoldens: what an operator sees on the node for some readable scenarios: testdata/golden/NAME.yaml are the objects,
// NAME.txt is the ruleset of node1.
func TestGoldens(t *testing.T) {
	for _, name := range goldens(t) {
		t.Run(name, func(t *testing.T) {
			got := Rendered(readCluster(t, name), "node1").String()
			checkGolden(t, name, got)
		})
	}
}

// TestGoldenPlan: what a change costs. A backend pod comes to another node and the database's policy goes: set entries for the
// first, the database's group for the second, in the order that keeps the policy whole.
func TestGoldenPlan(t *testing.T) {
	before := readCluster(t, "shop")
	after := before
	after.Policies = nil
	for _, p := range before.Policies {
		if p.Name != "database" {
			after.Policies = append(after.Policies, p)
		}
	}
	more := before.Pods[2].DeepCopy()
	more.Name, more.UID = "backend-3", "backend-3"
	more.Status.PodIPs = []corev1.PodIP{{IP: "10.244.2.10"}, {IP: "fd00:10:244:2::10"}}
	after.Pods = append(after.Pods, more)
	checkGolden(t, "shop-plan", iptables.Diff(Rendered(after, "node1"), Rendered(before, "node1")).String())
}

func goldens(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/golden/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("finding the scenarios: %v, %v", files, err)
	}
	for i := range files {
		files[i] = strings.TrimSuffix(filepath.Base(files[i]), ".yaml")
	}
	return files
}

func checkGolden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", "golden", name+".txt")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got; -update writes it anew):\n%s", file, diff)
	}
}

// readCluster reads the objects of a scenario.
func readCluster(t *testing.T, name string) oracle.Cluster {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "golden", name+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var c oracle.Cluster
	for document := range bytes.SplitSeq(text, []byte("\n---\n")) {
		var meta metav1.TypeMeta
		if err := yaml.Unmarshal(document, &meta); err != nil {
			t.Fatalf("reading %s: %v", name, err)
		}
		var object any
		switch meta.Kind {
		case "Namespace":
			c.Namespaces = append(c.Namespaces, &corev1.Namespace{})
			object = c.Namespaces[len(c.Namespaces)-1]
		case "Pod":
			c.Pods = append(c.Pods, &corev1.Pod{})
			object = c.Pods[len(c.Pods)-1]
		case "NetworkPolicy":
			c.Policies = append(c.Policies, &networkingv1.NetworkPolicy{})
			object = c.Policies[len(c.Policies)-1]
		}
		if err := yaml.UnmarshalStrict(document, object); err != nil {
			t.Fatalf("reading %s: %v\n%s", name, err, document)
		}
	}
	return c
}

// TestGoldensAreAccepted feeds every golden to the programs that print such texts: ipset restore, and iptables-restore of either back
// end, with --test and without.
func TestGoldensAreAccepted(t *testing.T) {
	kit.NeedRoot(t)
	for i, name := range goldens(t) {
		for _, backend := range []string{"legacy", "nft"} {
			t.Run(name+" "+backend, func(t *testing.T) {
				h, err := host.New(fmt.Sprintf("%sgolden%d%s", host.RunPrefix(hostPrefix), i, backend))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() {
					if err := h.Close(); err != nil {
						t.Error(err)
					}
				})
				text, err := os.ReadFile(filepath.Join("testdata", "golden", name+".txt"))
				if err != nil {
					t.Fatal(err)
				}
				parts := splitGolden(string(text))
				feed(t, h, parts["sets"], "ipset", "restore")
				for _, family := range []string{"inet", "inet6"} {
					program := map[string]string{"inet": "iptables-", "inet6": "ip6tables-"}[family] + backend + "-restore"
					feed(t, h, parts[family], program, "--test")
					feed(t, h, parts[family], program)
				}
			})
		}
	}
}

// splitGolden cuts a ruleset's text into the table of each family and the sets.
func splitGolden(text string) map[string]string {
	parts := map[string]string{}
	part := "sets"
	for line := range strings.Lines(text) {
		switch {
		case strings.HasPrefix(line, "# "):
			part = strings.TrimSpace(line[2:])
			continue
		case strings.HasPrefix(line, "create "):
			part = "sets"
		}
		parts[part] += line
	}
	return parts
}

func feed(t *testing.T, h *host.Host, input, program string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := h.Command(ctx, program, args...)
	c.Stdin = strings.NewReader(input)
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("%s %v: %v: %s\n%s", program, args, err, out, input)
	}
}

// TestRulesAreMadeOfWhatNodesAreAskedFor: every match and target that is rendered is one that the preflight tries first, in the family that it stands in.
func TestRulesAreMadeOfWhatNodesAreAskedFor(t *testing.T) {
	var mu sync.Mutex
	seen := map[string]bool{}
	forEachCase(t, 300, func(seed uint64) error {
		c, _ := newCase(seed, 0)
		mu.Lock()
		defer mu.Unlock()
		for _, node := range c.Nodes {
			for f, table := range Rendered(c.Cluster, node.Name).Tables {
				for _, rules := range table.Chains.All() {
					for _, r := range rules {
						if err := askedFor(f, string(r), seen); err != nil {
							return err
						}
					}
				}
				for base := range table.Jumps {
					if err := askedFor(f, string(iptables.JumpRule(base)), seen); err != nil {
						return err
					}
				}
			}
		}
		return nil
	})
	for _, name := range []string{"-m set", "-m tcp", "-m udp", "-m multiport", "-m comment", "-m conntrack", "-m icmp6", "-m bpf", "-m limit", "-j NFLOG"} {
		if !seen[name] {
			t.Errorf("no rule had %s", name)
		}
	}
}

func askedFor(f iptables.Family, rule string, seen map[string]bool) error {
	words := strings.Fields(rule)
	for i := 0; i+1 < len(words); i++ {
		option, name := words[i], words[i+1]
		if option != "-m" && option != "-j" || name == "RETURN" || name == "DROP" || strings.HasPrefix(name, iptables.Prefix) {
			continue
		}
		seen[option+" "+name] = true
		if !slices.ContainsFunc(iptables.Extensions, func(e iptables.Extension) bool {
			return e.Name == name && e.Target == (option == "-j") && slices.Contains(e.Families, f)
		}) {
			return fmt.Errorf("no node is asked for %s %s: %s", option, name, rule)
		}
	}
	return nil
}
