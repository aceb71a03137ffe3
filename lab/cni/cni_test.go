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
	"github.com/ringfence-io/ringfence/lab/probe"
	"github.com/ringfence-io/ringfence/test/kit"
	"github.com/ringfence-io/ringfence/test/kit/netns"
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

// hostPrefix begins the names of the network namespaces that this package makes.
const hostPrefix = "rf-cni"

func TestNetwork(t *testing.T) {
	kit.NeedRoot(t)
	ranges := []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00:10:244:1::/64")}
	for _, kind := range cni.Kinds {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			node := netns.New(t, hostPrefix, "node")
			network, err := cni.New(cni.Config{Kind: kind, Node: node, PodCIDRs: ranges, Dir: t.TempDir()})
			kit.Must(t, err)
			add := func(name string, want ...netip.Addr) (cni.Pod, []netip.Addr) {
				t.Helper()
				pod := cni.Pod{
					UID: "uid-" + name, Namespace: "shop", Name: name,
					Host: netns.New(t, hostPrefix, name), Addresses: want,
				}
				addrs, err := network.Add(t.Context(), pod)
				kit.Must(t, err)
				return pod, addrs
			}
			a, aAddrs := add("a")
			b, bAddrs := add("b")
			if diff := cmp.Diff(kit.Addrs("10.244.1.2", "fd00:10:244:1::2"), aAddrs, compareAddrs); diff != "" {
				t.Errorf("the first pod's addresses (-want +got):\n%s", diff)
			}
			for _, addr := range bAddrs {
				server, err := probe.Listen(b.Host, policy.TCP, netip.AddrPortFrom(addr, 80))
				kit.Must(t, err)
				defer server.Close()
				flow := probe.Flow{Protocol: policy.TCP, Dst: addr, Port: 80}
				if got := probe.Dial(a.Host, flow, probe.Expect(true)); got.Identity != b.Host.Name() {
					t.Errorf("%s: %s", flow, got)
				}
			}
			t.Run("host port", func(t *testing.T) {
				pod := cni.Pod{
					UID: "uid-hp", Namespace: "shop", Name: "hp", Host: netns.New(t, hostPrefix, "hp"),
					HostPorts: []cni.HostPort{{HostPort: 8080, ContainerPort: 80, Protocol: "tcp"}},
				}
				addrs, err := network.Add(t.Context(), pod)
				kit.Must(t, err)
				server, err := probe.Listen(pod.Host, policy.TCP, netip.AddrPortFrom(addrs[0], 80))
				kit.Must(t, err)
				defer server.Close()
				// The gateway of another pod is an address of the node's.
				flow := probe.Flow{Protocol: policy.TCP, Dst: netip.MustParseAddr("10.244.1.1"), Port: 8080}
				if got := probe.Dial(a.Host, flow, probe.Expect(true)); got.Identity != pod.Host.Name() {
					t.Errorf("%s: %s", flow, got)
				}
				kit.Must(t, network.Del(t.Context(), pod))
			})
			kit.Must(t, network.Del(t.Context(), a))
			kit.Must(t, network.Del(t.Context(), a)) // again: nothing to do
			_, again := add("c", aAddrs...)
			if diff := cmp.Diff(aAddrs, again, compareAddrs); diff != "" {
				t.Errorf("the addresses that were asked for (-want +got):\n%s", diff)
			}
		})
	}
}

var compareAddrs = cmpopts.EquateComparable(netip.Addr{})
