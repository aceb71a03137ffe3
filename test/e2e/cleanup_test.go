package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/ringfence-io/ringfence/config"
	"github.com/ringfence-io/ringfence/enforcer/arrival"
	"github.com/ringfence-io/ringfence/lab"
	"github.com/ringfence-io/ringfence/lab/matrix"
	"github.com/ringfence-io/ringfence/lab/scene"
	"github.com/ringfence-io/ringfence/test/kit"
)

// idle are connections that nobody sends a packet of, as connection tracking is told of them: between strangers, and of a pod's past that nobody denies.
var idle = []string{
	"-p tcp -s 198.51.100.1 -d 198.51.100.2 --sport 40000 --dport 80 --state ESTABLISHED -t 3600 -u SEEN_REPLY,ASSURED",
	"-p udp -s 2001:db8:57::1 -d 2001:db8:57::2 --sport 40000 --dport 53 -t 3600 -u SEEN_REPLY",
}

// TestCleanupLeavesNoTrace has a node enforce policies and keep the CNI plugin installed, ends its enforcer, and looks what 'ringfence cleanup' leaves:
// all rules of either back end, all sets, what connection tracking knows of connections that are idle, and all files are what they were before.
func TestCleanupLeavesNoTrace(t *testing.T) {
	const owners = `{"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "bridge"}]}`
	for _, backend := range []string{"legacy", "nft"} {
		t.Run(backend, func(t *testing.T) {
			dir := t.TempDir()
			conf, bin, socket := filepath.Join(dir, "net.d"), filepath.Join(dir, "bin"), filepath.Join(dir, "run", "cni.sock")
			kit.Must(t, os.Mkdir(conf, 0o755))
			kit.Must(t, os.Mkdir(bin, 0o755))
			kit.Must(t, os.WriteFile(filepath.Join(conf, "10-net.conflist"), []byte(owners), 0o600))
			kit.Must(t, os.WriteFile(filepath.Join(bin, "bridge"), []byte("a plugin"), 0o755))
			dirs := []string{"--cni-conf-dir", conf, "--cni-bin-dir", bin, "--cni-socket", socket}
			l := start(t, lab.Options{Nodes: 1, Backend: backend, NoEnforcer: true, EnforcerArgs: dirs})
			application(t, l)
			node := l.Nodes[0]
			for _, one := range idle {
				_, err := node.Exec(kit.Context(t, patience), "conntrack", append([]string{"-I"}, strings.Fields(one)...)...)
				kit.Must(t, err)
			}
			before := traces(t, node, dir, filepath.Dir(arrival.DefaultSocket))
			if len(before["conntrack"]) != len(idle) {
				t.Fatalf("connections are %q", before["conntrack"])
			}

			kit.Must(t, node.StartEnforcer())
			kit.Must(t, l.WaitEnforcers(kit.Context(t, patience)))
			kit.Must(t, l.ApplyDir(kit.Context(t, patience), config.Samples, "samples/policies"))
			settle(t, l)
			during := traces(t, node, dir, filepath.Dir(arrival.DefaultSocket))
			for _, what := range []string{"ip" + map[string]string{"legacy": "tables-legacy-save", "nft": "tables-nft-save"}[backend], "ipset", "files"} {
				if slices.Equal(before[what], during[what]) {
					t.Errorf("an enforcer that runs is not to be seen in %s", what)
				}
			}

			node.KillEnforcer()
			for range 2 { // the second time there is nothing to do
				_, err := node.Exec(kit.Context(t, patience), ringfence, append([]string{"cleanup"}, dirs...)...)
				kit.Must(t, err)
				if diff := gocmp.Diff(before, traces(t, node, dir, filepath.Dir(arrival.DefaultSocket))); diff != "" {
					t.Errorf("cleanup leaves traces (-before +now):\n%s", diff)
				}
			}
			free, err := matrix.Of(kit.Context(t, patience), l, scene.Pods...)
			kit.Must(t, err)
			kit.Must(t, free.Measure(kit.Context(t, patience)))
			if free.Connecting() != len(free.Attempts) {
				t.Errorf("%d of %d connections are possible once nothing is enforced", free.Connecting(), len(free.Attempts))
			}
		})
	}
}

// traces are all that a program can have left on a node, by where it is: line by line what the kernel holds, and each file with its mode and its content.
func traces(t *testing.T, n *lab.Node, dirs ...string) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	for _, show := range []struct {
		name    string
		command []string
		lines   func(string) []string
	}{
		{"iptables-legacy-save", []string{"iptables-legacy-save"}, tablesInUse},
		{"ip6tables-legacy-save", []string{"ip6tables-legacy-save"}, tablesInUse},
		{"iptables-nft-save", []string{"iptables-nft-save"}, tablesInUse},
		{"ip6tables-nft-save", []string{"ip6tables-nft-save"}, tablesInUse},
		{"nft", []string{"nft", "list", "ruleset"}, nftTablesInUse},
		{"ipset", []string{"ipset", "save", "-sorted"}, linesOf},
		{"conntrack", []string{"conntrack", "-L"}, strangers},
		{"conntrack6", []string{"conntrack", "-L", "-f", "ipv6"}, strangers},
	} {
		out, err := n.Exec(kit.Context(t, patience), show.command[0], show.command[1:]...)
		kit.Must(t, err)
		found[show.name] = show.lines(string(out))
	}
	both := slices.Concat(found["conntrack"], found["conntrack6"])
	slices.Sort(both)
	found["conntrack"] = slices.Compact(both) // whether the first command shows one family or both depends on its version
	delete(found, "conntrack6")
	for _, dir := range dirs {
		if _, err := os.Stat(dir); os.IsNotExist(err) {
			continue
		}
		kit.Must(t, filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := entry.Info()
			if err != nil {
				return err
			}
			line := fmt.Sprintf("%s %s", info.Mode(), path)
			if info.Mode().IsRegular() {
				text, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				line += fmt.Sprintf(" %d bytes: %.1000q", len(text), text)
			}
			found["files"] = append(found["files"], line)
			return nil
		}))
	}
	return found
}

func linesOf(text string) []string { return strings.Split(strings.TrimSpace(text), "\n") }

// tablesInUse leaves away tables with no chain but their own and no rule, and what differs each time: counters, and comments with the time. A kernel keeps a
// table that iptables has once looked at until its module goes, and it does nothing.
func tablesInUse(saved string) []string {
	var all, table []string
	used := false
	for line := range strings.Lines(saved) {
		line, _, _ = strings.Cut(strings.TrimSpace(line), " [")
		switch {
		case line == "", line[0] == '#':
		case line[0] == '*':
			table, used = []string{line}, false
		case line == "COMMIT":
			if used {
				all = append(all, table...)
			}
		default:
			table = append(table, line)
			used = used || line[0] != ':' || !strings.HasSuffix(line, " ACCEPT")
		}
	}
	return all
}

var (
	nftTable   = regexp.MustCompile(`(?ms)^table .*?^}`)
	nftUnused  = regexp.MustCompile(`^(table .*\{|chain .*\{|type .* hook .*policy accept;|\}|)$`)
	nftCounter = regexp.MustCompile(`counter packets \d+ bytes \d+`)
)

// nftTablesInUse does likewise for what nft prints.
func nftTablesInUse(ruleset string) []string {
	var all []string
	for _, table := range nftTable.FindAllString(ruleset, -1) {
		lines := linesOf(nftCounter.ReplaceAllString(table, "counter"))
		if slices.ContainsFunc(lines, func(line string) bool { return !nftUnused.MatchString(strings.TrimSpace(line)) }) {
			all = append(all, lines...)
		}
	}
	return all
}

// strangers are the connections of a listing that no packet belongs to, without how long they last yet.
func strangers(listing string) []string {
	var all []string
	for line := range strings.Lines(listing) {
		if strings.Contains(line, "198.51.100.") || strings.Contains(line, "2001:db8:57::") {
			f := strings.Fields(line)
			all = append(all, strings.Join(append(f[:2:2], f[3:]...), " "))
		}
	}
	return all
}
