package kubelet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/lab/cni"
	"github.com/ringfence-io/ringfence/lab/host"
	"github.com/ringfence-io/ringfence/lab/probe"
)

// sandbox is a running pod.
type sandbox struct {
	uid     types.UID
	host    *host.Host // the node's own for a host-network pod
	own     bool       // whether host is the sandbox's to close
	pod     cni.Pod
	addrs   []netip.Addr
	started time.Time // when it was begun
	// connected is when it had its network.
	connected time.Time
	servers   []io.Closer
}

// begin makes the sandbox of a pod: namespace, network, listening containers.
func (k *Kubelet) begin(ctx context.Context, key types.NamespacedName, pod *corev1.Pod) (_ *sandbox, err error) {
	box := &sandbox{uid: pod.UID, host: k.config.Host, addrs: k.config.Addresses, started: time.Now()}
	if !pod.Spec.HostNetwork {
		if err := k.connect(ctx, box, pod); err != nil {
			return nil, err
		}
		box.connected = time.Now()
		if k.config.FirstAct != nil {
			k.config.FirstAct(pod, box.host, box.addrs)
		}
	}
	if err := box.listen(pod); err != nil {
		return nil, errors.Join(err, k.disconnect(ctx, box))
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.sandboxes[key] = box
	return box, nil
}

// connect gives the sandbox a network namespace of its own and has it wired.
func (k *Kubelet) connect(ctx context.Context, box *sandbox, pod *corev1.Pod) error {
	wanted, err := wantedAddresses(pod)
	if err != nil {
		return err
	}
	box.host, err = host.New(k.config.HostName(pod.Namespace, pod.Name))
	if err != nil {
		return err
	}
	box.own = true
	box.pod = cni.Pod{
		UID: string(pod.UID), Namespace: pod.Namespace, Name: pod.Name, Host: box.host,
		Addresses: wanted, HostPorts: hostPorts(pod),
	}
	if box.addrs, err = k.config.Network.Add(ctx, box.pod); err != nil {
		return errors.Join(err, k.disconnect(ctx, box))
	}
	return nil
}

func wantedAddresses(pod *corev1.Pod) ([]netip.Addr, error) {
	var addrs []netip.Addr
	for _, s := range strings.FieldsFunc(pod.Annotations[Addresses], func(r rune) bool { return r == ',' || r == ' ' }) {
		addr, err := netip.ParseAddr(s)
		if err != nil {
			return nil, fmt.Errorf("reading annotation %s: %w", Addresses, err)
		}
		addrs = append(addrs, addr)
	}
	return addrs, nil
}

// running are the containers that run while the pod does: the init containers that are sidecars, too.
func running(pod *corev1.Pod) []corev1.Container {
	var containers []corev1.Container
	for _, c := range pod.Spec.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			containers = append(containers, c)
		}
	}
	return append(containers, pod.Spec.Containers...)
}

func hostPorts(pod *corev1.Pod) []cni.HostPort {
	var ports []cni.HostPort
	for _, c := range running(pod) {
		for _, port := range c.Ports {
			if port.HostPort != 0 {
				ports = append(ports, cni.HostPort{
					HostPort: port.HostPort, ContainerPort: port.ContainerPort, Protocol: strings.ToLower(string(port.Protocol)),
				})
			}
		}
	}
	return ports
}

// listen opens the ports of all containers.
func (b *sandbox) listen(pod *corev1.Pod) error {
	open := map[corev1.ContainerPort]bool{}
	for _, c := range running(pod) {
		for _, port := range c.Ports {
			// Two names may stand for one port.
			if same := (corev1.ContainerPort{Protocol: port.Protocol, ContainerPort: port.ContainerPort}); !open[same] {
				open[same] = true
				if err := b.serve(port); err != nil {
					return errors.Join(fmt.Errorf("container %s: %w", c.Name, err), b.silence())
				}
			}
		}
	}
	return nil
}

// serve listens on one port at every address of the pod.
func (b *sandbox) serve(port corev1.ContainerPort) error {
	protocol, ok := map[corev1.Protocol]policy.Protocol{
		corev1.ProtocolTCP: policy.TCP, corev1.ProtocolUDP: policy.UDP, corev1.ProtocolSCTP: policy.SCTP,
	}[port.Protocol]
	if !ok {
		return fmt.Errorf("port %d has protocol %q", port.ContainerPort, port.Protocol)
	}
	for _, addr := range b.addrs {
		server, err := probe.Listen(b.host, protocol, netip.AddrPortFrom(addr, uint16(port.ContainerPort)))
		if err != nil {
			return err
		}
		b.servers = append(b.servers, server)
	}
	return nil
}

// silence closes the servers.
func (b *sandbox) silence() error {
	var errs []error
	for _, server := range b.servers {
		errs = append(errs, server.Close())
	}
	b.servers = nil
	return errors.Join(errs...)
}

// close takes the sandbox away without asking the plugins: its addresses stay leased.
func (b *sandbox) close() error {
	err := b.silence()
	if b.own {
		err = errors.Join(err, b.host.Close())
	}
	return err
}

// end takes a pod's sandbox away, if there is one, and frees its addresses.
func (k *Kubelet) end(ctx context.Context, key types.NamespacedName, box *sandbox) error {
	if box == nil {
		return nil
	}
	if err := errors.Join(box.silence(), k.disconnect(ctx, box)); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.sandboxes, key)
	return nil
}

func (k *Kubelet) disconnect(ctx context.Context, box *sandbox) error {
	if !box.own {
		return nil
	}
	return errors.Join(k.config.Network.Del(ctx, box.pod), box.host.Close())
}
