package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/lab"
	"github.com/ringfence-io/ringfence/lab/cni"
	"github.com/ringfence-io/ringfence/lab/host"
	"github.com/ringfence-io/ringfence/lab/probe"
	"github.com/ringfence-io/ringfence/test/kit"
)

// TestUnknownPodsGetNothingThrough has a pod act before its kubelet writes its status. Where unknown pods are dropped, nothing gets through then, but what its own
// node sends; afterwards policy decides. The CNI plugin's host end has an address in the range of the node's pods: it stays the node's.
func TestUnknownPodsGetNothingThrough(t *testing.T) {
	for _, kind := range []cni.Kind{cni.Bridge, cni.PTP} {
		t.Run(string(kind), func(t *testing.T) {
			var l *lab.Lab
			var known *lab.Pod
			early := make(chan []string, 1)
			l = start(t, lab.Options{
				CNI: kind, EnforcerArgs: []string{"--unknown-pods=drop"},
				FirstAct: func(pod *corev1.Pod, h *host.Host, addrs []netip.Addr) {
					if pod.Labels["app"] == "muted" {
						early <- wrongBefore(l, h, addrs, known)
					}
				},
			})
			kit.Must(t, l.Apply(kit.Context(t, patience), []byte(first)))
			a := &acts{t: t, denied: map[string]int{}}
			a.prepare(l)
			known = a.open
			kit.Must(t, lab.Poll(kit.Context(t, patience), func(ctx context.Context) error { return dropping(ctx, l, "n1") }))

			createActor(t, l, "muted", 0)
			select {
			case wrong := <-early:
				for _, w := range wrong {
					t.Error("before the API shows the pod: " + w)
				}
			case <-kit.Context(t, patience).Done():
				t.Fatal("the pod has not acted")
			}
			late, err := l.WaitPod(kit.Context(t, patience), "first", "muted-0")
			kit.Must(t, err)
			for _, f := range iptables.Families {
				kit.Must(t, lab.Poll(kit.Context(t, patience), func(context.Context) error {
					return pings(known.Host, known.Address(f), late.Address(f), true)
				}))
				for _, w := range []error{
					pings(late.Host, late.Address(f), known.Address(f), false), // as policy says
					pings(l.Node("n1").Host, netip.Addr{}, late.Address(f), true),
					pings(known.Host, known.Address(f), gateway(l.Node("n1"), f), true),
				} {
					if w != nil {
						t.Errorf("when the API shows the pod: %v", w)
					}
				}
			}
		})
	}
}

// wrongBefore is what gets through, or does not, against what is wanted of a pod that nobody knows yet.
func wrongBefore(l *lab.Lab, h *host.Host, addrs []netip.Addr, known *lab.Pod) []string {
	n1, n2 := l.Node("n1"), l.Node("n2")
	var wrong []string
	for i, a := range addrs {
		f := iptables.FamilyOf(a)
		for _, err := range []error{
			pings(h, a, known.Address(f), false), pings(h, a, n1.Addresses[i], false), pings(h, a, n2.Addresses[i], false), pings(h, a, gateway(n1, f), false),
			pings(known.Host, known.Address(f), a, false), pings(n2.Host, netip.Addr{}, a, false),
			pings(n1.Host, netip.Addr{}, a, true), // the kubelet's probes
		} {
			if err != nil {
				wrong = append(wrong, err.Error())
			}
		}
	}
	return wrong
}

// pings is nil if an echo request gets its answer, or does not, as it should.
func pings(from *host.Host, src, dst netip.Addr, want bool) error {
	got := probe.Dial(from, probe.Flow{Protocol: policy.ICMP, Src: src, Dst: dst}, probe.Expect(want))
	if (got.Outcome == probe.Reached) != want {
		return fmt.Errorf("%s to %s: %s, want reached=%v", from.Name(), dst, got, want)
	}
	return nil
}

// gateway is the address that the CNI plugins give the host's end.
func gateway(n *lab.Node, f iptables.Family) netip.Addr {
	for _, p := range n.PodCIDRs {
		if iptables.FamilyOf(p.Addr()) == f {
			return p.Addr().Next()
		}
	}
	return netip.Addr{}
}

// dropping is nil once a node reports that it drops unknown pods.
func dropping(ctx context.Context, l *lab.Lab, node string) error {
	reports, err := l.NodeEnforcements(ctx)
	if err != nil {
		return err
	}
	for _, r := range reports {
		if r.Name == node && meta.IsStatusConditionTrue(r.Status.Conditions, v1alpha1.UnknownPodsDroppedCondition) {
			return nil
		}
	}
	return fmt.Errorf("node %s does not say that it drops unknown pods", node)
}
