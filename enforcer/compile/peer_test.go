package compile

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// TestEachFieldOfAPeerIsRead: a field that the API has is that of a kind of peers, or is refused by name.
func TestEachFieldOfAPeerIsRead(t *testing.T) {
	var want, got []string
	for _, f := range reflect.VisibleFields(reflect.TypeFor[v1alpha1.Peer]()) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		want = append(want, name)
	}
	for _, f := range slices.Concat(peerFields, strangeFields) {
		got = append(got, f.name)
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("fields of a peer (-in the API +read):\n%s", diff)
	}
}

// TestWhichKindCoversWhich: no kind's addresses are certainly among another's, but that every address has them all.
func TestWhichKindCoversWhich(t *testing.T) {
	selector := &v1alpha1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}
	ours := func(p v1alpha1.Peer) parsedRule {
		var r parsedRule
		if err := r.addPeer(&p); err != nil {
			t.Fatal(err)
		}
		return r
	}
	var every parsedRule
	every.addAny()
	rules := map[string]parsedRule{
		"any":          every,
		"pods":         ours(v1alpha1.Peer{Namespaces: selector}),
		"nodes":        ours(v1alpha1.Peer{Nodes: selector}),
		"a block":      ours(v1alpha1.Peer{Networks: []v1alpha1.CIDR{"10.0.0.0/8"}}),
		"one family":   ours(v1alpha1.Peer{Networks: []v1alpha1.CIDR{"0.0.0.0/0"}}),
		"both":         ours(v1alpha1.Peer{Networks: []v1alpha1.CIDR{"0.0.0.0/0", "::/0"}}),
		"a part of it": ours(v1alpha1.Peer{Networks: []v1alpha1.CIDR{"10.1.0.0/16"}}),
	}
	covered := map[string][]string{
		"any":          slices.Sorted(maps.Keys(rules)),
		"both":         slices.Sorted(maps.Keys(rules)),
		"pods":         {"pods"},
		"nodes":        {"nodes"},
		"a block":      {"a block", "a part of it"},
		"one family":   {"a block", "a part of it", "one family"},
		"a part of it": {"a part of it"},
	}
	for name, r := range rules {
		var got []string
		for other, o := range rules {
			if r.coversPeers(&o) {
				got = append(got, other)
			}
		}
		slices.Sort(got)
		if diff := cmp.Diff(covered[name], got); diff != "" {
			t.Errorf("%s covers (-want +got):\n%s", name, diff)
		}
	}
}

// TestWhatPeersBecome: the ends of a rule, and whose ports its names are, by kind.
func TestWhatPeersBecome(t *testing.T) {
	p := networkPolicy(`{podSelector: {}, egress: [{
		to: [{podSelector: {matchLabels: {app: web}}}, {podSelector: {matchLabels: {app: job}}}, {ipBlock: {cidr: 10.0.0.0/8}}],
		ports: [{port: http}, {port: 443}]}]}`).NetworkPolicy
	rule := parse(p).rules[policy.Egress][0]
	kinds := map[policy.PeerKind]int{}
	for _, r := range rule.resolve() {
		if r.Ports.Kind == policy.InRanges {
			kinds[r.Peer.Kind]++
		}
	}
	if want := map[policy.PeerKind]int{policy.InSet: 2, policy.InBlocks: 1}; !maps.Equal(kinds, want) {
		t.Errorf("ends of each kind: %v, want %v", kinds, want)
	}
	if len(rule.sets.ports) != 1 || len(rule.sets.podPorts) != 2 {
		t.Errorf("sets of ports: %d of whatever pod and %d of the peers, want 1 and 2", len(rule.sets.ports), len(rule.sets.podPorts))
	}
}
