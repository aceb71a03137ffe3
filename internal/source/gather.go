package source

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	signetv1beta1 "sigs.k8s.io/network-policy-api/apis/v1beta1"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/cached"
	"github.com/ringfence-io/ringfence/controllers/node"
	"github.com/ringfence-io/ringfence/internal/query"
)

// Gathered are objects, and what is not among them.
type Gathered struct {
	query.Objects
	// Missing says what could not be read, and what follows from that for answers.
	Missing []string
	// Pending are the policies that not all nodes enforce yet, as answers name them, and what their status says of that.
	Pending map[string]string
	// Unjudged are the policies of which no status says whether nodes enforce them. [Policies] has them.
	Unjudged []string
	// Unlisted are the namespaces whose pods could not be listed; the empty name stands for all.
	Unlisted []string
	// Invented are the addresses that pods of files were given, which had none.
	Invented map[netip.Addr]bool
	// Reports are the ConnectionReports of files.
	Reports []*v1alpha1.ConnectionReport
}

// gathering is a Gathered under way.
type gathering struct {
	objects  query.Objects
	missing  []string
	pending  map[string]string
	unlisted []string
	reports  []*v1alpha1.ConnectionReport
	invented map[netip.Addr]bool
	ranges   []netip.Prefix      // of pods without addresses
	taken    map[netip.Addr]bool // of all pods
}

// reads say how each kind is read, by the group and the kind.
var reads = map[string]func(*gathering, []byte) error{
	"/Pod":       read(func(g *gathering, o *corev1.Pod) { g.objects.Pods = append(g.objects.Pods, o) }),
	"/Namespace": read(func(g *gathering, o *corev1.Namespace) { g.objects.Namespaces = append(g.objects.Namespaces, o) }),
	"/Node":      read(func(g *gathering, o *corev1.Node) { g.objects.Nodes = append(g.objects.Nodes, o) }),
	"/Service":   read(func(g *gathering, o *corev1.Service) { g.objects.Services = append(g.objects.Services, o) }),
	"networking.k8s.io/NetworkPolicy": read(func(g *gathering, o *networkingv1.NetworkPolicy) {
		g.objects.Policies = append(g.objects.Policies, o)
	}),
	v1alpha1.GroupVersion.Group + "/ClusterNetworkPolicy": read(func(g *gathering, o *v1alpha1.ClusterNetworkPolicy) {
		g.objects.ClusterPolicies = append(g.objects.ClusterPolicies, o)
	}),
	v1alpha1.GroupVersion.Group + "/NamespaceIsolation": read(func(g *gathering, o *v1alpha1.NamespaceIsolation) {
		g.objects.Isolations = append(g.objects.Isolations, o)
	}),
	v1alpha1.GroupVersion.Group + "/ConnectionReport": read(func(g *gathering, o *v1alpha1.ConnectionReport) {
		g.reports = append(g.reports, o)
	}),
	signetv1beta1.GroupVersion.Group + "/ClusterNetworkPolicy": read(func(g *gathering, o *signetv1beta1.ClusterNetworkPolicy) {
		g.objects.ClusterPolicies = append(g.objects.ClusterPolicies, cached.FromSIG(o))
	}),
	"apps/Deployment":        read(func(g *gathering, o *appsv1.Deployment) { g.workload("Deployment", o, o.Spec.Template) }),
	"apps/StatefulSet":       read(func(g *gathering, o *appsv1.StatefulSet) { g.workload("StatefulSet", o, o.Spec.Template) }),
	"apps/DaemonSet":         read(func(g *gathering, o *appsv1.DaemonSet) { g.workload("DaemonSet", o, o.Spec.Template) }),
	"apps/ReplicaSet":        read(func(g *gathering, o *appsv1.ReplicaSet) { g.workload("ReplicaSet", o, o.Spec.Template) }),
	"/ReplicationController": read(func(g *gathering, o *corev1.ReplicationController) { g.controller(o) }),
	"batch/Job":              read(func(g *gathering, o *batchv1.Job) { g.workload("Job", o, o.Spec.Template) }),
	"batch/CronJob":          read(func(g *gathering, o *batchv1.CronJob) { g.workload("CronJob", o, o.Spec.JobTemplate.Spec.Template) }),
}

// read is how objects of a type are read.
func read[T any](take func(*gathering, *T)) func(*gathering, []byte) error {
	return func(g *gathering, raw []byte) error {
		o := new(T)
		if err := json.Unmarshal(raw, o); err != nil {
			return err
		}
		take(g, o)
		return nil
	}
}

// isRead reports whether objects of a kind may say something about policy, or about connections.
func isRead(kind string) bool {
	for read := range reads {
		if strings.HasSuffix(read, "/"+kind) {
			return true
		}
	}
	return strings.HasSuffix(kind, "List")
}

// read reads an object of a kind that says something about policy.
func (g *gathering) read(h header, raw []byte) error {
	group, _, ok := strings.Cut(h.APIVersion, "/")
	if !ok {
		group = "" // of "v1"
	}
	take, ok := reads[group+"/"+h.Kind]
	if !ok {
		return nil
	}
	if err := take(g, raw); err != nil {
		var named metav1.PartialObjectMetadata
		_ = json.Unmarshal(raw, &named) // without a name, the error is said all the same
		return fmt.Errorf("%s %s: %w", h.Kind, strings.Trim(named.Namespace+"/"+named.Name, "/"), err)
	}
	return nil
}

// workload takes one pod for all that a workload makes.
func (g *gathering) workload(kind string, o metav1.Object, template corev1.PodTemplateSpec) {
	controller := true
	p := &corev1.Pod{ObjectMeta: *template.ObjectMeta.DeepCopy(), Spec: template.Spec}
	p.Namespace, p.Name = o.GetNamespace(), o.GetName()
	p.OwnerReferences = []metav1.OwnerReference{{Kind: kind, Name: o.GetName(), Controller: &controller}}
	g.objects.Pods = append(g.objects.Pods, p)
}

func (g *gathering) controller(o *corev1.ReplicationController) {
	if o.Spec.Template != nil {
		g.workload("ReplicationController", o, *o.Spec.Template)
	}
}

// all are the objects, with what an API server would add to them.
func (g *gathering) all() (Gathered, error) {
	o := &g.objects
	for _, p := range o.Pods {
		for _, ip := range p.Status.PodIPs {
			if a, err := netip.ParseAddr(ip.IP); err == nil {
				g.taken[a.Unmap()] = true
			}
		}
	}
	for _, p := range o.Pods {
		p.Namespace = namespaceOf(p)
		if err := g.address(p); err != nil {
			return Gathered{}, err
		}
	}
	for _, p := range o.Policies {
		p.Namespace = namespaceOf(p)
	}
	for _, s := range o.Services {
		s.Namespace = namespaceOf(s)
	}
	for _, r := range g.reports {
		r.Namespace = namespaceOf(r)
	}
	for _, n := range o.Namespaces {
		query.LabelNamespace(n)
	}
	for _, s := range o.Services {
		if slices.ContainsFunc(node.DefaultDNSServices, func(n types.NamespacedName) bool { return n.Namespace == s.Namespace && n.Name == s.Name }) {
			o.DNS.Services = append(o.DNS.Services, s)
		}
	}
	o.DNS.Addresses = node.DefaultDNSAddresses
	return Gathered{Objects: *o, Missing: g.missing, Pending: g.pending, Unlisted: g.unlisted, Invented: g.invented, Reports: g.reports}, nil
}

// namespaceOf is where an object goes that names no namespace, unless something else is said.
func namespaceOf(o metav1.Object) string {
	if o.GetNamespace() == "" {
		return metav1.NamespaceDefault
	}
	return o.GetNamespace()
}

// DefaultPodCIDR is the range of the pods' addresses in most clusters that need a network policy enforcer.
var DefaultPodCIDR = netip.MustParsePrefix("10.244.0.0/16")

// address gives a pod an address of each range, if it has none: it is to be told from others, and in the range or not that a policy's block excludes. Where it
// is in the range depends on its name, so that two states of the same files give it the same.
func (g *gathering) address(p *corev1.Pod) error {
	if p.Status.PodIP != "" || len(p.Status.PodIPs) > 0 || p.Spec.HostNetwork {
		return nil
	}
	h := fnv.New64a()
	fmt.Fprint(h, p.Namespace, "/", p.Name)
	for _, r := range g.ranges {
		a, ok := g.free(r, h.Sum64())
		if !ok {
			return fmt.Errorf("%s has too few addresses for all pods: give a larger --pod-cidr", r)
		}
		p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: a.String()})
	}
	p.Status.PodIP = p.Status.PodIPs[0].IP
	return nil
}

// free is an address of a range that no pod has yet, at a place or as soon behind it as there is one. The first and the last are no pod's.
func (g *gathering) free(r netip.Prefix, place uint64) (netip.Addr, bool) {
	size := uint64(1)<<min(r.Addr().BitLen()-r.Bits(), 32) - 2
	if size > 1<<32 { // it has wrapped: there is none
		return netip.Addr{}, false
	}
	for i := range size {
		a := plus(r.Masked().Addr(), 1+(place+i)%size)
		if !g.taken[a] {
			g.taken[a], g.invented[a] = true, true
			return a, true
		}
	}
	return netip.Addr{}, false
}

// plus is the address so many behind another of the same range.
func plus(a netip.Addr, n uint64) netip.Addr {
	bytes := a.As16()
	low := binary.BigEndian.Uint64(bytes[8:]) + n
	binary.BigEndian.PutUint64(bytes[8:], low)
	sum := netip.AddrFrom16(bytes)
	if a.Is4() {
		return sum.Unmap()
	}
	return sum
}
