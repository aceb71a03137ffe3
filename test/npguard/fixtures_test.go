// Package npguard holds what kubectl ringfence answers to the lists of connections that the authors of another analyzer of NetworkPolicies expect of theirs.
// The fixtures are read where Go's module cache has them.
//
// What the two take differently is left out of the comparison, or made alike before it:
//
//   - A pod of the host's network. The API leaves open what policies do to it ("NetworkPolicies apply to Pods that do not have hostNetwork", and what it does
//     otherwise is up to the network); here it has the node's address and no policy. The analyzer takes it for any other pod: so does the comparison.
//   - A pod that has ended, which has no address any more. The analyzer lists it: so does the comparison.
//   - A pod whose address is within an ipBlock. "These should be cluster-external IPs, since Pod IPs are ephemeral": the analyzer has no block contain a pod.
//     Here it does, since a packet has nothing but its addresses.
//   - Connections of an Ingress controller, which are no policy's, and between the pods of one workload, which the analyzer does not list.
//   - AdminNetworkPolicy and BaselineAdminNetworkPolicy, which ClusterNetworkPolicy has replaced.
package npguard

import (
	"encoding/json"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ringfence-io/ringfence/internal/source"
	"github.com/ringfence-io/ringfence/test/kit"
)

// The module that has the fixtures, and the sum of what is in it.
const (
	module = "github.com/np-guard/netpol-analyzer@v1.4.4"
	sum    = "h1:ut8Cg4/uqsqrskwIEDLTYNOISatxX60/gqQNyUC/UPo="
)

// fixture is a directory of objects, and the file of the connections that are expected of it.
type fixture struct{ name, objects, expected string }

// fixtures are all whose objects have no policies besides NetworkPolicies.
func fixtures(t *testing.T) []fixture {
	t.Helper()
	const suffix = "_connlist_output.txt"
	root := fetched(t)
	lists, err := filepath.Glob(filepath.Join(root, "test_outputs", "connlist", "*"+suffix))
	kit.Must(t, err)
	var all []fixture
	for _, list := range lists {
		f := fixture{name: strings.TrimSuffix(filepath.Base(list), suffix), expected: list}
		f.objects = filepath.Join(root, "tests", f.name)
		if _, err := os.Stat(f.objects); err != nil {
			continue // a list of a part of the connections of a fixture
		}
		if !mentions(t, f.objects, "AdminNetworkPolicy") {
			all = append(all, f)
		}
	}
	if len(all) < 50 {
		t.Fatalf("%d fixtures are about NetworkPolicies alone: there are 50", len(all))
	}
	return all
}

// fetched is the directory of the module.
func fetched(t *testing.T) string {
	t.Helper()
	fetch := exec.Command("go", "mod", "download", "-json", module)
	fetch.Dir = t.TempDir() // of no module, whose go.sum would lack this one
	out, err := fetch.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(fetch.Args, " "), err, out)
	}
	var fetched struct{ Dir, Sum string }
	kit.Must(t, json.Unmarshal(out, &fetched))
	if fetched.Sum != sum {
		t.Fatalf("the sum of %s is %s, want %s", module, fetched.Sum, sum)
	}
	return fetched.Dir
}

func mentions(t *testing.T, dir, text string) bool {
	t.Helper()
	found := false
	kit.Must(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		found = found || strings.Contains(string(content), text)
		return err
	}))
	return found
}

// read are the objects of a fixture as a cluster would have them, and as the analyzer takes them: each pod has an address of either family, and that of IPv6 is in
// no block.
func read(t *testing.T, dir string) source.Gathered {
	t.Helper()
	g, err := source.Files([]string{dir}, nil, []netip.Prefix{netip.MustParsePrefix("198.18.0.0/16")})
	kit.Must(t, err)
	for _, missing := range g.Missing {
		if !strings.Contains(missing, "connlist_output.json") { // which is no object of anybody's
			t.Error(missing)
		}
	}
	g.Objects = g.Complete()
	own4, own6 := netip.MustParseAddr("198.19.0.0"), netip.MustParseAddr("fd00:198::")
	for _, p := range g.Pods {
		own4, own6 = own4.Next(), own6.Next()
		if p.Spec.HostNetwork || p.Status.Phase != corev1.PodRunning {
			p.Spec.HostNetwork, p.Status.Phase, p.Status.PodIP = false, corev1.PodRunning, own4.String()
		}
		p.Status.PodIPs = []corev1.PodIP{{IP: p.Status.PodIP}, {IP: own6.String()}}
	}
	return g
}

// theirName is what the analyzer calls the workload of a pod.
func theirName(p *corev1.Pod) string {
	o := metav1.GetControllerOf(p)
	switch {
	case o == nil || o.Kind == "Node": // of a static pod
		return p.Namespace + "/" + p.Name + "[Pod]"
	case o.Kind == "":
		return p.Namespace + "/" + o.Name + "[Pod]"
	}
	return p.Namespace + "/" + o.Name + "[" + o.Kind + "]"
}
