package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/status"
	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/lab"
	"github.com/ringfence-io/ringfence/lab/apiserver"
	"github.com/ringfence-io/ringfence/lab/cni"
	"github.com/ringfence-io/ringfence/lab/probe"
	"github.com/ringfence-io/ringfence/test/kit"
)

const (
	// reportTime is within what time a connection that is denied is in the reports of a small cluster, by docs/denied.md.
	reportTime   = 5 * time.Second
	deniedProbes = 1000
	deniedRate   = 3000 // packets per second, to three servers
	deniedPort   = 8080
	// allowedProbes are connections that pass, one by one, to a port that nothing was sent to before.
	allowedProbes = 50
	allowedPort   = deniedPort + 2
)

// deniedCluster is what is denied: in shop, which asks for a report, in ops, which asks too and whose pods are the other end, and in quiet, which does not.
const deniedCluster = `
apiVersion: v1
kind: Namespace
metadata: {name: shop, annotations: {policy.ringfence.io/connections: denied}}
---
apiVersion: v1
kind: Namespace
metadata: {name: ops, annotations: {policy.ringfence.io/connections: denied}}
---
apiVersion: v1
kind: Namespace
metadata: {name: quiet}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: shop, name: web}
spec: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {app: nobody}}}]}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: shop, name: database, annotations: {policy.ringfence.io/mode: Audit}}
spec: {podSelector: {matchLabels: {app: database}}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: quiet, name: all}
spec: {podSelector: {}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {namespace: shop, name: developer}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: ringfence-view}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: developer}]
`

// TestDeniedConnectionsAreReported goes the whole way of a packet that is denied: from the kernel to the node's object, to the reports of both ends'
// namespaces, to what a developer is shown who may view one of them.
func TestDeniedConnectionsAreReported(t *testing.T) {
	for backend, kind := range map[string]cni.Kind{"legacy": cni.Bridge, "nft": cni.PTP} {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			d := newDenied(t, lab.Options{Nodes: 2, Controller: true, Backend: backend, CNI: kind})
			d.firstAreReportedSoon(t)
			d.whoDoesNotAskHasNone(t)
			d.aDeveloperListsThem(t)
			d.aRestartCountsOn(t)
			d.whoAsksLaterHasOne(t)
			d.whoAsksForAllHasWhatPasses(t)
		})
	}
}

// denied is a lab in which connections are denied.
type denied struct {
	*told
	scanner, web, database, quiet *lab.Pod
	sent                          int64 // to each of the servers
}

func newDenied(t *testing.T, options lab.Options) *denied {
	t.Helper()
	l := start(t, options)
	c, err := client.New(l.Config, client.Options{Scheme: status.Scheme()})
	kit.Must(t, err)
	d := &denied{told: &told{l, c}}
	kit.Must(t, l.Apply(kit.Context(t, patience), []byte(deniedCluster)))
	run := func(namespace, name, node string, owner *metav1.OwnerReference, labels map[string]string) *lab.Pod {
		t.Helper()
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: labels},
			Spec: corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{
				Name: "main", Image: "lab", Ports: []corev1.ContainerPort{port(corev1.ProtocolTCP, deniedPort), port(corev1.ProtocolTCP, allowedPort)},
			}}},
		}
		if owner != nil {
			owner.APIVersion, owner.UID, owner.Controller = "apps/v1", "00000000-0000-4000-8000-000000000001", new(bool)
			*owner.Controller = true
			pod.OwnerReferences = []metav1.OwnerReference{*owner}
		}
		running, err := l.RunPod(kit.Context(t, patience), pod)
		kit.Must(t, err)
		return running
	}
	hash := func(app, hash string) map[string]string {
		return map[string]string{"app": app, "pod-template-hash": hash}
	}
	d.scanner = run("ops", "scanner-7d9c8b6f5-x2x9p", "n2", &metav1.OwnerReference{Kind: "ReplicaSet", Name: "scanner-7d9c8b6f5"}, hash("scanner", "7d9c8b6f5"))
	d.web = run("shop", "web-5b8d7c9f4-abcde", "n1", &metav1.OwnerReference{Kind: "ReplicaSet", Name: "web-5b8d7c9f4"}, hash("web", "5b8d7c9f4"))
	d.database = run("shop", "database-0", "n2", nil, map[string]string{"app": "database"})
	d.quiet = run("quiet", "alone", "n1", nil, nil)
	d.says(t, "shop", "web", on(1, 1))
	d.says(t, "shop", "database", on(1, 1))
	d.says(t, "quiet", "all", on(1, 1))
	return d
}

// send has the scanner open a connection to each server so many times, each by one packet that is never sent again.
func (d *denied) send(t *testing.T, times int) {
	t.Helper()
	var flows []probe.Watched
	for server, allowed := range map[*lab.Pod]bool{d.web: false, d.database: true, d.quiet: false} {
		flow := probe.Flow{Protocol: policy.TCP, Src: d.scanner.Addresses[0], Dst: server.Addresses[0], Port: deniedPort}
		flows = append(flows, probe.Watched{Host: d.scanner.Host, Flow: flow, Allowed: allowed})
	}
	report, err := probe.Times(times, flows, deniedRate, patience)
	kit.Must(t, err)
	if len(report.Wrong) > 0 || report.Probes != times*len(flows) {
		t.Fatalf("of %d probes these had wrong verdicts: %v", report.Probes, report.Wrong)
	}
	d.sent += int64(times)
}

// reports waits until the report of a namespace is as wanted.
func (d *denied) reports(t *testing.T, namespace string, right func(*v1alpha1.ConnectionReportStatus) error) *v1alpha1.ConnectionReportStatus {
	t.Helper()
	r := &v1alpha1.ConnectionReport{}
	kit.Must(t, lab.Poll(kit.Context(t, patience), func(ctx context.Context) error {
		*r = v1alpha1.ConnectionReport{}
		if err := d.client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: v1alpha1.ConnectionReportName}, r); err != nil {
			return err
		}
		return right(&r.Status)
	}))
	return &r.Status
}

// deniedLines are connections as this test expects them, by the pod that they go to.
func deniedLines(all []v1alpha1.ReportedConnection) map[string]string {
	lines := map[string]string{}
	for _, c := range all {
		lines[c.To.Pod] = fmt.Sprintf("%s %s: %s/%s (%s, %s) to %s/%s (%s) %s/%d by %s, says %s", c.Verdict, c.Direction, c.From.Namespace, c.From.Workload,
			c.From.Pod, c.From.Address, c.To.Namespace, c.To.Workload, c.To.Address, c.Protocol, c.Port, c.Policy, strings.Join(c.Nodes, ", "))
	}
	return lines
}

// expected are those lines, with the policies' names or without.
func (d *denied) expected(policyOf func(name string) string) map[string]string {
	from := "ops/deploy/scanner (" + d.scanner.Name + ", " + d.scanner.Addresses[0].String() + ")"
	return map[string]string{
		d.web.Name: fmt.Sprintf("Denied Ingress: %s to shop/deploy/web (%s) TCP/%d by %s, says n1",
			from, d.web.Addresses[0], deniedPort, policyOf("web")),
		d.database.Name: fmt.Sprintf("WouldDeny Ingress: %s to shop/database-0 (%s) TCP/%d by %s, says n2",
			from, d.database.Addresses[0], deniedPort, policyOf("database")),
	}
}

// firstAreReportedSoon sends many packets to each server at once, of which few are looked at, and all are counted.
func (d *denied) firstAreReportedSoon(t *testing.T) {
	t.Helper()
	began := time.Now()
	d.send(t, deniedProbes/2)
	for namespace, policyOf := range map[string]func(string) string{
		"shop": func(name string) string { return "NetworkPolicy shop/" + name },
		"ops":  func(string) string { return "policy of namespace shop" },
	} {
		d.reports(t, namespace, func(s *v1alpha1.ConnectionReportStatus) error {
			if diff := cmp.Diff(d.expected(policyOf), deniedLines(s.Connections)); diff != "" {
				return fmt.Errorf("the report of %s (-want +got):\n%s", namespace, diff)
			}
			return nil
		})
	}
	took := time.Since(began)
	t.Logf("two connections are in two reports after %s", took.Round(10*time.Millisecond))
	if took > reportTime {
		t.Errorf("it took %s, want %s at most", took, reportTime)
	}
	for _, c := range d.counted(t).Connections {
		if c.Packets < 1 || c.Packets > d.sent {
			t.Errorf("%d packets of %d were looked at: %+v", c.Packets, d.sent, c)
		}
	}
	ops := d.reports(t, "ops", func(*v1alpha1.ConnectionReportStatus) error { return nil })
	if ops.Denied != 0 || ops.WouldDeny != 0 || len(ops.Counts) > 0 {
		t.Errorf("of namespace ops is counted what policies of another one deny: %+v", ops)
	}
	d.hasEvent(t)
}

// hasEvent waits until the pod whose connections are denied has an Event of that.
func (d *denied) hasEvent(t *testing.T) {
	t.Helper()
	want := fmt.Sprintf("Warning A connection to shop/deploy/web on TCP/%d was denied, ingress by policy of namespace shop. "+
		"List such connections by: kubectl -n ops ringfence denied", deniedPort)
	kit.Must(t, lab.Poll(kit.Context(t, patience), func(ctx context.Context) error {
		var all eventsv1.EventList
		if err := d.client.List(ctx, &all, client.InNamespace("ops")); err != nil {
			return err
		}
		for _, e := range all.Items {
			if e.Regarding.Kind == "Pod" && e.Regarding.Name == d.scanner.Name && e.Reason == "ConnectionDenied" && e.Type+" "+e.Note == want {
				return nil
			}
		}
		return fmt.Errorf("no Event about the pod says %q: %v", want, all.Items)
	}))
}

// counted waits until the report has the packets that were sent: all of them, and never one more.
func (d *denied) counted(t *testing.T) *v1alpha1.ConnectionReportStatus {
	t.Helper()
	return d.reports(t, "shop", func(s *v1alpha1.ConnectionReportStatus) error {
		got := map[string]int64{"denied": s.Denied, "would deny": s.WouldDeny}
		for _, c := range s.Counts {
			got[fmt.Sprintf("%s %s %s %s", c.Namespace, c.Policy, c.Direction, c.Verdict)] = c.Packets
		}
		for what, packets := range got {
			if packets > d.sent {
				t.Fatalf("%s: %d packets are counted of %d that were sent", what, packets, d.sent)
			}
		}
		want := map[string]int64{
			"denied": d.sent, "would deny": d.sent,
			"shop NetworkPolicy shop/web Ingress Denied": d.sent, "shop NetworkPolicy shop/database Ingress WouldDeny": d.sent,
		}
		if diff := cmp.Diff(want, got); diff != "" {
			return fmt.Errorf("packets (-want +got):\n%s", diff)
		}
		return nil
	})
}

// whoDoesNotAskHasNone: as many packets were denied there.
func (d *denied) whoDoesNotAskHasNone(t *testing.T) {
	t.Helper()
	var all v1alpha1.ConnectionReportList
	kit.Must(t, d.client.List(kit.Context(t, patience), &all))
	for _, r := range all.Items {
		if r.Namespace != "shop" && r.Namespace != "ops" {
			t.Errorf("there is a report in namespace %s", r.Namespace)
		}
	}
	for _, node := range d.Nodes {
		o := &v1alpha1.NodeConnections{}
		kit.Must(t, d.client.Get(kit.Context(t, patience), client.ObjectKey{Name: node.Name}, o))
		for _, c := range o.Status.Connections {
			if c.To.Namespace != "shop" {
				t.Errorf("%s says of a namespace that asks for nothing: %+v", node.Name, c)
			}
		}
		if len(o.OwnerReferences) != 1 || o.OwnerReferences[0].Kind != "Node" || o.OwnerReferences[0].Name != node.Name {
			t.Errorf("what %s says is owned by %v", node.Name, o.OwnerReferences)
		}
	}
}

// aDeveloperListsThem: somebody who may view one namespace, and nothing of nodes.
func (d *denied) aDeveloperListsThem(t *testing.T) {
	t.Helper()
	out, code := d.asDeveloper(t, "denied", "-n", "shop")
	if code != 1 {
		t.Errorf("the exit status is %d, want 1: something is listed", code)
	}
	for _, want := range []string{
		fmt.Sprintf(`(?m)^\d+s +ops/deploy/scanner \(%s\) +shop/deploy/web \(%s\) +tcp/%d +DENIED +NetworkPolicy shop/web ingress +\d+ +\d+s$`,
			d.scanner.Name, d.web.Name, deniedPort),
		fmt.Sprintf(`(?m)^\d+s +ops/deploy/scanner \(%s\) +shop/database-0 +tcp/%d +would deny +NetworkPolicy shop/database ingress +\d+ +\d+s$`,
			d.scanner.Name, deniedPort),
		fmt.Sprintf(`(?m)^%d +DENIED +NetworkPolicy shop/web ingress$`, d.sent),
		fmt.Sprintf(`(?m)^%d +would deny +NetworkPolicy shop/database ingress$`, d.sent),
	} {
		if !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("kubectl ringfence denied prints\n%swhich has no line like\n%s", out, want)
		}
	}
	if out, code = d.asDeveloper(t, "denied", "-A"); code != 2 || !strings.Contains(out, "forbidden") {
		t.Errorf("asked about all namespaces, of which the developer may view one, it exits with %d: %s", code, out)
	}
}

// asDeveloper runs the plugin as kubectl does.
func (d *denied) asDeveloper(t *testing.T, args ...string) (out string, code int) {
	t.Helper()
	cmd := d.developers(t, args...)
	text, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(text), cmd.ProcessState.ExitCode()
}

// developers is a command of the plugin, which ends with the test.
func (d *denied) developers(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	config, err := clientcmd.LoadFromFile(d.Kubeconfig)
	kit.Must(t, err)
	for _, user := range config.AuthInfos {
		user.Impersonate = "developer"
	}
	dir := t.TempDir()
	kubeconfig := filepath.Join(dir, "kubeconfig")
	kit.Must(t, clientcmd.WriteToFile(*config, kubeconfig))
	kit.Must(t, os.Symlink(ringfence, filepath.Join(dir, "kubectl-ringfence")))
	cmd := exec.CommandContext(t.Context(), apiserver.Kubectl(), append([]string{"ringfence"}, args...)...)
	cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "KUBECONFIG="+kubeconfig)
	return cmd
}

// follow has a developer follow what is denied. What it returns waits for so many lines about the server that is denied.
func (d *denied) follow(t *testing.T) (until func(lines int)) {
	t.Helper()
	cmd := d.developers(t, "denied", "-n", "shop", "--follow")
	out, err := cmd.StdoutPipe()
	kit.Must(t, err)
	kit.Must(t, cmd.Start())
	lines := make(chan string)
	ctx := kit.Context(t, 2*patience)
	go func() {
		defer close(lines)
		for scanner := bufio.NewScanner(out); scanner.Scan(); {
			select {
			case lines <- scanner.Text():
			case <-ctx.Done():
				return
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	})
	want := regexp.MustCompile(fmt.Sprintf(`^\S+Z  DENIED  ops/deploy/scanner \(%s\) to shop/deploy/web \(%s\)  tcp/%d  by NetworkPolicy shop/web ingress  \d+ packets$`,
		d.scanner.Name, d.web.Name, deniedPort))
	seen, others := 0, []string(nil)
	return func(wanted int) {
		t.Helper()
		for seen < wanted {
			select {
			case line, more := <-lines:
				if !more {
					t.Fatalf("kubectl ringfence denied --follow has ended after %d lines, and %q", seen, others)
				}
				if want.MatchString(line) {
					seen++
				} else {
					others = append(others, line)
				}
			case <-ctx.Done():
				t.Fatalf("kubectl ringfence denied --follow has printed %d lines of the connection, want %d, and %q", seen, wanted, others)
			}
		}
	}
}

// aRestartCountsOn: the node goes on from what it has reported, and counts no packet again that the kernel has counted before.
func (d *denied) aRestartCountsOn(t *testing.T) {
	t.Helper()
	before := d.counted(t)
	follow := d.follow(t)
	follow(1)
	for _, n := range d.Nodes {
		kit.Must(t, n.RestartEnforcer())
	}
	kit.Must(t, d.WaitEnforcers(kit.Context(t, patience)))
	d.send(t, deniedProbes/2)
	follow(2)
	after := d.counted(t)
	if !after.Since.Equal(before.Since) {
		t.Errorf("it is counted since %v, and was since %v", after.Since, before.Since)
	}
	for i, c := range after.Connections {
		for _, old := range before.Connections {
			if old.To == c.To && (!c.FirstTime.Equal(&old.FirstTime) || c.Packets <= old.Packets) {
				t.Errorf("connection %d is forgotten: %+v, then %+v", i, old, c)
			}
		}
	}
}

// whoAsksLaterHasOne: what was denied before is not listed, what is denied from then on is.
func (d *denied) whoAsksLaterHasOne(t *testing.T) {
	t.Helper()
	kubectl(t, d.Lab, "annotate", "namespace", "quiet", v1alpha1.ConnectionsAnnotation+"="+v1alpha1.ConnectionsDenied)
	began, tries := time.Now(), 0
	flow := probe.Flow{Protocol: policy.TCP, Src: d.scanner.Addresses[0], Dst: d.quiet.Addresses[0], Port: deniedPort + 1}
	s := d.reports(t, "quiet", func(s *v1alpha1.ConnectionReportStatus) error {
		tries++
		if r, err := probe.Once([]probe.Watched{{Host: d.scanner.Host, Flow: flow}}, 1000, 0); err != nil || len(r.Wrong) > 0 {
			return fmt.Errorf("the pod answers: %s %w", r, err)
		}
		if len(s.Connections) != 1 || s.Connections[0].Port != deniedPort+1 || s.Connections[0].Policy != "NetworkPolicy quiet/all" || s.Denied == 0 {
			return fmt.Errorf("%d packets were denied: %q", s.Denied, deniedLines(s.Connections))
		}
		return nil
	})
	t.Logf("a namespace that asks later has its connections %s after that", time.Since(began).Round(10*time.Millisecond))
	if s.Denied > int64(tries) {
		t.Errorf("%d packets are counted of %d that were sent since", s.Denied, tries)
	}
	kubectl(t, d.Lab, "annotate", "namespace", "quiet", v1alpha1.ConnectionsAnnotation+"-")
	kit.Must(t, lab.Poll(kit.Context(t, patience), func(ctx context.Context) error {
		err := d.client.Get(ctx, client.ObjectKey{Namespace: "quiet", Name: v1alpha1.ConnectionReportName}, &v1alpha1.ConnectionReport{})
		if !apierrors.IsNotFound(err) {
			return fmt.Errorf("the report is there after nobody asks for it: %v", err)
		}
		return nil
	}))
}

// whoAsksForAllHasWhatPasses: each connection to the server whose policy is in mode Audit counts once, however often the node looks.
func (d *denied) whoAsksForAllHasWhatPasses(t *testing.T) {
	t.Helper()
	kubectl(t, d.Lab, "annotate", "--overwrite", "namespace", "shop", v1alpha1.ConnectionsAnnotation+"="+v1alpha1.ConnectionsAll)
	before := d.reports(t, "shop", func(s *v1alpha1.ConnectionReportStatus) error {
		if s.AllowedSince == nil {
			return errors.New("no node looks for allowed connections")
		}
		return nil
	})
	flow := probe.Flow{Protocol: policy.TCP, Src: d.scanner.Addresses[0], Dst: d.database.Addresses[0], Port: allowedPort}
	report, err := probe.Times(allowedProbes, []probe.Watched{{Host: d.scanner.Host, Flow: flow, Allowed: true}}, deniedRate, patience)
	kit.Must(t, err)
	if len(report.Wrong) > 0 {
		t.Fatalf("of %d probes these had wrong verdicts: %v", report.Probes, report.Wrong)
	}
	began := time.Now()
	allowed := func(s *v1alpha1.ConnectionReportStatus) (all []v1alpha1.ReportedConnection) {
		for _, c := range s.Connections {
			if c.Verdict == v1alpha1.ConnectionAllowed && c.Port == allowedPort {
				all = append(all, c)
			}
		}
		return all
	}
	want := map[string]string{d.database.Name: fmt.Sprintf("Allowed Ingress: ops/deploy/scanner (%s, %s) to shop/database-0 (%s) TCP/%d by , says n2",
		d.scanner.Name, d.scanner.Addresses[0], d.database.Addresses[0], allowedPort)}
	s := d.reports(t, "shop", func(s *v1alpha1.ConnectionReportStatus) error {
		all := allowed(s)
		if diff := cmp.Diff(want, deniedLines(all)); diff != "" {
			return fmt.Errorf("what passes (-want +got):\n%s", diff)
		}
		if all[0].Packets < allowedProbes {
			return fmt.Errorf("%d connections were seen of %d", all[0].Packets, allowedProbes)
		}
		return nil
	})
	t.Logf("%d connections that pass are in the report %s after they were opened", allowed(s)[0].Packets, time.Since(began).Round(10*time.Millisecond))
	if n := allowed(s)[0].Packets; n != allowedProbes {
		t.Errorf("%d connections are counted, and there were %d", n, allowedProbes)
	}
	if !s.AllowedSince.Equal(before.AllowedSince) {
		t.Errorf("they are looked for since %v, and were since %v", s.AllowedSince, before.AllowedSince)
	}
	if out, _ := d.asDeveloper(t, "denied", "-n", "shop"); strings.Contains(out, "Allowed") || strings.Contains(out, " by ") {
		t.Errorf("kubectl ringfence denied lists what passes:\n%s", out)
	}
}
