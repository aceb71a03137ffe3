package gen

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// The alphabet. The names of namespaces and pods are such that careless joining of two makes equal strings.
var (
	namespaceNames = []string{"team", "teama", "te", strings.Repeat("n", 63)}
	labelKeys      = []string{"app", "tier", "example.io/role"}
	labelValues    = []string{"a", "b", ""}
	portNames      = []string{"http", "dns", "metrics"}
	portNumbers    = []int32{80, 53, 1, 8080, 65535, 81, 83}
	protocols      = []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP}
	// lastBytes are the pods' last address bytes: neighbours, and both sides of the edges of /28, /25 and /24.
	lastBytes = []byte{1, 2, 3, 0, 15, 16, 17, 31, 127, 128, 254, 255}
)

func namespaces(s *Source) []*corev1.Namespace {
	var out []*corev1.Namespace
	for _, name := range namespaceNames[:s.between(2, len(namespaceNames))] {
		labels := labels(s)
		if s.oneIn(2) {
			labels[corev1.LabelMetadataName] = name
		}
		out = append(out, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}})
	}
	return out
}

func labels(s *Source) map[string]string {
	m := map[string]string{}
	for _, key := range labelKeys {
		if !s.oneIn(3) {
			m[key] = pick(s, labelValues)
		}
	}
	return m
}

// pods are some, of which few are on the host network, ended, being deleted, or hold an address of another. Few clusters are
// large, so that the enforcer's trees have more than one level.
func pods(s *Source, c Case) []*corev1.Pod {
	var out []*corev1.Pod
	used := map[string]bool{}
	count, large := s.between(2, 10), s.oneIn(25)
	if large {
		count = s.between(60, 150)
	}
	for i := range count {
		n := s.intN(len(c.Nodes))
		if large && !s.oneIn(4) {
			n = 0
		}
		p := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{
				Namespace:         pick(s, c.Cluster.Namespaces).Name,
				Name:              []string{"b", "ab", "amb", "pod"}[i%4] + strings.Repeat("b", i/4),
				UID:               types.UID(fmt.Sprintf("uid-%03d", (i*37)%151)),
				Labels:            labels(s),
				CreationTimestamp: metav1.Time{Time: time.Unix(1700000000+int64(s.intN(3)), 0).UTC()},
			},
			Spec:   corev1.PodSpec{NodeName: c.Nodes[n].Name, Containers: containers(s, 2)},
			Status: corev1.PodStatus{Phase: corev1.PodRunning},
		}
		if s.oneIn(3) {
			p.Spec.InitContainers = containers(s, 1)
			if s.oneIn(2) {
				p.Spec.InitContainers[0].RestartPolicy = pointer(corev1.ContainerRestartPolicyAlways)
			}
		}
		switch s.intN(16) {
		case 12:
			p.Status.Phase = corev1.PodSucceeded
		case 13:
			p.Status.Phase = corev1.PodFailed
		case 14:
			p.Status.Phase = corev1.PodPending
		case 15:
			p.DeletionTimestamp = &metav1.Time{Time: time.Unix(1700000100, 0).UTC()}
		}
		p.Spec.HostNetwork = s.oneIn(10)
		setAddresses(s, p, c.Nodes[n], n, used, large)
		out = append(out, p)
	}
	return out
}

// setAddresses gives a pod addresses of one family or of both, out of its node's range. One in twelve takes an address
// whether another pod has it or not.
func setAddresses(s *Source, p *corev1.Pod, node Node, number int, used map[string]bool, large bool) {
	addrs := []netip.Addr{node.Addrs[0], node.Addrs[1]}
	if !p.Spec.HostNetwork {
		v4, v6 := podAddress(s, number, large)
		for range 2 * len(lastBytes) {
			if !used[v4.String()] || s.oneIn(12) {
				break
			}
			v4, v6 = podAddress(s, number, large)
		}
		used[v4.String()] = true
		addrs = []netip.Addr{v4, v6}
	}
	switch s.intN(8) {
	case 4:
		addrs = addrs[:1]
	case 5:
		addrs = addrs[1:]
	case 6:
		addrs[0], addrs[1] = addrs[1], addrs[0]
	case 7:
		if p.Status.Phase == corev1.PodPending {
			return
		}
	}
	p.Status.PodIP = addrs[0].String()
	for _, a := range addrs {
		p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: a.String()})
	}
}

func podAddress(s *Source, node int, large bool) (v4, v6 netip.Addr) {
	b := pick(s, lastBytes)
	if large {
		b = byte(s.intN(256))
	}
	if b == gatewayByte {
		b++
	}
	return netip.AddrFrom4([4]byte{10, 244, byte(node), b}),
		netip.AddrFrom16([16]byte{0xfd, 0, 0, 0x10, 0, 0x24, 0, byte(node), 15: b})
}

func containers(s *Source, most int) []corev1.Container {
	var out []corev1.Container
	for i := range s.between(1, most) {
		c := corev1.Container{Name: fmt.Sprintf("c%d", i)}
		for range s.intN(4) {
			port := corev1.ContainerPort{ContainerPort: pick(s, portNumbers), Protocol: pick(s, append(protocols, ""))}
			if !s.oneIn(4) {
				port.Name = pick(s, portNames)
			}
			c.Ports = append(c.Ports, port)
		}
		out = append(out, c)
	}
	return out
}
