package cni_test

import (
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/lab/cni"
	"github.com/ringfence-io/ringfence/lab/host"
	"github.com/ringfence-io/ringfence/lab/probe"
)

func TestVersionIsTheOneThatIsBuilt(t *testing.T) {
	mod, err := os.ReadFile("../../hack/cni/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if want := "github.com/containernetworking/plugins " + cni.Version; !strings.Contains(string(mod), want) {
		t.Errorf("hack/cni/go.mod does not require %q", want)
	}
}

func TestNetwork(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root to make network namespaces")
		}
		t.Skip("LEFT OUT: needs root to make network namespaces")
	}
	ranges := []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00:10:244:1::/64")}
	for _, kind := range cni.Kinds {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			node := newHost(t, string(kind)+"-node")
			network, err := cni.New(cni.Config{Kind: kind, Node: node, PodCIDRs: ranges, Dir: t.TempDir()})
			must(t, err)
			add := func(name string, want ...netip.Addr) (cni.Pod, []netip.Addr) {
				t.Helper()
				pod := cni.Pod{
					UID: "uid-" + name, Namespace: "shop", Name: name,
					Host: newHost(t, string(kind)+"-"+name), Addresses: want,
				}
				addrs, err := network.Add(t.Context(), pod)
				must(t, err)
				return pod, addrs
			}
			a, aAddrs := add("a")
			b, bAddrs := add("b")
			if diff := cmp.Diff(addrs("10.244.1.2", "fd00:10:244:1::2"), aAddrs, compareAddrs); diff != "" {
				t.Errorf("the first pod's addresses (-want +got):\n%s", diff)
			}
			for _, addr := range bAddrs {
				server, err := probe.Listen(b.Host, policy.TCP, netip.AddrPortFrom(addr, 80))
				must(t, err)
				defer server.Close()
				flow := probe.Flow{Protocol: policy.TCP, Dst: addr, Port: 80}
				if got := probe.Dial(a.Host, flow, probe.Expect(true)); got.Identity != b.Host.Name() {
					t.Errorf("%s: %s", flow, got)
				}
			}
			t.Run("host port", func(t *testing.T) {
				pod := cni.Pod{
					UID: "uid-hp", Namespace: "shop", Name: "hp", Host: newHost(t, string(kind)+"-hp"),
					HostPorts: []cni.HostPort{{HostPort: 8080, ContainerPort: 80, Protocol: "tcp"}},
				}
				addrs, err := network.Add(t.Context(), pod)
				must(t, err)
				server, err := probe.Listen(pod.Host, policy.TCP, netip.AddrPortFrom(addrs[0], 80))
				must(t, err)
				defer server.Close()
				// The gateway of another pod is an address of the node's.
				flow := probe.Flow{Protocol: policy.TCP, Dst: netip.MustParseAddr("10.244.1.1"), Port: 8080}
				if got := probe.Dial(a.Host, flow, probe.Expect(true)); got.Identity != pod.Host.Name() {
					t.Errorf("%s: %s", flow, got)
				}
				must(t, network.Del(t.Context(), pod))
			})
			must(t, network.Del(t.Context(), a))
			must(t, network.Del(t.Context(), a)) // again: nothing to do
			_, again := add("c", aAddrs...)
			if diff := cmp.Diff(aAddrs, again, compareAddrs); diff != "" {
				t.Errorf("the addresses that were asked for (-want +got):\n%s", diff)
			}
		})
	}
}

var compareAddrs = cmpopts.EquateComparable(netip.Addr{})

func addrs(s ...string) []netip.Addr {
	var out []netip.Addr
	for _, one := range s {
		out = append(out, netip.MustParseAddr(one))
	}
	return out
}

func newHost(t *testing.T, name string) *host.Host {
	t.Helper()
	h, err := host.New(host.RunPrefix("rf-cni") + name)
	must(t, err)
	t.Cleanup(func() { must(t, h.Close()) })
	return h
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
