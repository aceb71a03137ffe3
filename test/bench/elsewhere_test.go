package bench

import (
	"context"
	"flag"
	"fmt"
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/ringfence-io/ringfence/enforcer/dataplane"
	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/test/kit"
	"github.com/ringfence-io/ringfence/test/kit/proc"
	"github.com/ringfence-io/ringfence/test/scale"
)

var elsewhereFlag = flag.Duration("bench.elsewhere", 30*time.Second, "how long BenchmarkElsewhere has pods come and go")

const (
	// standingPods are in the cluster all the time, in so many namespaces.
	standingPods       = 20_000
	standingNamespaces = 100
	// comingPods come each second, and as many go. Each lives for as long as comingLives of them come.
	comingPods  = 50
	comingLives = 200

	goalElsewhere = 5.0 // per cent of one processor
)

// BenchmarkElsewhere measures what a node pays for pods that come and go elsewhere: half of them are peers of its policies, and the others are in namespaces
// that none of its policies names. Meanwhile one flow is allowed all the time, and one denied.
func BenchmarkElsewhere(b *testing.B) {
	kit.NeedNetfilter(b)
	t := tableOf(fmt.Sprintf("%d pods a second come and as many go elsewhere for %s, in a cluster of %d; 100 policies on the node", comingPods, *elsewhereFlag, standingPods),
		"back end", "pods came", "processor of the enforcer, %", "peak MB", "allowed flow: packets", "of them lost", "denied flow: packets", "of them arrived",
		"goal: under 5 %, none wrong")
	for _, backend := range []string{dataplane.Legacy, dataplane.NFT} {
		s := newStage(b, backend)
		kit.Must(b, s.fill(b.Context(), 100))
		denied, err := s.watchDenied(kit.Context(b, patience))
		kit.Must(b, err)
		kit.Must(b, s.allowWatched(b.Context()))
		kit.Must(b, s.stand(b.Context()))
		kit.Must(b, s.renewRemote(b.Context())) // once that is seen, all before it is
		pid := s.lab.Nodes[0].EnforcerPID()
		before, err := proc.UsageOf(pid)
		kit.Must(b, err)
		began := time.Now()
		allowedFrom, deniedFrom := s.watch.count(), denied.count()
		came, err := s.comeAndGo(b.Context(), *elsewhereFlag)
		kit.Must(b, err)
		took := time.Since(began)
		after, err := proc.UsageOf(pid)
		kit.Must(b, err)
		allowed, lost := s.watch.since(allowedFrom)
		refused, arrived := denied.since(deniedFrom)
		arrived = refused - arrived
		share := 100 * (after.CPU - before.CPU).Seconds() / took.Seconds()
		report(b, backend, map[string]float64{"per-cent": share, "peak-MB": mb(after.Peak), "lost": float64(lost), "arrived": float64(arrived)})
		wrong := ""
		if lost+arrived > 0 {
			wrong = ", and verdicts were wrong"
		}
		t.add(backend, fmt.Sprint(came), fmt.Sprintf("%.1f", share), fmt.Sprintf("%.0f", mb(after.Peak)), fmt.Sprint(allowed), fmt.Sprint(lost), fmt.Sprint(refused),
			fmt.Sprint(arrived), verdict(share, goalElsewhere)+wrong)
		kit.Must(b, denied.close())
		s.end()
	}
}

// watchDenied sends from the remote pod's address to a pod that policies isolate from it.
func (s *stage) watchDenied(ctx context.Context) (*watch, error) {
	target, err := s.lab.WaitPod(ctx, stageNamespace, "local-1")
	if err != nil {
		return nil, err
	}
	src := netip.AddrPortFrom(netip.MustParseAddr(s.remote.Status.PodIP), 0)
	return watchFlow(s.lab.World, target.Host, src, netip.AddrPortFrom(target.Address(iptables.IPv4), watchedPort))
}

// allowWatched has the watched flow allowed by a policy, through the remote pod's address.
func (s *stage) allowWatched(ctx context.Context) error {
	p := mutual("app-0", watchedPort, "watched")
	p.Namespace = stageNamespace
	err := s.closes(ctx, new(reaction), func() error {
		_, err := s.client.NetworkingV1().NetworkPolicies(stageNamespace).Create(ctx, p, metav1.CreateOptions{})
		return err
	})
	if err != nil {
		return err
	}
	return s.opens(ctx, new(reaction), func() error { return createPod(ctx, s.client, s.remote) })
}

// renewRemote has the remote pod go and come again.
func (s *stage) renewRemote(ctx context.Context) error {
	now := int64(0)
	err := s.closes(ctx, new(reaction), func() error {
		return s.client.CoreV1().Pods(stageNamespace).Delete(ctx, s.remote.Name, metav1.DeleteOptions{GracePeriodSeconds: &now})
	})
	if err != nil {
		return err
	}
	return s.opens(ctx, new(reaction), func() error { return createPod(ctx, s.client, s.remote) })
}

// stand creates the pods that stay.
func (s *stage) stand(ctx context.Context) error {
	err := scale.InParallel(standingNamespaces, func(i int) error {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("standing-%d", i)}}
		_, err := s.client.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{})
		return err
	})
	if err != nil {
		return fmt.Errorf("creating namespaces: %w", err)
	}
	err = scale.InParallel(standingPods, func(i int) error {
		p := stagePod(fmt.Sprintf("standing-%d", i), "standing", "elsewhere", netip.AddrFrom4([4]byte{10, 245, byte(i >> 8), byte(i)}).String())
		p.Namespace = fmt.Sprintf("standing-%d", i%standingNamespaces)
		return createPod(ctx, s.client, p)
	})
	if err != nil {
		return fmt.Errorf("creating pods: %w", err)
	}
	return nil
}

// comeAndGo has pods come, and those that came some time before go, at a steady pace. It returns how many came.
func (s *stage) comeAndGo(ctx context.Context, d time.Duration) (int, error) {
	tick := time.NewTicker(time.Second / comingPods)
	defer tick.Stop()
	failed := make(chan error, 1)
	end := time.After(d)
	for n := 0; ; n++ {
		select {
		case <-end:
			return n, nil
		case err := <-failed:
			return n, err
		case <-tick.C:
		}
		go func() {
			if err := comeOrGo(ctx, s.client, n); err != nil {
				select {
				case failed <- err:
				default: // one is enough
				}
			}
		}()
	}
}

// comeOrGo creates the n-th pod, and deletes the one that came so long ago.
func comeOrGo(ctx context.Context, client kubernetes.Interface, n int) error {
	if err := createPod(ctx, client, comingPod(n)); err != nil {
		return fmt.Errorf("creating a pod: %w", err)
	}
	if n < comingLives {
		return nil
	}
	now, gone := int64(0), comingPod(n-comingLives)
	if err := client.CoreV1().Pods(gone.Namespace).Delete(ctx, gone.Name, metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
		return fmt.Errorf("deleting a pod: %w", err)
	}
	return nil
}

func comingPod(n int) *corev1.Pod {
	p := stagePod(fmt.Sprintf("coming-%d", n), "elsewhere", "elsewhere", netip.AddrFrom4([4]byte{10, 246, byte(n >> 8), byte(n)}).String())
	if n%2 == 0 {
		p.Namespace = fmt.Sprintf("standing-%d", n%standingNamespaces)
	}
	return p
}
