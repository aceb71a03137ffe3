package ladder

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/lab/oracle"
	"github.com/ringfence-io/ringfence/test/gen"
)

// TestAKeptRendererGivesWhatRenderGives: whatever has happened to a cluster, the ruleset of a Renderer that has seen all of it is that of one which has seen
// nothing, and the plan from one of its rulesets to the next is that between copies of them.
func TestAKeptRendererGivesWhatRenderGives(t *testing.T) {
	const clusters, steps = 60, 60
	forEachCase(t, clusters, func(seed uint64) error {
		h := newRenderings(seed)
		for step := range steps {
			what := h.goOn()
			if err := h.check(); err != nil {
				return fmt.Errorf("step %d, %s: %w", step, what, err)
			}
		}
		return nil
	})
}

// renderings are those of a node that has seen all that happens to a cluster, one thing after the other.
type renderings struct {
	random   *rand.Rand
	first    oracle.Cluster
	cache    cache
	versions map[string][]metav1.Object // of each object, nil where it is not there
	keys     []string
	options  iptables.Options
	compiler compile.Compiler
	renderer iptables.Renderer
	held     iptables.Ruleset
	copied   iptables.Ruleset // of held, as it was when it was made
}

// ownVersion is that of our kinds.
const ownVersion = "policy.ringfence.io/v1alpha1"

// crowdName is the name of a namespace that has one pod and many cluster-wide policies, now and then: other namespaces have other rates of samples then.
const crowdName = "crowd"

func newRenderings(seed uint64) *renderings {
	s, random := gen.Seed(seed), rand.New(rand.NewPCG(seed, 5))
	o := gen.Options{Tiers: seed%4 != 0, Closed: seed%3 == 0, Claims: seed%5 == 0}
	c := gen.New(s, o)
	label := map[string]string{crowdName: ""}
	c.Cluster.Pods = append(c.Cluster.Pods, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: crowdName, Name: "pod", UID: "crowd"},
		Spec:       corev1.PodSpec{NodeName: "node1"},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning, PodIPs: []corev1.PodIP{{IP: "10.9.9.9"}, {IP: "fd00:9::9"}}},
	})
	c.Cluster.Namespaces = append(c.Cluster.Namespaces, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: crowdName, Labels: label}})
	h := &renderings{random: random, first: c.Cluster, options: Options, versions: map[string][]metav1.Object{}}
	all := []oracle.Cluster{c.Cluster}
	for range 4 {
		all = append(all, gen.Redraw(s, c, o).Cluster)
	}
	for _, one := range all {
		for _, p := range one.ClusterPolicies {
			p.APIVersion = cmp.Or(p.APIVersion, ownVersion) // with none, it would be another object of the same name
		}
		one.Policies = slices.Concat(one.Policies, gen.Policies(s, c, o))
		for key, object := range newCache(one) {
			h.versions[key] = append(h.versions[key], object, object, nil)
		}
	}
	h.cache = newCache(c.Cluster)
	h.keys = slices.Sorted(maps.Keys(h.versions))
	return h
}

// goOn has something happen, and says what.
func (h *renderings) goOn() string {
	switch h.random.IntN(20) {
	case 0:
		return h.crowd()
	case 1:
		return h.changeOptions()
	case 2:
		for range len(h.keys) / 2 {
			h.change()
		}
		return "much at once"
	case 3, 4, 5, 6:
		return h.edit()
	case 7, 8:
		return h.remote()
	}
	return h.change()
}

// edit changes one thing of a policy that is there, whose subject stays.
func (h *renderings) edit() string {
	key := h.keys[h.random.IntN(len(h.keys))]
	other := h.versions[h.keys[h.random.IntN(len(h.keys))]][0]
	for range 100 {
		switch h.cache[key].(type) {
		case *networkingv1.NetworkPolicy, *v1alpha1.ClusterNetworkPolicy:
			h.cache[key] = h.edited(h.cache[key], other)
			return key + " is edited"
		}
		key = h.keys[h.random.IntN(len(h.keys))]
	}
	return "nothing"
}

// edited is a policy with another's rules of one direction, or with a rule that is a little different.
func (h *renderings) edited(o, other metav1.Object) metav1.Object {
	pick := h.random.IntN(5)
	switch p := o.(type) {
	case *networkingv1.NetworkPolicy:
		p = p.DeepCopy()
		from, ok := other.(*networkingv1.NetworkPolicy)
		switch {
		case ok && pick%2 == 0:
			p.Spec.Ingress = from.Spec.Ingress
		case ok:
			p.Spec.Egress = from.Spec.Egress
		case pick%2 == 0:
			p.Spec.Ingress = turned(p.Spec.Ingress)
		default:
			p.Spec.Egress = turned(p.Spec.Egress)
		}
		return p
	case *v1alpha1.ClusterNetworkPolicy:
		p = p.DeepCopy()
		switch pick {
		case 0:
			p.Spec.Ingress = turned(p.Spec.Ingress)
		case 1:
			p.Spec.Egress = turned(p.Spec.Egress)
		case 2:
			p.Spec.Mode = []v1alpha1.Mode{v1alpha1.Audit, v1alpha1.Enforce}[h.random.IntN(2)]
		}
		for i := range p.Spec.Ingress {
			r := &p.Spec.Ingress[i]
			switch pick {
			case 3:
				r.Name += "x"
			case 4:
				r.Action, r.Log = []v1alpha1.Action{v1alpha1.Accept, v1alpha1.Deny, v1alpha1.Pass}[h.random.IntN(3)], p.APIVersion == ownVersion && h.random.IntN(2) == 0
			}
		}
		return p
	}
	return o
}

// turned is a list without its first element, or that at its end.
func turned[T any](list []T) []T {
	if len(list) == 0 {
		return nil
	}
	if len(list)%2 == 0 {
		return list[1:]
	}
	return append(slices.Clone(list[1:]), list[0])
}

// change takes another version of an object.
func (h *renderings) change() string {
	key := h.keys[h.random.IntN(len(h.keys))]
	version := h.versions[key][h.random.IntN(len(h.versions[key]))]
	if pod, ok := version.(*corev1.Pod); ok && h.random.IntN(4) == 0 { // another pod's address
		pod = pod.DeepCopy()
		pod.Status.PodIPs = []corev1.PodIP{{IP: fmt.Sprintf("10.9.8.%d", h.random.IntN(9))}}
		version = pod
	}
	if version != nil && h.random.IntN(4) == 0 {
		version = withMode(version, []string{"Audit", "Enforce"}[h.random.IntN(2)])
	}
	if version == nil {
		delete(h.cache, key)
		return key + " goes"
	}
	h.cache[key] = version
	return key + " is another"
}

// withMode is an object with an annotation that counts for NetworkPolicies and namespaces.
func withMode(o metav1.Object, mode string) metav1.Object {
	annotated := reflect.ValueOf(o).MethodByName("DeepCopy").Call(nil)[0].Interface().(metav1.Object)
	annotated.SetAnnotations(map[string]string{v1alpha1.ModeAnnotation: mode})
	return annotated
}

// crowd has the crowd's policies come or go.
func (h *renderings) crowd() string {
	gone := false
	for i := range 18 {
		p := &v1alpha1.ClusterNetworkPolicy{TypeMeta: metav1.TypeMeta{APIVersion: ownVersion}, ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint(crowdName, i)}}
		p.Spec = v1alpha1.ClusterNetworkPolicySpec{
			Tier: v1alpha1.AdminTier, Mode: v1alpha1.Audit, Priority: 1000,
			Subject: v1alpha1.Subject{Namespaces: &v1alpha1.LabelSelector{MatchLabels: map[string]string{crowdName: ""}}},
			Ingress: []v1alpha1.IngressRule{{Action: v1alpha1.Deny, From: []v1alpha1.Peer{{Networks: []v1alpha1.CIDR{"10.8.0.0/16"}}}}},
		}
		if _, gone = h.cache[keyOf(p)]; gone {
			delete(h.cache, keyOf(p))
		} else {
			h.cache[keyOf(p)] = p
		}
	}
	return fmt.Sprintf("the crowd goes: %v", gone)
}

// remote has some of many pods of another node come or go: sets are long.
func (h *renderings) remote() string {
	for range 1 + h.random.IntN(100) {
		i := h.random.IntN(150)
		p := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: h.first.Namespaces[0].Name, Name: fmt.Sprint("remote", i), UID: types.UID(fmt.Sprint("remote", i)),
				Labels: map[string]string{"app": []string{"a", "b"}[i%2], "tier": "a"}},
			Spec:   corev1.PodSpec{NodeName: "node2"},
			Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIPs: []corev1.PodIP{{IP: fmt.Sprintf("10.8.0.%d", i)}, {IP: fmt.Sprintf("fd00:8::%x", i)}}},
		}
		if _, there := h.cache[keyOf(p)]; there && h.random.IntN(3) == 0 {
			delete(h.cache, keyOf(p))
		} else {
			h.cache[keyOf(p)] = p
		}
	}
	return "pods of another node"
}

func (h *renderings) changeOptions() string {
	o := &h.options
	switch h.random.IntN(6) {
	case 0:
		o.LogDenied = !o.LogDenied
	case 1:
		o.NFLogGroup = []uint16{0, 1, 4210}[h.random.IntN(3)]
	case 2:
		o.ShareAlways = !o.ShareAlways
	case 3:
		o.HoldCut = !o.HoldCut
	case 4:
		o.SelfMatch = !o.SelfMatch
	case 5:
		o.Families = iptables.Families[:1+h.random.IntN(2)]
	}
	return fmt.Sprintf("options are %+v", *o)
}

// check renders the present.
func (h *renderings) check() error {
	node, _ := h.compiler.Compile(Snapshot(h.cache.cluster(h.first), "node1"))
	node.LinkLocalHeld = h.random.IntN(2) == 0
	ids := slices.Sorted(maps.Keys(node.Sets))
	if len(ids) > 0 && h.random.IntN(10) == 0 {
		node.Shut = ids[h.random.IntN(len(ids))] // which rules may name: then it has another name there too
	}
	want, got := iptables.Render(node, h.options), h.renderer.Render(node, h.options, h.held)
	if diff := differ(want, got); diff != "" {
		return fmt.Errorf("the ruleset (-want +got):\n%s", diff)
	}
	if diff := differ(h.copied, h.held); diff != "" {
		return fmt.Errorf("somebody has written to the last ruleset (-was +is):\n%s", diff)
	}
	copied := unshared(got)
	if diff := differ(iptables.Diff(copied, h.copied), iptables.Diff(got, h.held)); diff != "" {
		return fmt.Errorf("the plan (-want +got):\n%s", diff)
	}
	h.held, h.copied = got, copied
	return nil
}

// differ is what go-cmp says of two values that differ. It takes a hundred times as long as finding out whether they do.
func differ[T any](want, got T) string {
	if reflect.DeepEqual(want, got) {
		return ""
	}
	if diff := gocmp.Diff(want, got, comparers); diff != "" {
		return diff
	}
	return "one has an empty list where the other has none"
}

// unshared is a copy that shares nothing with r but texts.
func unshared(r iptables.Ruleset) iptables.Ruleset {
	r.Sets, r.Points, r.Guards, r.Tables = maps.Clone(r.Sets), maps.Clone(r.Points), maps.Clone(r.Guards), maps.Clone(r.Tables)
	for name, s := range r.Sets {
		s.Entries = slices.Clone(s.Entries)
		r.Sets[name] = s
	}
	for f, table := range r.Tables {
		table.Jumps, table.Chains = maps.Clone(table.Jumps), maps.Clone(table.Chains)
		for name, rules := range table.Chains {
			table.Chains[name] = slices.Clone(rules)
		}
		r.Tables[f] = table
	}
	return r
}
