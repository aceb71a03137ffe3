package ladder

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/internal/query"
	"github.com/ringfence-io/ringfence/lab/oracle"
	"github.com/ringfence-io/ringfence/test/gen"
)

const (
	// edgeShare is one in how many clusters is asked about every pair of its pods.
	edgeShare = 4
	// fewPods are so few that the oracle, which reads everything again for each flow, judges every pair. Larger clusters are passed over.
	fewPods = 16
)

// TestEdgesAreAllThatIsAllowed: what is listed as reachable is what the oracle allows for some pair of pods, at each port, and nothing is missing. Where the
// list does not say "partly", the oracle allows it for each pair.
func TestEdgesAreAllThatIsAllowed(t *testing.T) {
	forEachCase(t, max(*clustersFlag/edgeShare, 1), func(seed uint64) error {
		s := gen.Seed(seed)
		c := gen.New(s, gen.Options{Invalid: seed%3 == 0, Tiers: seed%2 == 0})
		c.Cluster.Pods = withOwnAddresses(c.Cluster.Pods)
		if len(c.Cluster.Pods) > fewPods {
			return nil
		}
		listed := map[[2]string]query.Edge{}
		for _, e := range query.New(Objects(c.Cluster)).Edges(query.Selection{}) {
			listed[[2]string{e.From, e.To}] = e
		}
		for _, port := range portsNamed(s, c) {
			if err := checkEdges(c.Cluster, listed, port); err != nil {
				return fmt.Errorf("%s: %w", port, err)
			}
		}
		return nil
	})
}

// TestDifferencesAreAllThatAChangeOpensAndCloses: what is said to be opened is what the oracle allows after a change and did not before, and likewise what is
// closed. A change takes a policy away, adds one, or gives a pod other labels.
func TestDifferencesAreAllThatAChangeOpensAndCloses(t *testing.T) {
	forEachCase(t, max(*clustersFlag/edgeShare, 1), func(seed uint64) error {
		s := gen.Seed(seed)
		c := gen.New(s, gen.Options{Invalid: seed%3 == 0, Tiers: seed%2 == 0})
		c.Cluster.Pods = withOwnAddresses(c.Cluster.Pods)
		if len(c.Cluster.Pods) > fewPods {
			return nil
		}
		after := change(s, c, seed)
		listed := map[[2]string]query.Difference{}
		for _, d := range query.Diff(query.New(Objects(c.Cluster)), query.New(Objects(after))) {
			listed[[2]string{d.From, d.To}] = d
		}
		for _, port := range portsNamed(s, c) {
			if err := checkDifferences(c.Cluster, after, listed, port); err != nil {
				return fmt.Errorf("%s: %w", port, err)
			}
		}
		return nil
	})
}

func change(s *gen.Source, c gen.Case, seed uint64) oracle.Cluster {
	after := c.Cluster
	switch n := len(after.Policies); {
	case seed%4 == 0 && n > 0:
		after.Policies = slices.Delete(slices.Clone(after.Policies), 0, 1)
	case seed%4 == 1:
		p := after.Pods[0].DeepCopy()
		p.Labels = after.Pods[len(after.Pods)-1].Labels
		after.Pods = append([]*corev1.Pod{p}, after.Pods[1:]...)
	case seed%4 == 2 && len(after.ClusterPolicies) > 0:
		after.ClusterPolicies = after.ClusterPolicies[1:]
	default:
		after.Policies = append(slices.Clone(after.Policies), gen.Policy(s, c, gen.Options{}, "one-more"))
	}
	return after
}

// checkDifferences asks the oracle about each pair of pods before and after.
func checkDifferences(before, after oracle.Cluster, listed map[[2]string]query.Difference, port query.Port) error {
	for i, from := range before.Pods {
		for j, to := range before.Pods {
			if i == j {
				continue
			}
			was := anyAllowed(before, flowsBetween(from, to, port))
			is := anyAllowed(after, flowsBetween(after.Pods[i], after.Pods[j], port))
			d := listed[[2]string{query.Workload(from), query.Workload(to)}]
			at := func(p query.PortsVerdict) bool { return hasPort(p, port) }
			if opened, closed := slices.ContainsFunc(d.Opened, at), slices.ContainsFunc(d.Closed, at); opened != (is && !was) || closed != (was && !is) {
				return fmt.Errorf("%s/%s to %s/%s: the oracle allows it before: %t, after: %t; the difference is %+v", from.Namespace, from.Name, to.Namespace, to.Name, was, is, d)
			}
		}
	}
	return nil
}

func anyAllowed(c oracle.Cluster, flows []oracle.Flow) bool {
	return slices.ContainsFunc(flows, func(f oracle.Flow) bool {
		allowed, _ := c.Allowed(f)
		return allowed
	})
}

// portsNamed are some ports that flows at a cluster go to, and their neighbours.
func portsNamed(s *gen.Source, c gen.Case) []query.Port {
	var ports []query.Port
	for _, f := range gen.Flows(s, c, 12) {
		p, ok := portOf(f)
		if ok && !slices.Contains(ports, p) && (p.Number > 0 || !p.Protocol.HasPorts()) {
			ports = append(ports, p)
		}
	}
	return ports
}

func checkEdges(c oracle.Cluster, listed map[[2]string]query.Edge, port query.Port) error {
	for _, from := range c.Pods {
		for _, to := range c.Pods {
			if from == to {
				continue
			}
			for _, f := range flowsBetween(from, to, port) {
				want, because := c.Allowed(f)
				e, ok := listed[[2]string{query.Workload(from), query.Workload(to)}]
				isListed := ok && slices.ContainsFunc(e.Ports, func(p query.PortsVerdict) bool { return hasPort(p, port) })
				if want && !isListed {
					return fmt.Errorf("%s: the oracle allows it, because %s, and the list has only %+v", f, because, e)
				}
				if !want && isListed && !e.Partly {
					return fmt.Errorf("%s: the oracle denies it, because %s, and the list has %+v", f, because, e)
				}
			}
		}
	}
	return nil
}

func hasPort(p query.PortsVerdict, port query.Port) bool {
	return p.Protocol == port.Protocol.String() && (!port.Protocol.HasPorts() || p.First <= port.Number && port.Number <= p.Last)
}

// flowsBetween are first packets between two pods that policy is about, by each family of addresses that both have.
func flowsBetween(from, to *corev1.Pod, port query.Port) []oracle.Flow {
	var flows []oracle.Flow
	for _, a := range podAddrs(from) {
		for _, b := range podAddrs(to) {
			if a.Is4() != b.Is4() || a == b {
				continue
			}
			f := oracle.Flow{Src: a, Dst: b, Protocol: oracle.Protocol(port.Protocol), DstPort: port.Number}
			switch {
			case port.Protocol == policy.ICMP && a.Is4():
				f.ICMPType = 8
			case port.Protocol == policy.ICMP:
				f.Protocol, f.ICMPType = oracle.ICMPv6, 128
			}
			flows = append(flows, f)
		}
	}
	return flows
}

// withOwnAddresses are the pods without those that have an address of another: the oracle is asked about addresses, and says of such a pod what becomes of the
// one that holds its address.
func withOwnAddresses(pods []*corev1.Pod) []*corev1.Pod {
	taken := map[netip.Addr]bool{}
	var own []*corev1.Pod
	for _, p := range pods {
		addrs := podAddrs(p)
		if slices.ContainsFunc(addrs, func(a netip.Addr) bool { return taken[a] }) {
			continue
		}
		for _, a := range addrs {
			taken[a] = true
		}
		own = append(own, p)
	}
	return own
}

// podAddrs are a pod's addresses, at most one of each family.
func podAddrs(p *corev1.Pod) []netip.Addr {
	if p.Spec.HostNetwork || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
		return nil
	}
	var addrs []netip.Addr
	for _, ip := range p.Status.PodIPs {
		if a, err := netip.ParseAddr(ip.IP); err == nil {
			addrs = append(addrs, a)
		}
	}
	return addrs
}
