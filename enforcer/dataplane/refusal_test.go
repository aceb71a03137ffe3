package dataplane

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ringfence-io/ringfence/enforcer"
	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/iptables"
)

// What a real kernel refuses costs the object that asked for it, and nobody else: enforcer.Sync against both back ends.

// crossing has tamper change the restores, to have a kernel refuse what it would take.
type crossing struct {
	*Dataplane
	tamper func(string) string
}

func (k *crossing) Apply(ctx context.Context, p iptables.Plan) error {
	for f, text := range p.Restore {
		p.Restore[f] = k.tamper(text)
	}
	return k.Dataplane.Apply(ctx, p)
}

// tenants have a server each, at 10.0.0.1 and 10.0.1.1, with a policy that lets in the pods of some names from their namespace. Tenant a has pods of the name
// "many" as well.
func tenants(many int, peers map[string][]string) compile.Snapshot {
	s := compile.Snapshot{Node: "n"}
	pod := func(namespace, name, node string, addr [4]byte) {
		s = s.WithPods(&compile.Pod{Namespace: namespace, Name: fmt.Sprint(name, addr), UID: fmt.Sprint(addr), Node: node,
			Labels: compile.Labels{{Key: "name", Value: name}}, Addrs: []netip.Addr{netip.AddrFrom4(addr)}})
	}
	for i, ns := range []*compile.Namespace{{Name: "a"}, {Name: "b"}} {
		s.Namespaces = s.Namespaces.With(ns)
		pod(ns.Name, "server", "n", [4]byte{10, 0, byte(i), 1})
		np := &networkingv1.NetworkPolicy{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns.Name, Name: "of-" + ns.Name, UID: types.UID(ns.Name), Generation: 1},
			Spec:       networkingv1.NetworkPolicySpec{PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"name": "server"}}},
		}
		for _, name := range peers[ns.Name] {
			np.Spec.Ingress = append(np.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{From: []networkingv1.NetworkPolicyPeer{
				{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"name": name}}}}})
		}
		s.Policies = s.Policies.With(np)
	}
	for i := range many {
		pod("a", "many", "elsewhere", [4]byte{10, 1, byte(i >> 8), byte(i)})
	}
	return s
}

// acceptingRules are how many rules that accept a policy has in the kernel.
func acceptingRules(t *testing.T, d *Dataplane, policy string) int {
	t.Helper()
	n := 0
	for _, rules := range mustObserve(t, d).Tables[iptables.IPv4].Chains.All() {
		for _, r := range rules {
			if strings.Contains(string(r), policy+" ") && strings.HasSuffix(string(r), "-j RETURN") {
				n++
			}
		}
	}
	return n
}

// othersGoOn syncs, and looks that tenant b's policy is in force, and of tenant a's what is to be.
func othersGoOn(t *testing.T, e *enforcer.Enforcer, d *Dataplane, s compile.Snapshot, ofA, ofB int, word string) {
	t.Helper()
	start := time.Now()
	r, err := e.Sync(t.Context(), s, false)
	if b := acceptingRules(t, d, "b/of-b"); b != ofB {
		t.Errorf("after the first sync %d rules of b are in force, want %d", b, ofB)
	}
	for n := 1; err == nil && n < 10 && len(r.Waiting) > 0; n++ { // who asks for very much comes later
		r, err = e.Sync(t.Context(), s, false)
	}
	took := time.Since(start)
	if err != nil {
		t.Errorf("the sync failed: %v", err)
	}
	if a, b := acceptingRules(t, d, "a/of-a"), acceptingRules(t, d, "b/of-b"); a != ofA || b != ofB {
		t.Errorf("in force are %d rules of a, want %d, and %d of b, want %d", a, ofA, b, ofB)
	}
	if len(r.Problems) != 1 || r.Problems[0].Ref.Namespace != "a" || !strings.Contains(r.Problems[0].Detail, word) {
		t.Errorf("the problems are %v, want %q of a", r.Problems, word)
	}
	t.Logf("the sync took %s: %v", took.Round(time.Millisecond), r.Problems)
	if _, err := e.Sync(t.Context(), s, true); err != nil {
		t.Errorf("the next sync, which reads all back: %v", err)
	}
}

func onEitherBackend(t *testing.T, test func(*testing.T, *Dataplane)) {
	for _, backend := range []string{NFT, Legacy} {
		t.Run(backend, func(t *testing.T) {
			enterNamespace(t)
			test(t, newDataplane(t, backend))
		})
	}
}

func optionsOf(d *Dataplane) iptables.Options {
	return iptables.Options{Families: d.Capabilities().Families, Table: d.Capabilities().Table}
}

// The target CT stands in the table raw alone: the kernel refuses it elsewhere. Legacy's programs say so of the whole restore, nft's of the rule.
func TestARuleThatTheKernelRefusesCostsItsPolicyAlone(t *testing.T) {
	onEitherBackend(t, func(t *testing.T, d *Dataplane) {
		kernel := &crossing{d, func(text string) string {
			lines := strings.Split(text, "\n")
			for i, line := range lines {
				if strings.Contains(line, "a/of-a ") && strings.HasSuffix(line, "-j RETURN") {
					lines[i] = strings.TrimSuffix(line, "-j RETURN") + "-j CT --notrack"
				}
			}
			return strings.Join(lines, "\n")
		}}
		e := enforcer.New(kernel, optionsOf(d))
		othersGoOn(t, e, d, tenants(0, map[string][]string{"a": {"x"}, "b": {"y"}}), 0, 1, "refuses")
		othersGoOn(t, e, d, tenants(0, map[string][]string{"a": {"x"}, "b": {"y", "z"}}), 0, 2, "refuses")
	})
}

// A set that somebody has made with room for two takes no third.
func TestASetThatTheKernelSaysIsFullCostsItsPolicyAlone(t *testing.T) {
	onEitherBackend(t, func(t *testing.T, d *Dataplane) {
		small := tenants(2, map[string][]string{"a": {"many"}, "b": {"y"}})
		node, _ := compile.Compile(small)
		for name, set := range iptables.Render(node, optionsOf(d)).Sets.All() {
			if set.Family == iptables.IPv4 && set.Len() == 2 {
				if err := netlink.IpsetCreate(name, "hash:ip", netlink.IpsetCreateOptions{Family: nl.FAMILY_V4, MaxElements: 2}); err != nil {
					t.Fatal(err)
				}
			}
		}
		e := enforcer.New(d, optionsOf(d))
		if _, err := e.Sync(t.Context(), small, false); err != nil {
			t.Fatal(err)
		}
		// More than two beyond what the hash table holds: the kernel counts roughly.
		othersGoOn(t, e, d, tenants(300, map[string][]string{"a": {"many"}, "b": {"y", "z"}}), 1, 2, "the set is full")
	})
}

// Other programs leave room for some tens of sets. Tenant a asks for hundreds, and gets none; tenant b for one more, and gets it.
func TestSetsThatTheKernelDoesNotTakeCostTheirPolicyAlone(t *testing.T) {
	enterNamespace(t)
	d := newDataplane(t, NFT)
	e := enforcer.New(d, optionsOf(d))
	if _, err := e.Sync(t.Context(), tenants(0, map[string][]string{"a": {"x"}, "b": {"y"}}), false); err != nil {
		t.Fatal(err)
	}
	c, err := openIPSets(askKernel)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	start := time.Now()
	n := 0
	for ; err == nil && n <= 1<<16; n++ {
		err = c.createEmpty(iptables.Set{Name: fmt.Sprint("others-", n), Type: iptables.HashIP, Family: iptables.IPv4})
	}
	if !errors.Is(err, ErrTooManySets) {
		t.Fatalf("after %d sets the kernel says %v", n, err)
	}
	t.Logf("the kernel takes %d sets more: %s", n-1, time.Since(start))
	const room = 50
	for i := range room {
		if err := c.destroyAll(t.Context(), []string{fmt.Sprint("others-", i)}); err != nil {
			t.Fatal(err)
		}
	}
	var hundreds []string
	for i := range 300 {
		hundreds = append(hundreds, fmt.Sprint("x", i))
	}
	othersGoOn(t, e, d, tenants(0, map[string][]string{"a": append(hundreds, "x"), "b": {"y", "z"}}), 1, 2, "no more sets")
}
