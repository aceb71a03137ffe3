package controllers

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"

	"github.com/ringfence-io/ringfence/enforcer/arrival"
	"github.com/ringfence-io/ringfence/test/kit"
)

// newTable is one that the cluster's node controller is going to have.
func (c *cluster) newTable() *arrival.Table {
	table := arrival.NewTable(filepath.Join(c.t.TempDir(), arrival.StateFile), logr.Discard())
	c.arrivals = table
	return table
}

func sandboxOf(p *corev1.Pod, addr string) arrival.Pod {
	return arrival.Pod{Namespace: p.Namespace, Name: p.Name, UID: string(p.UID), Container: "c-" + p.Name, Addrs: []netip.Addr{netip.MustParseAddr(addr)}}
}

// TestPodsThatComeAtOnceAreFewSyncs: fifty pods wait, and two syncs answer them all, or a few more if they come while one runs. That they are announced
// makes no more.
func TestPodsThatComeAtOnceAreFewSyncs(t *testing.T) {
	c := newCluster(t)
	var pods []*corev1.Pod
	for i := range 50 {
		pods = append(pods, c.createPod(fmt.Sprintf("web-%d", i), node))
	}
	table := c.newTable()
	n := c.start(time.Hour)
	n.until("the pods", func(all []seen) bool { return len(all) > 0 && len(all[len(all)-1].podsIn(c.namespace)) == 50 })
	n.settle()
	before := len(n.all())
	var adding sync.WaitGroup
	for i, p := range pods {
		adding.Go(func() {
			if err := table.Add(t.Context(), sandboxOf(p, fmt.Sprintf("10.9.0.%d", i+1))); err != nil {
				t.Error(err)
			}
		})
	}
	adding.Wait()
	all := n.all()
	if syncs := len(all) - before; syncs > 10 {
		t.Errorf("50 pods at once made %d syncs", syncs)
	}
	for _, p := range all[len(all)-1].podsIn(c.namespace) {
		if len(p.Addrs) != 1 {
			t.Errorf("pod %s has the addresses %s in the last snapshot", p.Name, p.Addrs)
		}
	}
}

// TestAPodThatTheNodeHasNotSeenBoundIsWaitedFor: the kubelet may hear of a pod before the enforcer does.
func TestAPodThatTheNodeHasNotSeenBoundIsWaitedFor(t *testing.T) {
	for watched, all := range map[string]bool{"reached": false, "all": true} {
		t.Run(watched, func(t *testing.T) { waitForBinding(t, all) })
	}
}

func waitForBinding(t *testing.T, allPods bool) {
	t.Helper()
	c := newCluster(t)
	c.all = allPods
	table := c.newTable()
	pod := c.createPod("web", "")
	n := c.start(time.Hour)
	n.until("the pod, if it is to be seen", func(seen []seen) bool {
		return len(seen) > 0 && (!allPods || len(seen[len(seen)-1].podsIn(c.namespace)) == 1)
	})
	answered := make(chan error, 1)
	go func() { answered <- table.Add(t.Context(), sandboxOf(pod, "10.9.0.1")) }()
	n.settle()
	select {
	case err := <-answered:
		t.Fatalf("answered before the node has seen the pod bound to it: %v", err)
	default:
	}
	kit.Must(c.t, c.client.SubResource("binding").Create(t.Context(), pod, &corev1.Binding{Target: corev1.ObjectReference{Kind: "Node", Name: node}}))
	if err := <-answered; err != nil {
		t.Error(err)
	}
	all := n.all()
	if got := all[len(all)-1].pod(c.namespace, "web").Addrs; len(got) != 1 {
		t.Errorf("the last snapshot has the addresses %s", got)
	}
}
