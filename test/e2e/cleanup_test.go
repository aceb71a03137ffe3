package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ringfence-io/ringfence/config"
	"github.com/ringfence-io/ringfence/lab"
	"github.com/ringfence-io/ringfence/lab/matrix"
	"github.com/ringfence-io/ringfence/lab/scene"
)

// TestCleanupLeavesNoTrace has a node enforce policies and keep the CNI plugin installed, ends its enforcer, and looks what 'ringfence cleanup' leaves:
// of rules in either back end, of sets, and of files.
func TestCleanupLeavesNoTrace(t *testing.T) {
	const owners = `{"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "bridge"}]}`
	for _, backend := range []string{"legacy", "nft"} {
		t.Run(backend, func(t *testing.T) {
			dir := t.TempDir()
			conf, bin, socket := filepath.Join(dir, "net.d"), filepath.Join(dir, "bin"), filepath.Join(dir, "run", "cni.sock")
			must(t, os.Mkdir(conf, 0o755))
			must(t, os.Mkdir(bin, 0o755))
			must(t, os.WriteFile(filepath.Join(conf, "10-net.conflist"), []byte(owners), 0o600))
			dirs := []string{"--cni-conf-dir", conf, "--cni-bin-dir", bin, "--cni-socket", socket}
			l := start(t, lab.Options{Nodes: 1, Backend: backend, EnforcerArgs: dirs})
			application(t, l)
			must(t, l.ApplyDir(soon(t), config.Samples, "samples/policies"))
			settle(t, l)
			node := l.Nodes[0]
			if got := traces(t, node, dir); len(got) < 4 {
				t.Fatalf("while the enforcer runs there is no more to be seen of it than %q", got)
			}

			node.KillEnforcer()
			for range 2 { // the second time there is nothing to do
				_, err := node.Exec(soon(t), ringfence, append([]string{"cleanup"}, dirs...)...)
				must(t, err)
				if got := traces(t, node, dir); len(got) > 0 {
					t.Errorf("cleanup leaves %q", got)
				}
			}
			text, err := os.ReadFile(filepath.Join(conf, "10-net.conflist"))
			must(t, err)
			if string(text) != owners {
				t.Errorf("the owner's file is %s, want %s", text, owners)
			}
			free, err := matrix.Of(soon(t), l, scene.Pods...)
			must(t, err)
			must(t, free.Measure(soon(t)))
			if free.Connecting() != len(free.Attempts) {
				t.Errorf("%d of %d connections are possible once nothing is enforced", free.Connecting(), len(free.Attempts))
			}
		})
	}
}

// traces are the lines and files that show something of ours on a node.
func traces(t *testing.T, n *lab.Node, dir string) []string {
	t.Helper()
	var found []string
	for _, show := range [][]string{
		{"iptables-legacy-save"}, {"ip6tables-legacy-save"}, {"iptables-nft-save"}, {"ip6tables-nft-save"}, {"ipset", "save"},
	} {
		out, err := n.Exec(soon(t), show[0], show[1:]...)
		must(t, err)
		for line := range strings.Lines(string(out)) {
			if strings.Contains(line, "RF-") || strings.Contains(line, "ringfence") {
				found = append(found, show[0]+": "+line)
			}
		}
	}
	must(t, filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if err == nil && (!strings.HasSuffix(path, "10-net.conflist") || strings.Contains(string(text), "ringfence")) {
			found = append(found, path)
		}
		return nil // a socket cannot be read, and counts by its directory
	}))
	if _, err := os.Stat(filepath.Join(dir, "run")); err == nil {
		found = append(found, filepath.Join(dir, "run"))
	}
	return found
}
