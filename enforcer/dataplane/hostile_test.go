package dataplane

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/test/kit"
)

// What the kernel, and the programs that write to it, do when a node is in trouble.

// inTrouble calls f while d's dumps end with err after one message, as many of them as times, and returns how many were asked for.
func inTrouble(d *Dataplane, err error, times int, f func()) (asked int) {
	defer func() { d.exchange = askKernel }()
	d.exchange = func(r *nl.NetlinkRequest, visit func([]byte) bool) error {
		asked++
		if asked > times {
			return askKernel(r, visit)
		}
		return errors.Join(askKernel(r, func(m []byte) bool {
			visit(m)
			return false
		}), err)
	}
	f()
	return asked
}

// cutShort is how a dump can end before its end, for no reason that lasts.
var cutShort = map[string]error{
	"what it shows has changed":    nl.ErrDumpInterrupted,
	"messages were lost":           unix.ENOBUFS,
	"a signal came":                unix.EINTR,
	"lost, as the library says it": fmt.Errorf("receiving: %w", unix.ENOBUFS),
}

func TestADumpThatIsCutShortIsBegunAnew(t *testing.T) {
	enterNamespace(t)
	d := newDataplane(t, NFT)
	var plan iptables.Plan
	for i := range 20 { // far more than one message
		s := set(t, fmt.Sprintf("RF-v1-4A-%d", i), iptables.HashIP, iptables.IPv4)
		var all []iptables.Entry
		for n := range 200 {
			all = append(all, entry(t, fmt.Sprintf("10.0.%d.%d", i, n)))
		}
		s = s.Holding(iptables.SortEntries(all))
		plan.CreateSets = append(plan.CreateSets, s)
	}
	mustApply(t, d, plan)
	track(t, trackedEntries...)
	want := map[string]iptables.Set{}
	for _, s := range plan.CreateSets {
		want[s.Name] = s
	}
	for name, err := range cutShort { // not t.Run, whose tests are in another network namespace
		if asked := inTrouble(d, err, 3, func() {
			if diff := cmp.Diff(want, mustObserve(t, d).Sets.Content(), addrs); diff != "" {
				t.Errorf("%s: sets (-want +got):\n%s", name, diff)
			}
		}); asked != 4 {
			t.Errorf("%s: asked %d times, want 4", name, asked)
		}
		inTrouble(d, err, 1, func() {
			if names, err := setNames(d.exchange); len(names) != len(want) || err != nil {
				t.Errorf("%s: %d names of %d: %v", name, len(names), len(want), err)
			}
		})
		inTrouble(d, err, 1, func() {
			seen := map[string]bool{}
			err := d.Connections(t.Context(), policy.Affected{All: true}, func(c policy.Connection) { seen[text(c)] = true })
			if err != nil || len(seen) != len(trackedEntries) {
				t.Errorf("%s: %d connections of %d: %v", name, len(seen), len(trackedEntries), err)
			}
		})
	}
}

// What half of a dump shows must not be taken for all there is: an observer would create what exists, and a cleanup would leave it.
func TestADumpThatIsAlwaysCutShortIsAnError(t *testing.T) {
	enterNamespace(t)
	d := newDataplane(t, NFT)
	mustApply(t, d, iptables.Plan{CreateSets: []iptables.Set{
		set(t, "RF-v1-4A-x", iptables.HashIP, iptables.IPv4, "10.0.0.1"), set(t, "RF-4A-y", iptables.HashIP, iptables.IPv4, "10.0.0.1")}})
	track(t, trackedEntries...)
	for name, err := range cutShort {
		for what, dump := range map[string]func() error{
			"observing":   func() error { _, err := d.Observe(t.Context()); return err },
			"cleaning up": func() error { return d.Cleanup(t.Context()) },
			"listing the connections": func() error {
				return d.Connections(t.Context(), policy.Affected{All: true}, func(policy.Connection) {})
			},
		} {
			var got error
			asked := inTrouble(d, err, 1000, func() { got = dump() })
			if !errors.Is(got, err) || !strings.Contains(fmt.Sprint(got), "begun 5 times, and never shown in whole") {
				t.Errorf("%s, %s: %v, want %v and how often it was tried", name, what, got, err)
			}
			if asked < dumpAttempts || asked > dumpAttempts+1 { // a cleanup asks whether there are sets at all
				t.Errorf("%s, %s: asked %d times", name, what, asked)
			}
		}
	}
}

func TestAnErrorThatLastsIsNotTriedAgainAtOnce(t *testing.T) {
	enterNamespace(t)
	d := newDataplane(t, NFT)
	var err error
	asked := inTrouble(d, unix.ENOMEM, 1000, func() { _, err = d.Observe(t.Context()) })
	if !errors.Is(err, unix.ENOMEM) || asked != 1 {
		t.Errorf("%v after %d attempts, want ENOMEM after one", err, asked)
	}
}

// instead puts a script in the place of a program of the dataplane's. The script begins by saying who it is, in the file that is returned.
func instead(t *testing.T, p *program, script string) (pids string) {
	t.Helper()
	dir := t.TempDir()
	pids = filepath.Join(dir, "pids")
	path := filepath.Join(dir, "program")
	if err := os.WriteFile(path, []byte("#!/bin/sh\necho $$ >> "+pids+"\n"+script+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	*p = program{name: p.name, path: path}
	return pids
}

// withPrograms is a dataplane on programs that change may replace.
func withPrograms(t *testing.T, change func(iptables.Family, *familyTools)) *Dataplane {
	t.Helper()
	d := newDataplane(t, NFT)
	for _, f := range iptables.Families {
		tools := d.tools.family[f]
		change(f, &tools)
		d.tools.family[f] = tools
	}
	return d
}

// oneChain makes a chain in each family.
func oneChain(name string) iptables.Plan {
	p := iptables.Plan{Restore: map[iptables.Family]string{}}
	for _, f := range iptables.Families {
		p.Restore[f] = chains(securityTable, map[string][]iptables.Rule{name: {"-j RETURN"}})
	}
	return p
}

// A distribution's program may be a script: what hangs is its child, and both have to go.
func TestAProgramThatHangsIsEndedWithAllThatItHasStarted(t *testing.T) {
	enterNamespace(t)
	const hangs = `sh -c 'echo $$ >> "$0"; exec sleep 1000' "$(dirname "$0")/pids" & wait`
	var pids []string
	d := withPrograms(t, func(f iptables.Family, tools *familyTools) {
		if f == iptables.IPv6 {
			pids = append(pids, instead(t, &tools.restore, "cat >/dev/null\n"+hangs))
		}
	})
	d.tools.patience = 500 * time.Millisecond
	start := time.Now()
	err := d.Apply(t.Context(), oneChain("RF-X"))
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("it took %s", took)
	}
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(fmt.Sprint(err), "it has not ended") || !strings.Contains(fmt.Sprint(err), "inet6") {
		t.Errorf("the error is %v, want one that says what has not ended, and of which family", err)
	}
	mustBeGone(t, pids[0], 2)
	got := mustObserve(t, d)
	if four, six := got.Tables[iptables.IPv4].Chains.Len(), got.Tables[iptables.IPv6].Chains.Len(); four != 1 || six != 0 {
		t.Errorf("%d chains of IPv4 and %d of IPv6, want 1 and none", four, six)
	}

	d = withPrograms(t, func(f iptables.Family, tools *familyTools) {
		if f == iptables.IPv6 {
			pids = append(pids, instead(t, &tools.save, hangs))
		}
	})
	d.tools.patience = 500 * time.Millisecond
	got, err = d.Observe(t.Context())
	if !errors.Is(err, context.DeadlineExceeded) || len(got.Tables) != 1 || got.Tables[iptables.IPv4].Chains.Len() != 1 {
		t.Errorf("observed %v, and %v: want IPv4 alone, and why", got.Tables, err)
	}
	mustBeGone(t, pids[1], 2)
}

// mustBeGone waits until the processes of a file are gone, of which there are n.
func mustBeGone(t *testing.T, pids string, n int) {
	t.Helper()
	text, err := os.ReadFile(pids)
	if err != nil || len(strings.Fields(string(text))) != n {
		t.Fatalf("%d programs started, want %d: %v", len(strings.Fields(string(text))), n, err)
	}
	for _, pid := range strings.Fields(string(text)) {
		kit.Eventually(t, 10*time.Second, "process "+pid+" is gone", func() bool {
			stat, err := os.ReadFile("/proc/" + pid + "/stat")
			return err != nil || strings.Contains(string(stat), ") Z ")
		})
	}
}

// iptables-restore that ends midway, however it ends, has changed nothing or everything, and the next one makes it good.
func TestARestoreThatIsKilledMidway(t *testing.T) {
	for how, script := range map[string]string{
		"by itself":         "head -c 20 >/dev/null; exit 3",
		"by a signal":       "head -c 20 >/dev/null; kill -KILL $$",
		"with half of it":   `head -n 2 | "$REAL" --noflush; kill -SEGV $$`,
		"when it was done":  `"$REAL" --noflush; kill -KILL $$`,
		"without a program": "exec /nonexistent",
	} {
		t.Run(how, func(t *testing.T) {
			enterNamespace(t)
			good := newDataplane(t, NFT)
			mustApply(t, good, oneChain("RF-OLD"))
			d := withPrograms(t, func(f iptables.Family, tools *familyTools) {
				if f == iptables.IPv4 {
					t.Setenv("REAL", tools.restore.path)
					instead(t, &tools.restore, script)
				}
			})
			err := d.Apply(t.Context(), oneChain("RF-NEW"))
			var failed *FamilyError
			if !errors.As(err, &failed) || failed.Family != iptables.IPv4 {
				t.Errorf("the error is %v, want a FamilyError of inet", err)
			}
			got := mustObserve(t, d)
			if _, ok := got.Tables[iptables.IPv4].Chains.Lookup("RF-OLD"); !ok {
				t.Error("what was enforced is gone")
			}
			if _, ok := got.Tables[iptables.IPv6].Chains.Lookup("RF-NEW"); !ok {
				t.Error("the other family waits")
			}
			if rules, ok := got.Tables[iptables.IPv4].Chains.Lookup("RF-NEW"); ok && !slices.Equal(rules, []iptables.Rule{"-j RETURN"}) {
				t.Errorf("half of a chain is there: %q", rules)
			}
			mustApply(t, good, oneChain("RF-NEW"))
		})
	}
}

// A lock that is held for longer than we wait is said, what is enforced stays, and a lock that comes free is ours in a moment.
func TestALockThatIsHeldForLong(t *testing.T) {
	enterNamespace(t)
	d := newDataplane(t, Legacy)
	mustApply(t, d, oneChain("RF-OLD"))
	d.tools.lockWait, d.tools.patience = time.Second, 2500*time.Millisecond
	lock := t.TempDir() + "/lock"
	t.Setenv("XTABLES_LOCKFILE", lock)
	release := holdLock(t, lock)
	start := time.Now()
	err := d.Apply(t.Context(), oneChain("RF-NEW"))
	if took := time.Since(start); took < d.tools.patience || took > 3*d.tools.patience {
		t.Errorf("two families waited %s, each is to wait %s", took, d.tools.patience)
	}
	if !errors.Is(err, ErrLocked) || !strings.Contains(fmt.Sprint(err), "another program holds the xtables lock") {
		t.Errorf("the error is %v, want one that names the lock", err)
	}
	if got := mustObserve(t, d).Tables[iptables.IPv4].Chains; got.Len() != 1 || got.Get("RF-OLD") == nil {
		t.Errorf("while the lock is held there is %v", got)
	}
	d.tools.patience = time.Minute
	free := make(chan time.Time, 1)
	time.AfterFunc(3*time.Second, func() {
		free <- time.Now()
		release()
	})
	mustApply(t, d, oneChain("RF-NEW"))
	if late := time.Since(<-free); late > 2*time.Second {
		t.Errorf("applied %s after the lock had come free", late)
	}
}
