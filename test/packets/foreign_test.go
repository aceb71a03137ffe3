package packets

import (
	"bytes"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ringfence-io/ringfence/enforcer/dataplane"
	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/lab/topology"
	"github.com/ringfence-io/ringfence/test/kit"
	"github.com/ringfence-io/ringfence/test/scenario"
)

// command runs a program on the node and returns what it prints.
func (n *node) command(t *testing.T, stdin, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := n.Command(ctx, name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %s %s: %v\n%s\n%s", n.name, name, strings.Join(args, " "), err, stderr.String(), stdin)
	}
	return stdout.String()
}

// programOf is the name of a family's program of a back end.
func programOf(f iptables.Family, backend string) string {
	if f == iptables.IPv6 {
		return "ip6tables-" + backend
	}
	return "iptables-" + backend
}

// hooks are the base chains of every table.
var hooks = map[string][]string{
	"raw":      {"PREROUTING", "OUTPUT"},
	"mangle":   {"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"},
	"nat":      {"PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"},
	"filter":   {"INPUT", "FORWARD", "OUTPUT"},
	"security": {"INPUT", "FORWARD", "OUTPUT"},
}

// installForeign puts another program's chains, rules and sets into every table of both families and both back ends, also
// into the table that is ours.
func (n *node) installForeign(t *testing.T) {
	t.Helper()
	n.command(t, `create foreign4 hash:ip family inet maxelem 1000 comment
add foreign4 192.0.2.1 comment "another program's"
create foreign6 hash:net family inet6
add foreign6 2001:db8:1::/48
add foreign6 2001:db8:1:2::/64 nomatch
create RF_not_ours hash:ip,port
add RF_not_ours 192.0.2.1,tcp:80
create all list:set
add all foreign4
add all RF_not_ours
`, "ipset", "restore")
	for _, backend := range []string{dataplane.Legacy, dataplane.NFT} {
		for _, f := range iptables.Families {
			var input strings.Builder
			for table, chains := range hooks {
				fmt.Fprintf(&input, "*%s\n:FOREIGN - [0:0]\n:RF_FOREIGN - [0:0]\n", table)
				for _, c := range chains {
					fmt.Fprintf(&input, "-A %s -m comment --comment \"not for RF-FORWARD\" -j FOREIGN\n-A %s -p udp -m udp --dport 9 -j RF_FOREIGN\n", c, c)
				}
				fmt.Fprintf(&input, "-A FOREIGN -m set --match-set foreign%d src -j RETURN\n-A FOREIGN -p tcp -m tcp --dport 4444 -m conntrack --ctstate NEW -j ACCEPT\nCOMMIT\n", f)
			}
			n.command(t, input.String(), programOf(f, backend)+"-restore", "--noflush", "-w")
		}
	}
}

var (
	counters = regexp.MustCompile(`\[\d+:\d+\]`)
	ours     = regexp.MustCompile(`^:RF-|^-A RF-|^-A \S+ .*-j RF-\S+$|^(create|add) RF-`)
)

// state is everything that iptables-save and ipset save print, without what changes by itself: comments with the time, and
// the counters of base chains.
func (n *node) state(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, backend := range []string{dataplane.Legacy, dataplane.NFT} {
		for _, f := range iptables.Families {
			program := programOf(f, backend) + "-save"
			for line := range strings.Lines(n.command(t, "", program)) {
				if !strings.HasPrefix(line, "#") {
					all = append(all, program+": "+counters.ReplaceAllString(line, "[]"))
				}
			}
		}
	}
	sets := slices.Collect(strings.Lines(n.command(t, "", "ipset", "save")))
	slices.Sort(sets) // a hash has no order
	for _, line := range sets {
		all = append(all, "ipset: "+line)
	}
	return all
}

// foreign is the state without what is ours.
func (n *node) foreign(t *testing.T) []string {
	t.Helper()
	return slices.DeleteFunc(n.state(t), isOurs)
}

func isOurs(line string) bool {
	_, text, _ := strings.Cut(line, ": ")
	return ours.MatchString(strings.TrimSuffix(text, "\n"))
}

// TestForeignRulesStay takes an enforcer through its life beside another program's rules: they are the same, byte for byte,
// after each step.
func TestForeignRulesStay(t *testing.T) {
	kit.NeedNetfilter(t)
	for _, c := range combinations() {
		if c.kind != topology.Bridged {
			continue // the kind of network makes no difference here
		}
		t.Run(c.String(), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, c)
			first := w.nodes[0]
			first.installForeign(t)
			want := first.foreign(t)
			if len(want) < 2*2*30 {
				t.Fatalf("the other program's rules are not there: %q", want)
			}
			check := func(step string) {
				t.Helper()
				if d := cmp.Diff(want, first.foreign(t)); d != "" {
					t.Fatalf("after %s, -want +got:\n%s", step, d)
				}
			}

			n := newNode(t, first.Node, first.name, c.backend)
			check("the start")
			cluster := w.cluster()
			n.sync(t, cluster, false)
			check("a sync without policies")
			setPolicies(t, cluster, tamperPolicies)
			n.sync(t, cluster, false)
			check("a sync")
			n.sync(t, cluster, true)
			check("a resync")
			n.command(t, "", programOf(c.family, c.backend), "-w", "-t", "security", "-I", "FORWARD", "1", "-p", "udp", "--dport", "10", "-j", "ACCEPT")
			want = n.foreign(t)
			n.sync(t, cluster, true)
			check("a repair of the jump")
			setPolicies(t, cluster, scenario.FromDB)
			n.sync(t, cluster, false)
			check("a change of policies")
			cluster.Withdraw()
			n.sync(t, cluster, false)
			check("the last policy's end")
			setPolicies(t, cluster, tamperPolicies)
			n.sync(t, cluster, false)
			n = newNode(t, first.Node, first.name, c.backend)
			if r := n.sync(t, cluster, false); !r.Applied.Empty() {
				t.Errorf("a restart without news has changed something:\n%s", r.Applied)
			}
			check("a restart")
			kit.Must(t, n.Do(func() error { return n.plane.Cleanup(t.Context()) }))
			check("the cleanup")
			for _, line := range n.state(t) {
				if isOurs(line) {
					t.Errorf("the cleanup has left %s", line)
				}
			}
			kit.Must(t, w.top.ForgetConnections())
			w.check(t, []string{"client reaches web", "web reaches client", "bare reaches web", "web reaches outside"})
		})
	}
}
