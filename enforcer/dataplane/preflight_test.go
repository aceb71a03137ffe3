package dataplane

import (
	"context"
	"errors"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
)

// node is a kernel that has everything, except for what is named: "hash:net", "security", "xt_bpf", "bpf of inet6".
type node struct {
	lacks   []string
	sysctls map[string]string
	bridged []string
	asked   map[string]bool // tables that came into being
	virtual string          // what is seen of IPVS
}

var _ probes = (*node)(nil)

var errLacking = errors.New("no such thing here")

func (n *node) has(thing string, f iptables.Family) error {
	if slices.Contains(n.lacks, thing) || slices.Contains(n.lacks, thing+" of "+f.String()) {
		return errLacking
	}
	return nil
}

func (n *node) setType(t iptables.SetType, f iptables.Family) error {
	return errors.Join(n.has("ip_set", f), n.has(string(t), f))
}

func (n *node) connections() error { return n.has("connections", 0) }

func (n *node) rules(_ context.Context, f iptables.Family, table string, rules ...string) error {
	n.asked[table] = true
	if err := errors.Join(n.has("iptables", f), n.has(table, f)); err != nil {
		return err
	}
	for _, r := range rules {
		for _, match := range []string{"set", "comment", "multiport", "conntrack", "bpf", "addrtype", "limit", "tcp", "udp", "icmp6", "hl"} {
			if strings.Contains(r, "-m "+match+" ") && n.has(match, f) != nil {
				return errLacking
			}
		}
		if strings.Contains(r, "-j NFLOG ") && n.has("NFLOG", f) != nil {
			return errLacking
		}
	}
	return nil
}

func (n *node) guards() error { return n.has("netdev", 0) }

func (n *node) sysctl(name string) (string, error) {
	v, ok := n.sysctls[name]
	if !ok {
		return "", os.ErrNotExist
	}
	return v, nil
}

func (n *node) bridges() ([]string, error) { return n.bridged, nil }

func (n *node) ipvs() (string, error) { return n.virtual, nil }

func wholeNode(lacks ...string) *node {
	return &node{lacks: lacks, asked: map[string]bool{}, sysctls: map[string]string{
		"bridge/bridge-nf-call-iptables": "1", "bridge/bridge-nf-call-ip6tables": "1", "ipv4/ip_forward": "1",
	}}
}

// surveyed is what a first look finds.
func surveyed(t *testing.T, n *node) (Capabilities, []Finding) {
	t.Helper()
	s := inspect(t.Context(), n, "")
	return s.capabilities, s.findings()
}

var both = []iptables.Family{iptables.IPv4, iptables.IPv6}

func TestPreflight(t *testing.T) {
	for _, c := range []struct {
		name  string
		lacks []string
		want  Capabilities
		said  []string // every finding that is not OK, in its own words
	}{
		{name: "nothing missing", want: Capabilities{both, "security", true, true, true, true, true, true, true}},
		{
			name: "no xt_bpf", lacks: []string{"bpf"}, want: Capabilities{both, "security", false, true, true, true, true, true, true},
			said: []string{"xt_bpf is missing or off (degraded): inet: no such thing here; inet6: no such thing here. " +
				"Cost: a pod that is isolated cannot reach itself through its own Service, " +
				"and a live SCTP association that is cut may come back when its server speaks first. " +
				"Remedy: load or build the kernel module xt_bpf, and install iptables with its extensions"},
		},
		{
			name: "no xt_bpf in one family", lacks: []string{"bpf of inet6"}, want: Capabilities{both, "security", false, true, true, true, true, true, true},
			said: []string{"xt_bpf is missing or off (degraded): inet6: no such thing here. " +
				"Cost: a pod that is isolated cannot reach itself through its own Service, " +
				"and a live SCTP association that is cut may come back when its server speaks first. " +
				"Remedy: load or build the kernel module xt_bpf, and install iptables with its extensions"},
		},
		{
			name: "no xt_addrtype in one family", lacks: []string{"addrtype of inet6"}, want: Capabilities{both, "security", true, true, false, true, true, true, true},
			said: []string{"xt_addrtype is missing or off (degraded): inet6: no such thing here. " +
				"Cost: with --unknown-pods=drop nothing is dropped all the same. " +
				"Remedy: load or build the kernel module xt_addrtype, and install iptables with its extensions"},
		},
		{
			name: "no xt_limit", lacks: []string{"limit"}, want: Capabilities{both, "security", true, false, true, true, true, true, true},
			said: []string{"xt_limit is missing or off (degraded): inet: no such thing here; inet6: no such thing here. " +
				"Cost: no denied packet is logged, and what audit mode would deny is at most counted. " +
				"Remedy: load or build the kernel module xt_limit, and install iptables with its extensions"},
		},
		{
			name: "no xt_NFLOG in one family", lacks: []string{"NFLOG of inet6"}, want: Capabilities{both, "security", true, false, true, true, true, true, true},
			said: []string{"xt_NFLOG is missing or off (degraded): inet6: no such thing here. " +
				"Cost: no denied packet is logged, and what audit mode would deny is at most counted. " +
				"Remedy: load or build the kernel module xt_NFLOG (with nfnetlink_log), and install iptables with its extensions"},
		},
		{
			name: "no hash:ip,port,ip in one family", lacks: []string{"hash:ip,port,ip of inet6"}, want: Capabilities{both, "security", true, true, true, true, false, true, true},
			said: []string{"ip_set type hash:ip,port,ip is missing or off (degraded): inet6: no such thing here. " +
				"Cost: a live connection that is cut may come back when its server speaks first, if policy lets the server open one to the client. " +
				"Remedy: load or build the kernel modules ip_set and ip_set_hash_ipportip"},
		},
		{
			name: "no nf_conntrack_netlink", lacks: []string{"connections"}, want: Capabilities{both, "security", true, true, true, false, true, true, true},
			said: []string{"nf_conntrack_netlink is missing or off (degraded): no such thing here. " +
				"Cost: a connection that policy denies only after it was opened stays open until one of its ends closes it. " +
				"Remedy: load or build the kernel module nf_conntrack_netlink"},
		},
		{
			name: "no table security", lacks: []string{"security"}, want: Capabilities{both, "mangle", true, true, true, true, true, true, true},
			said: []string{"table security is missing or off (degraded): inet: no such thing here; inet6: no such thing here. " +
				"Cost: our chains have to stand in the table mangle, where other programs write too. " +
				"Remedy: load or build the kernel modules iptable_security and ip6table_security (legacy), or nf_tables (nft)"},
		},
		{
			name: "no table security in one family", lacks: []string{"security of inet6"}, want: Capabilities{both, "mangle", true, true, true, true, true, true, true},
			said: []string{"table security is missing or off (degraded): inet6: no such thing here. " +
				"Cost: our chains have to stand in the table mangle, where other programs write too. " +
				"Remedy: load or build the kernel modules iptable_security and ip6table_security (legacy), or nf_tables (nft)"},
		},
		{
			name: "no ip6tables", lacks: []string{"iptables of inet6"}, want: Capabilities{both[:1], "security", true, true, true, true, true, false, true},
			said: []string{
				"table security is missing or off (degraded): inet6: no such thing here. " +
					"Cost: our chains have to stand in the table mangle, where other programs write too. " +
					"Remedy: load or build the kernel modules iptable_security and ip6table_security (legacy), or nf_tables (nft)",
				"table mangle is missing or off (degraded): inet6: no such thing here. Cost: there is no table for our chains. " +
					"Remedy: load or build the kernel modules iptable_mangle and ip6table_mangle (legacy), or nf_tables (nft)",
				"IPv6 is missing or off (degraded): it lacks table security. Cost: no policy is enforced on IPv6 traffic. " +
					"Remedy: mend what it lacks, or give pods no IPv6 addresses",
			},
		},
		{
			name: "no xt_set in one family", lacks: []string{"set of inet"}, want: Capabilities{both[1:], "security", true, true, true, true, true, true, true},
			said: []string{
				"xt_set is missing or off (degraded): inet: no such thing here. Cost: rules cannot refer to sets of pods. " +
					"Remedy: load or build the kernel module xt_set, and install iptables with its extensions",
				"IPv4 is missing or off (degraded): it lacks xt_set. Cost: no policy is enforced on IPv4 traffic. " +
					"Remedy: mend what it lacks, or give pods no IPv4 addresses",
			},
		},
		{
			name: "no hash:ip,port", lacks: []string{"hash:ip,port"}, want: Capabilities{nil, "security", false, false, false, true, false, false, true},
			said: []string{
				"ip_set type hash:ip,port is missing or off (fatal): inet: no such thing here; inet6: no such thing here. " +
					"Cost: rules cannot refer to named ports. Remedy: load or build the kernel modules ip_set and ip_set_hash_ipport",
				"IPv4 is missing or off (fatal): it lacks ip_set type hash:ip,port. Cost: no policy is enforced on IPv4 traffic. " +
					"Remedy: mend what it lacks, or give pods no IPv4 addresses",
				"IPv6 is missing or off (fatal): it lacks ip_set type hash:ip,port. Cost: no policy is enforced on IPv6 traffic. " +
					"Remedy: mend what it lacks, or give pods no IPv6 addresses",
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := wholeNode(c.lacks...)
			got, findings := surveyed(t, n)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("capabilities (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(c.said, amiss(findings)); diff != "" {
				t.Errorf("findings that are not OK (-want +got):\n%s", diff)
			}
			if n.asked[mangleTable] && len(c.lacks) == 0 {
				t.Error("the table mangle was looked at, and so brought into being, without need")
			}
		})
	}
}

func amiss(findings []Finding) []string {
	var said []string
	for _, f := range findings {
		if !f.OK {
			said = append(said, f.String())
		}
	}
	return said
}

func TestEachMissingPieceOfTheKernelIsNamed(t *testing.T) {
	for lacking, name := range map[string]string{
		"ip_set": "ip_set type hash:ip", "hash:ip": "ip_set type hash:ip", "hash:net": "ip_set type hash:net",
		"set": "xt_set", "comment": "xt_comment", "multiport": "xt_multiport", "conntrack": "xt_conntrack", "iptables": "table mangle",
	} {
		t.Run(lacking, func(t *testing.T) {
			got, findings := surveyed(t, wholeNode(lacking))
			if len(got.Families) != 0 || got.SelfMatch || got.Log {
				t.Errorf("capabilities are %v, want none", got)
			}
			i := slices.IndexFunc(findings, func(f Finding) bool { return f.Name == name })
			if i < 0 || findings[i].OK || findings[i].Severity != Fatal || findings[i].Cost == "" || findings[i].Remedy == "" {
				t.Fatalf("no fatal finding is called %s: %v", name, amiss(findings))
			}
			text := (&PreflightError{Findings: findings}).Error()
			if !strings.HasPrefix(text, "no policy can be enforced on this node: ") || !strings.Contains(text, name) {
				t.Errorf("the error does not name it: %s", text)
			}
		})
	}
}

func TestSysctls(t *testing.T) {
	const routed = "; on this node there is no bridge with ports at the moment"
	for _, c := range []struct {
		name    string
		change  map[string]string // "" takes the setting away
		bridged []string
		want    []string
	}{
		{name: "as needed", bridged: []string{"cni0"}},
		{
			name: "br_netfilter not loaded, with a bridge", bridged: []string{"cni0", "br1"},
			change: map[string]string{"bridge/bridge-nf-call-iptables": "", "bridge/bridge-nf-call-ip6tables": ""},
			want: []string{
				"bridge-nf-call-iptables is missing or off (degraded): the kernel module br_netfilter is not loaded; " +
					"bridges on this node: cni0, br1. Cost: IPv4 traffic between two pods of one bridge passes no policy; " +
					"routed traffic does. Remedy: modprobe br_netfilter",
				"bridge-nf-call-ip6tables is missing or off (degraded): the kernel module br_netfilter is not loaded; " +
					"bridges on this node: cni0, br1. Cost: IPv6 traffic between two pods of one bridge passes no policy; " +
					"routed traffic does. Remedy: modprobe br_netfilter",
			},
		},
		{
			name: "off for IPv6, without a bridge", change: map[string]string{"bridge/bridge-nf-call-ip6tables": "0"},
			want: []string{"bridge-nf-call-ip6tables is missing or off (info): it is 0" + routed + ". Cost: IPv6 traffic between two " +
				"pods of one bridge passes no policy; routed traffic does. Remedy: sysctl -w net.bridge.bridge-nf-call-ip6tables=1"},
		},
		{
			name: "no forwarding", change: map[string]string{"ipv4/ip_forward": "0"},
			want: []string{"ip_forward is missing or off (info): the node does not route IPv4 traffic. " +
				"Cost: routed pods reach nothing, whatever policies say. Remedy: sysctl -w net.ipv4.ip_forward=1"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := wholeNode()
			n.bridged = c.bridged
			maps.Copy(n.sysctls, c.change)
			maps.DeleteFunc(n.sysctls, func(_, v string) bool { return v == "" })
			got, findings := surveyed(t, n)
			if diff := cmp.Diff(c.want, amiss(findings)); diff != "" {
				t.Errorf("findings that are not OK (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(Capabilities{both, "security", true, true, true, true, true, true, true}, got); diff != "" {
				t.Errorf("capabilities (-want +got):\n%s", diff)
			}
		})
	}
}

func TestThePreflightOfThisKernel(t *testing.T) {
	for _, backend := range []string{NFT, Legacy} {
		t.Run(backend, func(t *testing.T) {
			enterNamespace(t)
			run(t, "ip", "link", "add", "br9", "type", "bridge")
			run(t, "ip", "link", "add", "port9", "type", "veth", "peer", "name", "pod9")
			run(t, "ip", "link", "set", "port9", "master", "br9")
			d := newDataplane(t, backend)
			if diff := cmp.Diff(Capabilities{both, "security", true, true, true, true, true, true, true}, d.Capabilities()); diff != "" {
				t.Errorf("capabilities (-want +got):\n%s", diff)
			}
			bridges, err := (&kernelProbes{tools: d.tools}).bridges()
			if diff := cmp.Diff([]string{"br9"}, bridges); diff != "" || err != nil {
				t.Errorf("bridges: %v (-want +got):\n%s", err, diff)
			}
			if got := mustObserve(t, d); got.Sets.Len()+got.Tables[iptables.IPv4].Chains.Len()+got.Tables[iptables.IPv6].Chains.Len() != 0 {
				t.Errorf("the preflight left something behind: %v", got)
			}
		})
	}
}

// What the kernel or a program says of a thing that is missing reaches the finding.
func TestProbesSayWhatTheKernelSays(t *testing.T) {
	enterNamespace(t)
	k := &kernelProbes{tools: newDataplane(t, NFT).tools}
	if err := k.rules(t.Context(), iptables.IPv4, securityTable, "-m nosuch"); err == nil || !strings.Contains(err.Error(), "nosuch") {
		t.Errorf("a match that is missing: %v", err)
	}
	if err := k.rules(t.Context(), iptables.IPv4, "nosuch"); err == nil {
		t.Error("a table that is missing is found")
	}
	if err := k.setType("hash:nosuch", iptables.IPv4); !errors.Is(err, errNoSetType) {
		t.Errorf("a type of set that is missing: %v", err)
	}
	if _, err := k.sysctl("nosuch"); err == nil {
		t.Error("a sysctl that is missing is found")
	}
}
