package controllers

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// ownerOf is a pod on a node.
func ownerOf(name, on string) policy.Owner {
	return policy.Owner{Ref: policy.Ref{Kind: "Pod", Namespace: "shop", Name: name}, Node: on}
}

// troubled are concerns with some contested and impossible addresses.
func troubled(here, elsewhere, impossible int) policy.Concerns {
	var c policy.Concerns
	c.Contested.Here, c.Contested.Elsewhere, c.Impossible.Elsewhere = here, elsewhere, impossible
	addr := netip.MustParseAddr("10.0.0.0")
	for i := range min(here+elsewhere, policy.MaxNamed) {
		addr = addr.Next()
		holder := ownerOf("mine", "n1")
		if i >= here {
			holder = ownerOf("theirs", "n2")
		}
		c.Contested.First = append(c.Contested.First, policy.Contest{Addr: addr, Here: i < here, Pods: 3, Holder: holder, Other: ownerOf("thief", "n3")})
	}
	for i := range min(impossible, policy.MaxNamed) {
		c.Impossible.First = append(c.Impossible.First, ownerOf(fmt.Sprint("bad", i), "n2"))
	}
	return c
}

func TestWhatAReportSaysOfAddresses(t *testing.T) {
	if got := addressTroublesOf(policy.Concerns{}); got != nil {
		t.Errorf("of addresses that are all well it says %+v", got)
	}
	mine := v1alpha1.AddressTrouble{Address: "10.0.0.1", Message: "3 pods are shown with 10.0.0.1: it is taken for that of Pod shop/mine on node n1, which is on this node; " +
		"another is Pod shop/thief on node n3, and 1 more"}
	theirs := v1alpha1.AddressTrouble{Address: "10.0.0.2", Message: "3 pods are shown with 10.0.0.2: it is taken for that of Pod shop/theirs on node n2; " +
		"another is Pod shop/thief on node n3, and 1 more"}
	bad := v1alpha1.AddressTrouble{Message: "Pod shop/bad0 on node n2 is shown with an address that none can have: it is left out of everything"}
	want := &v1alpha1.AddressTroubles{Contested: 1, ContestedElsewhere: 1, Impossible: 1, Named: []v1alpha1.AddressTrouble{mine, theirs, bad}}
	if diff := cmp.Diff(want, addressTroublesOf(troubled(1, 1, 1))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, c := range [][3]int{{1000, 1000, 1000}, {1000, 0, 2}, {2, 0, 1000}, {0, 0, 1000}, {1000, 0, 0}} {
		got := addressTroublesOf(troubled(c[0], c[1], c[2]))
		if len(got.Named) != v1alpha1.MaxAddressTroubles || int(got.Contested) != c[0] || int(got.Impossible) != c[2] {
			t.Errorf("of %v it names %d, and counts %+v", c, len(got.Named), got)
		}
	}
	long := troubled(1, 0, 0)
	for _, o := range []*policy.Owner{&long.Contested.First[0].Holder, &long.Contested.First[0].Other} {
		o.Ref.Namespace, o.Ref.Name, o.Node = strings.Repeat("s", 63), strings.Repeat("p", 253), strings.Repeat("n", 253)
	}
	if text := addressTroublesOf(long).Named[0].Message; len(text) > maxTroubleMessage {
		t.Errorf("a message has %d bytes", len(text))
	}
}

// TestContestedAddressesDoNotFloodTheAPI: where nodes give their pods addresses of one range, each pod that comes or goes anywhere changes which are contested.
func TestContestedAddressesDoNotFloodTheAPI(t *testing.T) {
	a := newAccount(v1alpha1.NodeEnforcementStatus{})
	with := func(here, elsewhere, impossible int) bool {
		s := syncOf([]policy.Object{object("web", 1)}, 7)
		c := troubled(here, elsewhere, impossible)
		s.Report.Concerns.Contested, s.Report.Concerns.Impossible = c.Contested, c.Impossible
		return a.note(s)
	}
	with(0, 0, 0)
	for _, tt := range []struct {
		name string
		c    [3]int
		want bool
	}{
		{"one between others", [3]int{0, 1, 0}, false}, {"the first with a pod of this node", [3]int{1, 1, 0}, true}, {"more", [3]int{50, 900, 0}, false},
		{"less", [3]int{49, 2, 3}, false}, {"none with this node's any more", [3]int{0, 2, 3}, true}, {"none", [3]int{}, false},
	} {
		if got := with(tt.c[0], tt.c[1], tt.c[2]); got != tt.want {
			t.Errorf("%s is worth a report: %t, want %t", tt.name, got, tt.want)
		}
	}
	if a.status.Addresses != nil {
		t.Errorf("when all is well again it says %+v", a.status.Addresses)
	}
	// And the log has a line in ten minutes at most, which names some.
	var lines []string
	ctx := log.IntoContext(t.Context(), funcr.New(func(_, line string) { lines = append(lines, line) }, funcr.Options{}))
	var said addresses
	at := time.Unix(1000, 0)
	for i := range 600 { // one in five seconds, for fifty minutes
		said.say(ctx, troubled(i%2*40, i%2*900, i%2), at.Add(time.Duration(i)*5*time.Second))
	}
	if len(lines) < 2 || len(lines) > 6 || !strings.Contains(lines[0], "10.0.0.1") || !strings.Contains(lines[0], "shop/bad0") || len(lines[0]) > 8192 {
		t.Errorf("the log has %d lines: %q", len(lines), lines)
	}
}

// TestClaimants: of each pod it is known whether another contests an address of it, and who is to be told when that changes.
func TestClaimants(t *testing.T) {
	pod := func(name, on string, addrs ...string) *compile.Pod {
		p := visible("shop", on, addrs...)
		p.Name, p.UID = name, name
		return p
	}
	going := func(p *compile.Pod) *compile.Pod {
		q := *p
		q.Terminating = true
		return &q
	}
	finished := func(p *compile.Pod) *compile.Pod {
		q := *p
		q.Finished = true
		return &q
	}
	mine, thief, more := pod("mine", "n1", "10.0.0.1", "fd00::1"), pod("thief", "n2", "fd00::1"), pod("more", "n3", "10.0.0.1", "fe80::1")
	twin, link := pod("twin", "n1", "10.0.0.1"), pod("link", "n1", "fe80::1")
	c := newClaimants()
	for _, tt := range []struct {
		name          string
		before, after *compile.Pod
		told          []string
		contested     []string
	}{
		{"the first", nil, mine, nil, nil},
		{"a link-local address", nil, link, nil, nil},
		{"another with one of its addresses", nil, thief, []string{"mine"}, []string{"mine", "thief"}},
		{"a third", nil, more, []string{"mine"}, []string{"mine", "more", "thief"}},
		{"the thief ends", thief, finished(thief), []string{"mine"}, []string{"mine", "more"}},
		{"the thief goes", finished(thief), nil, nil, []string{"mine", "more"}},
		{"the third goes", more, nil, []string{"mine"}, nil},
		{"another of the node", nil, twin, []string{"mine"}, []string{"mine", "twin"}},
		{"which goes", twin, going(twin), []string{"mine"}, nil},
		{"and is gone", going(twin), nil, nil, nil},
		{"it has another address", mine, pod("mine", "n1", "10.0.0.9"), nil, nil},
		{"nobody has the old one", nil, more, nil, nil},
	} {
		var told []string
		for _, p := range c.change(tt.before, tt.after) {
			told = append(told, p.Name)
		}
		if diff := cmp.Diff(tt.told, told); diff != "" {
			t.Errorf("%s: told (-want +got):\n%s", tt.name, diff)
		}
		var contested []string
		for _, a := range []string{"10.0.0.1", "10.0.0.9", "fd00::1", "fe80::1"} {
			for _, p := range c.at(netip.MustParseAddr(a)) {
				if _, ok := c.contests(p); ok && !slices.Contains(contested, p.Name) {
					contested = append(contested, p.Name)
				}
			}
		}
		slices.Sort(contested)
		if diff := cmp.Diff(tt.contested, contested); diff != "" {
			t.Errorf("%s: contested (-want +got):\n%s", tt.name, diff)
		}
	}
}

// TestNodesAreAskedForTheirRangesWhereOthersContestAnAddress, and not otherwise; nobody waits for them.
func TestNodesAreAskedForTheirRangesWhereOthersContestAnAddress(t *testing.T) {
	begun := 0
	w := &watches{begin: func(target) (*watch, error) {
		begun++
		return &watch{target: allNodes, handler: never{}, stop: func() { begun-- }}, nil
	}}
	now := time.Now()
	for _, tt := range []struct {
		contested bool
		ago       time.Duration
		want      int
	}{{false, 0, 0}, {true, rangesKept / 2, 1}, {true, rangesKept / 2, 1}, {false, 0, 1}} {
		if err := w.askRanges(tt.contested, now.Add(-tt.ago)); err != nil || begun != tt.want {
			t.Errorf("%+v: %d watches, %v", tt, begun, err)
		}
		if late, err := w.fillNodes(&compile.Snapshot{}); late || err != nil || begun != tt.want {
			t.Errorf("%+v: a snapshot waits for them: %t, %v; %d watches", tt, late, err, begun)
		}
	}
	w.asked = now.Add(-rangesKept)
	if _, err := w.fillNodes(&compile.Snapshot{}); err != nil || begun != 0 {
		t.Errorf("long after: %d watches, %v", begun, err)
	}
}

// never has not synced.
type never struct {
	toolscache.ResourceEventHandlerRegistration
}

func (never) HasSynced() bool { return false }

// TestEventsOfTheClustersObjectsNameNoOthers: they are in the namespace default.
func TestEventsOfTheClustersObjectsNameNoOthers(t *testing.T) {
	conflicting := &metav1.Condition{Type: v1alpha1.AcceptedCondition, Reason: v1alpha1.ConflictingReason, Message: "ClusterNetworkPolicy rival has the same priority, and both select the pod shop/web"}
	if text := note(&v1alpha1.ClusterNetworkPolicy{}, conflicting); strings.Contains(text, "rival") || strings.Contains(text, "shop") {
		t.Errorf("an Event in default says: %s", text)
	}
	own := &metav1.Condition{Type: v1alpha1.AcceptedCondition, Reason: v1alpha1.NotUnderstoodReason, Message: "spec.podSelector: no"}
	if text := note(&v1alpha1.PolicyEnforcement{ObjectMeta: metav1.ObjectMeta{Namespace: "shop"}}, own); text != own.Message {
		t.Errorf("an Event in the policy's namespace says: %s", text)
	}
}
