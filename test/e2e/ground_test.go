package e2e

import (
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/ringfence-io/ringfence/lab"
	"github.com/ringfence-io/ringfence/lab/cni"
	"github.com/ringfence-io/ringfence/test/kit"
)

// onNode runs a program in the network of a node.
func onNode(t *testing.T, n *lab.Node, name string, args ...string) {
	t.Helper()
	_, err := n.Exec(kit.Context(t, patience), name, args...)
	kit.Must(t, err)
}

// TestWhatChangesUnderTheRulesIsSaid: while everything runs, another program does to a node what an enforcer sees only by looking again. One
// switches br_netfilter's setting off, by which pods of one bridge reach each other whatever policies say: a policy that selects them is not programmed, on
// that node and no other, until it is on again. One makes kube-proxy's link of the mode ipvs. One clamps the MSS in mangle by a rule of nft: changes are enforced
// as before.
func TestWhatChangesUnderTheRulesIsSaid(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil {
		t.Fatal("nft is not installed: make deps-test")
	}
	l := start(t, lab.Options{Nodes: 2, CNI: cni.Bridge, Backend: "nft", Controller: true, EnforcerArgs: []string{"--resync-interval=1s"}})
	own := newLaneOn(t, l, "ground", "n1", "n2")
	elsewhere := newLaneOn(t, l, "elsewhere", "n2")
	n1 := l.Node("n1")
	var probes, wrong atomic.Int64
	for _, ns := range []string{"ground", "elsewhere"} {
		kit.Must(t, l.Apply(kit.Context(t, patience), []byte(deny(ns, "closed"))))
		kubectl(t, l, "wait", "-n", ns, "--for=create", "policyenforcement/closed", "--timeout=30s")
		kubectl(t, l, "wait", "-n", ns, "--for=condition=Programmed", "policyenforcement/closed", "--timeout=30s")
	}
	own.expect(t, false, "while all is as it should be", &probes, &wrong)

	onNode(t, n1, "sysctl", "-w", "net.bridge.bridge-nf-call-iptables=0")
	kubectl(t, l, "wait", "-n", "ground", "--for=condition=Programmed=false", "policyenforcement/closed", "--timeout=30s")
	what := kubectl(t, l, "get", "-n", "ground", "policyenforcement/closed",
		`-o=jsonpath={.status.nodes.programmed} {.status.nodes.notProgrammed[*].name} {.status.conditions[?(@.type=="Programmed")].reason}`)
	if what != "1 n1 NodesFailing" {
		t.Errorf("with the setting off on n1, the policy's status says: %s", what)
	}
	what = kubectl(t, l, "get", "-n", "elsewhere", "policyenforcement/closed", `-o=jsonpath={.status.conditions[?(@.type=="Programmed")].status}`)
	if what != "True" {
		t.Errorf("a policy that selects no pod of n1 is programmed: %s", what)
	}
	what = kubectl(t, l, "get", "nodeenforcement/n1", `-o=jsonpath={.status.findings[*].name} {.status.conditions[?(@.type=="BridgesPoliced")].reason}`)
	if !strings.Contains(what, "bridge-nf-call-iptables") || !strings.HasSuffix(what, "BridgeFilterOff") {
		t.Errorf("n1 says of itself: %s", what)
	}
	if !said(t, n1, "this node lacks something: bridge-nf-call-iptables") {
		t.Error("the log of n1 does not say it")
	}
	onNode(t, n1, "sysctl", "-w", "net.bridge.bridge-nf-call-iptables=1")
	kubectl(t, l, "wait", "-n", "ground", "--for=condition=Programmed", "policyenforcement/closed", "--timeout=30s")

	onNode(t, n1, "ip", "link", "add", "kube-ipvs0", "type", "bridge")
	for _, family := range []string{"ip", "ip6"} {
		onNode(t, n1, "nft", "add table "+family+" mangle; add chain "+family+" mangle FORWARD { type filter hook forward priority -150; }; "+
			"add rule "+family+" mangle FORWARD tcp flags syn tcp option maxseg size set rt mtu")
	}
	kubectl(t, l, "wait", "nodeenforcement/n1", `--for=jsonpath={.status.findings[?(@.name=="IPVS")].severity}=degraded`, "--timeout=30s")

	// An enforcer that starts there has to clean up elsewhere too.
	kit.Must(t, n1.RestartEnforcer())
	kit.Must(t, l.WaitEnforcers(kit.Context(t, patience)))
	kubectl(t, l, "delete", "-n", "ground", "networkpolicy/closed")
	kit.Must(t, l.Apply(kit.Context(t, patience), []byte(deny("ground", "again"))))
	kubectl(t, l, "wait", "-n", "ground", "--for=create", "policyenforcement/again", "--timeout=30s")
	kubectl(t, l, "wait", "-n", "ground", "--for=condition=Programmed", "policyenforcement/again", "--timeout=30s")
	own.expect(t, false, "beside a rule that iptables cannot show", &probes, &wrong)
	elsewhere.expect(t, false, "elsewhere", &probes, &wrong)
	t.Logf("%d probes, %d wrong", probes.Load(), wrong.Load())
}
