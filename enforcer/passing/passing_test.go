package passing

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	gocmp "github.com/google/go-cmp/cmp"

	"github.com/ringfence-io/ringfence/enforcer/dataplane"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

var (
	web, api, far = netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.9.9")
	outside, node = netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("10.0.0.254")
	webPod        = policy.PodName{Namespace: "shop", Name: "web-1", Workload: "deploy/web"}
	apiPod        = policy.PodName{Namespace: "other", Name: "api-1", Workload: "deploy/api"}
	farPod        = policy.PodName{Namespace: "far", Name: "far-1", Workload: "far-1"}
)

// heard is a witness.
type heard struct {
	mu    sync.Mutex
	told  []string
	looks [][]string
}

func (h *heard) Passed(s Sight) {
	h.mu.Lock()
	defer h.mu.Unlock()
	text := func(e End) string { return cmp.Or(e.Pod.Workload, e.Addr.String()) }
	h.told = append(h.told, fmt.Sprintf("%s %s -> %s %s/%d x%d", s.Direction, text(s.Src), text(s.Dst), s.Protocol, s.Port, s.Number))
}

func (h *heard) Looks(namespaces []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.looks = append(h.looks, namespaces)
}

func (h *heard) take() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	told := h.told
	h.told = nil
	slices.Sort(told)
	return told
}

// names know some pods, and others when they are asked.
type names struct {
	known, asked map[netip.Addr]policy.PodName
	questions    int
}

func (n *names) PodsAt(addrs ...netip.Addr) []policy.PodName {
	pods := make([]policy.PodName, len(addrs))
	for i, a := range addrs {
		pods[i] = n.known[a]
	}
	return pods
}

func (n *names) Named(write func([]policy.PodName), addrs ...netip.Addr) {
	n.questions++
	pods := n.PodsAt(addrs...)
	for i, a := range addrs {
		pods[i] = cmp.Or(pods[i], n.asked[a])
	}
	write(pods)
}

// tcp is an answered connection to a port, from a port of its own.
func tcp(src, dst netip.Addr, from, to uint16, with ...func(*policy.Connection)) policy.Connection {
	c := policy.Connection{
		Original: policy.Tuple{Protocol: policy.TCP, Src: src, Dst: dst, SrcPort: from, DstPort: to},
		Reply:    policy.Tuple{Protocol: policy.TCP, Src: dst, Dst: src, SrcPort: to, DstPort: from},
		Answered: true, ID: uint32(from),
	}
	for _, change := range with {
		change(&c)
	}
	return c
}

func udp(c *policy.Connection) { c.Original.Protocol, c.Reply.Protocol = policy.UDP, policy.UDP }

func unanswered(c *policy.Connection) { c.Answered = false }

func inZone(c *policy.Connection) { c.Zone = 3 }

func related(c *policy.Connection) { c.Master.Protocol = policy.TCP }

// behind has the connection go to a Service, behind which is the pod.
func behind(service netip.Addr) func(*policy.Connection) {
	return func(c *policy.Connection) { c.Original.Dst, c.Original.DstPort = service, 443 }
}

func newWatcher(t *testing.T) (*Watcher, *dataplane.Fake, *heard, *names) {
	t.Helper()
	kernel, witness := dataplane.NewFake(dataplane.Capabilities{}), &heard{}
	pods := &names{known: map[netip.Addr]policy.PodName{web: webPod, api: apiPod}, asked: map[netip.Addr]policy.PodName{far: farPod}}
	return &Watcher{Source: kernel, Pods: pods, Witness: witness, Log: logr.Discard()}, kernel, witness, pods
}

var shop = map[netip.Addr]policy.PodName{web: webPod}

func TestWhatPassesIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, kernel, witness, _ := newWatcher(t)
		ctx, end := context.WithCancel(t.Context())
		defer end()
		go func() { _ = w.Start(ctx) }()
		w.Ask(shop)
		kernel.Track([]netip.Addr{node},
			tcp(web, api, 1000, 8080), tcp(web, api, 1001, 8080),
			tcp(api, web, 1002, 80, udp),
			tcp(far, web, 1003, 80), tcp(outside, web, 1004, 80),
			tcp(web, far, 1005, 5432, behind(outside)),
			tcp(web, outside, 1006, 53, udp, unanswered),
			// None of these is one of the namespace's that certainly passes.
			tcp(web, outside, 1007, 443, unanswered), tcp(api, far, 1008, 80), tcp(web, api, 1009, 9, inZone), tcp(web, api, 1010, 9, related),
			tcp(node, web, 1011, 80),
		)
		time.Sleep(pause + time.Second)
		synctest.Wait()
		want := []string{
			"egress deploy/web -> 192.0.2.7 udp/53 x1", "egress deploy/web -> deploy/api tcp/8080 x2", "egress deploy/web -> far-1 tcp/5432 x1",
			"ingress 192.0.2.7 -> deploy/web tcp/80 x1", "ingress deploy/api -> deploy/web udp/80 x1", "ingress far-1 -> deploy/web tcp/80 x1",
		}
		if diff := gocmp.Diff(want, witness.take()); diff != "" {
			t.Errorf("at the first look (-want +got):\n%s", diff)
		}
		kernel.Track([]netip.Addr{node}, tcp(web, api, 1000, 8080), tcp(web, api, 1001, 8080), tcp(web, api, 1020, 8080), tcp(web, outside, 1007, 443))
		time.Sleep(pause + time.Second)
		synctest.Wait()
		if diff := gocmp.Diff([]string{"egress deploy/web -> 192.0.2.7 tcp/443 x1", "egress deploy/web -> deploy/api tcp/8080 x1"}, witness.take()); diff != "" {
			t.Errorf("at the second look (-want +got):\n%s", diff)
		}
		w.Ask(nil)
		kernel.Track([]netip.Addr{node}, tcp(web, api, 1030, 8080))
		time.Sleep(pause + time.Second)
		synctest.Wait()
		if told := witness.take(); len(told) > 0 {
			t.Errorf("nobody asks, and %q was told", told)
		}
		if diff := gocmp.Diff([][]string{{"shop"}, nil}, witness.looks); diff != "" {
			t.Errorf("namespaces (-want +got):\n%s", diff)
		}
	})
}

// A connection within the namespace is one at both of its ends.
func TestBothEndsAsk(t *testing.T) {
	w, kernel, witness, _ := newWatcher(t)
	kernel.Track(nil, tcp(web, api, 1000, 8080))
	w.look(t.Context(), map[netip.Addr]policy.PodName{web: webPod, api: apiPod})
	want := []string{"egress deploy/web -> deploy/api tcp/8080 x1", "ingress deploy/web -> deploy/api tcp/8080 x1"}
	if diff := gocmp.Diff(want, witness.take()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// What cannot be read is logged once, and what was there is told when it can.
func TestALookThatFails(t *testing.T) {
	w, kernel, witness, _ := newWatcher(t)
	var lines []string
	w.Log = funcr.New(func(_, args string) { lines = append(lines, args) }, funcr.Options{})
	kernel.Track(nil, tcp(web, api, 1000, 8080))
	for _, err := range []error{nil, errors.New("no"), errors.New("no"), errors.New("not now"), nil} {
		kernel.FailTracking(err)
		w.look(t.Context(), shop)
	}
	if diff := gocmp.Diff([]string{"egress deploy/web -> deploy/api tcp/8080 x1"}, witness.take()); diff != "" || len(lines) != 2 {
		t.Errorf("%d lines, told (-want +got):\n%s", len(lines), diff)
	}
}

// Few addresses are asked about at a look. The others wait, but not without end, and what is seen of them meanwhile is added.
func TestFewAddressesAreAskedAbout(t *testing.T) {
	w, kernel, witness, pods := newWatcher(t)
	var all []policy.Connection
	client := netip.MustParseAddr("192.0.2.0")
	for i := range maxAsked + maxWaiting + 5 {
		client = client.Next()
		all = append(all, tcp(client, web, uint16(2000+i), 80))
	}
	kernel.Track(nil, all...)
	w.look(t.Context(), shop)
	if told := len(witness.take()); told != maxAsked+5 || pods.questions != maxAsked {
		t.Fatalf("%d are told of, by %d questions, want %d by %d", told, pods.questions, maxAsked+5, maxAsked)
	}
	for range maxWaiting / maxAsked {
		w.look(t.Context(), shop)
	}
	if told := witness.take(); len(told) != maxWaiting || len(w.waiting) != 0 {
		t.Errorf("%d are told of later, and %d wait", len(told), len(w.waiting))
	}
}

// Few kinds of connections are told of at once; the others are at the next look.
func TestALookIsBounded(t *testing.T) {
	w, kernel, witness, _ := newWatcher(t)
	var all []policy.Connection
	for i := range maxFlows + 100 {
		all = append(all, tcp(web, api, 1000, uint16(1+i)))
	}
	kernel.Track(nil, all...)
	w.look(t.Context(), shop)
	if told := len(witness.take()); told != maxFlows || len(w.seen) != maxFlows {
		t.Errorf("%d kinds are told of at the first look, and %d connections remembered", told, len(w.seen))
	}
	w.look(t.Context(), shop)
	if told := len(witness.take()); told != len(all)-maxFlows || len(w.seen) != len(all) {
		t.Errorf("%d kinds are told of at the second look, and %d connections remembered", told, len(w.seen))
	}
}
