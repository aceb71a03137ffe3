package matrix

import (
	"context"
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/lab"
	"github.com/ringfence-io/ringfence/lab/oracle"
)

// Of lays out the matrix of a lab: from each of those pods (namespace/name), and from the world outside the cluster, to
// every port of the pods. It is judged by the objects that the API server holds now.
func Of(ctx context.Context, l *lab.Lab, pods ...string) (*Matrix, error) {
	cluster, err := l.Cluster(ctx)
	if err != nil {
		return nil, err
	}
	var sources []Source
	var targets []Target
	for _, name := range pods {
		namespace, pod, _ := strings.Cut(name, "/")
		p, err := l.Pod(ctx, namespace, pod)
		if err != nil {
			return nil, err
		}
		sources = append(sources, Source{Name: name, Host: p.Host, Addresses: p.Addresses})
		targets = append(targets, ports(p)...)
	}
	sources = append(sources, Source{Name: Outside, Host: l.World, Addresses: l.WorldAddresses()})
	return New(sources, targets, judge(cluster)), nil
}

// Outside is the name of the world's row.
const Outside = "outside"

// ports are a pod's columns.
func ports(p *lab.Pod) []Target {
	var targets []Target
	for _, c := range p.Object.Spec.Containers {
		for _, port := range c.Ports {
			targets = append(targets, Target{
				Name: p.Namespace + "/" + p.Name, Addresses: p.Addresses, Server: p.Host.Name(),
				Protocol: protocols[port.Protocol], Port: uint16(port.ContainerPort),
			})
		}
	}
	return targets
}

var protocols = map[corev1.Protocol]policy.Protocol{
	corev1.ProtocolTCP: policy.TCP, corev1.ProtocolUDP: policy.UDP, corev1.ProtocolSCTP: policy.SCTP,
}

// judge asks the evaluator that is written from the API texts alone.
func judge(cluster oracle.Cluster) Judge {
	return func(src, dst netip.Addr, protocol policy.Protocol, port uint16) (bool, string) {
		return cluster.Allowed(oracle.Flow{Src: src, Dst: dst, Protocol: oracle.Protocol(protocol), DstPort: port})
	}
}
