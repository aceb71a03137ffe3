package arrival

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/test/kit"
)

const here = "node-a"

// uid is one as the API server makes them.
func uid(name string) string { return name + "-0000-4000" }

// came is a pod as the plugin hands it over.
func came(name string, texts ...string) Pod {
	return Pod{Namespace: "shop", Name: name, UID: uid(name), Container: "c-" + name, Addrs: kit.Addrs(texts...)}
}

// shown is the pod as the API shows it.
func shown(name string, texts ...string) *compile.Pod {
	return &compile.Pod{Namespace: "shop", Name: name, UID: uid(name), Node: here, Addrs: kit.Addrs(texts...)}
}

// announced is the pod as the API shows it when this node has announced its addresses.
func announced(name string, texts ...string) *compile.Pod {
	return with(shown(name, texts...), func(p *compile.Pod) { p.Source = compile.Announced })
}

func with(p *compile.Pod, change func(*compile.Pod)) *compile.Pod {
	change(p)
	return p
}

func snapshot(pods ...*compile.Pod) *compile.Snapshot {
	s := compile.Snapshot{Node: here, Namespaces: compile.ObjectsOf(&compile.Namespace{Name: "shop"})}.WithPods(pods...)
	return &s
}

func newTable(t *testing.T) *Table {
	return NewTable(filepath.Join(t.TempDir(), "run", StateFile), logr.Discard())
}

// starting is an Add that waits, in the background.
type starting struct {
	table  *Table
	done   chan error
	cancel context.CancelFunc
}

func (s starting) result(t *testing.T) error {
	t.Helper()
	select {
	case err := <-s.done:
		return err
	case <-time.After(10 * time.Second):
		t.Fatal("nobody answers")
		return nil
	}
}

// waits reports whether the table has not answered.
func (s starting) waits() bool {
	s.table.mu.Lock()
	defer s.table.mu.Unlock()
	return len(s.table.waiting) == 1
}

// start begins to wait, and returns once the table knows.
func start(t *testing.T, table *Table, p Pod, wait func(context.Context, Pod) error) starting {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	asked := make(chan struct{}, 16)
	table.mu.Lock()
	table.ask = func() { asked <- struct{}{} }
	table.mu.Unlock()
	s := starting{table, make(chan error, 1), cancel}
	go func() { s.done <- wait(ctx, p) }()
	select {
	case <-asked:
	case <-time.After(10 * time.Second):
		t.Fatal("nobody asked for a sync")
	}
	return s
}

func TestAPodWaitsForASyncThatKnewIt(t *testing.T) {
	table := newTable(t)
	add := start(t, table, came("web", "10.1.0.5", "fd00::5"), table.Add)

	table.Into(snapshot(shown("other", "10.1.0.9")))(always(nil))
	if !add.waits() {
		t.Fatal("answered by a sync of a snapshot without the pod")
	}
	table.Into(snapshot(with(shown("web"), func(p *compile.Pod) { p.Node = "" })))(always(nil))
	if !add.waits() {
		t.Fatal("answered by a sync that had not seen the pod bound to this node")
	}
	table.Into(&compile.Snapshot{Node: here, Local: []*compile.Pod{shown("web")}})(always(nil))
	if !add.waits() {
		t.Fatal("answered by a sync without the pod's namespace, whose labels policies may ask for")
	}
	table.Into(snapshot(shown("web")))(always(errors.New("the kernel said no")))
	if !add.waits() {
		t.Fatal("answered by a sync that failed")
	}
	object := shown("web")
	s := snapshot(object)
	ended := table.Into(s)
	if !add.waits() {
		t.Fatal("answered before the sync has ended")
	}
	ended(always(nil))
	if err := add.result(t); err != nil {
		t.Errorf("after the sync: %v", err)
	}
	if diff := cmp.Diff(kit.Addrs("10.1.0.5", "fd00::5"), s.Local[0].Addrs, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("the pod's addresses in the snapshot (-want +got):\n%s", diff)
	}
	if object.Addrs != nil {
		t.Error("the cache's own object was written to")
	}
}

func TestWhoComesWhileASyncRunsWaitsForTheNext(t *testing.T) {
	table := newTable(t)
	ended := table.Into(snapshot(shown("web")))
	add := start(t, table, came("web", "10.1.0.5"), table.Add)
	ended(always(nil))
	if !add.waits() {
		t.Fatal("answered by a sync whose snapshot was older")
	}
	table.Into(snapshot(shown("web")))(always(nil))
	if err := add.result(t); err != nil {
		t.Error(err)
	}
}

func TestWhatAWaitIsFor(t *testing.T) {
	tests := []struct {
		name string
		pods []*compile.Pod
		err  error // of the sync
		want string
	}{
		{"the API has not shown the pod", nil, nil, "has not shown this node a pod of that name with UID " + uid("web")},
		{"the API shows another of the same name", []*compile.Pod{with(shown("web"), func(p *compile.Pod) { p.UID = "1-2" })}, nil,
			"has not shown this node a pod"},
		{"the sync failed", []*compile.Pod{shown("web")}, errors.New("no space in the set of NetworkPolicy other/secret"), "the NodeEnforcement of the node and its enforcer's log say why"},
	}
	for _, tt := range tests {
		table := newTable(t)
		add := start(t, table, came("web", "10.1.0.5"), table.Add)
		table.Into(snapshot(tt.pods...))(always(tt.err))
		add.cancel()
		if err := add.result(t); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q in it", tt.name, err, tt.want)
		}
	}
}

func TestAPodOfAnotherNodeIsRefusedAtOnce(t *testing.T) {
	table := newTable(t)
	add := start(t, table, came("web", "10.1.0.5"), table.Add)
	table.Into(snapshot(with(shown("web"), func(p *compile.Pod) { p.Node = "node-b" })))(always(nil))
	if err := add.result(t); err == nil {
		t.Error("a pod of another node has policy in force here")
	}
}

// afterwards has a pod come, its policy be in force, and the API show other pods then: with which addresses the first of them is in the snapshot, and that.
func afterwards(t *testing.T, table *Table, p Pod, api []*compile.Pod) ([]netip.Addr, *compile.Snapshot) {
	t.Helper()
	add := start(t, table, p, table.Add)
	table.Into(snapshot(shown("web")))(always(nil))
	if err := add.result(t); err != nil {
		t.Fatal(err)
	}
	s := snapshot(api...)
	table.Into(s)(always(nil))
	if len(s.Local) == 0 {
		return nil, s
	}
	return s.Local[0].Addrs, s
}

// TestWhoseAddressesCount runs a pod that came with 10.1.0.5 through what the API may say of it.
func TestWhoseAddressesCount(t *testing.T) {
	tests := []struct {
		name  string
		api   []*compile.Pod // nil: the API does not have the pod
		want  []netip.Addr
		known bool // the table still has it afterwards
	}{
		{"the API shows no address yet", []*compile.Pod{shown("web")}, kit.Addrs("10.1.0.5"), true},
		{"the API shows that of the sandbox before", []*compile.Pod{shown("web", "10.1.0.4")}, kit.Addrs("10.1.0.5"), true},
		{"the API shows what this node has announced", []*compile.Pod{announced("web", "10.1.0.5")}, kit.Addrs("10.1.0.5"), true},
		{"the API shows what was announced of the sandbox before", []*compile.Pod{announced("web", "10.1.0.4")}, kit.Addrs("10.1.0.5"), true},
		{"the API shows the address", []*compile.Pod{shown("web", "10.1.0.5")}, kit.Addrs("10.1.0.5"), false},
		{"the API shows the address and more", []*compile.Pod{shown("web", "10.1.0.5", "fd00::5")}, kit.Addrs("10.1.0.5", "fd00::5"), false},
		{"the pod has finished", []*compile.Pod{with(shown("web"), func(p *compile.Pod) { p.Finished = true })}, nil, false},
		{"the pod is gone", nil, nil, false},
		{"the pod is being deleted", []*compile.Pod{with(shown("web"), func(p *compile.Pod) { p.Terminating = true })}, kit.Addrs("10.1.0.5"), true},
	}
	for _, tt := range tests {
		table := newTable(t)
		got, s := afterwards(t, table, came("web", "10.1.0.5"), tt.api)
		if diff := cmp.Diff(tt.want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
		if arrived := len(s.Local) > 0 && s.Local[0].Source == compile.Arrived; arrived != tt.known {
			t.Errorf("%s: it is in the snapshot as one that the API does not show: %v, want %v", tt.name, arrived, tt.known)
		}
		if known := len(table.pods) > 0; known != tt.known {
			t.Errorf("%s: still known: %v, want %v", tt.name, known, tt.known)
		}
	}
}

// TestWhoGetsAnAddressTakesIt from whoever is still said to have it, older or newer.
func TestWhoGetsAnAddressTakesIt(t *testing.T) {
	table := newTable(t)
	pods := func() []*compile.Pod {
		return []*compile.Pod{
			with(shown("newer", "10.1.0.5", "fd00::5"), func(p *compile.Pod) { p.Created = 9 }), shown("web"), shown("before"), shown("other", "10.1.0.9"),
		}
	}
	for _, p := range []Pod{came("before", "10.1.0.5"), came("web", "10.1.0.5")} {
		add := start(t, table, p, table.Add)
		table.Into(snapshot(pods()...))(always(nil))
		if err := add.result(t); err != nil {
			t.Fatal(err)
		}
	}
	s := snapshot(pods()...)
	table.Into(s)(always(nil))
	got := map[string][]netip.Addr{}
	for p := range s.Pods() {
		got[p.Name] = p.Addrs
	}
	want := map[string][]netip.Addr{"newer": kit.Addrs("fd00::5"), "web": kit.Addrs("10.1.0.5"), "before": nil, "other": kit.Addrs("10.1.0.9")}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestAPodOfTheKubeletsOwnIsFoundByItsName(t *testing.T) {
	table := newTable(t)
	static := came("proxy-node-a", "10.1.0.7")
	static.UID = "0f343b0931126a20f133d67c2b018a3b"
	add := start(t, table, static, table.Add)
	s := snapshot(shown("proxy-node-a"))
	table.Into(s)(always(nil))
	if err := add.result(t); err != nil {
		t.Error(err)
	}
	if len(s.Local[0].Addrs) != 1 {
		t.Error("its addresses are not in the snapshot")
	}
}

func TestASandboxThatGoesTakesItsOwnAddressesOnly(t *testing.T) {
	table := newTable(t)
	known := func() []string {
		var out []string
		for _, a := range table.pods {
			out = append(out, a.Container)
		}
		return out
	}
	first := came("web", "10.1.0.5")
	second := came("web", "10.1.0.6")
	second.Container = "c-web-2"
	for _, p := range []Pod{first, second} {
		add := start(t, table, p, table.Add)
		table.Into(snapshot(shown("web")))(always(nil))
		if err := add.result(t); err != nil {
			t.Fatal(err)
		}
	}
	table.Delete(first.Container) // late
	if diff := cmp.Diff([]string{"c-web-2"}, known()); diff != "" {
		t.Errorf("after the first sandbox went (-want +got):\n%s", diff)
	}
	table.Collect([]string{"c-web-2", "c-else"})
	if diff := cmp.Diff([]string{"c-web-2"}, known()); diff != "" {
		t.Errorf("after a collection that names it (-want +got):\n%s", diff)
	}
	table.Collect(nil)
	if len(table.pods) != 0 {
		t.Error("after a collection that does not name it, it is still known")
	}
}

func TestChecking(t *testing.T) {
	tests := []struct {
		name string
		api  []*compile.Pod
		ok   bool
	}{
		{"the API shows the addresses", []*compile.Pod{shown("web", "10.1.0.5", "fd00::5")}, true},
		{"the API shows one of them", []*compile.Pod{shown("web", "10.1.0.5")}, false},
		{"the API shows others", []*compile.Pod{shown("web", "10.1.0.6", "fd00::6")}, false},
	}
	for _, tt := range tests {
		table := newTable(t)
		check := start(t, table, came("web", "10.1.0.5", "fd00::5"), table.Check)
		table.Into(snapshot(tt.api...))(always(nil))
		if err := check.result(t); (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
		}
		if len(table.pods) != 0 {
			t.Errorf("%s: a look has left something", tt.name)
		}
	}
}

func TestARestartForgetsNobody(t *testing.T) {
	file := filepath.Join(t.TempDir(), "run", StateFile)
	before := NewTable(file, logr.Discard())
	before.Into(snapshot())(always(nil))
	if _, err := os.Stat(file); err != nil {
		t.Errorf("after the first sync nothing says so: %v", err)
	}
	for _, name := range []string{"web", "gone"} {
		add := start(t, before, came(name, map[string]string{"web": "10.1.0.5", "gone": "10.1.0.6"}[name]), before.Add)
		before.Into(snapshot(shown("web"), shown("gone")))(always(nil))
		if err := add.result(t); err != nil {
			t.Fatal(err)
		}
	}
	after := NewTable(file, logr.Discard())
	s := snapshot(shown("web"))
	after.Into(s)(always(nil))
	if len(s.Local[0].Addrs) != 1 || len(after.pods) != 1 {
		t.Errorf("the first snapshot after a restart has %v, the table %d pods; want the address, and the pod that is still there", s.Local[0].Addrs, len(after.pods))
	}
}

func TestAFileThatCannotBeReadHoldsNothingUp(t *testing.T) {
	for _, text := range []string{"", "{", `[{"uid": "x"}]`, `[{"addrs": ["nonsense"]}]`, "null"} {
		file := filepath.Join(t.TempDir(), StateFile)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		table := NewTable(file, logr.Discard())
		add := start(t, table, came("web", "10.1.0.5"), table.Add)
		table.Into(snapshot(shown("web")))(always(nil))
		if err := add.result(t); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// always is how a sync has ended for every pod.
func always(err error) func([]netip.Addr) error {
	return func([]netip.Addr) error { return err }
}

// What one family lacks is nothing to a pod that has no address of it.
func TestWhatIsLackingForAnotherPodKeepsNoPodWaiting(t *testing.T) {
	table := newTable(t)
	add := start(t, table, came("web", "10.1.0.5"), table.Add)
	table.Into(snapshot(shown("web")))(func(of []netip.Addr) error {
		for _, a := range of {
			if a.Is6() {
				return errors.New("ip6tables-restore: no")
			}
		}
		return nil
	})
	if err := add.result(t); err != nil {
		t.Error(err)
	}
}
