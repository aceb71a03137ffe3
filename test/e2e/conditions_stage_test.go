package e2e

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/lab"
	"github.com/ringfence-io/ringfence/lab/probe"
	"github.com/ringfence-io/ringfence/test/kit"
)

// stage is a lab with pods that stay, and policies about them that change all the time without changing what they mean for the watched flows.
type stage struct {
	lab     *lab.Lab
	backend string // of the enforcers, but for a switch
	program string // of the enforcers, likewise
	next    string // the program of another layout
	pods    map[string]*lab.Pod
	blocks  *strings.Replacer   // $NAME4 and $NAME6 by the addresses of a pod, as blocks
	at      []int               // the way in which each part is written
	held    map[string][]string // ours in the kernel, when all parts are at their first way
	took    time.Duration       // an enforcer to be ready
	repair  time.Duration       // for which damage by somebody else may last
	broken  bool                // what one condition has left behind is not for the next one to suffer
}

// Where some of the parts stand, and the ways of all that name namespaces in which they name no other namespace than red.
const (
	toBlue = 0
	beside = 3
)

var byAddress = map[int]int{toBlue: 2, 1: 2, 2: 1, 5: 1}

// actors are the pods that stay: "name namespace node".
var actors = []string{
	"web red n1", "near red n1", "far red n2", "client blue n1", "remote blue n2", "stranger green n1", "foreigner green n2",
}

// watchedFlows are watched in both families. Half of them stay on a node. The guarded pods, web and far, decide about their ingress by the same policies.
var watchedFlows = []struct {
	from, to string
	protocol policy.Protocol
	port     uint16
	allowed  bool
}{
	{"client", "web", policy.TCP, 80, true}, {"remote", "web", policy.TCP, 80, true},
	{"client", "far", policy.TCP, 80, true}, {"remote", "far", policy.TCP, 80, true},
	{"near", "web", policy.UDP, 80, true}, {"far", "web", policy.UDP, 80, true},
	{"near", "web", policy.TCP, 82, true}, {"near", "far", policy.TCP, 82, true},
	{"web", "near", policy.TCP, 81, true}, {"web", "far", policy.UDP, 81, true},

	{"stranger", "web", policy.TCP, 80, false}, {"foreigner", "web", policy.TCP, 80, false},
	{"stranger", "far", policy.TCP, 80, false}, {"foreigner", "far", policy.TCP, 80, false},
	{"client", "web", policy.UDP, 81, false}, {"remote", "far", policy.UDP, 82, false},
	{"client", "web", policy.TCP, 82, false}, {"far", "web", policy.TCP, 82, false},
	{"web", "near", policy.UDP, 81, false}, {"web", "far", policy.TCP, 81, false},
	{"far", "stranger", policy.TCP, 83, false}, {"far", "foreigner", policy.TCP, 83, false},
}

// standingPolicies never change: one keeps the sets of both grades in use, the other leaves it to web alone what it sends to far.
const standingPolicies = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: grades, namespace: red}
spec:
  podSelector: {matchLabels: {guarded: really}}
  ingress:
  - from: [{podSelector: {matchLabels: {grade: a}}}, {podSelector: {matchLabels: {grade: b}}}]
    ports: [{port: 7000}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: far, namespace: red}
spec:
  podSelector: {matchLabels: {app: far}}
  ingress:
  - from: [{podSelector: {matchLabels: {app: web}}}]
    ports: [{port: 81, protocol: UDP}, {port: 81}]
`

// part is what decides about some of the flows, in one of n ways that mean the same for them. put goes from one to another; in between it means
// the same, too.
type part struct {
	n   int
	put func(ctx context.Context, s *stage, from, to int) error
}

var parts = []part{
	written( // client and remote to guarded pods on tcp/80
		in("tcp", `[{from: [{namespaceSelector: {matchLabels: {team: blue}}}], ports: [{port: 80}]}]`),
		in("tcp", `[{from: [{namespaceSelector: {}, podSelector: {matchExpressions: [{key: app, operator: In, values: [client, remote]}]}}], ports: [{port: p80}]}]`),
		in("tcp", `[{from: [{ipBlock: {cidr: $client4}}, {ipBlock: {cidr: $client6}}], ports: [{port: 80}]},
		  {from: [{ipBlock: {cidr: $remote4}}, {ipBlock: {cidr: $remote6}}], ports: [{port: 79, endPort: 80}]}]`),
		in("tcp", `[{from: [{namespaceSelector: {matchExpressions: [{key: team, operator: NotIn, values: [red, green]}]}}], ports: [{port: 80}, {port: 9000}]}]`),
	),
	written( // near and far to guarded pods on udp/80
		in("udp", `[{from: [{podSelector: {}}], ports: [{port: 80, protocol: UDP}]}]`),
		in("udp", `[{from: [{podSelector: {matchExpressions: [{key: app, operator: In, values: [near, far]}]}}], ports: [{port: 80, protocol: UDP}]}]`),
		in("udp", `[{from: [{ipBlock: {cidr: $near4}}, {ipBlock: {cidr: $near6}}, {ipBlock: {cidr: $far4}}, {ipBlock: {cidr: $far6}}], ports: [{port: 80, protocol: UDP}]}]`),
		in("udp", `[{from: [{podSelector: {matchLabels: {app: far}}}, {podSelector: {matchLabels: {app: near}}}], ports: [{port: 78, endPort: 80, protocol: UDP}]}]`),
	),
	written( // web to far on udp/81, and to near on tcp/81
		out(`[{to: [{podSelector: {matchLabels: {app: far}}}], ports: [{port: 81, protocol: UDP}]}, {to: [{podSelector: {matchLabels: {app: near}}}], ports: [{port: 81}]}]`),
		out(`[{to: [{ipBlock: {cidr: $far4}}, {ipBlock: {cidr: $far6}}], ports: [{port: 81, protocol: UDP}]},
		  {to: [{ipBlock: {cidr: $near4}}, {ipBlock: {cidr: $near6}}, {ipBlock: {cidr: 198.51.100.0/24, except: [198.51.100.8/29]}}], ports: [{port: 80, endPort: 81}]}]`),
		out(`[{to: [{podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [near, web]}]}}], ports: [{port: 81, protocol: UDP}]},
		  {to: [{namespaceSelector: {matchLabels: {team: red}}, podSelector: {matchLabels: {app: near}}}], ports: [{port: p81}]}]`),
	),
	written( // what is beside them
		way{},
		in("nobody", `[]`),
		in("others", `[{from: [{ipBlock: {cidr: 198.51.100.0/24, except: [198.51.100.128/25]}}, {namespaceSelector: {matchLabels: {team: green}}}], ports: [{port: 7777}]}]`),
		way{"blue", "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: silent, namespace: blue}, spec: {podSelector: {}, policyTypes: [Ingress]}}"},
	),
	written( // the tiers above and below
		way{},
		tier("wall", `[{action: Deny, from: [{namespaces: {matchLabels: {team: green}}}]}]`),
		tier("wall", `[{action: Accept, from: [{namespaces: {matchLabels: {team: blue}}}], protocols: [{tcp: {destinationPort: {number: 80}}}]}]`),
		tier("wall", `[{action: Pass, from: [{namespaces: {matchLabels: {team: red}}}]}, {action: Deny, from: [{namespaces: {matchLabels: {team: green}}}]}]`),
		way{"fence", "{apiVersion: policy.ringfence.io/v1alpha1, kind: NamespaceIsolation, metadata: {name: fence}, spec: {namespaceSelector: {matchLabels: {team: red}}}}"},
	),
	written( // nothing from guarded pods to green on tcp/83
		ward(`[{namespaces: {matchLabels: {team: green}}}]`),
		ward(`[{networks: [$stranger4, $stranger6, $foreigner4, $foreigner6]}]`),
	),
	{2, grade}, // near to guarded pods on tcp/82
}

// ofPolicies is how many of the parts, the first ones, are policies alone. The last changes a pod, too: nodes watch the kinds of objects one by one, and may
// know of a policy sooner than of the label that it was written after. That part changes only while no enforcer runs.
var ofPolicies = len(parts) - 1

// way is the manifest of an object; without any, it is not there.
type way struct{ object, text string }

// in is a NetworkPolicy of the ingress of guarded pods, out one of web's egress, tier a ClusterNetworkPolicy of the ingress of guarded pods.
func in(name, rules string) way { return rulesOf("guarded: really", "in-"+name, "Ingress", rules) }
func out(rules string) way      { return rulesOf("app: web", "out", "Egress", rules) }

func rulesOf(pods, name, direction, rules string) way {
	return way{name, fmt.Sprintf("{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: %s, namespace: red}, "+
		"spec: {podSelector: {matchLabels: {%s}}, policyTypes: [%s], %s: %s}}", name, pods, direction, strings.ToLower(direction), rules)}
}

func tier(name, rules string) way {
	return way{name, fmt.Sprintf("{apiVersion: policy.ringfence.io/v1alpha1, kind: ClusterNetworkPolicy, metadata: {name: %s}, spec: {tier: Admin, priority: 7, "+
		"subject: {pods: {namespaceSelector: {matchLabels: {team: red}}, podSelector: {matchLabels: {guarded: really}}}}, ingress: %s}}", name, rules)}
}

// ward is a ClusterNetworkPolicy that denies the egress of guarded pods.
func ward(to string) way {
	return way{"ward", fmt.Sprintf("{apiVersion: policy.ringfence.io/v1alpha1, kind: ClusterNetworkPolicy, metadata: {name: ward}, spec: {tier: Admin, priority: 8, "+
		"subject: {pods: {namespaceSelector: {matchLabels: {team: red}}, podSelector: {matchLabels: {guarded: really}}}}, "+
		"egress: [{action: Deny, to: %s, protocols: [{tcp: {destinationPort: {number: 83}}}]}]}}", to)}
}

// written is a part that consists of one object.
func written(ways ...way) part {
	return part{len(ways), func(ctx context.Context, s *stage, from, to int) error {
		if err := s.lab.Apply(ctx, []byte(s.blocks.Replace(ways[to].text))); err != nil {
			return err
		}
		if ways[from].object == ways[to].object {
			return nil
		}
		return s.lab.Delete(ctx, []byte(s.blocks.Replace(ways[from].text)))
	}}
}

// grade gives near another label, and lets guarded pods be reached by it: by both labels as long as nodes may know of either.
func grade(ctx context.Context, s *stage, _, to int) error {
	rule := func(grades string) []byte {
		return []byte(in("grade", fmt.Sprintf(`[{from: [%s], ports: [{port: 82}]}]`, grades)).text)
	}
	of := func(i int) string { return fmt.Sprintf(`{podSelector: {matchLabels: {grade: %c}}}`, 'a'+i) }
	if err := s.lab.Apply(ctx, rule(of(0)+", "+of(1))); err != nil {
		return err
	}
	patch := fmt.Appendf(nil, `{"metadata": {"labels": {"grade": "%c"}}}`, 'a'+to)
	if _, err := s.lab.Client.CoreV1().Pods("red").Patch(ctx, "near", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		return err
	}
	return s.lab.Apply(ctx, rule(of(to)))
}

func newStage(t *testing.T, opts lab.Options, program, next string) *stage {
	t.Helper()
	s := &stage{backend: opts.Backend, program: program, next: next, pods: map[string]*lab.Pod{}, at: make([]int, len(parts))}
	s.lab = start(t, opts)
	for _, team := range []string{"red", "blue", "green"} {
		kit.Must(t, s.lab.Apply(kit.Context(t, patience), fmt.Appendf(nil, "{apiVersion: v1, kind: Namespace, metadata: {name: %s, labels: {team: %s}}}", team, team)))
	}
	var blocks []string
	for _, line := range actors {
		f := strings.Fields(line)
		object := actor(f[1], f[0], f[2])
		if f[0] == "web" || f[0] == "far" {
			object.Labels["guarded"] = "really"
		}
		pod, err := s.lab.RunPod(kit.Context(t, patience), object)
		kit.Must(t, err)
		s.pods[f[0]] = pod
		for _, family := range iptables.Families {
			addr := pod.Address(family)
			blocks = append(blocks, fmt.Sprintf("$%s%d", f[0], family), fmt.Sprintf("%s/%d", addr, addr.BitLen()))
		}
	}
	s.blocks = strings.NewReplacer(blocks...)
	kit.Must(t, s.lab.Apply(kit.Context(t, patience), []byte(standingPolicies)))
	s.goHome(t)
	kit.Must(t, s.change(kit.Context(t, patience), ofPolicies, 0))
	kit.Must(t, lab.Poll(kit.Context(t, patience), func(context.Context) error { return s.asMeant() }))
	for _, n := range s.lab.Nodes {
		n.SetEnforcer(s.program, s.backend)
	}
	s.took = s.restartAll(t)
	s.held = s.ours(t)
	t.Logf("an enforcer is ready %s after its start", s.took)
	return s
}

// actor is a pod that listens on all the ports that anybody calls.
func actor(namespace, name, node string) *corev1.Pod {
	var ports []corev1.ContainerPort
	for number := int32(80); number <= 84; number++ {
		tcp, udp := port(corev1.ProtocolTCP, number), port(corev1.ProtocolUDP, number)
		tcp.Name = fmt.Sprintf("p%d", number)
		ports = append(ports, tcp, udp)
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{"app": name}},
		Spec:       corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "main", Image: "none", Ports: ports}}},
	}
}

// flow is one between two of the actors.
func (s *stage) flow(from, to string, protocol policy.Protocol, port uint16, family iptables.Family, allowed bool) probe.Watched {
	flow := probe.Flow{Protocol: protocol, Src: s.pods[from].Address(family), Dst: s.pods[to].Address(family), Port: port}
	return probe.Watched{Host: s.pods[from].Host, Flow: flow, Allowed: allowed}
}

func (s *stage) flows() []probe.Watched {
	var all []probe.Watched
	for _, family := range iptables.Families {
		for _, f := range watchedFlows {
			all = append(all, s.flow(f.from, f.to, f.protocol, f.port, family, f.allowed))
		}
	}
	return all
}

// asMeant probes all flows once.
func (s *stage) asMeant() error {
	report, err := probe.Once(s.flows(), conditionsRate, 300*time.Millisecond)
	if err == nil && len(report.Wrong) > 0 {
		err = fmt.Errorf("flows are not as they are meant to be: %s", report)
	}
	return err
}

// change takes a part to another way.
func (s *stage) change(ctx context.Context, i, to int) error {
	if err := parts[i].put(ctx, s, s.at[i], to); err != nil {
		return err
	}
	s.at[i] = to
	return nil
}

// changeOne takes any policy to any other way.
func (s *stage) changeOne(ctx context.Context) error {
	i := rand.N(ofPolicies)
	return s.change(ctx, i, (s.at[i]+1+rand.N(parts[i].n-1))%parts[i].n)
}

// changeAll takes each part to its next way. No enforcer runs meanwhile.
func (s *stage) changeAll(t *testing.T) {
	t.Helper()
	for i := range parts {
		kit.Must(t, s.change(kit.Context(t, patience), i, (s.at[i]+1)%parts[i].n))
	}
}

// churn changes one part after another, until the returned function is called, which says how many.
func (s *stage) churn(t *testing.T) (stop func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	changes := 0
	var all sync.WaitGroup
	all.Go(func() {
		for ctx.Err() == nil {
			within, done := context.WithTimeout(context.WithoutCancel(ctx), patience)
			err := s.changeOne(within)
			done()
			if err != nil {
				t.Errorf("changing policies: %v", err)
				return
			}
			changes++
			pause(ctx, rand.N(150*time.Millisecond))
		}
	})
	end := sync.OnceValue(func() int { cancel(); all.Wait(); return changes })
	t.Cleanup(func() { end() })
	return end
}

// pause lets something go on for a while.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// goHome takes all policies to their first way.
func (s *stage) goHome(t *testing.T) {
	t.Helper()
	for i := range ofPolicies {
		kit.Must(t, s.change(kit.Context(t, patience), i, 0))
	}
}

// home takes the cluster to where it began, and waits until its nodes hold what they held then.
func (s *stage) home(t *testing.T) {
	t.Helper()
	s.goHome(t)
	s.ready(t)
	s.holds(t, s.held)
}

// holds waits until what the nodes hold of ours is the same as want.
func (s *stage) holds(t *testing.T, want map[string][]string) {
	t.Helper()
	kit.Must(t, lab.Poll(kit.Context(t, patience), func(context.Context) error {
		if diff := cmp.Diff(want, s.ours(t)); diff != "" {
			return fmt.Errorf("nodes do not hold what they should (-want +got):\n%s", diff)
		}
		return nil
	}))
}

// hashSize is what a set has grown to, for entries that it may hold no longer.
var hashSize = regexp.MustCompile(` hashsize \d+`)

// ours is what nodes hold of ours, by node and the program that shows it.
func (s *stage) ours(t *testing.T) map[string][]string {
	t.Helper()
	held := kernel(t, s.lab)
	maps.DeleteFunc(held, func(what string, lines []string) bool {
		held[what] = slices.DeleteFunc(lines, func(line string) bool { return !strings.Contains(line, iptables.Prefix) })
		for i, line := range held[what] {
			held[what][i] = hashSize.ReplaceAllString(line, "")
		}
		return len(held[what]) == 0
	})
	return held
}

// names are those of our chains and sets, likewise.
func names(held map[string][]string) map[string][]string {
	all := map[string][]string{}
	for what, lines := range held {
		found := map[string]bool{}
		for _, line := range lines {
			for _, word := range strings.Fields(line) {
				if word = strings.TrimPrefix(word, ":"); strings.HasPrefix(word, iptables.Prefix) {
					found[word] = true
				}
			}
		}
		all[what] = slices.Sorted(maps.Keys(found))
	}
	return all
}

// ready waits until all enforcers have synced.
func (s *stage) ready(t *testing.T) {
	t.Helper()
	kit.Must(t, s.lab.WaitEnforcers(kit.Context(t, patience)))
}

// restartAll ends all enforcers as an update does, and starts the next ones. It returns how long these took to be ready.
func (s *stage) restartAll(t *testing.T) time.Duration {
	t.Helper()
	for _, n := range s.lab.Nodes {
		kit.Must(t, n.RestartEnforcer())
	}
	began := time.Now()
	s.ready(t)
	return time.Since(began)
}
