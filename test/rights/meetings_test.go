package rights

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/startup"
	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/lab"
	"github.com/ringfence-io/ringfence/lab/probe"
	"github.com/ringfence-io/ringfence/test/kit"
)

// What programs of the story meet beside policies.

// isAnnounced waits until the enforcer has said which addresses the pod has. Its kubelet has not yet.
func isAnnounced(t *testing.T, l *lab.Lab) {
	t.Helper()
	kit.Must(t, lab.Poll(kit.Context(t, patience), func(ctx context.Context) error {
		pod, err := l.Client.CoreV1().Pods("story").Get(ctx, "one", metav1.GetOptions{})
		if err != nil {
			return err
		}
		announces := func(c corev1.PodCondition) bool {
			return c.Type == v1alpha1.AddressesCondition && c.Status == corev1.ConditionTrue
		}
		if !slices.ContainsFunc(pod.Status.Conditions, announces) {
			return fmt.Errorf("the addresses of the pod are not announced; its status is %+v", pod.Status)
		}
		return nil
	}))
}

// losesStartupTaint gives the node the startup taint beside another, and waits until the controller has taken it away.
func losesStartupTaint(t *testing.T, l *lab.Lab) {
	t.Helper()
	nodes := l.Client.CoreV1().Nodes()
	patch := []byte(fmt.Sprintf(`{"spec": {"taints": [{"key": %q, "effect": "NoSchedule"}, {"key": "example.com/other", "effect": "NoSchedule"}]}}`,
		startup.DefaultTaint))
	before, err := nodes.Patch(kit.Context(t, patience), l.Nodes[0].Name, types.MergePatchType, patch, metav1.PatchOptions{})
	kit.Must(t, err)
	if len(before.Spec.Taints) != 2 {
		t.Fatalf("the node has the taints %v, want two", before.Spec.Taints)
	}
	kit.Must(t, lab.Poll(kit.Context(t, patience), func(ctx context.Context) error {
		node, err := nodes.Get(ctx, l.Nodes[0].Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if taints := node.Spec.Taints; len(taints) != 1 || taints[0].Key != "example.com/other" {
			return fmt.Errorf("the node has the taints %v", taints)
		}
		return nil
	}))
}

// isDenied has one pod try to reach the other until the namespace's report says that it is denied. Then nobody asks any more, and the report goes.
func isDenied(t *testing.T, l *lab.Lab) {
	t.Helper()
	from, err := l.Pod(kit.Context(t, patience), "story", "two")
	kit.Must(t, err)
	to, err := l.Pod(kit.Context(t, patience), "story", "one")
	kit.Must(t, err)
	report := func(ctx context.Context) (v1alpha1.ConnectionReport, error) {
		var r v1alpha1.ConnectionReport
		path := "/apis/policy.ringfence.io/v1alpha1/namespaces/story/connectionreports/" + v1alpha1.ConnectionReportName
		text, err := l.Client.Discovery().RESTClient().Get().AbsPath(path).DoRaw(ctx)
		if err == nil {
			err = json.Unmarshal(text, &r)
		}
		return r, err
	}
	kit.Must(t, lab.Poll(kit.Context(t, patience), func(ctx context.Context) error {
		l.Probe(from, to, policy.TCP, 80, probe.Expect(false))
		r, err := report(ctx)
		if err == nil && len(r.Status.Connections) == 0 {
			err = fmt.Errorf("the report lists nothing: %+v", r.Status)
		}
		return err
	}))
	patch := []byte(fmt.Sprintf(`{"metadata": {"annotations": {%q: null}}}`, v1alpha1.ConnectionsAnnotation))
	_, err = l.Client.CoreV1().Namespaces().Patch(kit.Context(t, patience), "story", types.MergePatchType, patch, metav1.PatchOptions{})
	kit.Must(t, err)
	kit.Must(t, lab.Poll(kit.Context(t, patience), func(ctx context.Context) error {
		if _, err := report(ctx); !apierrors.IsNotFound(err) {
			return fmt.Errorf("the report is there after nobody asks for it: %v", err)
		}
		return nil
	}))
}

// isScraped asks both programs for their metrics, each as somebody who may and as somebody who may not.
func isScraped(t *testing.T, l *lab.Lab) {
	t.Helper()
	programs := map[string]struct {
		dial dialer
		port int
	}{
		"the enforcer":   {l.Nodes[0].Host.DialContext, lab.EnforcerMetrics},
		"the controller": {l.World.DialContext, lab.FirstControllerMetrics},
	}
	for account, want := range map[string]int{"reader": http.StatusOK, "stranger": http.StatusForbidden} {
		answer, err := l.Client.CoreV1().ServiceAccounts("story").CreateToken(kit.Context(t, patience), account, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
		kit.Must(t, err)
		for name, p := range programs {
			status, body := ask(t, p.dial, fmt.Sprintf("https://127.0.0.1:%d/metrics", p.port), answer.Status.Token, want)
			if status != want || strings.Contains(body, "ringfence_") != (want == http.StatusOK) {
				t.Errorf("%s answers %s with %d, want %d: %s", name, account, status, want, body)
			}
		}
	}
}
