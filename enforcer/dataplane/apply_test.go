package dataplane

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

func TestAKernelWithoutUsHasEmptyTables(t *testing.T) {
	onEach(t, func(t *testing.T, d subject) {
		got := mustObserve(t, d)
		none := iptables.Table{Name: securityTable, Jumps: map[string][]int{}, Chains: policy.MapOf(map[string][]iptables.Rule{})}
		want := iptables.Ruleset{
			Tables: map[iptables.Family]iptables.Table{iptables.IPv4: none, iptables.IPv6: none},
			Sets:   policy.MapOf(map[string]iptables.Set{}),
			Guards: map[string]iptables.Guard{},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("observed (-want +got):\n%s", diff)
		}
	})
}

// setRows are what is in a set after a plan: each entry form, and what adding and deleting do to those that are there.
var setRows = []struct {
	name            string
	kind            iptables.SetType
	before          []string
	add, del, after []string
}{
	{"addresses", iptables.HashIP, []string{"10.0.0.1"}, []string{"10.0.0.2", "255.255.255.255"}, []string{"10.0.0.1"},
		[]string{"10.0.0.2", "255.255.255.255"}},
	{"IPv6 addresses", iptables.HashIP, []string{"fd00::1"}, []string{"fd00::2", "::ffff:10.0.0.1"}, []string{"fd00::1"},
		[]string{"fd00::2", "::ffff:10.0.0.1"}},
	{"what is there is no error", iptables.HashIP, []string{"10.0.0.1"}, []string{"10.0.0.1", "10.0.0.2"}, nil,
		[]string{"10.0.0.1", "10.0.0.2"}},
	{"what is missing is no error", iptables.HashIP, []string{"10.0.0.1"}, nil, []string{"10.0.0.3", "10.0.0.1"}, nil},
	{"blocks with exceptions", iptables.HashNet, []string{"10.0.0.0/8", "10.1.0.0/16 nomatch"},
		[]string{"10.2.0.0/16 nomatch", "192.168.0.1/32"}, []string{"10.1.0.0/16 nomatch"},
		[]string{"10.0.0.0/8", "10.2.0.0/16 nomatch", "192.168.0.1/32"}},
	{"IPv6 blocks with exceptions", iptables.HashNet, []string{"fd00::/8", "fd01::/16 nomatch"}, []string{"8000::/1"}, nil,
		[]string{"fd00::/8", "fd01::/16 nomatch", "8000::/1"}},
	{"a block becomes an exception", iptables.HashNet, []string{"10.0.0.0/8"}, []string{"10.0.0.0/8 nomatch"}, []string{"10.0.0.0/8"},
		[]string{"10.0.0.0/8 nomatch"}},
	{"an exception becomes a block", iptables.HashNet, []string{"10.0.0.0/8 nomatch"}, []string{"10.0.0.0/8"},
		[]string{"10.0.0.0/8 nomatch"}, []string{"10.0.0.0/8"}},
	{"named ports", iptables.HashIPPort, []string{"10.0.0.1,tcp:80", "10.0.0.1,udp:80"},
		[]string{"10.0.0.1,sctp:80", "10.0.0.2,tcp:65535"}, []string{"10.0.0.1,tcp:80"},
		[]string{"10.0.0.1,udp:80", "10.0.0.1,sctp:80", "10.0.0.2,tcp:65535"}},
	{"IPv6 named ports", iptables.HashIPPort, []string{"fd00::1,tcp:80"}, []string{"fd00::1,sctp:80"}, nil,
		[]string{"fd00::1,tcp:80", "fd00::1,sctp:80"}},
}

func TestSets(t *testing.T) {
	onEach(t, func(t *testing.T, d subject) {
		var create, change iptables.Plan
		want := map[string]iptables.Set{}
		for i, r := range setRows {
			f := iptables.IPv4
			if strings.Contains(r.name, "IPv6") {
				f = iptables.IPv6
			}
			s := set(t, fmt.Sprintf("RF-v1-%dA-%d", f, i), r.kind, f, r.before...)
			create.CreateSets = append(create.CreateSets, s)
			change.AddEntries = append(change.AddEntries, entries(t, s, r.add...))
			change.DelEntries = append(change.DelEntries, entries(t, s, r.del...))
			want[s.Name] = set(t, s.Name, r.kind, f, r.after...)
		}
		mustApply(t, d, create)
		for _, s := range create.CreateSets {
			if diff := cmp.Diff(s, mustObserve(t, d).Sets.Get(s.Name), addrs); diff != "" {
				t.Errorf("created (-want +got):\n%s", diff)
			}
		}
		mustApply(t, d, change)
		got := mustObserve(t, d).Sets
		for i, r := range setRows {
			name := change.AddEntries[i].Set
			if diff := cmp.Diff(want[name], got.Get(name), addrs, empty); diff != "" {
				t.Errorf("%s (-want +got):\n%s", r.name, diff)
			}
		}
	})
}

func TestASetOfAnotherTypeGivesWay(t *testing.T) {
	onEach(t, func(t *testing.T, d subject) {
		const name = "RF-v1-4N-x"
		mustApply(t, d, iptables.Plan{CreateSets: []iptables.Set{set(t, name, iptables.HashIP, iptables.IPv4, "10.0.0.1")}})
		want := set(t, name, iptables.HashNet, iptables.IPv4, "10.0.0.0/8")
		mustApply(t, d, iptables.Plan{CreateSets: []iptables.Set{want}})
		if diff := cmp.Diff(want, mustObserve(t, d).Sets.Get(name), addrs); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestALeftoverOfTheSameNameGivesWay(t *testing.T) {
	onEach(t, func(t *testing.T, d subject) {
		mustApply(t, d, iptables.Plan{CreateSets: []iptables.Set{set(t, "RF-v1-4A-x", iptables.HashIP, iptables.IPv4, "10.0.0.1", "10.0.0.2")}})
		want := set(t, "RF-v1-4A-x", iptables.HashIP, iptables.IPv4, "10.0.0.2", "10.0.0.3")
		mustApply(t, d, iptables.Plan{CreateSets: []iptables.Set{want}})
		if diff := cmp.Diff(want, mustObserve(t, d).Sets.Get("RF-v1-4A-x"), addrs); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// manyAddresses is beyond the 65,536 entries that a set takes by default.
const manyAddresses = 70_000

func TestASetBeyond65536Entries(t *testing.T) {
	onEach(t, func(t *testing.T, d subject) {
		for f, first := range map[iptables.Family]string{iptables.IPv4: "10.0.0.0", iptables.IPv6: "fd00::"} {
			s := set(t, fmt.Sprintf("RF-v1-%dA-many", f), iptables.HashIP, f)
			half := iptables.SetEntries{Set: s.Name, Type: s.Type, Family: f}
			a := netip.MustParseAddr(first)
			var all []iptables.Entry
			for i := range manyAddresses {
				a = a.Next()
				all = append(all, iptables.Entry{Prefix: policy.PrefixOf(netip.PrefixFrom(a, a.BitLen()))})
				if i%2 == 0 {
					half.Entries = append(half.Entries, iptables.Entry{Prefix: policy.PrefixOf(netip.PrefixFrom(a, a.BitLen()))})
				}
			}
			s = s.Holding(all)
			start := time.Now()
			mustApply(t, d, iptables.Plan{CreateSets: []iptables.Set{s}})
			created := time.Since(start)
			got := mustObserve(t, d).Sets.Get(s.Name)
			t.Logf("%s: %d entries written in %s, read in %s", f, s.Len(), created, time.Since(start)-created)
			if !slices.Equal(all, got.Entries()) {
				t.Fatalf("%d entries read back of %d, or others", got.Len(), s.Len())
			}
			mustApply(t, d, iptables.Plan{DelEntries: []iptables.SetEntries{half}})
			if n := mustObserve(t, d).Sets.Get(s.Name).Len(); n != manyAddresses/2 {
				t.Errorf("%d entries are left after deleting half, want %d", n, manyAddresses/2)
			}
		}
	})
}

func TestASetThatARuleNamesIsNotDestroyed(t *testing.T) {
	onEach(t, func(t *testing.T, d subject) {
		used, unused := set(t, "RF-v1-4A-used", iptables.HashIP, iptables.IPv4), set(t, "RF-v1-4A-unused", iptables.HashIP, iptables.IPv4)
		rules := map[string][]iptables.Rule{"RF-X": {"-m set --match-set RF-v1-4A-used src -j RETURN"}}
		mustApply(t, d, iptables.Plan{
			CreateSets: []iptables.Set{used, unused},
			Restore:    map[iptables.Family]string{iptables.IPv4: chains(securityTable, rules)},
		})
		destroy := iptables.Plan{DestroySets: refs(used.Name, unused.Name, "RF-v1-4A-missing")}
		err := d.Apply(t.Context(), destroy)
		var named *SetError
		if !errors.As(err, &named) || named.Set != used.Name || !errors.Is(err, ErrSetInUse) {
			t.Errorf("destroying a set in use: %v, want a SetError that names it", err)
		}
		if left := (*iptables.Leftover)(nil); !errors.As(err, &left) || !slices.Equal(left.Sets, []string{used.Name}) {
			t.Errorf("%v is not about a set that is left alone", err)
		}
		if want := "sets that are needed no more stay: RF-v1-4A-used: set RF-v1-4A-used: destroying it: a rule still refers to the set"; err == nil || err.Error() != want {
			t.Errorf("the error is %v, want %s", err, want)
		}
		if got := mustObserve(t, d).Sets; got.Len() != 1 || got.Get(used.Name).Name == "" {
			t.Errorf("sets left: %v, want the one in use", got)
		}
		// With its rule gone it goes at once, in the same plan.
		destroy.Restore = map[iptables.Family]string{iptables.IPv4: "*security\n:RF-X - [0:0]\n-X RF-X\nCOMMIT\n"}
		mustApply(t, d, destroy)
		if got := mustObserve(t, d); got.Sets.Len() != 0 || got.Tables[iptables.IPv4].Chains.Len() != 0 {
			t.Errorf("left: %v", got)
		}
	})
}

// nf_tables releases a deleted rule's sets from a work queue: the set is in use for a moment longer than its rule.
func TestASetThatIsReleasedSoonIsDestroyed(t *testing.T) {
	for _, backend := range []string{NFT, Legacy} {
		t.Run(backend, func(t *testing.T) {
			enterNamespace(t)
			d := newDataplane(t, backend)
			mustApply(t, d, iptables.Plan{
				CreateSets: []iptables.Set{set(t, "RF-v1-4A-x", iptables.HashIP, iptables.IPv4)},
				Restore: map[iptables.Family]string{iptables.IPv4: chains(securityTable,
					map[string][]iptables.Rule{"RF-X": {"-m set --match-set RF-v1-4A-x src -j RETURN"}})},
			})
			release := exec.Command("sh", "-c", "sleep 0.2; iptables-"+backend+" -w -t security -F RF-X")
			if err := release.Start(); err != nil {
				t.Fatal(err)
			}
			mustApply(t, d, iptables.Plan{DestroySets: refs("RF-v1-4A-x")})
			if err := release.Wait(); err != nil {
				t.Fatal(err)
			}
			if got := mustObserve(t, d).Sets; got.Len() != 0 {
				t.Errorf("sets left: %v", got)
			}
		})
	}
}

func TestAFailureInOneFamilyLeavesTheOtherAlone(t *testing.T) {
	for _, c := range []struct {
		name    string
		restore string // of IPv4
		want    []string
	}{
		{"a set that is missing", "*security\n:RF-X - [0:0]\n-A RF-X -m set --match-set RF-v1-4A-none src -j RETURN\nCOMMIT\n",
			[]string{"inet: restoring the chains", "RF-v1-4A-none", "line 3 of the input: -A RF-X -m set --match-set RF-v1-4A-none src"}},
		{"a chain that is missing", "*security\n-X RF-NONE\nCOMMIT\n", []string{"inet: restoring the chains", "line 2 of the input: -X RF-NONE"}},
		{"no rule at all", "*security\n:RF-X - [0:0]\nfrobnicate\nCOMMIT\n", []string{"line 3 of the input: frobnicate"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			onEach(t, func(t *testing.T, d subject) { testFamilyFailure(t, d, c.restore, c.want) })
		})
	}
}

func testFamilyFailure(t *testing.T, d subject, restore string, want []string) {
	four := set(t, "RF-v1-4A-x", iptables.HashIP, iptables.IPv4, "10.0.0.1", "10.0.0.2")
	six := set(t, "RF-v1-6A-x", iptables.HashIP, iptables.IPv6, "fd00::1", "fd00::2")
	mustApply(t, d, iptables.Plan{CreateSets: []iptables.Set{four, six,
		set(t, "RF-v2-old4", iptables.HashIP, iptables.IPv4), set(t, "RF-v2-old6", iptables.HashIP, iptables.IPv6)}})
	rules := map[string][]iptables.Rule{"RF-X": {"-j RETURN"}}
	err := d.Apply(t.Context(), iptables.Plan{
		Restore:     map[iptables.Family]string{iptables.IPv4: restore, iptables.IPv6: chains(securityTable, rules)},
		DelEntries:  []iptables.SetEntries{entries(t, four, "10.0.0.1"), entries(t, six, "fd00::1")},
		DestroySets: []iptables.SetRef{{Name: "RF-v2-old4", Family: iptables.IPv4}, {Name: "RF-v2-old6", Family: iptables.IPv6}},
	})
	var failed *FamilyError
	if !errors.As(err, &failed) || failed.Family != iptables.IPv4 {
		t.Fatalf("the error is %v, want a FamilyError of inet", err)
	}
	for _, text := range want {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("the error does not say %q:\n%v", text, err)
		}
	}
	got := mustObserve(t, d)
	wantSets := map[string]iptables.Set{
		four.Name: four, "RF-v2-old4": set(t, "RF-v2-old4", iptables.HashIP, iptables.IPv4),
		six.Name: set(t, six.Name, iptables.HashIP, iptables.IPv6, "fd00::2"),
	}
	if diff := cmp.Diff(wantSets, got.Sets.Content(), addrs); diff != "" {
		t.Errorf("sets (-want +got):\n%s", diff)
	}
	if n := got.Tables[iptables.IPv4].Chains.Len(); n != 0 {
		t.Errorf("IPv4 has %d chains, want none: a restore is taken in whole or not at all", n)
	}
	if diff := cmp.Diff(rules, got.Tables[iptables.IPv6].Chains.Content()); diff != "" {
		t.Errorf("IPv6 chains (-want +got):\n%s", diff)
	}
}

func TestAnEntryThatIsRefusedIsNamed(t *testing.T) {
	onEach(t, func(t *testing.T, d subject) {
		s := set(t, "RF-v1-4N-x", iptables.HashNet, iptables.IPv4)
		mustApply(t, d, iptables.Plan{CreateSets: []iptables.Set{s}})
		err := d.Apply(t.Context(), iptables.Plan{AddEntries: []iptables.SetEntries{entries(t, s, "10.0.0.0/8", "0.0.0.0/0")}})
		if err == nil || !strings.Contains(err.Error(), "set RF-v1-4N-x: adding entries: 0.0.0.0/0: ") {
			t.Errorf("the error is %v, want one that names the set and the entry", err)
		}
	})
}

func TestAContextThatHasEndedChangesNothing(t *testing.T) {
	onEach(t, func(t *testing.T, d subject) {
		gone := errors.New("told to stop")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(gone)
		err := d.Apply(ctx, iptables.Plan{
			CreateSets:  []iptables.Set{set(t, "RF-v1-4A-x", iptables.HashIP, iptables.IPv4)},
			Restore:     map[iptables.Family]string{iptables.IPv6: chains(securityTable, map[string][]iptables.Rule{"RF-X": nil})},
			DestroySets: refs("RF-v1-4A-y"),
		})
		if !errors.Is(err, gone) {
			t.Errorf("the error is %v, want %v", err, gone)
		}
		if got := mustObserve(t, d); got.Sets.Len()+got.Tables[iptables.IPv6].Chains.Len() != 0 {
			t.Errorf("something was changed: %v", got)
		}
	})
}

// holdLock takes the xtables lock as another program does, and returns what releases it.
func holdLock(t *testing.T, path string) (release func()) {
	t.Helper()
	fd, err := syscall.Open(path, syscall.O_CREAT|syscall.O_RDONLY|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Flock(fd, syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	return func() { _ = syscall.Close(fd) }
}

func TestTheLockIsWaitedFor(t *testing.T) {
	enterNamespace(t)
	d := newDataplane(t, Legacy)
	d.tools.lockWait = time.Second
	lock := t.TempDir() + "/lock"
	t.Setenv("XTABLES_LOCKFILE", lock)
	release := holdLock(t, lock)
	const held = 1500 * time.Millisecond // longer than one run waits
	time.AfterFunc(held, release)
	start := time.Now()
	mustApply(t, d, iptables.Plan{
		Restore: map[iptables.Family]string{iptables.IPv4: chains(securityTable, map[string][]iptables.Rule{"RF-FORWARD": nil})},
		Jumps: []iptables.JumpFix{{
			Family: iptables.IPv4, Table: securityTable, Chain: "FORWARD", Rule: iptables.JumpRule("FORWARD"),
		}},
	})
	if took := time.Since(start); took < held {
		t.Errorf("the lock was held for %s, and the plan applied in %s: who broke it?", held, took)
	}
	got := mustObserve(t, d).Tables[iptables.IPv4]
	if _, ok := got.Chains.Lookup("RF-FORWARD"); !ok || !cmp.Equal(got.Jumps["FORWARD"], []int{1}) {
		t.Errorf("after the wait the table is %v", got)
	}
}

func TestTheWaitForTheLockEndsWithTheContext(t *testing.T) {
	enterNamespace(t)
	d := newDataplane(t, Legacy)
	d.tools.lockWait = time.Second
	lock := t.TempDir() + "/lock"
	t.Setenv("XTABLES_LOCKFILE", lock)
	release := holdLock(t, lock)
	defer release()
	plan := iptables.Plan{Restore: map[iptables.Family]string{
		iptables.IPv4: chains(securityTable, map[string][]iptables.Rule{"RF-FORWARD": nil}),
	}}
	for _, c := range []struct {
		patience time.Duration
		locked   bool // known to be the reason
	}{{300 * time.Millisecond, false}, {1500 * time.Millisecond, true}} {
		ctx, cancel := context.WithTimeout(t.Context(), c.patience)
		start := time.Now()
		err := d.Apply(ctx, plan)
		cancel()
		if took := time.Since(start); took > c.patience+2*time.Second {
			t.Errorf("with %s to wait it took %s", c.patience, took)
		}
		if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrLocked) != c.locked {
			t.Errorf("after %s the error is %v", c.patience, err)
		}
	}
	if got := mustObserve(t, d).Tables[iptables.IPv4].Chains; got.Len() != 0 {
		t.Errorf("someone wrote under another's lock: %v", got)
	}
}
