package matrix

import (
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/lab/probe"
	"github.com/ringfence-io/ringfence/test/kit"
)

var update = flag.Bool("update", false, "write the golden files anew")

// measured is a matrix of three sources and four columns, with a difference of each kind: what passes must not, what must pass
// does not, and the families disagree.
func measured() *Matrix {
	web, db := kit.Addrs("10.244.1.2", "fd00::1:2"), kit.Addrs("10.244.2.2", "fd00::2:2")
	old := kit.Addrs("192.0.2.9") // has no IPv6
	sources := []Source{{Name: "shop/web", Addresses: web}, {Name: "shop/db", Addresses: db}, {Name: Outside, Addresses: old}}
	targets := []Target{
		{Name: "shop/web", Addresses: web, Protocol: policy.TCP, Port: 80, Server: "web"},
		{Name: "shop/db", Addresses: db, Protocol: policy.TCP, Port: 5432, Server: "db"},
		{Name: "shop/db", Addresses: db, Protocol: policy.UDP, Port: 53, Server: "db"},
		{Name: "logs/six", Addresses: kit.Addrs("fd00::3:2"), Protocol: policy.SCTP, Port: 38412, Server: "six"},
	}
	m := New(sources, targets, func(_, _ netip.Addr, protocol policy.Protocol, port uint16) (bool, string) {
		if protocol == policy.TCP && port == 80 {
			return true, "everybody may"
		}
		return false, "nobody may"
	})
	for i := range m.Attempts {
		a := &m.Attempts[i]
		a.Got = a.Want
	}
	flip(m, "shop/web", "shop/db", policy.TCP, iptables.IPv4, iptables.IPv6) // passes, and must not
	flip(m, Outside, "shop/web", policy.TCP, iptables.IPv4)                  // does not pass, and must
	flip(m, "shop/db", "shop/web", policy.TCP, iptables.IPv6)                // passes over IPv4 only
	for i := range m.Attempts {
		a := &m.Attempts[i]
		a.Result = probe.Result{Outcome: probe.TimedOut}
		if a.Got {
			a.Result = probe.Result{Outcome: probe.Reached, Identity: m.Targets[a.Target].Server}
		}
	}
	return m
}

func flip(m *Matrix, from, to string, protocol policy.Protocol, families ...iptables.Family) {
	for i := range m.Attempts {
		a := &m.Attempts[i]
		t := m.Targets[a.Target]
		if m.Sources[a.Source].Name == from && t.Name == to && t.Protocol == protocol && slices.Contains(families, a.Family) {
			a.Got = !a.Got
		}
	}
}

func TestText(t *testing.T) {
	for name, style := range map[string]Style{"plain.txt": {}, "color.txt": {Color: true}} {
		t.Run(name, func(t *testing.T) {
			m := measured()
			var b strings.Builder
			if err := m.Write(&b, style); err != nil {
				t.Fatal(err)
			}
			golden(t, name, b.String()+"\n"+m.Legend(style)+"\n"+m.Summary(style)+"\n")
		})
	}
}

func TestJSON(t *testing.T) {
	text, err := json.MarshalIndent(measured(), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "matrix.json", string(text)+"\n")
}

func TestDifferencesAreExplained(t *testing.T) {
	golden(t, "explained.txt", measured().Explain().Error()+"\n")
}

func TestColoursDoNotMoveColumns(t *testing.T) {
	var plain, color strings.Builder
	m := measured()
	if err := m.Write(&plain, Style{}); err != nil {
		t.Fatal(err)
	}
	if err := m.Write(&color, Style{Color: true}); err != nil {
		t.Fatal(err)
	}
	stripped := color.String()
	for _, s := range []shade{bold, green, dim, danger} {
		stripped = strings.ReplaceAll(stripped, "\x1b["+string(s)+"m", "")
	}
	stripped = strings.ReplaceAll(stripped, "\x1b[0m", "")
	if diff := cmp.Diff(plain.String(), stripped); diff != "" {
		t.Error(diff)
	}
}

func TestAnswerOfAnotherServerIsNoConnection(t *testing.T) {
	a := Attempt{Want: true, Result: probe.Result{Outcome: probe.Reached, Identity: "somebody else"}}
	m := &Matrix{Targets: []Target{{Server: "db"}}}
	if a.Got = m.reached(a); a.Got {
		t.Error("an answer of the wrong server counts")
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got; -update writes it):\n%s", path, diff)
	}
}
