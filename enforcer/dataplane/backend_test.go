package dataplane

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-logr/logr"
)

func TestChoose(t *testing.T) {
	const (
		nothing = ""
		hint    = "*mangle\n:PREROUTING ACCEPT [0:0]\n:KUBE-IPTABLES-HINT - [0:0]\nCOMMIT\n"
		canary  = "*mangle\n:KUBE-KUBELET-CANARY - [0:0]\nCOMMIT\n"
		decoy   = "*nat\n:KUBE-IPTABLES-HINT - [0:0]\n-A KUBE-IPTABLES-HINT -j RETURN\nCOMMIT\n"
		one     = "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -j ACCEPT\nCOMMIT\n"
		two     = "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -j ACCEPT\n-A INPUT -j DROP\nCOMMIT\n"
	)
	for _, c := range []struct{ name, nft, legacy, want string }{
		{"nothing anywhere", nothing, nothing, NFT},
		{"hint in nft", hint, two, NFT},
		{"hint in legacy", two, hint, Legacy},
		{"canary in nft", canary, two, NFT},
		{"canary in legacy", two, canary, Legacy},
		{"hints in both", hint, hint, NFT},
		{"a chain of that name in another table", two, decoy, NFT},
		{"more rules in legacy", one, two, Legacy},
		{"more rules in nft", two, one, NFT},
		{"as many", one, one, NFT},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, why := choose(dump{text: []byte(c.nft)}, dump{text: []byte(c.legacy)}); got != c.want {
				t.Errorf("chose %s because %s, want %s", got, why, c.want)
			}
		})
	}
}

func TestTheKubeletsBackEndIsChosen(t *testing.T) {
	for _, backend := range []string{NFT, Legacy} {
		for _, family := range []string{"iptables", "ip6tables"} {
			t.Run(backend+"/"+family, func(t *testing.T) {
				enterNamespace(t)
				other := map[string]string{NFT: "legacy", Legacy: "nft"}[backend]
				run(t, "iptables-"+other, "-w", "-A", "INPUT", "-j", "ACCEPT")
				run(t, family+"-"+backend, "-w", "-t", "mangle", "-N", "KUBE-IPTABLES-HINT")
				d := newDataplane(t, Auto)
				if d.Backend() != backend {
					t.Errorf("chose %s, and the kubelet uses %s", d.Backend(), backend)
				}
			})
		}
	}
}

func TestLookingAtBothBackEndsBringsNoTableIntoBeing(t *testing.T) {
	enterNamespace(t)
	if _, err := chooseTools(t.Context(), Options{Backend: Auto, Log: logr.Discard()}); err != nil {
		t.Fatal(err)
	}
	for name, text := range everything(t) {
		if text != "" {
			t.Errorf("%s holds something:\n%s", name, text)
		}
	}
}

func TestWrongOptionsAreRefused(t *testing.T) {
	for _, c := range []struct {
		o    Options
		want string
	}{
		{Options{Backend: "nftables"}, `choosing the iptables back end: "nftables" is none of auto, legacy, nft`},
		{Options{Table: "filter"}, `choosing the iptables table: "filter" is neither security nor mangle`},
	} {
		if _, err := New(context.Background(), c.o); err == nil || err.Error() != c.want {
			t.Errorf("the error is %v, want %s", err, c.want)
		}
	}
}

// programs makes a directory the only one in which programs are found, and links the named ones into it.
func programs(t *testing.T, names ...string) {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		path, err := lookPath(name)
		if err != nil {
			t.Fatalf("%s: %v: install the packages that the tests need (make deps)", name, err)
		}
		if path, err = filepath.EvalSymlinks(path); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir)
	dirs := programDirs
	programDirs = nil
	t.Cleanup(func() { programDirs = dirs })
}

func TestMissingProgramsAreNamedWithTheirPackage(t *testing.T) {
	nft := []string{"iptables-nft", "iptables-nft-save", "iptables-nft-restore", "ip6tables-nft", "ip6tables-nft-save", "ip6tables-nft-restore"}
	for _, c := range []struct {
		name, backend string
		present       []string
		want          []string // in the error, which is nil if there are none
	}{
		{"all of them", NFT, nil, []string{"looking for iptables-nft-save: not found in PATH, nor is xtables-nft-multi; install the package",
			"iptables on Debian"}},
		{"those of legacy", Legacy, nft, []string{"iptables-legacy-save", "xtables-legacy-multi", "iptables-legacy on Alpine"}},
		{"of either, when any would do", Auto, nil, []string{"iptables-nft-save", "iptables-legacy-save"}},
		{"the links, with the program itself there", NFT, []string{"xtables-nft-multi"}, []string{"looking for iptables-nft:"}},
		{"the links for saving", NFT, []string{"xtables-nft-multi", "iptables-nft", "ip6tables-nft"}, nil},
		{"none", NFT, nft, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			enterNamespace(t)
			programs(t, c.present...)
			d, err := New(t.Context(), Options{Backend: c.backend})
			if c.want == nil {
				if err != nil {
					t.Fatal(err)
				}
				mustApply(t, d, fullPlan(t, securityTable))
				return
			}
			for _, text := range c.want {
				if err == nil || !strings.Contains(err.Error(), text) {
					t.Errorf("the error does not say %q: %v", text, err)
				}
			}
		})
	}
}
