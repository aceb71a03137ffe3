package cli

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ringfence-io/ringfence/enforcer/dataplane"
	"github.com/ringfence-io/ringfence/enforcer/iptables"
)

func TestWhereDNSIsFound(t *testing.T) {
	service := func(namespace, name string) types.NamespacedName {
		return types.NamespacedName{Namespace: namespace, Name: name}
	}
	addr := netip.MustParseAddr
	tests := []struct {
		name     string
		flags    []string
		services []types.NamespacedName
		addrs    []netip.Addr
	}{
		{"by default", nil,
			[]types.NamespacedName{service("kube-system", "kube-dns"), service("kube-system", "rke2-coredns-rke2-coredns"),
				service("openshift-dns", "dns-default")},
			[]netip.Addr{addr("169.254.20.10")}},
		{"flags replace the default", []string{"--dns-service=a/b", "--node-local-dns=fd00::1"},
			[]types.NamespacedName{service("a", "b")}, []netip.Addr{addr("fd00::1")}},
		{"flags may be repeated", []string{"--dns-service=a/b", "--dns-service=c/d", "--node-local-dns=10.0.0.1", "--node-local-dns=10.0.0.2"},
			[]types.NamespacedName{service("a", "b"), service("c", "d")}, []netip.Addr{addr("10.0.0.1"), addr("10.0.0.2")}},
		{"what is given twice counts once", []string{"--dns-service=a/b,a/b", "--node-local-dns=10.0.0.1,::ffff:10.0.0.1"},
			[]types.NamespacedName{service("a", "b")}, []netip.Addr{addr("10.0.0.1")}},
		{"there may be none", []string{"--dns-service=", "--node-local-dns="}, nil, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cmd := newEnforcerCommand()
			if err := cmd.ParseFlags(tt.flags); err != nil {
				t.Fatal(err)
			}
			get := func(name string) []string {
				texts, err := cmd.Flags().GetStringSlice(name)
				if err != nil {
					t.Fatal(err)
				}
				return texts
			}
			services, err := dnsServices(get("dns-service"))
			if diff := cmp.Diff(tt.services, services); err != nil || diff != "" {
				t.Errorf("services (-want +got), error %v:\n%s", err, diff)
			}
			addrs, err := dnsAddresses(get("node-local-dns"))
			if diff := cmp.Diff(tt.addrs, addrs, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); err != nil || diff != "" {
				t.Errorf("addresses (-want +got), error %v:\n%s", err, diff)
			}
		})
	}
}

func TestAFlagThatIsRefusedIsNamed(t *testing.T) {
	tests := []struct {
		flag  string
		wrong func(*enforcerOptions, string)
		texts []string
	}{
		{"--dns-service", func(o *enforcerOptions, text string) { o.dns = []string{"a/b", text} },
			[]string{"", "kube-dns", "/kube-dns", "kube-system/", "a/b/c", "A/b", "a/b.c"}},
		{"--node-local-dns", func(o *enforcerOptions, text string) { o.nodeDNS = []string{"10.0.0.1", text} },
			[]string{"", "localhost", "169.254.20.0/24", "fe80::1%eth0", "::", "0.0.0.0", "224.0.0.1", "ff02::fb"}},
		{"--unknown-pods", func(o *enforcerOptions, text string) { o.unknown = text }, []string{"", "deny", "Drop"}},
		{"--pod-cidrs", func(o *enforcerOptions, text string) {
			o.unknown, o.podCIDRs = unknownDrop, []string{"10.1.0.0/24", text}
		},
			[]string{"", "10.1.0.0", "10.1.0.1/24", "0.0.0.0/0", "::/0", "fe80::/64", "224.0.0.0/8", "127.0.0.0/8", "::ffff:10.0.0.0/120"}},
		{"--pod-cidrs", func(o *enforcerOptions, text string) { o.podCIDRs = []string{text} }, []string{"10.1.0.0/24"}},
		{"--watch-pods", func(o *enforcerOptions, text string) { o.watchPods = text }, []string{"", "Reached", "none"}},
		{"--source-check", func(o *enforcerOptions, text string) { o.sourceCheck = text }, []string{"", "Enforce", "on"}},
		{"--node-name", func(o *enforcerOptions, text string) { o.node = text }, []string{""}},
	}
	for _, tt := range tests {
		for _, text := range tt.texts {
			o := enforcerOptions{node: "node-a", resync: time.Minute, heartbeat: time.Minute, dns: []string{"a/b"}, nodeDNS: []string{"10.0.0.1"},
				unknown: unknownAllow, watchPods: watchReached, sourceCheck: "enforce"}
			if err := o.validate(); err != nil {
				t.Fatalf("options without a fault are refused: %v", err)
			}
			tt.wrong(&o, text)
			if err := o.validate(); err == nil || !strings.Contains(err.Error(), tt.flag) {
				t.Errorf("%s %q: the error does not name the flag: %v", tt.flag, text, err)
			}
		}
	}
}

// What the kernel can, the rules make use of: an option that nobody sets would be a capability that nobody has.
func TestRulesUseAllThatTheKernelCan(t *testing.T) {
	o := enforcerOptions{nflogGroup: 1, logDenied: true, cutLive: true}
	all := o.renderOptions(dataplane.Capabilities{
		Families: iptables.Families[:], Table: "security", SelfMatch: true, Log: true, OwnAddresses: true, CutLive: true, HoldCut: true, HopLimit: true, Guards: true,
	})
	forTests := []string{"ShareAlways", "Layout", "FanOut", "ListLength", "NamedRules"}
	v := reflect.ValueOf(all)
	for i := range v.NumField() {
		if name := v.Type().Field(i).Name; v.Field(i).IsZero() && !slices.Contains(forTests, name) {
			t.Errorf("%s is not set, and the kernel can all", name)
		}
	}
}
