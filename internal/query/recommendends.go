package query

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// subject is what a policy of a namespace can be about: the pods that the smallest set of labels selects which selects all of a workload's.
type subject struct {
	namespace string
	// workloads are those whose pods it selects, and no labels tell apart. Mostly it is one.
	workloads []string
	labels    map[string]string
	pods      []*corev1.Pod // of these workloads
	selected  []*corev1.Pod // these, and such as have all labels that these have in common
}

// name is that of its workloads.
func (s *subject) name() string { return joined(s.workloads) }

// others are the workloads besides its own that it selects pods of.
func (s *subject) others() []string {
	var others []string
	for _, p := range s.selected {
		if w := Workload(p); !slices.Contains(s.workloads, w) && !slices.Contains(others, w) {
			others = append(others, w)
		}
	}
	slices.Sort(others)
	return others
}

// asPeer is how a policy of a namespace selects it.
func (s *subject) asPeer(namespace string) networkingv1.NetworkPolicyPeer {
	peer := networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{MatchLabels: s.labels}}
	if s.namespace != namespace {
		peer.NamespaceSelector = namespaceSelector(s.namespace)
	}
	return peer
}

func namespaceSelector(name string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: name}}
}

// subjectsOf are those of a namespace, by their workloads. Those that select the same pods are one.
func (r *recommending) subjectsOf(namespace string) map[string]*subject {
	if known := r.subjects[namespace]; known != nil {
		return known
	}
	isSubject := IsSubject(namespace)
	byWorkload, pods := map[string][]*corev1.Pod{}, []*corev1.Pod{}
	for _, p := range r.parts.Pods {
		if isSubject(p) {
			pods = append(pods, p)
			byWorkload[Workload(p)] = append(byWorkload[Workload(p)], p)
		}
	}
	all, bySelected := map[string]*subject{}, map[string]*subject{}
	for _, w := range sortedKeys(byWorkload) {
		labels, selected := smallestSelector(byWorkload[w], pods)
		key := ""
		for _, p := range selected {
			key += p.Name + "/"
		}
		s := bySelected[key]
		if s == nil {
			s = &subject{namespace: namespace, labels: labels, selected: selected}
			bySelected[key] = s
		}
		s.workloads, s.pods = append(s.workloads, w), append(s.pods, byWorkload[w]...)
		all[w] = s
	}
	r.subjects[namespace] = all
	return all
}

// endAt is the end that a pod is.
func endAt(p *corev1.Pod) End { return endOf(p, compile.NewPod(p).Addrs) }

func isFinished(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

// isKnown reports whether a pod tells of its workload's next pods: it runs, or a CronJob will make others like it.
func isKnown(p *corev1.Pod) bool {
	owners := compile.WorkloadsOf(p)
	return !isFinished(p) || len(owners) > 0 && owners[len(owners)-1].Kind == "CronJob"
}

// party is an end of a connection as it can be said in a policy: pods that labels select, a whole namespace, or an address. It is none of these if it is not
// there any more.
type party struct {
	name    string
	subject *subject
	whole   string // the namespace, of a pod whose labels nobody may read
	addr    netip.Addr
	node    string // whose address it is
	ends    []End  // what there is of it now, first the pod that was seen
}

func (p party) isGone() bool { return p.subject == nil && p.whole == "" && !p.addr.IsValid() }

// partyOf is an end of a connection that was seen. A name counts before an address, which may be another's by now.
func (r *recommending) partyOf(e v1alpha1.ConnectionEnd) party {
	a, _ := netip.ParseAddr(e.Address)
	a = a.Unmap().WithZone("")
	if e.Namespace == "" {
		return r.partyAt(a)
	}
	p := party{name: e.Namespace + "/" + e.Workload}
	if len(validation.IsDNS1123Label(e.Namespace)) > 0 {
		return p
	}
	if pod := r.podOf(e); pod != nil && pod.Spec.HostNetwork {
		return r.partyAt(a)
	} else if pod != nil {
		return r.partyOfPod(pod)
	}
	if r.observed.Unlisted[e.Namespace] {
		p.whole = e.Namespace
	}
	return p
}

// podOf is the pod that an end names, or another of its workload. Nodes know a pod's workload by its labels and its name, and the API by its owners.
func (r *recommending) podOf(e v1alpha1.ConnectionEnd) *corev1.Pod {
	var found *corev1.Pod
	for i, p := range r.parts.Pods {
		if p.Namespace != e.Namespace || !isKnown(p) {
			continue
		}
		if p.Name == e.Pod {
			return p
		}
		if found == nil && (Workload(p) == e.Namespace+"/"+e.Workload || r.parts.pods[i].Named().Workload == e.Workload) {
			found = p
		}
	}
	return found
}

func (r *recommending) partyOfPod(pod *corev1.Pod) party {
	p := party{name: Workload(pod), subject: r.subjectsOf(pod.Namespace)[Workload(pod)]}
	for _, one := range append([]*corev1.Pod{pod}, p.subject.pods...) {
		if Workload(one) == p.name && !isFinished(one) && (len(p.ends) == 0 || one != pod) {
			p.ends = append(p.ends, endAt(one))
		}
	}
	return p
}

// partyAt is who has an address now.
func (r *recommending) partyAt(a netip.Addr) party {
	if !a.IsValid() {
		return party{name: "an end without an address"}
	}
	end := End{}
	if !r.observed.Invented[a] {
		end = r.EndsAt(a)[0]
	}
	if end.isPod() {
		return r.partyOfPod(end.Pod)
	}
	p := party{name: a.String(), addr: a, node: end.Node, ends: []End{{Name: a.String(), Node: end.Node, Addrs: []netip.Addr{a}}}}
	if p.node == "" {
		p.node = r.gatewayOf(a)
	}
	return p
}

// gatewayOf is the node that has an address by its place in the node's range of pods: bridges have the first, and tunnels the one before it. The Node object
// names neither.
func (r *recommending) gatewayOf(a netip.Addr) string {
	for _, n := range r.parts.nodes {
		for _, of := range n.Ranges {
			if first := of.Addr(); !of.IsSingleIP() && (a == first || a == first.Next()) {
				return n.Name
			}
		}
	}
	return ""
}

// isDNS reports whether a connection asks for names.
func (r *recommending) isDNS(to party, port Port) bool {
	if port.Protocol != policy.TCP && port.Protocol != policy.UDP {
		return false
	}
	switch {
	case to.subject == nil && to.whole == "":
		return port.Number == dnsPort && slices.Contains(r.parts.DNS.Addresses, to.addr)
	case to.whole != "":
		return port.Number == dnsPort && to.whole == metav1.NamespaceSystem
	}
	for _, p := range to.subject.pods {
		if p.Namespace == metav1.NamespaceSystem && p.Labels["k8s-app"] == "kube-dns" && port.Number == dnsPort {
			return true
		}
		for _, s := range r.parts.DNS.Services {
			if s.Namespace != p.Namespace || len(s.Spec.Selector) == 0 || !isSelected(p.Labels, s.Spec.Selector) {
				continue
			}
			if n, err := portAt(endAt(p), s, "53", port.Protocol); err == nil && n == port.Number {
				return true
			}
		}
	}
	return false
}

const dnsPort = 53

// IsSubject takes the pods of a namespace that a NetworkPolicy can be about.
func IsSubject(namespace string) func(*corev1.Pod) bool {
	return func(p *corev1.Pod) bool { return p.Namespace == namespace && !p.Spec.HostNetwork && isKnown(p) }
}
