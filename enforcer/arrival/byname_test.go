package arrival

import (
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/test/kit"
)

// unnamed is a pod as a runtime hands it over that does not say UIDs.
func unnamed(name string, texts ...string) Pod {
	p := came(name, texts...)
	p.UID = ""
	return p
}

// TestAPodWithoutAUID is found by its name where there is no doubt that it is the one: it is on this node, and waits for a sandbox. Else it goes on waiting, and
// the plugin's setting decides.
func TestAPodWithoutAUID(t *testing.T) {
	for _, tt := range []struct {
		name  string
		api   []*compile.Pod
		found bool
	}{
		{"it waits for its addresses", []*compile.Pod{shown("web")}, true},
		{"it was announced with those of a sandbox that failed", []*compile.Pod{announced("web", "10.1.0.4")}, true},
		{"it shows the addresses already", []*compile.Pod{shown("web", "10.1.0.5")}, true},
		{"others wait too", []*compile.Pod{shown("other"), shown("web"), shown("web2")}, true},
		{"the API has not shown it", []*compile.Pod{shown("other")}, false},
		{"one of that name has other addresses: it may be the one before", []*compile.Pod{shown("web", "10.1.0.4")}, false},
		{"one of that name is being deleted", []*compile.Pod{with(shown("web"), func(p *compile.Pod) { p.Terminating = true })}, false},
		{"one of that name has finished", []*compile.Pod{with(shown("web"), func(p *compile.Pod) { p.Finished = true })}, false},
		{"one of that name is on the host network", []*compile.Pod{with(shown("web"), func(p *compile.Pod) { p.HostNetwork = true })}, false},
		{"one of that name is on another node", []*compile.Pod{with(shown("web"), func(p *compile.Pod) { p.Node = "node-b" })}, false},
		{"one of that name is on no node yet", []*compile.Pod{with(shown("web"), func(p *compile.Pod) { p.Node = "" })}, false},
		{"one of that name is in another namespace", []*compile.Pod{with(shown("web"), func(p *compile.Pod) { p.Namespace = "bank" })}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			table := newTable(t)
			add := start(t, table, unnamed("web", "10.1.0.5"), table.Add)
			s := snapshot(tt.api...)
			s.Namespaces = s.Namespaces.With(&compile.Namespace{Name: "bank"})
			table.Into(s)(always(nil))
			if !tt.found {
				if !add.waits() {
					t.Fatal("it was answered")
				}
				for p := range s.Pods() {
					if p.Source == compile.Arrived {
						t.Errorf("its addresses were given to %v", p)
					}
				}
				add.cancel()
				if err := add.result(t); err == nil || !strings.Contains(err.Error(), "does not say which UID") {
					t.Errorf("in the end: %v", err)
				}
				return
			}
			if err := add.result(t); err != nil {
				t.Fatal(err)
			}
			for p := range s.Pods() {
				if (len(p.Addrs) > 0) != (p.Name == "web") {
					t.Errorf("in the snapshot %s has %s", p.Name, p.Addrs)
				}
			}
		})
	}
}

// TestWhatBecomesOfAPodWithoutAUID runs one through what the API may say of it next.
func TestWhatBecomesOfAPodWithoutAUID(t *testing.T) {
	other := func(p *compile.Pod) { p.UID = "another-0000" }
	for _, tt := range []struct {
		name  string
		api   []*compile.Pod
		want  []netip.Addr
		known bool
	}{
		{"the API shows the address", []*compile.Pod{shown("web", "10.1.0.5")}, kit.Addrs("10.1.0.5"), false},
		{"the API shows no address yet", []*compile.Pod{shown("web")}, kit.Addrs("10.1.0.5"), true},
		{"it is being deleted, and runs", []*compile.Pod{with(shown("web"), func(p *compile.Pod) { p.Terminating = true })}, kit.Addrs("10.1.0.5"), true},
		{"it has finished", []*compile.Pod{with(shown("web"), func(p *compile.Pod) { p.Finished = true })}, nil, false},
		{"it is gone", nil, nil, false},
		{"it was one before, and another of that name waits", []*compile.Pod{with(shown("web"), other)}, kit.Addrs("10.1.0.5"), true},
		{"it is gone, and another of that name runs", []*compile.Pod{with(shown("web", "10.1.0.8"), other)}, kit.Addrs("10.1.0.8"), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			table := newTable(t)
			got, _ := afterwards(t, table, unnamed("web", "10.1.0.5"), tt.api)
			if diff := cmp.Diff(tt.want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if known := len(table.pods) > 0; known != tt.known {
				t.Errorf("still known: %v, want %v", known, tt.known)
			}
		})
	}
}

// TestPodsWithoutAUIDAreNotTakenForEachOther, nor forgotten by the next enforcer.
func TestPodsWithoutAUIDAreNotTakenForEachOther(t *testing.T) {
	file := filepath.Join(t.TempDir(), StateFile)
	table := NewTable(file, logr.Discard())
	table.Into(snapshot())(always(nil))
	for _, p := range []Pod{unnamed("web", "10.1.0.5"), unnamed("api", "10.1.0.6"), came("db", "10.1.0.7")} {
		add := start(t, table, p, table.Add)
		table.Into(snapshot(shown("web"), shown("api"), shown("db")))(always(nil))
		if err := add.result(t); err != nil {
			t.Fatal(err)
		}
	}
	for name, table := range map[string]*Table{"this enforcer": table, "the next": NewTable(file, logr.Discard())} {
		s := snapshot(shown("web"), shown("api"), shown("db"))
		table.Into(s)(always(nil))
		got := map[string][]netip.Addr{}
		for p := range s.Pods() {
			got[p.Name] = p.Addrs
		}
		want := map[string][]netip.Addr{"web": kit.Addrs("10.1.0.5"), "api": kit.Addrs("10.1.0.6"), "db": kit.Addrs("10.1.0.7")}
		if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestCheckingAPodWithoutAUID(t *testing.T) {
	for _, tt := range []struct {
		name string
		api  *compile.Pod
		ok   bool
	}{
		{"the API shows the addresses", shown("web", "10.1.0.5", "fd00::5"), true},
		{"the API shows them, and it is being deleted", with(shown("web", "10.1.0.5", "fd00::5"), func(p *compile.Pod) { p.Terminating = true }), true},
		{"the API shows one of them", shown("web", "10.1.0.5"), false},
	} {
		table := newTable(t)
		check := start(t, table, unnamed("web", "10.1.0.5", "fd00::5"), table.Check)
		table.Into(snapshot(tt.api))(always(nil))
		if err := check.result(t); (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}
