package dataplane

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	goiptables "github.com/coreos/go-iptables/iptables"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
)

// errNoProgram is in the chain of an error about a program that is not installed.
var errNoProgram = errors.New("not found in PATH")

// chooseTools finds the programs of the back end that o asks for, or of the one that the kubelet uses.
func chooseTools(ctx context.Context, o Options) (*tools, error) {
	if o.Backend != Auto {
		return findTools(o.Backend, o)
	}
	nft, nftErr := findTools(NFT, o)
	legacy, legacyErr := findTools(Legacy, o)
	var nftDump, legacyDump dump
	if nftErr == nil {
		if nftDump, nftErr = nft.patientDump(ctx); nftErr != nil {
			nftErr = fmt.Errorf("the kernel has no nf_tables for iptables: %w", nftErr)
		}
	}
	if legacyErr == nil {
		if legacyDump, legacyErr = legacy.patientDump(ctx); legacyErr != nil {
			legacyErr = fmt.Errorf("the kernel has no ip_tables: %w", legacyErr)
		}
	}
	switch {
	case isBusy(nftErr) || isBusy(legacyErr):
		return nil, fmt.Errorf("choosing the iptables back end: what it holds cannot be read for now: %w", errors.Join(nftErr, legacyErr))
	case nftErr != nil && legacyErr != nil:
		return nil, errors.Join(nftErr, legacyErr)
	case nftErr != nil:
		return legacy, nil
	case legacyErr != nil:
		return nft, nil
	}
	chosen, why := choose(nftDump, legacyDump)
	o.Log.Info("Chose the iptables back end", "backend", chosen, "because", why)
	if chosen == Legacy {
		return legacy, nil
	}
	return nft, nil
}

// choose picks the back end by what both hold, as kube-proxy's image does: the kubelet leaves a hint chain in the mangle
// table of the back end that it uses. nft is asked first: on a node that uses it, nothing else asks for legacy, while a
// node that uses legacy has no reason to have the hint in nft.
func choose(nftDump, legacyDump dump) (backend, why string) {
	switch {
	case kubeletHint(nftDump.text):
		return NFT, "the kubelet uses it"
	case kubeletHint(legacyDump.text):
		return Legacy, "the kubelet uses it"
	}
	inNFT, inLegacy := nftDump.rules(), legacyDump.rules()
	if inLegacy > inNFT {
		return Legacy, fmt.Sprintf("no hint of the kubelet's, and more rules in it: %d against %d", inLegacy, inNFT)
	}
	return NFT, fmt.Sprintf("no hint of the kubelet's, and no more rules in the other: %d against %d", inNFT, inLegacy)
}

// hintChains are the kubelet's: the first since Kubernetes 1.24, KEP-3178; the second to notice a flush of the tables.
var hintChains = [...]string{"KUBE-IPTABLES-HINT", "KUBE-KUBELET-CANARY"}

func kubeletHint(dump []byte) bool {
	table := ""
	for line := range bytes.Lines(dump) {
		text := string(line)
		if strings.HasPrefix(text, "*") {
			table = strings.TrimSpace(text[1:])
		}
		chain, _, _ := strings.Cut(strings.TrimPrefix(text, ":"), " ")
		if table == mangleTable && text[0] == ':' && slices.Contains(hintChains[:], chain) {
			return true
		}
	}
	return false
}

// dump is what both families hold.
type dump struct {
	text    []byte // what iptables-save and ip6tables-save print
	unshown int    // rules of tables that they leave out
}

func (d dump) rules() int {
	n := d.unshown
	for line := range bytes.Lines(d.text) {
		if line[0] == '-' {
			n++
		}
	}
	return n
}

// dump is what iptables-save and ip6tables-save print of all tables that exist. Without a named table legacy looks
// only at those that are in use: naming one would bring it, and its hooks, into being. A family that the kernel lacks
// shows nothing.
func (t *tools) dump(ctx context.Context) (dump, error) {
	var all dump
	var errs []error
	for _, f := range iptables.Families {
		out, err := t.read(ctx, f)
		for _, table := range unshownTables(out) {
			var n int
			if n, err = nftRuleCount(f, table); err != nil {
				break
			}
			all.unshown += n
			// The kubelet's hint may stand beside a rule that cannot be shown.
			var names []string
			if names, err = nftChains(f, table); err != nil {
				break
			}
			out = append(out, declared(table, names)...)
		}
		if isBusy(err) {
			return dump{}, err
		}
		all.text, errs = append(all.text, out...), append(errs, err)
	}
	if errs[0] != nil && errs[1] != nil {
		return dump{}, errors.Join(errs...)
	}
	return all, nil
}

// patientDump is dump, but waits while something is busy: a back end that cannot be asked is not one that is not there.
func (t *tools) patientDump(ctx context.Context) (all dump, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, preflightPatience, fmt.Errorf("waited %s", preflightPatience))
	defer cancel()
	err = patiently(ctx, func() (err error) {
		all, err = t.dump(ctx)
		return err
	})
	return all, err
}

// packages say where the programs come from.
var packages = map[string]string{
	Legacy: "iptables on Debian and Ubuntu, iptables-legacy on Alpine, Fedora and RHEL",
	NFT:    "iptables on Debian, Ubuntu and Alpine, iptables-nft on Fedora and RHEL",
}

// findTools finds the programs of one back end.
func findTools(backend string, o Options) (*tools, error) {
	t := &tools{backend: backend, log: o.Log, lockWait: lockWait, patience: patience, family: map[iptables.Family]familyTools{}}
	for _, f := range iptables.Families {
		name, protocol := "iptables", goiptables.ProtocolIPv4
		if f == iptables.IPv6 {
			name, protocol = "ip6tables", goiptables.ProtocolIPv6
		}
		save, err := findProgram(backend, name, "-save")
		if err != nil {
			return nil, err
		}
		restore, err := findProgram(backend, name, "-restore")
		if err != nil {
			return nil, err
		}
		hooks, err := findHooks(backend, name, protocol)
		if err != nil {
			return nil, err
		}
		v1, v2, v3 := hooks.GetIptablesVersion()
		t.version = fmt.Sprintf("%d.%d.%d", v1, v2, v3)
		t.family[f] = familyTools{save: save, restore: restore, hooks: hooks}
	}
	return t, nil
}

// findProgram finds iptables-legacy-save and the like by name, or else as a part of xtables-legacy-multi, which some
// distributions install without the links to it.
func findProgram(backend, name, verb string) (program, error) {
	link := name + "-" + backend + verb
	if path, err := lookPath(link); err == nil {
		return program{name: link, path: path}, nil
	}
	multi := "xtables-" + backend + "-multi"
	if path, err := lookPath(multi); err == nil {
		return program{name: multi + " " + name + verb, path: path, args: []string{name + verb}}, nil
	}
	return program{}, fmt.Errorf("looking for %s: %w, nor is %s; install the package that has it: %s",
		link, errNoProgram, multi, packages[backend])
}

// findHooks sets go-iptables up on the back end's own program, or on plain iptables if that is the back end.
func findHooks(backend, name string, protocol goiptables.Protocol) (*goiptables.IPTables, error) {
	for _, candidate := range []string{name + "-" + backend, name} {
		path, err := lookPath(candidate)
		if err != nil || modeOf(path) != backend {
			continue
		}
		wait := goiptables.Timeout(int(lockWait.Seconds()))
		h, err := goiptables.New(goiptables.Path(path), goiptables.IPFamily(protocol), wait)
		if err != nil {
			return nil, fmt.Errorf("asking %s for its version: %w", path, err)
		}
		return h, nil
	}
	return nil, fmt.Errorf("looking for %s-%s: %w, nor is %s that back end; install the package that has it: %s",
		name, backend, errNoProgram, name, packages[backend])
}

// modeOf is the back end of an iptables program, by its own word: "iptables v1.8.9 (nf_tables)". go-iptables reads the
// same, but keeps it to itself.
func modeOf(path string) string {
	out, err := exec.Command(path, "--version").Output()
	switch {
	case err != nil:
		return ""
	case bytes.Contains(out, []byte("nf_tables")):
		return NFT
	}
	return Legacy
}

// programDirs are where the programs live. A service's PATH often lacks the sbin directories.
var programDirs = []string{"/usr/local/sbin", "/usr/sbin", "/sbin"}

// lookPath looks in PATH, then in programDirs.
func lookPath(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return filepath.Abs(path)
	}
	for _, dir := range programDirs {
		path := filepath.Join(dir, name)
		if s, err := os.Stat(path); err == nil && !s.IsDir() && s.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", errNoProgram
}
