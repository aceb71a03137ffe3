package ladder

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/lab/oracle"
	"github.com/ringfence-io/ringfence/test/gen"
)

// History is a cluster to which one thing after the other happens. As with informers, an object that has not changed is the same one in the next snapshot, and
// lists have no order.
type History struct {
	random  *rand.Rand
	left    *bytesLeft // that random takes its numbers from; nil if those are of a seed
	source  *gen.Source
	options gen.Options
	c       oracle.Cluster
	nodes   []gen.Node
	node    string // whose snapshots these are
	network compile.Network
	unknown map[string]bool  // namespaces whose pods on other nodes are not known
	partial bool             // nor, perhaps, others
	past    []oracle.Cluster // some of those it has been
	steps   int
	born    int // pods and policies so far

	shared     compile.Interner
	kept       compile.Snapshot // the last, as caches keep it
	caches     bool             // each object that changes is put in its place, rather than all listed anew
	pods       map[*corev1.Pod]*compile.Pod
	namespaces map[*corev1.Namespace]*compile.Namespace
	nodesOf    map[*corev1.Node]*compile.Node
}

// stepsBetween is how many steps lie between two states that are remembered.
const stepsBetween = 8

// NewHistory begins with the case of a seed.
func NewHistory(seed uint64) *History {
	options := gen.Options{Invalid: seed%3 == 0, Tiers: seed%4 != 0, Closed: seed%5 < 2, Claims: seed%7 < 3, Long: seed%4 == 2}
	return newHistory(rand.New(rand.NewPCG(seed, 6)), gen.Seed(seed), options, seed%2 == 0)
}

// HistoryOf begins with the case that some bytes stand for, and takes what happens from others. It ends with these.
func HistoryOf(cluster, events []byte) *History {
	left := &bytesLeft{events, rand.NewPCG(0, 0)}
	h := newHistory(rand.New(left), gen.Bytes(cluster), gen.Options{Invalid: true, Tiers: true, Closed: true, Claims: true, Long: true}, true)
	h.left = left
	return h
}

func newHistory(random *rand.Rand, source *gen.Source, options gen.Options, caches bool) *History {
	h := &History{
		random: random, source: source, options: options, caches: caches,
		pods: map[*corev1.Pod]*compile.Pod{}, namespaces: map[*corev1.Namespace]*compile.Namespace{}, nodesOf: map[*corev1.Node]*compile.Node{},
	}
	c := gen.New(h.source, h.options)
	h.c, h.nodes, h.node = c.Cluster, c.Nodes, "node1"
	h.past = []oracle.Cluster{h.c}
	return h
}

// bytesLeft is a source of numbers: each is mostly the next byte, so that one byte decides one thing.
type bytesLeft struct {
	data   []byte
	filler *rand.PCG // of what follows the byte, since who draws from few things may ask until a number suits
}

// Uint64 has the next byte in front, as that is the part which decides where few things are to choose from.
func (b *bytesLeft) Uint64() uint64 {
	filled := b.filler.Uint64()
	if len(b.data) == 0 {
		return filled
	}
	next := b.data[0]
	b.data = b.data[1:]
	return uint64(next)<<56 | filled>>8
}

// HasEnded reports whether all bytes have been taken.
func (h *History) HasEnded() bool { return h.left != nil && len(h.left.data) == 0 }

// Next lets something happen, and says what, with the snapshot after it.
func (h *History) Next() (name string, s compile.Snapshot) {
	if h.steps++; h.steps%stepsBetween == 0 {
		h.past = append(h.past, h.c)
	}
	total := 0
	for _, one := range happenings {
		total += one.weight
	}
	at := h.random.IntN(total)
	for _, one := range happenings {
		if at -= one.weight; at < 0 {
			one.do(h)
			h.c.Pods = named(h.c.Pods)
			return one.name, h.snapshot()
		}
	}
	return "", h.snapshot()
}

func (h *History) snapshot() compile.Snapshot {
	c := h.c
	s := compile.Snapshot{
		Node: h.node, ClusterPolicies: mixed(h, c.ClusterPolicies), Isolations: mixed(h, c.Isolations),
		DNS: compile.DNS{Services: mixed(h, c.DNSServices), Addresses: c.DNSAddresses}, Closed: c.Closed[h.node], Network: h.network,
	}
	var pods []*compile.Pod
	var namespaces []*compile.Namespace
	pods, h.pods = converted(mixed(h, c.Pods), h.pods, func(p *corev1.Pod) *compile.Pod { return h.shared.Pod(compile.NewPod(p)) })
	namespaces, h.namespaces = converted(mixed(h, c.Namespaces), h.namespaces, compile.NewNamespace)
	s.Nodes, h.nodesOf = converted(mixed(h, c.Nodes), h.nodesOf, compile.NewNode)
	s.Elsewhere = compile.Elsewhere{Partial: h.partial, Unknown: slices.Sorted(maps.Keys(h.unknown))}
	pods = slices.DeleteFunc(pods, func(p *compile.Pod) bool { return h.unknown[p.Namespace] && p.Node != h.node })
	s = s.WithPods(pods...)
	s.Namespaces, s.Policies = compile.ObjectsOf(namespaces...), compile.ObjectsOf(mixed(h, c.Policies)...)
	if h.caches {
		s.Remote, s.Namespaces, s.Policies = brought(h.kept.Remote, s.Remote), brought(h.kept.Namespaces, s.Namespaces), brought(h.kept.Policies, s.Policies)
		h.kept = s
	}
	return s
}

// named are pods, the first of each name: the API has no two.
func named(pods []*corev1.Pod) []*corev1.Pod {
	seen := map[[2]string]bool{}
	return slices.DeleteFunc(slices.Clone(pods), func(p *corev1.Pod) bool {
		name := [2]string{p.Namespace, p.Name}
		again := seen[name]
		seen[name] = true
		return again
	})
}

// brought is what a cache holds once it has heard of each object that is another one now.
func brought[T compile.Named](kept, now compile.Objects[T]) compile.Objects[T] {
	gone, come := now.Since(kept)
	for _, one := range gone {
		kept = kept.Without(one.GetNamespace(), one.GetName())
	}
	for _, one := range come {
		kept = kept.With(one)
	}
	return kept
}

// converted are objects as policy sees them, which are the same as before if the objects are.
func converted[O comparable, P any](objects []O, before map[O]P, convert func(O) P) ([]P, map[O]P) {
	var all []P
	now := map[O]P{}
	for _, o := range objects {
		p, known := before[o]
		if !known {
			p = convert(o)
		}
		now[o] = p
		all = append(all, p)
	}
	return all, now
}

// mixed is a list in another order.
func mixed[T any](h *History, list []T) []T {
	list = slices.Clone(list)
	h.random.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list
}

func (h *History) caseOf() gen.Case { return gen.Case{Nodes: h.nodes, Cluster: h.c} }

// other is another cluster, to take objects from.
func (h *History) other() oracle.Cluster { return gen.New(h.source, h.options).Cluster }

func (h *History) otherPod() *corev1.Pod { return pickFrom(h, h.other().Pods) }

func pickFrom[T any](h *History, list []T) T { return list[h.random.IntN(len(list))] }

// Happenings are the names of all that can happen.
func Happenings() []string {
	names := map[string]bool{}
	for _, one := range happenings {
		names[one.name] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// WalkHistory compiles each of the snapshots of a history by a compiler that has seen those before, and compares with what a new one makes. It says how often
// what has happened.
func WalkHistory(seed uint64, steps int) (map[string]int, error) {
	return WalkHistoryBy(func() *compile.Compiler { return new(compile.Compiler) }, seed, steps)
}

// WalkHistoryBy is [WalkHistory] with compilers that are made otherwise.
func WalkHistoryBy(newCompiler func() *compile.Compiler, seed uint64, steps int) (map[string]int, error) {
	return walk(NewHistory(seed), newCompiler, steps)
}

// walk is [WalkHistory] for any history.
func walk(h *History, newCompiler func() *compile.Compiler, steps int) (map[string]int, error) {
	happened := map[string]int{}
	kept := newCompiler()
	var last, lastWanted policy.Node
	for i := 0; i < steps && !h.HasEnded(); i++ {
		name, s := h.Next()
		happened[name]++
		want, wantProblems := newCompiler().Compile(s)
		got, gotProblems := kept.Compile(s)
		switch {
		case !reflect.DeepEqual(want, got):
			return happened, fmt.Errorf("step %d, %s (-anew +with what is kept):\n%s", i, name, cmp.Diff(want, got, values))
		case !reflect.DeepEqual(wantProblems, gotProblems):
			return happened, fmt.Errorf("step %d, %s: problems (-anew +with what is kept):\n%s", i, name, cmp.Diff(wantProblems, gotProblems))
		case !reflect.DeepEqual(lastWanted, last):
			return happened, fmt.Errorf("step %d, %s: it changes what was made before (-as it was +as it is):\n%s", i, name, cmp.Diff(lastWanted, last, values))
		}
		last, lastWanted = got, want
	}
	return happened, nil
}

// values compares addresses and prefixes as values.
var values = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}
