package compile

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// linkTo is a link whose other end has addresses, "" for none.
func linkTo(name string, held ...string) Link { return Link{Name: name, Index: 7, Held: list(held...)} }

// with is l with what a result says: "namespace/name uid addresses...".
func (l Link) with(result string) Link {
	parts := strings.Fields(result)
	namespace, name, _ := strings.Cut(parts[0], "/")
	l.Given = &Given{Namespace: namespace, Name: name, UID: parts[1], Addrs: list(parts[2:]...)}
	return l
}

func (l Link) guarded() Link { l.Guarded = true; return l }

func (l Link) bridged(mac string) Link { l.Bridged, l.MAC = true, mac; return l }

func list(texts ...string) (all []netip.Addr) {
	for _, text := range texts {
		all = append(all, netip.MustParseAddr(text))
	}
	return all
}

// linkTexts are a node's links: "veth: shop/web may send from 10.244.1.5", with what else it is.
func linkTexts(n policy.Node) (all []string) {
	for _, l := range n.Links {
		text := fmt.Sprintf("%s: %s/%s", l.Name, l.Namespace, l.Pod)
		if len(l.Addrs) == 0 {
			text += " shut"
		} else {
			text += " " + strings.Trim(fmt.Sprint(l.Addrs), "[]")
		}
		if l.Isolated {
			text += " isolated"
		}
		if l.MAC != "" {
			text += " mac " + l.MAC
		}
		all = append(all, text)
	}
	return all
}

func shutTexts(n policy.Node) (all []string) {
	if n.Shut == "" {
		return nil
	}
	for m := range n.Sets.Get(n.Shut).Members.All() {
		all = append(all, m.Addr.IP().String())
	}
	return all
}

// shopOf is a node n1 with these pods, of which a policy isolates those of the namespace shop, and these links.
func shopOf(pods []*corev1.Pod, links ...Link) Snapshot {
	s := shopAt("n1", "friend", pods...)
	s.Links, s.SourceCheck = links, SourceCheckEnforce
	s.Namespaces = s.Namespaces.With(&Namespace{Name: "vpn", SourceCheckOff: true})
	return s
}

func inNamespace(namespace string, p *corev1.Pod) *corev1.Pod {
	p.Namespace = namespace
	return p
}

func inPhase(phase corev1.PodPhase, p *corev1.Pod) *corev1.Pod {
	p.Status.Phase = phase
	return p
}

func onHostNetwork(p *corev1.Pod) *corev1.Pod {
	p.Spec.HostNetwork = true
	return p
}

func withoutAddress(p *corev1.Pod) *corev1.Pod {
	p.Status.PodIP, p.Status.PodIPs = "", nil
	return p
}

func TestWhoseLinksAre(t *testing.T) {
	web, db := shownPod("web", "n1", 100, "10.244.1.5"), shownPod("db", "n1", 200, "10.244.1.6")
	router := inNamespace("vpn", shownPod("router", "n1", 100, "10.244.1.7"))
	static := shownPod("dns", "n1", 100, "10.244.1.8")
	const hash = "0123456789abcdef0123456789abcdef"
	for _, tt := range []struct {
		name   string
		pods   []*corev1.Pod
		links  []Link
		want   []string
		counts policy.LinkCounts
		shut   []string
	}{
		{name: "by result", pods: []*corev1.Pod{web}, links: []Link{linkTo("v1", "10.244.1.5").with("shop/web uid-web 10.244.1.5")},
			want: []string{"v1: shop/web 10.244.1.5"}, counts: policy.LinkCounts{ByResult: 1}},
		{name: "by result, whatever its other end has", pods: []*corev1.Pod{web, db},
			links: []Link{linkTo("v1", "10.244.1.5", "10.244.1.6").with("shop/web uid-web 10.244.1.5"), linkTo("v2", "10.244.1.6").with("shop/db uid-db 10.244.1.6")},
			want:  []string{"v1: shop/web 10.244.1.5", "v2: shop/db 10.244.1.6"}, counts: policy.LinkCounts{ByResult: 2}},
		{name: "by the kernel", pods: []*corev1.Pod{web}, links: []Link{linkTo("v1", "10.244.1.5", "192.0.2.77")},
			want: []string{"v1: shop/web 10.244.1.5"}, counts: policy.LinkCounts{ByKernel: 1}},
		{name: "contested between two links", pods: []*corev1.Pod{web, db}, links: []Link{linkTo("v1", "10.244.1.5"), linkTo("v2", "10.244.1.5", "10.244.1.6")},
			want: []string{"v1: shop/web 10.244.1.5", "v2: shop/web 10.244.1.5 10.244.1.6"}, counts: policy.LinkCounts{ByKernel: 2, Untied: 1, First: "shop/db"}},
		{name: "nobody's", pods: []*corev1.Pod{web}, links: []Link{linkTo("docker1", "172.17.0.2"), linkTo("v1")}, counts: policy.LinkCounts{Untied: 1, First: "shop/web"}},
		{name: "exempt", pods: []*corev1.Pod{router}, links: []Link{linkTo("v1", "10.244.1.7").with("vpn/router uid-router 10.244.1.7").guarded()},
			counts: policy.LinkCounts{Exempt: 1}},
		{name: "exempt, and nobody knows its link", pods: []*corev1.Pod{router}},
		{name: "who takes an exempt pod's address is not exempt", pods: []*corev1.Pod{router, static}, links: []Link{linkTo("v1", "10.244.1.7"), linkTo("v2", "10.244.1.7", "10.244.1.8")},
			want: []string{"v2: shop/dns 10.244.1.7 10.244.1.8"}, counts: policy.LinkCounts{ByKernel: 1, Exempt: 1}},
		{name: "its pod is gone, says a result", links: []Link{linkTo("v1", "10.244.1.9", "192.0.2.1").with("shop/gone uid-gone 10.244.1.9 fd00::9")},
			want: []string{"v1: shop/gone shut"}, counts: policy.LinkCounts{Shut: 1}, shut: []string{"10.244.1.9", "fd00::9"}},
		{name: "its pod is gone, and was known by the kernel alone", links: []Link{linkTo("v1", "10.244.1.9", "fe80::9").guarded()},
			want: []string{"v1: /unknown shut"}, counts: policy.LinkCounts{Shut: 1}, shut: []string{"10.244.1.9"}},
		{name: "its pod is gone, and nothing is known of its address", links: []Link{linkTo("v1").guarded()}, want: []string{"v1: /unknown shut"}, counts: policy.LinkCounts{Shut: 1}},
		{name: "another pod of the node has its address by now", pods: []*corev1.Pod{web}, links: []Link{
			linkTo("v0", "10.244.1.5").with("shop/gone uid-gone 10.244.1.5 10.244.1.9"), linkTo("v1", "10.244.1.5").with("shop/web uid-web 10.244.1.5"),
		}, want: []string{"v0: shop/gone shut", "v1: shop/web 10.244.1.5"}, counts: policy.LinkCounts{Shut: 1, ByResult: 1}, shut: []string{"10.244.1.9"}},
		{name: "a pod of another node has its address by now", pods: []*corev1.Pod{shownPod("moved", "n2", 300, "10.244.1.9")},
			links: []Link{linkTo("v0", "10.244.1.9").with("shop/gone uid-gone 10.244.1.9")}, want: []string{"v0: shop/gone shut"}, counts: policy.LinkCounts{Shut: 1}},
		{name: "who has taken the node's own address", links: []Link{linkTo("v1", "192.0.2.1", "10.244.1.9").guarded()},
			want: []string{"v1: /unknown shut"}, counts: policy.LinkCounts{Shut: 1}, shut: []string{"10.244.1.9"}},
		{name: "a finished pod's", pods: []*corev1.Pod{inPhase(corev1.PodSucceeded, shownPod("job", "n1", 100, "10.244.1.9"))},
			links: []Link{linkTo("v1", "10.244.1.9").with("shop/job uid-job 10.244.1.9")}, want: []string{"v1: shop/job shut"}, counts: policy.LinkCounts{Shut: 1}, shut: []string{"10.244.1.9"}},
		{name: "a terminating pod's", pods: []*corev1.Pod{terminatingPod(shownPod("web", "n1", 100, "10.244.1.5"))},
			links: []Link{linkTo("v1", "10.244.1.5").with("shop/web uid-web 10.244.1.5")}, want: []string{"v1: shop/web 10.244.1.5"}, counts: policy.LinkCounts{ByResult: 1}},
		{name: "of a pod without addresses yet", pods: []*corev1.Pod{withoutAddress(shownPod("new", "n1", 100, "10.244.1.9"))},
			links: []Link{linkTo("v1", "10.244.1.9").with("shop/new uid-new 10.244.1.9")}},
		{name: "a pod of the same name that is younger", pods: []*corev1.Pod{web},
			links: []Link{linkTo("v0", "10.244.1.4").with("shop/web uid-before 10.244.1.4"), linkTo("v1", "10.244.1.5").with("shop/web uid-web 10.244.1.5")},
			want:  []string{"v0: shop/web shut", "v1: shop/web 10.244.1.5"}, counts: policy.LinkCounts{Shut: 1, ByResult: 1}, shut: []string{"10.244.1.4"}},
		{name: "a static pod's", pods: []*corev1.Pod{static}, links: []Link{linkTo("v1", "10.244.1.8").with("shop/dns " + hash + " 10.244.1.8")},
			want: []string{"v1: shop/dns 10.244.1.8"}, counts: policy.LinkCounts{ByResult: 1}},
		{name: "a static pod's that the API does not have yet", links: []Link{linkTo("v1", "10.244.1.8").with("shop/dns " + hash + " 10.244.1.8")}},
		{name: "a static pod's that is gone", links: []Link{linkTo("v1", "10.244.1.8").with("shop/dns " + hash + " 10.244.1.8").guarded()},
			want: []string{"v1: shop/dns shut"}, counts: policy.LinkCounts{Shut: 1}, shut: []string{"10.244.1.8"}},
		{name: "pods on the host network and of other nodes have none here",
			pods: []*corev1.Pod{onHostNetwork(shownPod("agent", "n1", 100, "192.0.2.1")), shownPod("far", "n2", 100, "10.244.2.5")}, links: []Link{linkTo("v1", "192.0.2.1", "10.244.2.5")}},
		{name: "of a bridge, with its hardware address", pods: []*corev1.Pod{web, router}, links: []Link{linkTo("v1", "10.244.1.5").bridged("aa"), linkTo("v2").bridged("bb").guarded()},
			want: []string{"v1: shop/web 10.244.1.5 isolated mac aa", "v2: /unknown shut isolated mac bb"}, counts: policy.LinkCounts{ByKernel: 1, Shut: 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := shopOf(tt.pods, tt.links...)
			s.Own = list("192.0.2.1")
			for range max(1, len(tt.links)) { // whichever comes first
				node, _ := Compile(s)
				if diff := cmp.Diff(tt.want, linkTexts(node)); diff != "" {
					t.Errorf("links (-want +got):\n%s", diff)
				}
				if diff := cmp.Diff(tt.counts, node.Concerns.Links); diff != "" {
					t.Errorf("counts (-want +got):\n%s", diff)
				}
				if diff := cmp.Diff(tt.shut, shutTexts(node)); diff != "" {
					t.Errorf("addresses that are shut off (-want +got):\n%s", diff)
				}
				if len(s.Links) > 0 {
					s.Links = append(s.Links[1:len(s.Links):len(s.Links)], s.Links[0])
				}
			}
		})
	}
}

// TestAResultsHardwareAddressIsBelieved, and not what the other end says of itself.
func TestAResultsHardwareAddressIsBelieved(t *testing.T) {
	l := linkTo("v1", "10.244.1.5").bridged("now").with("shop/web uid-web 10.244.1.5")
	l.Given.MAC = "given"
	node, _ := Compile(shopOf([]*corev1.Pod{shownPod("web", "n1", 100, "10.244.1.5")}, l))
	if got := node.Links[0].MAC; got != "given" {
		t.Errorf("the hardware address is %q", got)
	}
	l.Bridged = false
	if node, _ = Compile(shopOf([]*corev1.Pod{shownPod("web", "n1", 100, "10.244.1.5")}, l)); node.Links[0].MAC != "" {
		t.Errorf("off a bridge the hardware address is %q, and does not matter", node.Links[0].MAC)
	}
}

func TestModesOfTheSourceCheck(t *testing.T) {
	for mode, want := range map[SourceCheck]string{
		SourceCheckOff: "links 0 shut false audit false tunnels 0", SourceCheckAudit: "links 2 shut false audit true tunnels 1",
		SourceCheckEnforce: "links 2 shut true audit false tunnels 1",
	} {
		s := shopOf([]*corev1.Pod{shownPod("web", "n1", 100, "10.244.1.5")}, linkTo("v1", "10.244.1.5"), linkTo("v2", "10.244.1.9").with("shop/gone uid-gone 10.244.1.9"))
		s.SourceCheck, s.Tunnels = mode, []policy.Tunnel{{Protocol: policy.UDP, Port: 8472}}
		node, _ := Compile(s)
		if got := fmt.Sprintf("links %d shut %t audit %t tunnels %d", len(node.Links), node.Shut != "", node.AuditSources, len(node.Tunnels)); got != want {
			t.Errorf("mode %d: %s, want %s", mode, got, want)
		}
	}
}

// TestIsolatedIsWhatIsEnforcedForIngress: what is for all reaches a pod that no policy keeps anything from.
func TestIsolatedIsWhatIsEnforcedForIngress(t *testing.T) {
	link := linkTo("v1", "10.244.1.5").bridged("aa")
	isolated := func(s *Snapshot) *networkingv1.NetworkPolicy {
		p, _ := s.Policies.Get("shop", "isolated")
		return p
	}
	for name, c := range map[string]struct {
		change func(*Snapshot)
		want   bool
	}{
		"by a policy for ingress": {func(*Snapshot) {}, true},
		"not by one for egress": {func(s *Snapshot) {
			isolated(s).Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}
		}, false},
		"not by one in audit mode":       {func(s *Snapshot) { s.Namespaces = s.Namespaces.With(&Namespace{Name: "shop", Mode: "Audit"}) }, false},
		"not by one that selects it not": {func(s *Snapshot) { isolated(s).Spec.PodSelector.MatchLabels = map[string]string{"app": "db"} }, false},
		"not where there is none":        {func(s *Snapshot) { s.Policies = s.Policies.Without("shop", "isolated") }, false},
	} {
		s := shopOf([]*corev1.Pod{shownPod("web", "n1", 100, "10.244.1.5")}, link)
		c.change(&s)
		if node, _ := Compile(s); node.Links[0].Isolated != c.want {
			t.Errorf("%s: isolated is %t", name, node.Links[0].Isolated)
		}
	}
}

// TestGivenAddressesArePolicedAndNotReported: an address that CNI plugins have given a pod beside those that the API shows is the pod's for policy on its node, as
// a subject and as a peer. What is compared with the API, and what other nodes are told, is what the API shows.
func TestGivenAddressesArePolicedAndNotReported(t *testing.T) {
	web, friend, far := shownPod("web", "n1", 100, "fd00::5"), shownPod("friend", "n1", 100, "fd00::6"), shownPod("far", "n2", 100, "fd00::7")
	links := []Link{
		linkTo("v1", "fd00::5").with("shop/web uid-web fd00::5 169.254.172.2 10.9.0.5 127.0.0.1 fe80::5"), linkTo("v2", "fd00::6").with("shop/friend uid-friend fd00::6 10.9.0.6"),
		linkTo("v3").with("shop/far uid-far fd00::7 10.9.0.7"), // a result that somebody has left of a pod of another node
	}
	s := shopOf([]*corev1.Pod{web, friend, far}, links...)
	before, _ := Compile(shopOf([]*corev1.Pod{web, friend, far}))
	node, _ := Compile(s)
	for _, e := range node.Endpoints {
		if want := map[string][]netip.Addr{"web": list("10.9.0.5", "169.254.172.2", "fd00::5"), "friend": list("10.9.0.6", "fd00::6")}[e.Name]; !slices.Equal(e.Addrs, want) {
			t.Errorf("%s has %s, want %s", e.Name, e.Addrs, want)
		}
	}
	for _, tt := range []struct {
		src, dst string
		want     bool
	}{
		{"10.9.0.9", "10.9.0.5", false}, {"10.9.0.6", "10.9.0.5", true}, {"10.9.0.6", "169.254.172.2", true}, {"10.9.0.7", "10.9.0.5", false}, {"fd00::6", "fd00::5", true},
	} {
		if v := node.Allows(tcp(tt.src, tt.dst)); v.Allowed != tt.want {
			t.Errorf("%s to %s: allowed is %t, want %t: %s", tt.src, tt.dst, v.Allowed, tt.want, v.Reason)
		}
	}
	if !slices.Equal(node.Concerns.Pods, before.Concerns.Pods) {
		t.Errorf("the node reports pods %x with results and %x without", node.Concerns.Pods, before.Concerns.Pods)
	}
	for digest, addrs := range node.Concerns.Addrs {
		if !slices.Equal(addrs, before.Concerns.Addrs[digest]) {
			t.Errorf("what the node says of addresses is %s with results and %s without", addrs, before.Concerns.Addrs[digest])
		}
	}
	if diff := cmp.Diff([]string{"v1: shop/web 10.9.0.5 169.254.172.2 fd00::5", "v2: shop/friend 10.9.0.6 fd00::6", "v3: shop/far shut"}, linkTexts(node)); diff != "" {
		t.Errorf("links (-want +got):\n%s", diff)
	}
	if slices.Contains(s.Local[0].Addrs, netip.MustParseAddr("10.9.0.5")) {
		t.Error("the snapshot's pod was written to: it is shared with caches")
	}
}

// TestAddressesOfAnEarlierSandboxAreNotThePods: a result that shares no address with what the API shows.
func TestAddressesOfAnEarlierSandboxAreNotThePods(t *testing.T) {
	node, _ := Compile(shopOf([]*corev1.Pod{shownPod("web", "n1", 100, "10.244.1.5")}, linkTo("v0", "10.244.1.4").with("shop/web uid-web 10.244.1.4 10.9.0.4")))
	if diff := cmp.Diff(list("10.244.1.5"), node.Endpoints[0].Addrs, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}
}

// TestGivenByArrivalIsThePodsToo: what the plugin on this node has handed over.
func TestGivenByArrivalIsThePodsToo(t *testing.T) {
	s := shopOf([]*corev1.Pod{shownPod("web", "n1", 100, "10.244.1.5")}, linkTo("v1", "10.244.1.5"))
	s.Local[0].Beside = &Beside{Given: list("169.254.172.2", "10.244.1.5")}
	node, _ := Compile(s)
	if diff := cmp.Diff([]string{"v1: shop/web 10.244.1.5"}, linkTexts(node)); diff != "" { // what the kernel shows there
		t.Errorf("links (-want +got):\n%s", diff)
	}
	if v := node.Allows(tcp("10.0.0.9", "169.254.172.2")); v.Allowed {
		t.Errorf("the address that was given is open: %s", v.Reason)
	}
}
