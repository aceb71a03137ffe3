package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"

	"github.com/ringfence-io/ringfence/lab"
	"github.com/ringfence-io/ringfence/test/kit"
)

// TestTheAPIServerGoesBackToOlderData restores a backup under an enforcer that runs. It cannot hear of the old policy that is back, nor of a new one, by its
// watches: it notices, and ends, and its next start enforces what there is. What was enforced stays until then.
func TestTheAPIServerGoesBackToOlderData(t *testing.T) {
	l := start(t, lab.Options{Nodes: 1, EnforcerArgs: []string{"--heartbeat-interval", "1s"}})
	newLaneOn(t, l, "shop", "n1")
	node := l.Nodes[0]
	policies := l.Client.NetworkingV1().NetworkPolicies("shop")
	enforced := func(want ...string) {
		t.Helper()
		kit.Must(t, lab.Poll(kit.Context(t, patience), func(context.Context) error {
			if diff := gocmp.Diff(want, policiesIn(kernel(t, l), "shop")); diff != "" {
				return fmt.Errorf("policies in the kernel (-want +got):\n%s", diff)
			}
			return nil
		}))
	}
	kit.Must(t, l.Apply(kit.Context(t, patience), []byte(rule("shop", "before"))))
	enforced("before")
	kit.Must(t, l.API.Backup(kit.Context(t, patience)))
	kit.Must(t, policies.Delete(kit.Context(t, patience), "before", metav1.DeleteOptions{}))
	kit.Must(t, l.Apply(kit.Context(t, patience), []byte(rule("shop", "after"))))
	enforced("after")
	var changed *corev1.Namespace
	for i := range 300 { // so that the count of changes stays behind for as long as this test lasts
		var err error
		changed, err = l.Client.CoreV1().Namespaces().Patch(kit.Context(t, patience), "shop", types.MergePatchType,
			[]byte(fmt.Sprintf(`{"metadata":{"annotations":{"change":"%d"}}}`, i)), metav1.PatchOptions{})
		kit.Must(t, err)
	}
	// The enforcer knows by its own reports how far the count had come.
	kit.Must(t, lab.Poll(kit.Context(t, patience), func(ctx context.Context) error {
		report, err := reportOf(ctx, l, node.Name)
		order := 0
		if err == nil {
			order, err = resourceversion.CompareResourceVersion(report.ResourceVersion, changed.ResourceVersion)
		}
		if err == nil && order < 0 {
			err = errors.New("no report has come since the changes")
		}
		return err
	}))

	kit.Must(t, l.API.Restore(kit.Context(t, patience)))
	kit.Must(t, l.Apply(kit.Context(t, patience), []byte(rule("shop", "new"))))
	kit.Must(t, lab.Poll(kit.Context(t, patience), func(context.Context) error {
		if node.EnforcerPID() != 0 {
			return errors.New("the enforcer goes on with what it knows")
		}
		return nil
	}))
	log, err := os.ReadFile(node.EnforcerLog())
	kit.Must(t, err)
	if !strings.Contains(string(log), "the API server has gone back from resource version ") {
		t.Errorf("the enforcer does not say why it ended:\n%s", log)
	}
	enforced("after")

	kit.Must(t, node.StartEnforcer())
	enforced("before", "new")
}

// rule is a NetworkPolicy that has a rule, whose comment names it.
func rule(namespace, name string) string {
	return fmt.Sprintf(`
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: %s, name: %s}
spec: {podSelector: {matchLabels: {app: server}}, ingress: [{from: [{ipBlock: {cidr: 192.0.2.1/32}}]}]}
`, namespace, name)
}

// policiesIn are the NetworkPolicies of a namespace that a kernel's rules name in their comments.
func policiesIn(held map[string][]string, namespace string) []string {
	var names []string
	for _, lines := range held {
		for _, line := range lines {
			if _, name, ok := strings.Cut(line, "NetworkPolicy "+namespace+"/"); ok {
				names = append(names, name[:strings.IndexAny(name+" ", ` "`)])
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
