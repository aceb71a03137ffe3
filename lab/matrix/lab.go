package matrix

import (
	"context"
	"net/netip"

	corev1 "k8s.io/api/core/v1"

	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/lab"
	"github.com/ringfence-io/ringfence/test/oracle"
)

// Of lays out the matrix of a lab: from every running pod of those namespaces, and from the world outside the cluster, to
// every port of those pods. It is judged by the objects that the API server holds now. Pods come in the order of the
// namespaces, then by name.
func Of(ctx context.Context, l *lab.Lab, namespaces ...string) (*Matrix, error) {
	pods, err := l.WaitReady(ctx)
	if err != nil {
		return nil, err
	}
	cluster, err := l.Cluster(ctx)
	if err != nil {
		return nil, err
	}
	var sources []Source
	var targets []Target
	for _, namespace := range namespaces {
		for _, p := range pods {
			if p.Namespace == namespace {
				sources = append(sources, Source{Name: p.Namespace + "/" + p.Name, Host: p.Host, Addresses: p.Addresses})
				targets = append(targets, ports(p)...)
			}
		}
	}
	sources = append(sources, Source{Name: "(outside)", Host: l.World, Addresses: l.WorldAddresses()})
	return New(sources, targets, judge(cluster)), nil
}

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
