package scene

import (
	"fmt"
	"path/filepath"

	"github.com/ringfence-io/ringfence/lab/apiserver"
)

// suggest names the next commands to try.
func (s *scene) suggest(r *Result) {
	w := s.opts.Out
	if s.opts.JSON {
		w = s.opts.Progress
	}
	save := "iptables-save"
	if r.Backend != "auto" {
		save = "iptables-" + r.Backend + "-save"
	}
	program := s.opts.Program + " lab probe"
	if s.opts.Name != DefaultName {
		program += " --name " + s.opts.Name
	}
	node := s.lab.Nodes[0]
	commands := []struct{ what, command string }{
		{"the policies and the pods", "kubectl get rfcnp,nsiso,networkpolicies,pods -A -o wide"},
		{"are the policies enforced, on which nodes not, and why",
			"kubectl get policyenforcements,clusternetworkpolicies.policy.ringfence.io,namespaceisolations -A -o wide"},
		{"what node " + node.Name + " enforces", fmt.Sprintf("ip netns exec %s %s -t security", node.Host.Name(), save)},
		{"try a connection", program + " outsider/visitor shop/backend:http"},
		{"open the backend to it", "kubectl -n shop apply -f - <<'END'\n" + openBackend + "END"},
		{"and close it again", "kubectl -n shop delete networkpolicy visitor"},
		{"isolate tenants before all NetworkPolicies, in Audit", "kubectl apply -f - <<'END'\n" + isolateTenants + "END"},
		{"what that would deny: try a connection, then", fmt.Sprintf("ip netns exec %s %s audit", node.Host.Name(), s.opts.Program)},
		{"have it denied, and free again", "kubectl patch nsiso tenants --type merge -p '{\"spec\":{\"mode\":\"Enforce\"}}'\n  kubectl delete nsiso tenants"},
		{"tear down the wall around the database", "kubectl delete rfcnp database-wall"},
		{"what the enforcer does meanwhile", "tail -f " + filepath.Join(s.lab.Dir, node.Name+"-enforcer.log")},
	}
	fmt.Fprintf(w, "\nThe lab stays up until Ctrl-C. In another shell, as root:\n\n  export KUBECONFIG=%s\n", s.lab.Kubeconfig)
	if kubectl := apiserver.Kubectl(); kubectl != "kubectl" {
		fmt.Fprintf(w, "  alias kubectl=%s\n", kubectl)
	}
	for _, c := range commands {
		fmt.Fprintf(w, "\n  # %s\n  %s\n", c.what, c.command)
	}
	fmt.Fprintln(w)
}

// DefaultName is the name of a scene that was given none.
const DefaultName = "lab"

// openBackend lets the outsider's pod reach the shop's backend.
const openBackend = `apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: visitor}
spec:
  podSelector: {matchLabels: {app: backend}}
  ingress:
  - from:
    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: outsider}}
`

// isolateTenants denies what passes between tenants, were it not for its mode.
const isolateTenants = `apiVersion: policy.ringfence.io/v1alpha1
kind: NamespaceIsolation
metadata: {name: tenants}
spec: {mode: Audit, tier: Admin, tenantLabel: tenant, namespaceSelector: {}}
`
