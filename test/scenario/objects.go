package scenario

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/config"
	"github.com/ringfence-io/ringfence/lab/twin"
)

// annotated is a NetworkPolicy's spec, and the mode that its annotation says, if it has one.
type annotated struct {
	Mode *string `json:"mode"`
	networkingv1.NetworkPolicySpec
}

// dated is a ClusterNetworkPolicy's spec, and when it was created, in Unix seconds.
type dated struct {
	Created int64 `json:"created"`
	v1alpha1.ClusterNetworkPolicySpec
}

// Apply adds or replaces objects, in YAML: one "KEY: spec" each, and "KEY: null" deletes one. A KEY is
//
//	red/p            a NetworkPolicy in the namespace red. "mode" beside the fields of its spec is its annotation
//	cnp p            a ClusterNetworkPolicy. "created" is the time of its creation. "cnp sig/p" is the SIG's of that name
//	admin p          a ClusterNetworkPolicy of that tier, about all pods unless it has a subject; "baseline p" likewise
//	isolation p      a NamespaceIsolation
//
// Over IPv6, IPv4 blocks become those of the twins. A block that begins with "other " is meant literally, and of the family that is not looked at.
func (c *Cluster) Apply(text string) error {
	specs := map[string]json.RawMessage{}
	if err := yaml.UnmarshalStrict([]byte(text), &specs); err != nil {
		return fmt.Errorf("reading objects: %w\n%s", err, text)
	}
	for _, key := range slices.Sorted(maps.Keys(specs)) {
		if err := c.apply(key, specs[key]); err != nil {
			return fmt.Errorf("reading %q: %w", key, err)
		}
	}
	return nil
}

func (c *Cluster) apply(key string, spec []byte) error {
	gone := string(spec) == "null"
	kind, name, ok := strings.Cut(key, " ")
	if !ok {
		ns, name, _ := strings.Cut(key, "/")
		c.Policies = slices.DeleteFunc(c.Policies, func(p *networkingv1.NetworkPolicy) bool { return p.Namespace == ns && p.Name == name })
		if gone {
			return nil
		}
		return c.applyNetworkPolicy(ns, name, spec)
	}
	switch kind {
	case "cnp", "admin", "baseline":
		version := v1alpha1.GroupVersion.String()
		if rest, ok := strings.CutPrefix(name, "sig/"); ok {
			name, version = rest, "policy.networking.k8s.io/v1beta1"
		}
		c.ClusterPolicies = slices.DeleteFunc(c.ClusterPolicies, func(p *v1alpha1.ClusterNetworkPolicy) bool {
			return p.Name == name && p.APIVersion == version
		})
		if gone {
			return nil
		}
		return c.applyClusterPolicy(kind, version, name, spec)
	case "isolation":
		c.Isolations = slices.DeleteFunc(c.Isolations, func(i *v1alpha1.NamespaceIsolation) bool { return i.Name == name })
		if gone {
			return nil
		}
		return c.applyIsolation(name, spec)
	}
	return fmt.Errorf("no kind %q", kind)
}

func (c *Cluster) applyNetworkPolicy(ns, name string, spec []byte) error {
	var a annotated
	if err := yaml.UnmarshalStrict(spec, &a); err != nil {
		return err
	}
	p := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}, Spec: a.NetworkPolicySpec}
	if a.Mode != nil {
		p.Annotations = map[string]string{v1alpha1.ModeAnnotation: *a.Mode}
	}
	for _, r := range p.Spec.Ingress {
		c.translateBlocks(r.From)
	}
	for _, r := range p.Spec.Egress {
		c.translateBlocks(r.To)
	}
	c.Policies = append(c.Policies, p)
	return nil
}

func (c *Cluster) applyClusterPolicy(kind, version, name string, spec []byte) error {
	var d dated
	if err := yaml.UnmarshalStrict(spec, &d); err != nil {
		return err
	}
	if tier := map[string]v1alpha1.Tier{"admin": v1alpha1.AdminTier, "baseline": v1alpha1.BaselineTier}[kind]; tier != "" {
		d.Tier = tier
		if d.Subject == (v1alpha1.Subject{}) {
			d.Subject.Namespaces = &v1alpha1.LabelSelector{}
		}
	}
	p := &v1alpha1.ClusterNetworkPolicy{Spec: d.ClusterNetworkPolicySpec}
	p.APIVersion, p.Name = version, name
	if d.Created != 0 {
		p.CreationTimestamp = metav1.Unix(d.Created, 0)
	}
	for _, r := range p.Spec.Ingress {
		c.translateNetworks(r.From)
	}
	for _, r := range p.Spec.Egress {
		c.translateNetworks(r.To)
	}
	c.ClusterPolicies = append(c.ClusterPolicies, p)
	return nil
}

func (c *Cluster) applyIsolation(name string, spec []byte) error {
	i := &v1alpha1.NamespaceIsolation{}
	i.Name = name
	if err := yaml.UnmarshalStrict(spec, &i.Spec); err != nil {
		return err
	}
	for _, r := range i.Spec.Allow.Ingress {
		c.translateNetworks(r.From)
	}
	for _, r := range i.Spec.Allow.Egress {
		c.translateNetworks(r.To)
	}
	c.Isolations = append(c.Isolations, i)
	return nil
}

func (c *Cluster) translateBlocks(peers []networkingv1.NetworkPolicyPeer) {
	for _, p := range peers {
		if p.IPBlock != nil {
			p.IPBlock.CIDR = c.translateBlock(p.IPBlock.CIDR)
			for i := range p.IPBlock.Except {
				p.IPBlock.Except[i] = c.translateBlock(p.IPBlock.Except[i])
			}
		}
	}
}

func (c *Cluster) translateNetworks(peers []v1alpha1.Peer) {
	for _, p := range peers {
		for i := range p.Networks {
			p.Networks[i] = v1alpha1.CIDR(c.translateBlock(string(p.Networks[i])))
		}
	}
}

var ipv4Block = regexp.MustCompile(`^[0-9.]+/[0-9]+$`)

func (c *Cluster) translateBlock(text string) string {
	if c.literal {
		return text
	}
	text, other := strings.CutPrefix(text, "other ")
	p, err := netip.ParsePrefix(text)
	if err != nil || !ipv4Block.MatchString(text) || other == (c.Family == IPv6) {
		return text
	}
	return twin.OfPrefix(p).String()
}

// applySamples adds the objects of samples, as the API server would hold them.
func (c *Cluster) applySamples(files string, enforce bool) error {
	for _, file := range strings.Fields(files) {
		text, err := config.Samples.ReadFile(path.Join("samples", file))
		if err != nil {
			return err
		}
		if err := c.applySample(text, enforce); err != nil {
			return fmt.Errorf("reading %s: %w", file, err)
		}
	}
	return nil
}

// applySample adds an object. A sample for a namespace is for shop.
func (c *Cluster) applySample(text []byte, enforce bool) error {
	var head metav1.TypeMeta
	if err := yaml.Unmarshal(text, &head); err != nil {
		return err
	}
	switch head.Kind {
	case "NetworkPolicy":
		p := new(networkingv1.NetworkPolicy)
		if err := yaml.UnmarshalStrict(text, p); err != nil {
			return err
		}
		p.Namespace = "shop"
		c.Policies = append(c.Policies, p)
	case "ClusterNetworkPolicy":
		p := new(v1alpha1.ClusterNetworkPolicy)
		if err := yaml.UnmarshalStrict(text, p); err != nil {
			return err
		}
		if enforce {
			p.Spec.Mode = v1alpha1.Enforce
		}
		c.ClusterPolicies = append(c.ClusterPolicies, p)
	case "NamespaceIsolation":
		i := new(v1alpha1.NamespaceIsolation)
		if err := yaml.UnmarshalStrict(text, i); err != nil {
			return err
		}
		if enforce {
			i.Spec.Mode = v1alpha1.Enforce
		}
		c.Isolations = append(c.Isolations, i)
	default:
		return fmt.Errorf("it is a %s", head.Kind)
	}
	return nil
}
