package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/lab/host"
	"github.com/ringfence-io/ringfence/lab/probe"
)

// pollInterval is how often Poll looks.
const pollInterval = 25 * time.Millisecond

// Pod is a running pod of the lab.
type Pod struct {
	Namespace, Name string
	Node            *Node
	Host            *host.Host
	Addresses       []netip.Addr
	Object          *corev1.Pod
}

// Address is the pod's address of a family, or the zero address.
func (p *Pod) Address(f iptables.Family) netip.Addr {
	for _, addr := range p.Addresses {
		if iptables.FamilyOf(addr) == f {
			return addr
		}
	}
	return netip.Addr{}
}

// Poll calls done until it returns nil, and when ctx ends returns what done said last.
func Poll(ctx context.Context, done func(context.Context) error) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		err := done(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.Join(err, context.Cause(ctx))
		}
	}
}

// Pod returns a running pod.
func (l *Lab) Pod(ctx context.Context, namespace, name string) (*Pod, error) {
	object, err := l.Client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("reading pod %s/%s: %w", namespace, name, err)
	}
	return l.running(object)
}

// running finds what stands behind a pod's object.
func (l *Lab) running(object *corev1.Pod) (*Pod, error) {
	p := &Pod{Namespace: object.Namespace, Name: object.Name, Node: l.Node(object.Spec.NodeName), Object: object}
	if p.Node == nil {
		return nil, fmt.Errorf("pod %s/%s is on no node", p.Namespace, p.Name)
	}
	p.Host = p.Node.kubelet.Host(p.Namespace, p.Name)
	if p.Host == nil || object.Status.Phase != corev1.PodRunning {
		return nil, fmt.Errorf("pod %s/%s is not running but %s", p.Namespace, p.Name, object.Status.Phase)
	}
	for _, ip := range object.Status.PodIPs {
		addr, err := netip.ParseAddr(ip.IP)
		if err != nil {
			return nil, fmt.Errorf("reading the addresses of pod %s/%s: %w", p.Namespace, p.Name, err)
		}
		p.Addresses = append(p.Addresses, addr)
	}
	return p, nil
}

// Node returns the node of that name, or nil.
func (l *Lab) Node(name string) *Node {
	for _, n := range l.Nodes {
		if n.Name == name {
			return n
		}
	}
	return nil
}

// RunPod creates a pod and waits until it is ready.
func (l *Lab) RunPod(ctx context.Context, pod *corev1.Pod) (*Pod, error) {
	if _, err := l.Client.CoreV1().Pods(pod.Namespace).Create(ctx, pod, metav1.CreateOptions{}); err != nil {
		return nil, fmt.Errorf("creating pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	return l.WaitPod(ctx, pod.Namespace, pod.Name)
}

// WaitPod waits until a pod is ready.
func (l *Lab) WaitPod(ctx context.Context, namespace, name string) (*Pod, error) {
	var p *Pod
	err := Poll(ctx, func(ctx context.Context) (err error) {
		p, err = l.Pod(ctx, namespace, name)
		return err
	})
	return p, err
}

// WaitReady waits until every pod that has not run to its end runs, and returns them all, by namespace and name.
func (l *Lab) WaitReady(ctx context.Context) ([]*Pod, error) {
	var pods []*Pod
	err := Poll(ctx, func(ctx context.Context) error {
		list, err := l.Client.CoreV1().Pods("").List(ctx, metav1.ListOptions{})
		if err != nil {
			return fmt.Errorf("listing pods: %w", err)
		}
		pods = nil
		for i := range list.Items {
			object := &list.Items[i]
			if object.Status.Phase == corev1.PodSucceeded || object.Status.Phase == corev1.PodFailed {
				continue
			}
			p, err := l.running(object)
			if err != nil {
				return err
			}
			pods = append(pods, p)
		}
		return nil
	})
	return pods, err
}

// DeletePod deletes a pod and waits until it is gone.
func (l *Lab) DeletePod(ctx context.Context, namespace, name string) error {
	client := l.Client.CoreV1().Pods(namespace)
	if err := client.Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
		return fmt.Errorf("deleting pod %s/%s: %w", namespace, name, err)
	}
	return Poll(ctx, func(ctx context.Context) error {
		_, err := client.Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("deleting pod %s/%s: it is still there", namespace, name)
	})
}

// WaitEnforcers waits until every node's enforcer is ready, if there are any. One that has ended is an error at once.
func (l *Lab) WaitEnforcers(ctx context.Context) error {
	if l.opts.NoEnforcer {
		return nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	return Poll(ctx, func(ctx context.Context) error {
		for _, n := range l.Nodes {
			if err := n.EnforcerReady(ctx); err != nil {
				if n.EnforcerPID() == 0 {
					cancel(err)
				}
				return err
			}
		}
		return nil
	})
}

// Probe tries whether from reaches to at a port, once per family that both have, in the lab's order.
func (l *Lab) Probe(from, to *Pod, protocol policy.Protocol, port uint16, patience probe.Patience) map[iptables.Family]probe.Result {
	results := map[iptables.Family]probe.Result{}
	for _, f := range l.opts.Families {
		src, dst := from.Address(f), to.Address(f)
		if src.IsValid() && dst.IsValid() {
			results[f] = probe.Dial(from.Host, probe.Flow{Protocol: protocol, Src: src, Dst: dst, Port: port}, patience)
		}
	}
	return results
}
