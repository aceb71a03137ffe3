package dataplane

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netns"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/lab/host"
	"github.com/ringfence-io/ringfence/test/kit"
)

// hostPrefix begins the names of the namespaces that have one.
const hostPrefix = "rf-nflog"

// TestMain says what a run without root leaves out, and refuses such a run in CI. As root it first removes what a killed run has left.
func TestMain(m *testing.M) {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "NOT ROOT: every test on a real kernel is left out. Run the tests of enforcer/dataplane as root.")
		if os.Getenv("CI") == "true" {
			os.Exit(1)
		}
	} else if _, err := host.Sweep(hostPrefix); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// enterNamespace moves the test into a network namespace of its own, and gives it an xtables lock of its own. The thread is
// never unlocked: it ends with the test, and the namespace with it.
func enterNamespace(t *testing.T) {
	t.Helper()
	kit.NeedRoot(t)
	runtime.LockOSThread()
	ns, err := netns.New()
	if err != nil {
		t.Fatalf("making a network namespace: %v", err)
	}
	if err := ns.Close(); err != nil {
		t.Fatal(err)
	}
	t.Setenv("XTABLES_LOCKFILE", filepath.Join(t.TempDir(), "xtables.lock"))
}

// subject is what the table tests run on: a Dataplane or a Fake.
type subject interface {
	Observe(context.Context) (iptables.Ruleset, error)
	ObserveSets(context.Context, []string, iptables.Ruleset) (map[string]iptables.Set, error)
	Apply(context.Context, iptables.Plan) error
	Cleanup(context.Context) error
	Denied(context.Context, uint16, func(Packet)) error
	Counts(context.Context) (map[string]uint64, error)
	Capabilities() Capabilities
}

var (
	_ subject = (*Dataplane)(nil)
	_ subject = (*Fake)(nil)
)

// onEach runs a test on the real kernel, with either back end, and on the fake.
func onEach(t *testing.T, test func(*testing.T, subject)) {
	for _, backend := range []string{NFT, Legacy} {
		t.Run(backend, func(t *testing.T) {
			enterNamespace(t)
			test(t, newDataplane(t, backend))
		})
	}
	t.Run("fake", func(t *testing.T) { test(t, NewFake(Capabilities{SelfMatch: true})) })
}

func newDataplane(t *testing.T, backend string) *Dataplane {
	t.Helper()
	d, err := New(t.Context(), Options{Backend: backend})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// foreign hands input to the subject's iptables-restore, as another program would.
func foreign(t *testing.T, d subject, f iptables.Family, input string) {
	t.Helper()
	var err error
	switch d := d.(type) {
	case *Fake:
		err = d.Restore(f, input)
	case *Dataplane:
		err = d.tools.restore(t.Context(), f, input)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// saved is what the subject's iptables-save prints of its table.
func saved(t *testing.T, d subject, f iptables.Family) string {
	t.Helper()
	switch d := d.(type) {
	case *Fake:
		return d.Save(f)
	case *Dataplane:
		out, err := d.tools.save(t.Context(), f, d.Capabilities().Table)
		if err != nil {
			t.Fatal(err)
		}
		return stable(string(out))
	}
	return ""
}

// stable leaves away what iptables-save prints of the time and of packets that passed meanwhile.
func stable(save string) string { return commentLine.ReplaceAllString(save, "") }

var commentLine = regexp.MustCompile(`(?m)^#.*\n`)

func run(t *testing.T, command ...string) string {
	t.Helper()
	out, err := exec.Command(command[0], command[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(command, " "), err, out)
	}
	return string(out)
}

func mustApply(t *testing.T, d subject, p iptables.Plan) {
	t.Helper()
	if err := d.Apply(t.Context(), p); err != nil {
		t.Fatalf("applying: %v", err)
	}
}

func mustObserve(t *testing.T, d subject) iptables.Ruleset {
	t.Helper()
	r, err := d.Observe(t.Context())
	if err != nil {
		t.Fatalf("observing: %v", err)
	}
	return r
}

// chains is the input of iptables-restore that declares and fills chains.
func chains(table string, rules map[string][]iptables.Rule) string {
	var b strings.Builder
	fmt.Fprintf(&b, "*%s\n", table)
	for c := range rules {
		fmt.Fprintf(&b, ":%s - [0:0]\n", c)
	}
	for c, list := range rules {
		for _, r := range list {
			fmt.Fprintf(&b, "-A %s %s\n", c, r)
		}
	}
	return b.String() + "COMMIT\n"
}

// set is a set of a type with entries as ipset prints them: "10.0.0.1", "10.0.0.0/8 nomatch", "10.0.0.1,tcp:80".
func set(t *testing.T, name string, kind iptables.SetType, f iptables.Family, entries ...string) iptables.Set {
	t.Helper()
	s := iptables.Set{Name: name, Type: kind, Family: f}
	var all []iptables.Entry
	for _, text := range entries {
		all = append(all, entry(t, text))
	}
	return s.Holding(iptables.SortEntries(all))
}

func entry(t *testing.T, text string) iptables.Entry {
	t.Helper()
	var e iptables.Entry
	text, e.NoMatch = strings.CutSuffix(text, " nomatch")
	addr, port, hasPort := strings.Cut(text, ",")
	if hasPort {
		name, number, _ := strings.Cut(port, ":")
		e.Protocol = map[string]policy.Protocol{"tcp": policy.TCP, "udp": policy.UDP, "sctp": policy.SCTP}[name]
		if _, err := fmt.Sscan(number, &e.Port); err != nil {
			t.Fatal(err)
		}
	}
	e.Prefix = policy.PrefixOf(mustPrefix(t, addr))
	return e
}

func entries(t *testing.T, s iptables.Set, texts ...string) iptables.SetEntries {
	t.Helper()
	list := iptables.SetEntries{Set: s.Name, Type: s.Type, Family: s.Family}
	for _, text := range texts {
		list.Entries = append(list.Entries, entry(t, text))
	}
	return list
}

// refs names sets of IPv4.
func refs(names ...string) []iptables.SetRef {
	var all []iptables.SetRef
	for _, name := range names {
		all = append(all, iptables.SetRef{Name: name, Family: iptables.IPv4})
	}
	return all
}
