package packets

import (
	"fmt"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ringfence-io/ringfence/enforcer"
	"github.com/ringfence-io/ringfence/enforcer/dataplane"
	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/lab/topology"
	"github.com/ringfence-io/ringfence/test/kit"
	"github.com/ringfence-io/ringfence/test/scenario"
)

// tamperPolicies make chains and sets of every type.
const tamperPolicies = `
red/a: {podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{from: [{podSelector: {matchLabels: {app: db}}}, {ipBlock: {cidr: 10.0.0.0/8, except: [10.0.1.0/24, 10.244.0.0/16]}}], ports: [{port: 80}, {port: 81, endPort: 82}]}], egress: [{ports: [{port: http}]}]}
red/b: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: blue}}}], ports: [{port: http}]}]}`

// tamperLines hold under tamperPolicies.
var tamperLines = []string{
	"db reaches web on tcp/80", "client reaches web on tcp/80", "10.0.2.5 reaches web on tcp/81", "web reaches remote on tcp/80",
	"client does not reach web on tcp/81 udp/80 icmp", "10.0.1.5 does not reach web on tcp/80", "far does not reach web on tcp/80",
	"web does not reach remote on tcp/81", "web does not reach outside", "web does not reach n1",
}

// victim is what somebody has broken into.
type victim struct {
	t *testing.T
	*node
	combination
	found iptables.Ruleset
}

func (v victim) program() string { return programOf(v.family, v.backend) }

func (v victim) iptables(args ...string) {
	v.t.Helper()
	v.command(v.t, "", v.program(), append([]string{"-w", "-t", "security"}, args...)...)
}

func (v victim) ipset(args ...string) {
	v.t.Helper()
	v.command(v.t, "", "ipset", args...)
}

// chains are our chains, sorted.
func (v victim) chains() []string { return slices.Sorted(v.found.Tables[v.family].Chains.Keys()) }

// policySets are those whose entries policy decides about. What is in the others is nobody's to repair.
func (v victim) policySets() []iptables.Set {
	return slices.DeleteFunc(v.sets(), func(s iptables.Set) bool { return s.Type.Timed() })
}

// sets are our sets of the family, sorted.
func (v victim) sets() []iptables.Set {
	var all []iptables.Set
	for _, name := range slices.Sorted(v.found.Sets.Keys()) {
		if v.found.Sets.Get(name).Family == v.family {
			all = append(all, v.found.Sets.Get(name))
		}
	}
	return all
}

// each is one kind of tampering on one object; a tampering function calls again for every further object.
type each func(what string, do func())

// tamperings are what other programs and people do to our part of the kernel. Each call of each is followed by one resync.
var tamperings = []struct {
	name string
	do   func(v victim, each each)
}{
	{"the table is flushed", func(v victim, each each) {
		each("", func() { v.iptables("-F") })
	}},
	{"the table is flushed and its chains are deleted", func(v victim, each each) {
		each("", func() { v.iptables("-F"); v.iptables("-X") })
	}},
	{"a chain is flushed", func(v victim, each each) {
		for _, c := range v.chains() {
			each(c, func() { v.iptables("-F", c) })
		}
	}},
	{"a rule is deleted", func(v victim, each each) {
		for _, c := range v.chains() {
			for i, r := range v.found.Tables[v.family].Chains.Get(c) {
				each(fmt.Sprintf("%s %d: %s", c, i+1, r), func() { v.iptables("-D", c, fmt.Sprint(i+1)) })
			}
		}
	}},
	{"a rule that accepts is put in front of a chain", func(v victim, each each) {
		for _, c := range v.chains() {
			each(c, func() { v.iptables("-I", c, "1", "-j", "ACCEPT") })
		}
	}},
	{"a rule is appended to a chain", func(v victim, each each) {
		for _, c := range v.chains() {
			each(c, func() { v.iptables("-A", c, "-p", "tcp", "-j", "DROP") })
		}
	}},
	{"the rules of a chain change places", func(v victim, each each) {
		for _, c := range v.chains() {
			if rules := v.found.Tables[v.family].Chains.Get(c); len(rules) > 1 && rules[0] != rules[1] {
				each(c, func() {
					v.command(v.t, fmt.Sprintf("*security\n-D %s 1\n-I %s 2 %s\nCOMMIT\n", c, c, rules[0]), v.program()+"-restore", "--noflush", "-w")
				})
			}
		}
	}},
	{"the jump is deleted", func(v victim, each each) {
		each("FORWARD", func() { v.iptables("-D", "FORWARD", "1") })
		each("INPUT", func() { v.iptables("-D", "INPUT", "1") })
	}},
	{"the jump is doubled", func(v victim, each each) {
		each("", func() { v.iptables("-A", "FORWARD", "-j", "RF-FORWARD") })
	}},
	{"another program accepts in front of the jump", func(v victim, each each) {
		each("", func() { v.iptables("-I", "FORWARD", "1", "-j", "ACCEPT") })
	}},
	{"a chain with our prefix appears", func(v victim, each each) {
		each("", func() { v.iptables("-N", "RF-STRAY"); v.iptables("-A", "RF-STRAY", "-j", "ACCEPT") })
	}},
	{"an entry is deleted", func(v victim, each each) {
		for _, s := range v.sets() {
			for e := range s.All() {
				each(s.Name, func() { v.ipset("del", s.Name, entryText(s.Type, e)) })
			}
		}
	}},
	{"an entry is added", func(v victim, each each) {
		for _, s := range v.policySets() {
			each(s.Name, func() { v.ipset("add", s.Name, strayEntry(s)) })
		}
	}},
	{"an exception becomes a match", func(v victim, each each) {
		for _, s := range v.sets() {
			for e := range s.All() {
				if e.NoMatch {
					each(s.Name, func() { v.ipset("-exist", "add", s.Name, entryText(s.Type, e)) })
				}
			}
		}
	}},
	{"a set is flushed", func(v victim, each each) {
		for _, s := range v.policySets() {
			each(s.Name, func() { v.ipset("flush", s.Name) })
		}
	}},
	{"a set is swapped with another program's", func(v victim, each each) {
		for i, s := range v.policySets() {
			each(s.Name, func() {
				other := fmt.Sprintf("other%d-%d", v.family, i)
				v.ipset("create", other, string(s.Type), "family", s.Family.String())
				v.ipset("swap", s.Name, other)
			})
		}
	}},
	{"a set is destroyed", func(v victim, each each) {
		for _, s := range v.sets() {
			each(s.Name, func() { v.iptables("-F"); v.ipset("destroy", s.Name) })
		}
	}},
	{"all sets are destroyed", func(v victim, each each) {
		each("", func() {
			for _, f := range iptables.Families {
				v.command(v.t, "", programOf(f, v.backend), "-w", "-t", "security", "-F")
			}
			for name := range v.found.Sets.All() {
				v.ipset("destroy", name)
			}
		})
	}},
	{"a set is replaced by one of another type", func(v victim, each each) {
		for _, s := range v.sets() {
			each(s.Name, func() {
				v.iptables("-F")
				v.ipset("destroy", s.Name)
				v.ipset("create", s.Name, "hash:ip,port,net", "family", s.Family.String())
			})
		}
	}},
	{"a set with our prefix appears", func(v victim, each each) {
		each("", func() { v.ipset("create", "RF-STRAY", "hash:net"); v.ipset("add", "RF-STRAY", "10.0.0.0/8") })
	}},
}

func entryText(t iptables.SetType, e iptables.Entry) string {
	switch t {
	case iptables.HashNet:
		return e.Prefix.String()
	case iptables.HashIPPort:
		return fmt.Sprintf("%s,%s:%d", e.Prefix.Addr(), e.Protocol, e.Port)
	}
	return e.Prefix.Addr().String()
}

// strayEntry is an entry that s does not have.
func strayEntry(s iptables.Set) string {
	a := "198.51.100.9"
	if s.Family == iptables.IPv6 {
		a = "2001:db8::9"
	}
	if s.Type == iptables.HashIPPort {
		return a + ",tcp:9"
	}
	return a
}

// TestTamperingIsRepaired breaks what is ours, in every way and place: one resync mends it, notes that it did, leaves other
// programs' rules as they are, and the right packets pass again.
func TestTamperingIsRepaired(t *testing.T) {
	kit.NeedNetfilter(t)
	for _, c := range combinations() {
		if (c.kind == topology.Bridged) != (c.family == iptables.IPv6) {
			continue // the kind of network makes no difference here, but both shall have been there
		}
		t.Run(c.String(), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, c)
			cluster := w.cluster()
			setPolicies(t, cluster, tamperPolicies)
			w.apply(t, cluster)
			n := w.nodes[0]
			n.installForeign(t)
			for _, row := range tamperings {
				t.Run(row.name, func(t *testing.T) {
					v := victim{t: t, node: n, combination: c, found: n.observe(t)}
					broken := 0
					row.do(v, func(what string, do func()) {
						broken++
						do()
						n.wantRepair(t, cluster, what)
					})
					if broken == 0 {
						t.Fatal("nothing was broken")
					}
					kit.Must(t, w.top.ForgetConnections())
					w.check(t, tamperLines)
				})
			}
		})
	}
}

// wantRepair resyncs once, and holds the kernel and the report to it.
func (n *node) wantRepair(t *testing.T, c *scenario.Cluster, what string) {
	t.Helper()
	foreign := n.foreign(t)
	if r := n.sync(t, c, true); r.Repairs.Empty() {
		t.Errorf("%s: the resync has not noticed anything", what)
	}
	var r enforcer.Report
	if r = n.sync(t, c, true); !r.Repairs.Empty() || !r.Applied.Empty() {
		t.Fatalf("%s: one resync has not repaired it:\n%s", what, r.Repairs)
	}
	// A rule of another program that stood in front of our jump is behind it now: its place among its own is the same.
	if d := cmp.Diff(foreign, n.foreign(t)); d != "" {
		t.Fatalf("%s: the repair has changed other programs' rules, -want +got:\n%s", what, d)
	}
}

func (n *node) observe(t *testing.T) iptables.Ruleset {
	t.Helper()
	var r iptables.Ruleset
	kit.Must(t, n.Do(func() (err error) {
		r, err = n.plane.Observe(t.Context())
		return err
	}))
	return r
}

// TestSyncWaitsForTheLock has another program hold the xtables lock, as a slow iptables-restore does.
func TestSyncWaitsForTheLock(t *testing.T) {
	kit.NeedNetfilter(t)
	const held = time.Second
	for _, c := range combinations() {
		if c.backend != dataplane.Legacy || c.kind != topology.Routed {
			continue // iptables-nft has no lock
		}
		t.Run(c.String(), func(t *testing.T) {
			w := newWorld(t, c)
			cluster := w.cluster()
			w.apply(t, cluster)
			setPolicies(t, cluster, scenario.FromDB)

			lock, err := os.OpenFile("/run/xtables.lock", os.O_CREATE, 0o600)
			kit.Must(t, err)
			kit.Must(t, syscall.Flock(int(lock.Fd()), syscall.LOCK_EX))
			release := time.AfterFunc(held, func() { _ = lock.Close() })
			defer release.Stop()
			begin := time.Now()
			w.nodes[0].sync(t, cluster, false)
			if took := time.Since(begin); took < held {
				t.Errorf("the sync took %s while the lock was held for %s", took, held)
			}
			w.apply(t, cluster)
			w.check(t, []string{"client does not reach web", "db reaches web"})
		})
	}
}
