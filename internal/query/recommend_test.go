package query

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// seenOn is a connection as a report has it: "shop/deploy/web@web-5d-a 10.244.0.1 > 8.8.8.8 tcp/443". The ends are NAMESPACE/WORKLOAD@POD and an address, or
// one of these. It was seen ten minutes before noon, by n1.
func seenOn(text string) v1alpha1.ReportedConnection {
	at := metav1.NewTime(noon.Add(-10 * time.Minute))
	c := v1alpha1.ReportedConnection{Nodes: []string{"n1"}}
	c.Verdict, c.Direction, c.LastTime = v1alpha1.ConnectionAllowed, v1alpha1.ConnectionIngress, at
	end, into := &c.From, false
	for _, word := range strings.Fields(text) {
		if word == ">" {
			end, into = &c.To, true
		} else if _, err := netip.ParseAddr(word); err == nil {
			end.Address = word
		} else if protocol, port, ok := strings.Cut(word, "/"); into && strings.ToLower(protocol) == protocol && ProtocolNamed(protocol) != 0 {
			c.Protocol = strings.ToUpper(protocol)
			if n, err := strconv.Atoi(port); ok && err == nil {
				c.Port = int32(n)
			}
		} else {
			whole, pod, _ := strings.Cut(word, "@")
			end.Namespace, end.Workload, _ = strings.Cut(whole, "/")
			end.Pod = pod
		}
	}
	if c.To.Namespace == "" {
		c.Direction = v1alpha1.ConnectionEgress
	}
	return c
}

func observedOf(texts ...string) Observed {
	since := metav1.NewTime(noon.Add(-time.Hour))
	o := Observed{Namespace: "shop", Until: noon, Since: noon.Add(-24 * time.Hour)}
	o.Report.AllowedSince = &since
	for _, text := range texts {
		o.Report.Connections = append(o.Report.Connections, seenOn(text))
	}
	return o
}

// lines are a policy in short: its name, whom it is about and what it isolates, and then a line for each rule.
func lines(p *networkingv1.NetworkPolicy) []string {
	types := fmt.Sprint(p.Spec.PolicyTypes)
	all := []string{fmt.Sprintf("%s {%s} %s", p.Name, metav1.FormatLabelSelector(&p.Spec.PodSelector), strings.Trim(types, "[]"))}
	add := func(word string, peers []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort) {
		var words []string
		for _, peer := range peers {
			switch {
			case peer.IPBlock != nil:
				words = append(words, strings.Join(append([]string{peer.IPBlock.CIDR}, peer.IPBlock.Except...), " but "))
			case peer.PodSelector == nil:
				words = append(words, peer.NamespaceSelector.MatchLabels[corev1.LabelMetadataName]+" whole")
			case peer.NamespaceSelector != nil:
				words = append(words, peer.NamespaceSelector.MatchLabels[corev1.LabelMetadataName]+" {"+metav1.FormatLabelSelector(peer.PodSelector)+"}")
			default:
				words = append(words, "{"+metav1.FormatLabelSelector(peer.PodSelector)+"}")
			}
		}
		line := word + " " + strings.Join(words, ", ") + " on"
		for _, port := range ports {
			line += fmt.Sprintf(" %s/%s", strings.ToLower(string(*port.Protocol)), port.Port)
		}
		all = append(all, line)
	}
	for _, r := range p.Spec.Ingress {
		add("from", r.From, r.Ports)
	}
	for _, r := range p.Spec.Egress {
		add("to", r.To, r.Ports)
	}
	return all
}

// market is a shop without policies, on two nodes, beside a DNS and an agent on the nodes' network.
func market() Objects {
	o := shop()
	o.Policies = nil
	o.Pods = slices.DeleteFunc(o.Pods, func(p *corev1.Pod) bool { return strings.HasPrefix(p.Name, "report") })
	dns := pod("kube-system", "coredns-7d-a", "coredns", "10.244.1.2", "ReplicaSet/coredns-7d")
	dns.Labels["k8s-app"] = "kube-dns"
	agent := pod("shop", "agent-x", "agent", "192.168.0.1", "DaemonSet/agent")
	agent.Spec.HostNetwork = true
	o.Pods = append(o.Pods, dns, agent)
	o.Nodes[0].Spec.PodCIDRs = []string{"10.244.0.0/24"}
	o.Nodes = append(o.Nodes, &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n2"}, Spec: corev1.NodeSpec{PodCIDRs: []string{"10.244.1.0/24"}},
		Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Address: "192.168.0.2"}}},
	})
	o.DNS.Services = []*corev1.Service{{
		ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "kube-dns"},
		Spec: corev1.ServiceSpec{Selector: map[string]string{"k8s-app": "kube-dns"}, Ports: []corev1.ServicePort{
			{Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP}, {Name: "dns-tcp", Port: 53, Protocol: corev1.ProtocolTCP},
		}},
	}}
	return o
}

const (
	webUnseen    = "Nothing was seen to reach shop/deploy/web: once enforced, nothing does."
	webToUnseen  = "shop/deploy/web: nothing was seen that it reaches: once enforced, it reaches nothing, not even the DNS."
	dbUnseen     = "Nothing was seen to reach shop/sts/db: once enforced, nothing does."
	dbToUnseen   = "shop/sts/db: nothing was seen that it reaches: once enforced, it reaches nothing, not even the DNS."
	onHosts      = "No policy can be about shop/ds/agent: the pods are on the network of their nodes."
	webNothing   = "ringfence-web {app=web} Ingress Egress"
	dbNothing    = "ringfence-db {app=db} Ingress Egress"
	nodesReach   = "Nodes were seen to reach their own pods, such as a kubelet that probes them. That is always allowed, and needs no rule."
	notInCluster = "Seen, and not allowed by these policies: "
)

// Each row is what was seen, and the policies of web and of db, with the notes about it.
func TestRecommend(t *testing.T) {
	const madeOf = "Made from %d connections that were seen from 2026-03-01T11:00:00Z to 2026-03-01T12:00:00Z (1h0m0s). What happens more seldom is not among them."
	for name, tt := range map[string]struct {
		seen     []string
		policies []string
		notes    []string
	}{
		"nothing": {nil, []string{webNothing, dbNothing}, []string{webUnseen, webToUnseen, dbUnseen, dbToUnseen, onHosts}},
		"between workloads": {[]string{"shop/deploy/web@web-5d-a > shop/sts/db@db-0 tcp/5432"}, []string{
			webNothing, "to {app=db} on tcp/5432", dbNothing, "from {app=web} on tcp/5432",
		}, []string{webUnseen, dbToUnseen, onHosts}},
		"a pod that is gone, and one that is known by its address alone": {[]string{"shop/deploy/web@web-4c-z > 10.244.0.3 tcp/5432"}, []string{
			webNothing, "to {app=db} on tcp/5432", dbNothing, "from {app=web} on tcp/5432",
		}, []string{webUnseen, dbToUnseen, onHosts}},
		"another namespace, with several ports": {[]string{"other/tool@tool > shop/deploy/web@web-5d-a tcp/8080", "other/tool@tool > shop/deploy/web@web-5d-a sctp/80"},
			[]string{webNothing, "from other {app=tool} on tcp/8080 sctp/80", dbNothing}, []string{webToUnseen, dbUnseen, dbToUnseen, onHosts}},
		"the DNS": {[]string{"shop/deploy/web@web-5d-a > kube-system/deploy/coredns@coredns-7d-a udp/53"}, []string{
			webNothing, "to kube-system {app=coredns} on tcp/53 udp/53", dbNothing,
		}, []string{webUnseen, dbUnseen, dbToUnseen, onHosts}},
		"outside": {[]string{"203.0.113.9 > shop/deploy/web@web-5d-a tcp/8080", "shop/deploy/web@web-5d-a > 2001:db8::1 udp/123"}, []string{
			webNothing, "from 203.0.113.9/32 on tcp/8080", "to 2001:db8::1/128 on udp/123", dbNothing,
		}, []string{dbUnseen, dbToUnseen, onHosts}},
		"its own node": {[]string{"192.168.0.1 > shop/deploy/web@web-5d-a tcp/8080", "10.244.0.1 > shop/sts/db@db-0 tcp/1", "10.244.0.0 > shop/sts/db@db-0 tcp/1"},
			[]string{webNothing, "to {app=db} on tcp/1", dbNothing, "from {app=web} on tcp/1"}, []string{webUnseen, dbToUnseen, onHosts, nodesReach}},
		"another node, and what runs on its network": {[]string{"192.168.0.2 > shop/deploy/web@web-5d-a tcp/8080", "shop/deploy/web@web-5d-a > shop/ds/agent@agent-x 192.168.0.1 tcp/1"},
			[]string{webNothing, "from 192.168.0.2/32 on tcp/8080", "to 192.168.0.1/32 on tcp/1", dbNothing}, []string{
				dbUnseen, dbToUnseen,
				"192.168.0.1 and 192.168.0.2: addresses of nodes. Rules list them one by one, and nodes that come later are not among them.", onHosts,
			}},
		"an address that was a pod's": {[]string{"10.244.1.77 > shop/deploy/web@web-5d-a tcp/8080"}, []string{webNothing, "from 10.244.1.77/32 on tcp/8080", dbNothing}, []string{
			webToUnseen, dbUnseen, dbToUnseen, "10.244.1.77: no pod has the address now, though it is in the range of pods. A rule allows it by itself, " +
				"for whichever pod gets it next: look whose it was, and leave it out.", onHosts,
		}},
		"ping, workloads that are gone, and ends of no name": {[]string{
			"other/tool > shop/sts/db icmp", "other/deploy/old > shop/sts/db tcp/1", "shop/cronjob/nightly > shop/sts/db tcp/1", "../x > shop/sts/db tcp/1", "> shop/sts/db tcp/1",
		}, []string{webNothing, dbNothing}, []string{
			webUnseen, webToUnseen, dbUnseen, dbToUnseen,
			notInCluster + "other/tool to shop/sts/db by icmp: a NetworkPolicy allows that only with all ports. A ClusterNetworkPolicy can allow it alone.",
			notInCluster + "other/deploy/old to shop/sts/db on tcp/1: other/deploy/old has no pod now, so that its labels are not known. Ask again while it runs.",
			notInCluster + "shop/cronjob/nightly to shop/sts/db on tcp/1: shop/cronjob/nightly has no pod now, so that its labels are not known. Ask again while it runs.",
			notInCluster + "../x to shop/sts/db on tcp/1: ../x has no pod now, so that its labels are not known. Ask again while it runs.",
			notInCluster + "an end without an address to shop/sts/db on tcp/1: an end without an address has no pod now, so that its labels are not known. Ask again while it runs.",
			onHosts,
		}},
		"a namespace whose pods nobody may list": {[]string{"secret/deploy/x > shop/sts/db tcp/1"}, []string{webNothing, dbNothing, "from secret whole on tcp/1"}, []string{
			webUnseen, webToUnseen, dbToUnseen,
			"You may not list the pods of namespace secret, or they are not among the files: rules go for all of its pods.", onHosts,
		}},
	} {
		o := observedOf(tt.seen...)
		o.Unlisted = map[string]bool{"secret": true}
		r := New(market()).Recommend(o)
		var got []string
		for _, p := range r.Policies {
			got = append(got, lines(p)...)
			if p.Annotations[v1alpha1.ModeAnnotation] != "Audit" || p.Namespace != "shop" {
				t.Errorf("%s: %s is %+v", name, p.Name, p.ObjectMeta)
			}
		}
		if diff := cmp.Diff(tt.policies, got); diff != "" {
			t.Errorf("%s: policies (-want +got):\n%s", name, diff)
		}
		notes := append([]string{fmt.Sprintf(madeOf, len(tt.seen))}, tt.notes...)
		if diff := cmp.Diff(notes, r.Notes); diff != "" {
			t.Errorf("%s: notes (-want +got):\n%s", name, diff)
		}
		if lacks := strings.Contains(strings.Join(r.Notes, "\n"), notInCluster); lacks != r.Lacking {
			t.Errorf("%s: lacking is %t", name, r.Lacking)
		}
	}
}

// What is known of how much was seen stands at the top.
func TestRecommendSaysHowMuchWasSeen(t *testing.T) {
	o := observedOf("shop/deploy/web > shop/sts/db tcp/1", "shop/deploy/web > shop/sts/db tcp/2")
	o.Report.Connections[0].Verdict = v1alpha1.ConnectionDenied
	o.Report.Connections[1].LastTime = metav1.NewTime(noon.Add(-2 * time.Hour))
	o.Report.AllowedSince, o.Since, o.Report.Rest.Connections = nil, noon.Add(-time.Hour), 7
	r := New(market()).Recommend(o)
	want := []string{
		"Made from 0 connections that were seen from 2026-03-01T11:00:00Z to 2026-03-01T12:00:00Z (1h0m0s). What happens more seldom is not among them.",
		"Nodes do not look for connections that are allowed: these are only such as policies in mode Audit would deny. " +
			"Have all be looked for: kubectl annotate --overwrite namespace shop policy.ringfence.io/connections=all",
		"7 connections were seen that the report has no place for: these policies may lack rules for them.",
	}
	if diff := cmp.Diff(want, r.Notes[:3]); diff != "" || !r.Lacking {
		t.Errorf("lacking is %t, notes begin (-want +got):\n%s", r.Lacking, diff)
	}
	if last := r.Notes[len(r.Notes)-1]; last != "Nothing that the report lists was seen in that time and passes." {
		t.Errorf("the last note is %q", last)
	}
	o.Since, o.Report.Connections[1].Verdict = time.Time{}, v1alpha1.ConnectionWouldDeny
	if r := New(market()).Recommend(o); len(lines(r.Policies[0])) != 2 {
		t.Errorf("of what would be denied there is %q", lines(r.Policies[0]))
	}
}

// withLabels are pods of a workload each, "name: key=value key=value". Names with a common part before "-" are pods of one Deployment.
func withLabels(namespace string, texts ...string) (pods []*corev1.Pod) {
	for i, text := range texts {
		name, labels, _ := strings.Cut(text, ":")
		owner := ""
		if of, _, ok := strings.Cut(name, "-"); ok {
			owner = "StatefulSet/" + of
		}
		p := pod(namespace, name, "", fmt.Sprintf("10.244.0.%d", i+1), owner)
		p.Labels = map[string]string{}
		for _, label := range strings.Fields(labels) {
			key, value, _ := strings.Cut(label, "=")
			p.Labels[key] = value
		}
		pods = append(pods, p)
	}
	return pods
}

func TestTheSmallestSetOfLabels(t *testing.T) {
	for name, tt := range map[string]struct {
		pods     []string // the first is asked about, with all others of its name
		want     string
		selected int
	}{
		"one label is enough":             {[]string{"a: app=a tier=x", "b: app=b tier=x"}, "app=a", 1},
		"the one that people know":        {[]string{"a: aaa=1 app=a zzz=1", "b: app=b"}, "app=a", 1},
		"also where no other pod is":      {[]string{"a: app=a tier=x"}, "app=a", 1},
		"two, of which none is enough":    {[]string{"a: app=a tier=x zone=1", "b: app=a tier=y zone=1", "c: app=b tier=x zone=1"}, "app=a,tier=x", 1},
		"what roll-outs change":           {[]string{"a: pod-template-hash=1 helm.sh/chart=a-1 app.kubernetes.io/version=1 app=a", "b: app=b"}, "app=a", 1},
		"a version where nothing helps":   {[]string{"a: app=a version=1", "b: app=a version=2"}, "version=1", 1},
		"no version where others do":      {[]string{"a: tier=a version=1", "b: tier=b version=2"}, "tier=a", 1},
		"what all of its pods have":       {[]string{"a-0: app=a shard=0", "a-1: app=a shard=1", "b: app=b"}, "app=a", 2},
		"what cannot be told apart":       {[]string{"a: app=a", "b: app=a tier=x", "c: app=c"}, "app=a", 2},
		"pods of no label":                {[]string{"a:", "b: app=a"}, "<none>", 2},
		"more than are tried in all sets": {[]string{"a: a=1 b=1 c=1 d=1 x=1", "b: b=1 c=1 d=1 x=1", "c: a=1 c=1 d=1 x=1", "d: a=1 b=1 d=1 x=1", "e: a=1 b=1 c=1 x=1"}, "a=1,b=1,c=1,d=1", 1},
	} {
		all := withLabels("shop", tt.pods...)
		own := slices.DeleteFunc(slices.Clone(all), func(p *corev1.Pod) bool { return Workload(p) != Workload(all[0]) })
		labels, selected := smallestSelector(own, all)
		if got := metav1.FormatLabelSelector(&metav1.LabelSelector{MatchLabels: labels}); got != tt.want || len(selected) != tt.selected {
			t.Errorf("%s: %q selects %d, want %q and %d", name, got, len(selected), tt.want, tt.selected)
		}
	}
}

// Workloads that labels do not tell apart share a policy, or one has that of another besides, and it is said.
func TestRecommendForWorkloadsThatLabelsDoNotTellApart(t *testing.T) {
	o := Objects{Pods: append(withLabels("shop", "a: app=x", "b: app=x", "c: app=x tier=y"), withLabels("other", "d: k=1", "e: k=1", "f: k=1 l=1")...)}.Complete()
	for i, p := range o.Pods {
		p.Status.PodIP = fmt.Sprintf("10.244.0.%d", i+1)
	}
	r := New(o).Recommend(observedOf("shop/a > other/d tcp/1", "shop/c > 8.8.8.8 tcp/2"))
	var got []string
	for _, p := range r.Policies {
		got = append(got, lines(p)...)
	}
	want := []string{
		"ringfence-a {app=x} Ingress Egress", "to other {k=1} on tcp/1",
		"ringfence-c {tier=y} Ingress Egress", "to 8.8.8.8/32 on tcp/2",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("policies (-want +got):\n%s", diff)
	}
	notes := []string{
		"Nothing was seen to reach shop/a and shop/b: once enforced, nothing does.", "Nothing was seen to reach shop/c: once enforced, nothing does.",
		"other/d and other/e have the same labels: a rule for one goes for each.", "other/f have all labels of other/d and other/e: a rule for it goes for them too.",
		"shop/a and shop/b have the same labels, and share the policy ringfence-a: what one needs, each may. Give each a label of its own, and ask again.",
		"The policy ringfence-a selects pods of shop/c too, which have all labels of shop/a and shop/b: what it needs, they may. " +
			"Give it a label of its own, and ask again.",
	}
	if diff := cmp.Diff(notes, r.Notes[1:]); diff != "" {
		t.Errorf("notes (-want +got):\n%s", diff)
	}
}

func TestBlocks(t *testing.T) {
	addrs := func(n int, format string) (all []netip.Addr) {
		for i := range n {
			all = append(all, netip.MustParseAddr(fmt.Sprintf(format, i)))
		}
		return all
	}
	pods := []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}
	for name, tt := range map[string]struct {
		addrs  []netip.Addr
		want   string
		larger bool
	}{
		"none":                        {nil, "", false},
		"few":                         {addrs(2, "203.0.113.%d"), "203.0.113.0/32 203.0.113.1/32", false},
		"few of each family":          {append(addrs(1, "203.0.113.%d"), addrs(1, "2001:db8::%d")...), "203.0.113.0/32 2001:db8::/128", false},
		"many neighbours":             {addrs(11, "203.0.113.%d"), "203.0.113.0/24", true},
		"one that is alone":           {append(addrs(11, "203.0.113.%d"), addrs(1, "8.8.8.%d")...), "8.8.8.0/32 203.0.113.0/24", true},
		"many, farther apart":         {addrs(11, "203.0.%d.1"), "203.0.0.0/16", true},
		"the pods are not among them": {addrs(11, "10.%d.0.1"), "10.0.0.0/8 but 10.244.0.0/16", true},
		"the whole internet":          {addrs(40, "%d.1.1.1")[1:], "0.0.0.0/0 but 10.244.0.0/16", true},
		"in the pods' range":          {addrs(11, "10.244.0.%d"), strings.TrimSpace(strings.Join(each(addrs(11, "10.244.0.%d"), "/32 "), "")), false},
		"IPv6":                        {addrs(11, "2001:db8::%d"), "2001:db8::/64", true},
	} {
		blocks, larger := blocksOf(tt.addrs, pods)
		var texts []string
		for _, b := range blocks {
			texts = append(texts, strings.Join(append([]string{b.CIDR}, b.Except...), " but "))
		}
		if got := strings.Join(texts, " "); got != tt.want || larger != tt.larger {
			t.Errorf("%s: %q, larger is %t; want %q and %t", name, got, larger, tt.want, tt.larger)
		}
	}
}

func each(addrs []netip.Addr, behind string) (texts []string) {
	slices.SortFunc(addrs, netip.Addr.Compare)
	for _, a := range addrs {
		texts = append(texts, a.String()+behind)
	}
	return texts
}

// Many clients of one port become a larger block, and it is said.
func TestRecommendForManyClients(t *testing.T) {
	var seen []string
	for i := range 12 {
		seen = append(seen, fmt.Sprintf("203.0.113.%d > shop/deploy/web tcp/8080", i))
	}
	r := New(market()).Recommend(observedOf(seen...))
	if got, want := lines(r.Policies[0])[1], "from 203.0.113.0/24 on tcp/8080"; got != want {
		t.Errorf("the rule is %q, want %q", got, want)
	}
	note := "shop/deploy/web, ingress on tcp/8080: 12 addresses were seen. 203.0.113.0/24 stand for them: look whether that is meant"
	if !slices.Contains(r.Notes, note) {
		t.Errorf("notes are %q", r.Notes)
	}
}

// trial is a policy of an author, or of an earlier recommendation.
func trial(name, app string, mode v1alpha1.Mode, types string, from ...string) *networkingv1.NetworkPolicy {
	p := &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Annotations: map[string]string{v1alpha1.ModeAnnotation: string(mode)}},
		Spec:       networkingv1.NetworkPolicySpec{PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}},
	}
	for _, word := range strings.Fields(types) {
		p.Spec.PolicyTypes = append(p.Spec.PolicyTypes, networkingv1.PolicyType(word))
	}
	tcp, port := corev1.ProtocolTCP, intstr.FromInt32(8080)
	for _, block := range from {
		p.Spec.Ingress = append(p.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{
			From:  []networkingv1.NetworkPolicyPeer{{IPBlock: &networkingv1.IPBlock{CIDR: block}}},
			Ports: []networkingv1.NetworkPolicyPort{{Protocol: &tcp, Port: &port}},
		})
	}
	return p
}

// What there is stays: it is added to, or nothing is needed beside it.
func TestRecommendBesideWhatThereIs(t *testing.T) {
	seen := []string{"203.0.113.9 > shop/deploy/web tcp/8080"}
	for name, tt := range map[string]struct {
		existing []*networkingv1.NetworkPolicy
		want     []string // of web
		denied   bool
	}{
		"a policy that allows it":             {[]*networkingv1.NetworkPolicy{trial("own", "web", "Enforce", "Ingress", "203.0.113.0/24")}, []string{"ringfence-web {app=web} Egress"}, false},
		"one in mode Audit":                   {[]*networkingv1.NetworkPolicy{trial("own", "web", "Audit", "Ingress", "203.0.113.0/24")}, []string{"ringfence-web {app=web} Egress"}, false},
		"in both directions":                  {[]*networkingv1.NetworkPolicy{trial("own", "web", "Enforce", "Ingress Egress", "203.0.113.0/24")}, nil, false},
		"one that denies it":                  {[]*networkingv1.NetworkPolicy{trial("own", "web", "Enforce", "Ingress", "198.51.100.0/24")}, []string{"ringfence-web {app=web} Egress"}, true},
		"one that would deny it":              {[]*networkingv1.NetworkPolicy{trial("own", "web", "Audit", "Ingress")}, []string{"ringfence-web {app=web} Ingress Egress", "from 203.0.113.9/32 on tcp/8080"}, false},
		"its own, in mode Audit":              {[]*networkingv1.NetworkPolicy{trial("ringfence-web", "web", "Audit", "Ingress", "198.51.100.0/24")}, []string{"ringfence-web {app=web} Ingress Egress", "from 198.51.100.0/24 on tcp/8080", "from 203.0.113.9/32 on tcp/8080"}, false},
		"its own, which is enforced":          {[]*networkingv1.NetworkPolicy{trial("ringfence-web", "web", "Enforce", "Ingress", "203.0.113.0/24")}, []string{"ringfence-web-2 {app=web} Egress"}, false},
		"one of its name about others":        {[]*networkingv1.NetworkPolicy{trial("ringfence-web", "db", "Audit", "Ingress")}, []string{"ringfence-web-2 {app=web} Ingress Egress", "from 203.0.113.9/32 on tcp/8080"}, false},
		"one of its name, types by the API's": {[]*networkingv1.NetworkPolicy{trial("ringfence-web", "web", "Audit", "", "203.0.113.9/32")}, []string{"ringfence-web {app=web} Ingress Egress", "from 203.0.113.9/32 on tcp/8080"}, false},
	} {
		o := market()
		o.Policies = tt.existing
		before := fmt.Sprint(lines(tt.existing[0]))
		r := New(o).Recommend(observedOf(seen...))
		var got []string
		for _, p := range r.Policies {
			if strings.HasPrefix(p.Name, "ringfence-web") {
				got = append(got, lines(p)...)
			}
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		note := "Seen, and denied now by policies that are enforced, so that it stays denied: 203.0.113.9 to shop/deploy/web on tcp/8080."
		if slices.Contains(r.Notes, note) != tt.denied || r.Lacking {
			t.Errorf("%s: notes are %q, lacking is %t", name, r.Notes, r.Lacking)
		}
		if now := fmt.Sprint(lines(tt.existing[0])); now != before {
			t.Errorf("%s: the policy has become %s", name, now)
		}
	}
}

// Workloads of one name have policies of two, and a long name is cut.
func TestNamesOfRecommendedPolicies(t *testing.T) {
	o := Objects{Pods: []*corev1.Pod{
		pod("shop", "web-5d-a", "web", "10.244.0.1", "ReplicaSet/web-5d"), pod("shop", "web-0", "store", "10.244.0.2", "StatefulSet/web"),
		pod("shop", strings.Repeat("n", 70), "long", "10.244.0.3", ""), pod("shop", "a.b", "dot", "10.244.0.4", ""),
	}}.Complete()
	var names []string
	for _, p := range New(o).Recommend(observedOf()).Policies {
		names = append(names, p.Name)
	}
	want := []string{"ringfence-a-b", "ringfence-web", "ringfence-" + strings.Repeat("n", maxPolicyName-len("ringfence-")), "ringfence-web-2"}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
}

// An address that a pod of a file was given says nothing of who had it in the cluster.
func TestRecommendTakesNoInventedAddressForAPods(t *testing.T) {
	o := observedOf("10.244.0.3 > shop/deploy/web tcp/8080")
	o.Invented = map[netip.Addr]bool{netip.MustParseAddr("10.244.0.3"): true}
	if got, want := lines(New(market()).Recommend(o).Policies[0])[1], "from 10.244.0.3/32 on tcp/8080"; got != want {
		t.Errorf("the rule is %q, want %q", got, want)
	}
}

// A workload whose pods have no address yet is isolated by nobody, whatever policies there are.
func TestRecommendForPodsWithoutAnAddress(t *testing.T) {
	o := market()
	o.Policies = []*networkingv1.NetworkPolicy{trial("own", "web", "Enforce", "Ingress Egress")}
	o.Pods = append(o.Pods, pod("shop", "cache", "cache", "", ""))
	var names []string
	for _, p := range New(o).Recommend(observedOf()).Policies {
		names = append(names, p.Name)
	}
	if want := []string{"ringfence-cache", "ringfence-db"}; !slices.Equal(names, want) {
		t.Errorf("policies are %q, want %q", names, want)
	}
}

// A CronJob's pods that are over tell the labels of the next ones; other pods that are over tell nothing.
func TestRecommendForACronJobThatDoesNotRunNow(t *testing.T) {
	o := market()
	report, once := pod("shop", "report-29000000-x", "report", "10.244.0.5", "Job/report-29000000"), pod("shop", "once", "once", "10.244.0.6", "")
	report.Status.Phase, once.Status.Phase = corev1.PodSucceeded, corev1.PodFailed
	o.Pods = append(o.Pods, report, once)
	r := New(o).Recommend(observedOf("shop/cronjob/report@report-28000000-y > shop/sts/db tcp/5432"))
	var got []string
	for _, p := range r.Policies {
		got = append(got, lines(p)...)
	}
	want := []string{"ringfence-report {app=report} Ingress Egress", "to {app=db} on tcp/5432", webNothing, dbNothing, "from {app=report} on tcp/5432"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("policies (-want +got):\n%s", diff)
	}
}
