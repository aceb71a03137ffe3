package bench

import (
	"context"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ringfence-io/ringfence/enforcer/dataplane"
	"github.com/ringfence-io/ringfence/test/gen"
	"github.com/ringfence-io/ringfence/test/kit"
	"github.com/ringfence-io/ringfence/test/kit/proc"
	"github.com/ringfence-io/ringfence/test/scale"
)

// besideChanges is how often each change of another tenant is made while a hostile tenant's objects are there.
const besideChanges = 6

// goalBeside is how soon another tenant's change is in force, in ms, and limitOfMemory what the shipped DaemonSet lets the enforcer have, in MB.
const (
	goalBeside    = 1000
	limitOfMemory = 512
)

// BenchmarkBeside plays each attack of a tenant with 100 pods on a node through a real API server and a real enforcer, and measures the time from the
// write of another tenant's object to the first packet that is treated by it: from the moment on at which the hostile objects have been written, so that the
// syncs which find them are among those that are waited for.
func BenchmarkBeside(b *testing.B) {
	kit.NeedNetfilter(b)
	t := tableOf(fmt.Sprintf("Another tenant's change beside a hostile tenant's objects, from the write to the API to its enforcement, in ms (goal: %d), "+
		"and the enforcer's memory in MB (limit: %d)", goalBeside, limitOfMemory),
		"objects", "taken by the API server", "policy changed: p50", "p99", "pod came or went: p50", "p99", "changes", "memory at the peak so far", "goals")
	s := newStage(b, dataplane.NFT)
	kit.Must(b, s.fill(b.Context(), 100))
	kit.Must(b, s.addTenant(b.Context()))
	attacks := append([]gen.Attack{{Name: "none"}}, gen.Attacks()...)
	for _, a := range attacks {
		var policies, pods reaction
		taken, err := s.attack(b.Context(), a.Policies)
		kit.Must(b, err)
		for range besideChanges {
			kit.Must(b, s.changePolicy(b.Context(), &policies))
			kit.Must(b, s.changePod(b.Context(), &pods))
		}
		usage, err := proc.UsageOf(s.lab.Nodes[0].EnforcerPID())
		kit.Must(b, err)
		peak := mb(usage.Peak)
		row := []string{a.Name, fmt.Sprintf("%d of %d", taken, len(a.Policies))}
		for _, one := range []sample{policies.took, pods.took} {
			row = append(row, fmt.Sprintf("%.0f", one.median()), fmt.Sprintf("%.0f", one.quantile(0.99)))
		}
		t.add(append(row, fmt.Sprintf("%d + %d", len(policies.took), len(pods.took)), fmt.Sprintf("%.0f", peak),
			verdict(max(policies.took.quantile(0.99)/goalBeside, pods.took.quantile(0.99)/goalBeside, peak/limitOfMemory), 1))...)
		report(b, a.Name, map[string]float64{"policy-p99-ms": policies.took.quantile(0.99), "pod-p99-ms": pods.took.quantile(0.99), "MB": peak})
		kit.Must(b, s.retreat(b.Context()))
	}
	s.end()
}

// addTenant gives the node a hostile tenant's pods.
func (s *stage) addTenant(ctx context.Context) error {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: gen.HostileNamespace}}
	if _, err := s.client.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{}); err != nil {
		return err
	}
	ports := gen.HostilePorts(20) // each is listened on
	err := scale.InParallel(hostilePods, func(i int) error {
		p := stagePod(fmt.Sprint("hostile-", i), "hostile", s.lab.Nodes[0].Name, "")
		p.Namespace, p.Labels["n"], p.Spec.Containers[0].Ports = gen.HostileNamespace, fmt.Sprint(i), ports
		_, err := s.client.CoreV1().Pods(p.Namespace).Create(ctx, p, metav1.CreateOptions{})
		return err
	})
	for i := range hostilePods {
		if err == nil {
			_, err = s.lab.WaitPod(ctx, gen.HostileNamespace, fmt.Sprint("hostile-", i))
		}
	}
	return err
}

// attack creates the hostile objects, and says how many of them the API server takes.
func (s *stage) attack(ctx context.Context, all []*networkingv1.NetworkPolicy) (taken int, err error) {
	refused := make([]bool, len(all))
	err = scale.InParallel(len(all), func(i int) error {
		p := all[i].DeepCopy()
		p.UID, p.CreationTimestamp = "", metav1.Time{}
		_, err := s.client.NetworkingV1().NetworkPolicies(p.Namespace).Create(ctx, p, metav1.CreateOptions{})
		if apierrors.IsInvalid(err) || apierrors.IsRequestEntityTooLargeError(err) || apierrors.IsBadRequest(err) {
			refused[i] = true
			return nil
		}
		return err
	})
	for _, r := range refused {
		if !r {
			taken++
		}
	}
	return taken, err
}

// retreat deletes the hostile objects, and waits until the enforcer has taken that in.
func (s *stage) retreat(ctx context.Context) error {
	policies := s.client.NetworkingV1().NetworkPolicies(gen.HostileNamespace)
	if err := policies.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
		return fmt.Errorf("deleting the hostile objects: %w", err)
	}
	return s.settle(ctx)
}
