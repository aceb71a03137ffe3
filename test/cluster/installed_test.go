//go:build cluster

package cluster

import (
	"encoding/json"
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/test/kit"
)

// Directories are kustomize's, files are manifests; both as seen from the top of the repository.
var (
	install   = flag.String("install", "config/default", "what is installed: a directory or a file")
	uninstall = flag.String("uninstall", "config/uninstall", "the first step of its removal: a directory or a file")
	previous  = flag.String("from", "", "what is installed at first, and upgraded: a file of an earlier release. Without it, the same again")
	agnhost   = flag.String("agnhost", sampleImage, "image of the application's pods")
)

// home is the namespace of what is installed.
const home = "ringfence-system"

// suite is what one step leaves for the next.
type suite struct {
	app      *application
	demanded reach
	programs []corev1.Pod // of the enforcers
}

// Installed, used, upgraded and removed, as people do it. Each step builds on those before it, so that the first that fails is the last.
func TestInstalled(t *testing.T) {
	flag.Parse()
	kubectl(t, "get", "--raw", "/readyz") // else what follows would say the same at length
	s := &suite{demanded: read(demanded)}
	for _, step := range []struct {
		name string
		do   func(*testing.T)
	}{
		{"nobody enforces before", s.before},
		{"install", s.install},
		{"samples", s.samples},
		{"status", s.status},
		{"audit", s.audit},
		{"cluster-wide policies", s.clusterWide},
		{"upgrade", s.upgrade},
		{"restart", s.restart},
		{"uninstall", s.uninstall},
	} {
		began := time.Now()
		if !t.Run(step.name, step.do) {
			explain(t)
			t.Fatalf("it ended at %q; what is installed stays, to be looked at: docs/uninstall.md says how it goes", step.name)
		}
		t.Logf("%-24s %5.1f s", step.name, time.Since(began).Seconds())
	}
}

// explain prints what people would look at first.
func explain(t *testing.T) {
	for _, args := range [][]string{
		{"get", "pods", "-A", "-o", "wide"},
		{"get", "ringfence", "-A", "-o", "wide"},
		{"-n", home, "logs", "-l", "app.kubernetes.io/name=ringfence", "--prefix", "--tail", "30", "--max-log-requests", "100"},
	} {
		out, err := run(t.Context(), "", args...)
		t.Logf("kubectl %s\n%s", strings.Join(args, " "), out)
		if err != nil {
			t.Log(err)
		}
	}
}

// before starts the application, and a policy that nobody enforces: else it would not be known whose verdicts are seen.
func (s *suite) before(t *testing.T) {
	if names := kubectl(t, "get", "namespace", home, "--ignore-not-found", "-o", "name"); names != "" {
		t.Fatalf("there is a namespace %s: the suite installs by itself, in a cluster without Ringfence", home)
	}
	s.app = start(t, *agnhost)
	s.app.expect(t, s.demanded.as(everything))
	kubectl(t, "apply", "-f", inRepository("config/samples/policies/shop-database.yaml"))
	s.app.expect(t, s.demanded.as(everything))
}

// install ends with a first policy in force. The one that was there before is in force when the enforcers are ready, and one that is new soon after.
func (s *suite) install(t *testing.T) {
	manifests := *install
	if *previous != "" {
		manifests = *previous
	}
	began := time.Now()
	kubectl(t, append([]string{"apply"}, from(t, manifests)...)...)
	rolledOut(t, "daemonset/ringfence-enforcer")
	ready := time.Now()
	if p := (pair{"outsider/visitor", "database-5432"}); s.app.reaches(t, p) {
		t.Errorf("the enforcers are ready, and %s reaches %s, which a policy denies", p.from, p.to)
	}
	rolledOut(t, "deployment/ringfence-controller")
	p := pair{"outsider/visitor", "backend-8080"}
	if !s.app.reaches(t, p) {
		t.Errorf("%s does not reach %s, which no policy denies", p.from, p.to)
	}
	kubectl(t, "apply", "-f", inRepository("config/samples/policies/shop-backend.yaml"))
	kit.Eventually(t, bound, fmt.Sprintf("%s does not reach %s, which a policy denies", p.from, p.to), func() bool { return !s.app.reaches(t, p) })
	t.Logf("ready %.1f s after kubectl apply; the first policy was seen to be in force %.1f s later", ready.Sub(began).Seconds(), time.Since(ready).Seconds())
	s.programs = enforcers(t)
}

// enforcers are their pods, one for each node that the DaemonSet wants.
func enforcers(t *testing.T) []corev1.Pod {
	t.Helper()
	pods := get[corev1.PodList](t, "-n", home, "pods", "-l", "app.kubernetes.io/component=enforcer").Items
	want := get[appsv1.DaemonSet](t, "-n", home, "daemonset", "ringfence-enforcer").Status.DesiredNumberScheduled
	if len(pods) == 0 || len(pods) != int(want) {
		t.Fatalf("%d enforcers run, and %d should", len(pods), want)
	}
	return pods
}

func (s *suite) samples(t *testing.T) {
	kubectl(t, "apply", "-k", inRepository("config/samples/policies"))
	s.app.expect(t, s.demanded)
}

// status: each policy is said to be programmed, and each node to be well.
func (s *suite) status(t *testing.T) {
	for _, namespace := range guarded {
		policies := get[networkingv1.NetworkPolicyList](t, "-n", namespace, "networkpolicies").Items
		if len(policies) == 0 {
			t.Errorf("namespace %s has no policies", namespace)
		}
		for _, np := range policies {
			name := "policyenforcement/" + np.Name
			kubectl(t, "-n", namespace, "wait", "--for=create", name, "--timeout", bound.String())
			for _, condition := range []string{v1alpha1.AcceptedCondition, v1alpha1.ProgrammedCondition} {
				kubectl(t, "-n", namespace, "wait", "--for=condition="+condition, name, "--timeout", patience.String())
			}
		}
	}
	for _, pod := range s.programs {
		kubectl(t, "wait", "--for=condition="+v1alpha1.HealthyCondition, "nodeenforcement/"+pod.Spec.NodeName, "--timeout", patience.String())
		node := get[v1alpha1.NodeEnforcement](t, "nodeenforcement", pod.Spec.NodeName)
		if !meta.IsStatusConditionTrue(node.Status.Conditions, v1alpha1.EnforcingCondition) {
			t.Errorf("node %s: %+v", node.Name, node.Status.Conditions)
		}
	}
}

// audit: what would be denied passes, and is counted under the policy's name.
func (s *suite) audit(t *testing.T) {
	for _, namespace := range guarded {
		kubectl(t, "annotate", "namespace", namespace, v1alpha1.ModeAnnotation+"="+string(v1alpha1.Audit))
	}
	s.app.expect(t, s.demanded.as(everything))
	counts := map[string]uint64{}
	for _, pod := range s.programs {
		var rows []struct {
			Object  string
			Audit   bool
			Packets uint64
		}
		if err := json.Unmarshal([]byte(kubectl(t, "-n", home, "exec", pod.Name, "--", "ringfence", "audit", "-o", "json")), &rows); err != nil {
			t.Fatalf("reading what ringfence audit printed on %s: %v", pod.Spec.NodeName, err)
		}
		for _, row := range rows {
			if row.Audit {
				counts[row.Object] += row.Packets
			}
		}
	}
	if counts["NetworkPolicy shop/database"] == 0 {
		t.Errorf("what policy shop/database would have denied was not counted: %v", counts)
	}
	for _, namespace := range guarded {
		kubectl(t, "annotate", "namespace", namespace, v1alpha1.ModeAnnotation+"-")
	}
	s.app.expect(t, s.demanded)
}

// clusterWide: what only an administrator can say, in front of and in place of the NetworkPolicies.
func (s *suite) clusterWide(t *testing.T) {
	wall, isolation := inRepository("config/samples/cluster/database-wall.yaml"), inRepository("config/samples/cluster/tenant-isolation.yaml")
	kubectl(t, "apply", "-f", wall)
	s.app.expect(t, s.demanded.but(reach{{"monitoring/prometheus", "database-9187"}: false}))
	kubectl(t, "wait", "--for=condition="+v1alpha1.ProgrammedCondition, "-f", wall, "--timeout", patience.String())
	kubectl(t, "delete", "-f", wall)

	kubectl(t, "delete", "-k", inRepository("config/samples/policies"))
	kubectl(t, "apply", "-f", isolation)
	s.app.expect(t, s.demanded.as(everything))
	kubectl(t, "patch", "-f", isolation, "--type", "merge", "-p", `{"spec":{"mode":"Enforce"}}`)
	s.app.expect(t, s.demanded.as(withinTheNamespace))
	kubectl(t, "wait", "--for=condition="+v1alpha1.ProgrammedCondition, "-f", isolation, "--timeout", patience.String())
	kubectl(t, "apply", "-k", inRepository("config/samples/policies"))
	kubectl(t, "delete", "-f", isolation)
	s.app.expect(t, s.demanded)
}

// upgrade brings what is to be installed in the place of what is, while everybody tries to reach everybody.
func (s *suite) upgrade(t *testing.T) {
	if *previous == "" {
		t.Log("from the same version: give the manifests of an earlier one by -from")
	}
	stop := s.app.watch(t, s.demanded)
	kubectl(t, append([]string{"apply"}, from(t, *install)...)...)
	if *previous == "" {
		restarted(t)
	}
	s.replaced(t)
	allowed, denied := stop()
	t.Logf("%d connections that are allowed, %d that are denied", allowed, denied)
}

// restart kills nothing and changes nothing but the processes.
func (s *suite) restart(t *testing.T) {
	stop := s.app.watch(t, s.demanded)
	for range 3 {
		restarted(t)
		s.replaced(t)
	}
	allowed, denied := stop()
	t.Logf("3 restarts of %d enforcers: %d connections that are allowed, %d that are denied", len(s.programs), allowed, denied)
}

// restarted begins to replace every process of ours by its like.
func restarted(t *testing.T) {
	t.Helper()
	kubectl(t, "-n", home, "rollout", "restart", "daemonset/ringfence-enforcer", "deployment/ringfence-controller")
}

// replaced waits until every enforcer is another than it was, and says so of its node.
func (s *suite) replaced(t *testing.T) {
	t.Helper()
	rolledOut(t, "daemonset/ringfence-enforcer")
	rolledOut(t, "deployment/ringfence-controller")
	now := enforcers(t)
	for _, pod := range now {
		if slices.ContainsFunc(s.programs, func(before corev1.Pod) bool { return before.UID == pod.UID }) {
			t.Errorf("the enforcer of node %s is the one that was there before", pod.Spec.NodeName)
		}
	}
	s.programs = now
}

// uninstall goes by docs/uninstall.md, and then looks for what may be left.
func (s *suite) uninstall(t *testing.T) {
	look := newLook(t, s.programs[0].Spec, *agnhost)
	if len(look.traces(t)) == 0 {
		t.Fatal("no trace is seen of what is there")
	}
	kubectl(t, append([]string{"apply"}, from(t, *uninstall)...)...)
	rolledOut(t, "daemonset/ringfence-enforcer")
	said := kubectl(t, "-n", home, "logs", "-l", "app.kubernetes.io/component=enforcer", "-c", "cleanup", "--tail", "-1", "--max-log-requests", "1000")
	if clean := strings.Count(said, "Nothing of Ringfence is left on this node"); clean != len(s.programs) {
		t.Errorf("%d of %d nodes are said to be clean:\n%s", clean, len(s.programs), said)
	}
	kubectl(t, "delete", "-k", inRepository("config/crd"))
	kubectl(t, append([]string{"delete", "--ignore-not-found"}, from(t, *install)...)...)

	s.app.expect(t, s.demanded.as(everything))
	for _, trace := range slices.Concat(look.traces(t), objects(t)) {
		t.Errorf("there is left: %s", trace)
	}
	kubectl(t, "delete", "-k", inRepository("config/samples/policies"))
	kubectl(t, append([]string{"delete", "namespace", lookout}, namespaces...)...)
}
