// Package samples holds what the samples of config/samples promise in their comments, judged on a small cluster.
package samples

import (
	"io/fs"
	"net/netip"
	"path"
	"strconv"
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/config"
	"github.com/ringfence-io/ringfence/lab/oracle"
	"github.com/ringfence-io/ringfence/test/gen"
	"github.com/ringfence-io/ringfence/test/ladder"
)

// A row applies samples to the cluster of this package, and states what becomes of connections:
//
//	web reaches parcel on tcp/80           they pass, and no audited object would deny them
//	web does not reach till on tcp/80      they are denied
//	web would not reach till on tcp/80     they pass, but an audited object would deny them
//
// Without "on" a line is about tcp/80.
type row struct {
	files   string // with a space between them
	enforce bool   // whatever mode they have
	more    string // a NetworkPolicy's spec besides, for the namespace shop
	want    []string
}

var rows = []row{{
	files: "namespace/default-deny-with-dns.yaml",
	want: []string{
		"web reaches dns on udp/53 tcp/53", "web does not reach dns on tcp/9153", "web does not reach database", "database does not reach web",
		"web does not reach outside on tcp/443", "outside does not reach web", "till reaches bare", "n1 reaches web",
	},
}, {
	files: "cluster/default-deny-with-dns.yaml",
	want: []string{
		"vault reaches dns on udp/53 tcp/53", "vault reaches dns-service on udp/53", "vault reaches dns-local on udp/53 tcp/53",
		"vault does not reach safe", "web does not reach vault", "vault does not reach outside on tcp/443", "web reaches till", "n1 reaches vault",
	},
}, {
	files: "cluster/tenant-isolation.yaml",
	want: []string{
		"web reaches parcel", "web would not reach till", "till would not reach web", "web would not reach bare", "bare would not reach web",
		"outside would not reach web", "web would not reach outside on tcp/443", "web reaches dns on udp/53", "bare reaches vault",
	},
}, {
	files: "cluster/tenant-isolation.yaml", enforce: true,
	want: []string{
		"web reaches parcel", "parcel reaches database", "web does not reach till", "till does not reach web", "web does not reach bare",
		"bare does not reach web", "outside does not reach web", "web does not reach outside on tcp/443", "web does not reach n2 on tcp/6443",
		"web reaches dns on udp/53 tcp/53", "bare reaches vault",
	},
}, {
	files: "cluster/tenant-isolation.yaml", enforce: true,
	more: "{podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: 80}]}]}",
	want: []string{"outside reaches web", "bare reaches web", "till does not reach web", "outside does not reach database"},
}, {
	files: "cluster/allow-monitoring.yaml",
	more:  "{podSelector: {}}",
	want: []string{
		"prometheus reaches web on tcp/9113 tcp/9090 tcp/9199 tcp/8443", "prometheus does not reach web on tcp/80 udp/9113 tcp/9200",
		"metrics-server does not reach web on tcp/9113", "bare does not reach web on tcp/9113",
	},
}, {
	files: "cluster/allow-monitoring.yaml cluster/default-deny-with-dns.yaml cluster/tenant-isolation.yaml", enforce: true,
	want: []string{"prometheus reaches vault on tcp/9113", "prometheus reaches web on tcp/9113", "prometheus does not reach web on tcp/80"},
}, {
	files: "cluster/block-metadata.yaml",
	more:  "{podSelector: {}, policyTypes: [Egress], egress: [{}]}",
	want: []string{
		"web does not reach metadata on tcp/80 tcp/443 udp/53", "web does not reach metadata-v6", "bare does not reach metadata", "metrics-server reaches metadata",
		"web reaches outside on tcp/443", "web reaches dns-local on udp/53",
	},
}, {
	files: "cluster/protect-kubelet.yaml",
	more:  "{podSelector: {}, policyTypes: [Egress], egress: [{}]}",
	want: []string{
		"web does not reach n1 on tcp/10250", "web does not reach n2 on tcp/10250", "bare does not reach n3 on tcp/10250",
		"web reaches n2 on tcp/6443 udp/10250", "metrics-server reaches n2 on tcp/10250", "prometheus reaches n1 on tcp/10250",
		"web reaches till on tcp/10250",
	},
}, {
	files: "cluster/allow-ingress-controller.yaml",
	more:  "{podSelector: {}}",
	want:  []string{"n2 reaches web", "n3 does not reach web", "n2 does not reach database", "bare does not reach web", "n1 reaches web"},
}, {
	files: "cluster/egress-only-to.yaml",
	more:  "{podSelector: {}, policyTypes: [Egress], egress: [{}]}",
	want: []string{
		"miner reaches partner on tcp/443 udp/514", "miner does not reach outside on tcp/443", "miner reaches helper", "miner does not reach web",
		"miner reaches dns on udp/53", "outside reaches miner", "web reaches outside on tcp/443",
	},
}, {
	files: "cluster/database-wall.yaml",
	more:  "{podSelector: {}, ingress: [{}]}",
	want: []string{
		"web reaches database on tcp/5432", "parcel reaches database on tcp/5432", "till does not reach database on tcp/5432",
		"prometheus does not reach database on tcp/9187", "outside does not reach database", "till reaches web", "n1 reaches database",
	},
}, {
	files: "cluster/database-wall.yaml",
	more:  "{podSelector: {matchLabels: {app: database}}, ingress: [{ports: [{port: 5432}]}]}",
	want:  []string{"web reaches database on tcp/5432", "web does not reach database on tcp/9187"},
}, {
	files: "cluster/deny-from-outside.yaml",
	more:  "{podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: 80}]}]}",
	want: []string{
		"outside reaches web", "outside does not reach web on tcp/81", "outside does not reach database", "n2 does not reach till",
		"till reaches database", "n1 reaches database", "database reaches outside on tcp/443",
	},
}}

func TestSamplesDoWhatTheySay(t *testing.T) {
	for _, r := range rows {
		name := r.files
		if r.enforce {
			name += " enforced"
		}
		if r.more != "" {
			name += " beside " + r.more
		}
		t.Run(name, func(t *testing.T) {
			c := cluster()
			for _, file := range strings.Fields(r.files) {
				add(t, &c, file, r.enforce)
			}
			if r.more != "" {
				p := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "more"}}
				parse(t, []byte(r.more), &p.Spec)
				c.Policies = append(c.Policies, defaulted(p))
			}
			judges, err := ladder.NewJudges(c, gen.Node{Name: here, Addrs: []netip.Addr{places[here]}})
			if err != nil {
				t.Fatal(err)
			}
			for _, line := range r.want {
				check(t, judges, line)
			}
		})
	}
}

func TestEverySampleIsJudged(t *testing.T) {
	judged := map[string]bool{}
	for _, r := range rows {
		for _, file := range strings.Fields(r.files) {
			judged[file] = true
		}
	}
	for _, dir := range []string{"namespace", "cluster"} {
		files, err := fs.Glob(config.Samples, path.Join("samples", dir, "*.yaml"))
		if err != nil || len(files) == 0 {
			t.Fatalf("config/samples/%s has no samples (%v)", dir, err)
		}
		for _, file := range files {
			if !judged[strings.TrimPrefix(file, "samples/")] {
				t.Errorf("config/%s is in no row", file)
			}
		}
	}
}

// A person who opens a sample reads at its top whom it is for, what it does, what to change, and what it does not do.
func TestEverySampleSaysWhatItIsFor(t *testing.T) {
	for _, r := range rows {
		for _, file := range strings.Fields(r.files) {
			text := read(t, file)
			at := 0
			for _, word := range []string{"# For whom:  ", "\n# Does:      ", "\n# Change:    ", "\n# Does not:  ", "\napiVersion: "} {
				next := strings.Index(string(text), word)
				if next < at {
					t.Errorf("%s does not say %q where it belongs", file, strings.Trim(word, "\n# "))
				}
				at = next
			}
		}
	}
}

// add adds the object of a sample to the cluster, as the API server would hold it.
func add(t *testing.T, c *oracle.Cluster, file string, enforce bool) {
	t.Helper()
	text := read(t, file)
	var head metav1.TypeMeta
	if err := yaml.Unmarshal(text, &head); err != nil {
		t.Fatalf("reading %s: %v", file, err)
	}
	switch head.Kind {
	case "NetworkPolicy":
		p := new(networkingv1.NetworkPolicy)
		parse(t, text, p)
		p.Namespace = "shop"
		c.Policies = append(c.Policies, defaulted(p))
	case "ClusterNetworkPolicy":
		p := new(v1alpha1.ClusterNetworkPolicy)
		parse(t, text, p)
		if enforce {
			p.Spec.Mode = v1alpha1.Enforce
		}
		c.ClusterPolicies = append(c.ClusterPolicies, p)
	case "NamespaceIsolation":
		i := new(v1alpha1.NamespaceIsolation)
		parse(t, text, i)
		if enforce {
			i.Spec.Mode = v1alpha1.Enforce
		}
		c.Isolations = append(c.Isolations, i)
	default:
		t.Fatalf("%s is a %s", file, head.Kind)
	}
}

// defaulted is p with the policy types that the API server fills in.
func defaulted(p *networkingv1.NetworkPolicy) *networkingv1.NetworkPolicy {
	if len(p.Spec.PolicyTypes) == 0 {
		p.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
		if len(p.Spec.Egress) > 0 {
			p.Spec.PolicyTypes = append(p.Spec.PolicyTypes, networkingv1.PolicyTypeEgress)
		}
	}
	return p
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	text, err := config.Samples.ReadFile(path.Join("samples", file))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func parse(t *testing.T, text []byte, into any) {
	t.Helper()
	if err := yaml.UnmarshalStrict(text, into); err != nil {
		t.Fatalf("reading %s: %v", text, err)
	}
}

// verbs are the middle of lines, longest first.
var verbs = []struct {
	text          string
	passes, noted bool
}{
	{" does not reach ", false, false}, {" would not reach ", true, true}, {" reaches ", true, false},
}

// check asks all judges about a line.
func check(t *testing.T, judges *ladder.Judges, line string) {
	t.Helper()
	for _, verb := range verbs {
		from, rest, ok := strings.Cut(line, verb.text)
		if !ok {
			continue
		}
		to, ports, ok := strings.Cut(rest, " on ")
		if !ok {
			ports = "tcp/80"
		}
		for _, port := range strings.Fields(ports) {
			o := judges.Judge(flow(t, from, to, port))
			if !o.Agreed() || o.Allows != verb.passes || len(o.AllowsNotes) > 0 != verb.noted {
				t.Errorf("%q on %s:\n%s", line, port, o)
			}
		}
		return
	}
	t.Fatalf("line %q has no verb", line)
}

func flow(t *testing.T, from, to, port string) oracle.Flow {
	t.Helper()
	protocol, number, _ := strings.Cut(port, "/")
	n, err := strconv.ParseUint(number, 10, 16)
	known := map[string]oracle.Protocol{"tcp": oracle.TCP, "udp": oracle.UDP}[protocol]
	if err != nil || known == 0 {
		t.Fatalf("port %q is not tcp or udp and a number", port)
	}
	f := oracle.Flow{Src: address(t, from), Dst: address(t, to), Protocol: known, DstPort: uint16(n)}
	if f.Dst.Is6() {
		f.Src = twin(f.Src)
	}
	if from == here {
		f.FromNode = here
	}
	return f
}

func address(t *testing.T, name string) netip.Addr {
	t.Helper()
	a, ok := places[name]
	if !ok {
		t.Fatalf("there is no %q", name)
	}
	return a
}
