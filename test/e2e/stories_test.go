package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	eventsv1 "k8s.io/api/events/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/status"
	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/lab"
	"github.com/ringfence-io/ringfence/lab/probe"
	"github.com/ringfence-io/ringfence/test/kit"
)

// told is a lab in which statuses are looked at while something goes wrong.
type told struct {
	*lab.Lab
	client client.Client
}

// tell starts a lab with a controller. Its nodes look at their kernel, and are taken for silent, within seconds.
func tell(t *testing.T, nodes int) *told {
	t.Helper()
	l := start(t, lab.Options{
		Nodes: nodes, Controller: true,
		EnforcerArgs: []string{"--heartbeat-interval=2s", "--resync-interval=2s"},
	})
	c, err := client.New(l.Config, client.Options{Scheme: status.Scheme()})
	kit.Must(t, err)
	return &told{l, c}
}

// standing is what a PolicyEnforcement says, in the words that tests expect.
type standing struct {
	Programmed  string // "True/Programmed", "False/NodesFailing", ...
	Pods, Nodes int32
	Enforcing   int32    // nodes
	Not         []string // the other nodes, as "n2 Failing"
}

// on is that a policy is in force on all of some nodes.
func on(nodes, pods int32) standing {
	return standing{Programmed: "True/Programmed", Pods: pods, Nodes: nodes, Enforcing: nodes}
}

// says waits until a NetworkPolicy is said to stand like this, at its present generation, and returns what is said of it. The message of its
// Programmed condition holds all of the words.
func (l *told) says(t *testing.T, namespace, name string, want standing, words ...string) *v1alpha1.PolicyEnforcement {
	t.Helper()
	key := client.ObjectKey{Namespace: namespace, Name: name}
	var last *v1alpha1.PolicyEnforcement
	kit.Must(t, lab.Poll(kit.Context(t, patience), func(ctx context.Context) error {
		np, e := &networkingv1.NetworkPolicy{}, &v1alpha1.PolicyEnforcement{}
		if err := l.client.Get(ctx, key, np); err != nil {
			return err
		}
		if err := l.client.Get(ctx, key, e); err != nil {
			return err
		}
		last = e
		c := meta.FindStatusCondition(e.Status.Conditions, v1alpha1.ProgrammedCondition)
		if c == nil || c.ObservedGeneration != np.Generation || e.Status.PolicyGeneration != np.Generation {
			return fmt.Errorf("nothing is said of generation %d of NetworkPolicy %s: %v", np.Generation, key, e.Status)
		}
		got := standing{
			Programmed: string(c.Status) + "/" + c.Reason, Pods: e.Status.Pods, Nodes: e.Status.Nodes.Desired, Enforcing: e.Status.Nodes.Programmed,
		}
		for _, n := range e.Status.Nodes.NotProgrammed {
			got.Not = append(got.Not, n.Name+" "+string(n.Standing))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			return fmt.Errorf("NetworkPolicy %s is said to stand otherwise, %q (-want +got):\n%s", key, c.Message, diff)
		}
		return holds("the message", c.Message, words...)
	}))
	return last
}

// holds reports which of the words are not in a text.
func holds(what, text string, words ...string) error {
	for _, w := range words {
		if !strings.Contains(text, w) {
			return fmt.Errorf("%s does not say %q: %s", what, w, text)
		}
	}
	return nil
}

// reports waits until a node's report is as it should be.
func (l *told) reports(t *testing.T, node string, right func(*v1alpha1.NodeEnforcementStatus) error) {
	t.Helper()
	kit.Must(t, lab.Poll(kit.Context(t, patience), func(ctx context.Context) error {
		n := &v1alpha1.NodeEnforcement{}
		if err := l.client.Get(ctx, client.ObjectKey{Name: node}, n); err != nil {
			return err
		}
		if err := right(&n.Status); err != nil {
			return fmt.Errorf("NodeEnforcement %s: %w", node, err)
		}
		return nil
	}))
}

// enforcing is what a node says of its last sync, as "True/Enforcing".
func enforcing(s *v1alpha1.NodeEnforcementStatus) string {
	c := meta.FindStatusCondition(s.Conditions, v1alpha1.EnforcingCondition)
	if c == nil {
		return "nothing"
	}
	return string(c.Status) + "/" + c.Reason
}

// events waits until there are Events of these kinds about an object, as "Warning NodesFailing".
func (l *told) events(t *testing.T, of client.Object, want ...string) {
	t.Helper()
	kit.Must(t, lab.Poll(kit.Context(t, patience), func(ctx context.Context) error {
		all := &eventsv1.EventList{}
		if err := l.client.List(ctx, all); err != nil {
			return err
		}
		var got []string
		for _, e := range all.Items {
			if e.Regarding.UID == of.GetUID() {
				got = append(got, e.Type+" "+e.Reason)
			}
		}
		for _, w := range want {
			if !slices.Contains(got, w) {
				return fmt.Errorf("no Event %q about %s, but %q", w, of.GetName(), got)
			}
		}
		return nil
	}))
}

// policy reads a NetworkPolicy.
func (l *told) policy(t *testing.T, namespace, name string) *networkingv1.NetworkPolicy {
	t.Helper()
	np := &networkingv1.NetworkPolicy{}
	kit.Must(t, l.client.Get(kit.Context(t, patience), client.ObjectKey{Namespace: namespace, Name: name}, np))
	return np
}

// iptables runs the iptables program of the back end that a node uses, for IPv4.
func (l *told) iptables(t *testing.T, node string, args ...string) {
	t.Helper()
	kit.Must(t, l.tryIPTables(kit.Context(t, patience), node, args...))
}

func (l *told) tryIPTables(ctx context.Context, node string, args ...string) error {
	n := &v1alpha1.NodeEnforcement{}
	if err := l.client.Get(ctx, client.ObjectKey{Name: node}, n); err != nil {
		return err
	}
	_, err := l.Node(node).Exec(ctx, "iptables-"+n.Status.Backend, append([]string{"-w"}, args...)...)
	return err
}

// closed tries all servers at once: none is reached.
func (own *lane) closed(t *testing.T, when string) {
	t.Helper()
	var probes, wrong atomic.Int64
	own.expect(t, false, when, &probes, &wrong)
}

// becomesClosed waits until no server is reached, without asking what is said.
func (own *lane) becomesClosed(t *testing.T) {
	t.Helper()
	kit.Must(t, lab.Poll(kit.Context(t, patience), func(context.Context) error {
		for _, s := range own.servers {
			for _, result := range own.lab.Probe(own.client, s, policy.TCP, 8080, probe.Patience{Timeout: 300 * time.Millisecond, Retry: 100 * time.Millisecond}) {
				if result.Outcome == probe.Reached {
					return fmt.Errorf("%s is reached", s.Name)
				}
			}
		}
		return nil
	}))
}

// TestWhatIsSaidOfPolicies tells one story after the other in one lab: what a person reads when all is well, when nodes fail, fall silent and go,
// and when those are away who say it. What was enforced is tried all the while.
func TestWhatIsSaidOfPolicies(t *testing.T) {
	l := tell(t, 3)
	for _, story := range []struct {
		name string
		tell func(*told, *testing.T)
	}{
		{"what kubectl shows", (*told).whatKubectlShows},
		{"a change is waited for", (*told).aChangeIsWaitedFor},
		{"a policy without pods, and a pod that comes, moves and goes", (*told).podsComeAndMove},
		{"a node's kernel refuses a set", (*told).aKernelRefuses},
		{"somebody empties a chain", (*told).somebodyEmptiesAChain},
		{"an enforcer is down", (*told).anEnforcerIsDown},
		{"a node is deleted", (*told).aNodeIsDeleted}, // n3 is gone from here on
		{"the controller restarts", (*told).theControllerRestarts},
		{"of two controllers, the one that leads is killed", (*told).theLeaderIsKilled}, // c2 leads from here on
		{"the API server is away", (*told).theAPIServerIsAway},
	} {
		began := time.Now()
		if !t.Run(story.name, func(t *testing.T) { story.tell(l, t) }) {
			return // the next one would begin from what nobody knows
		}
		t.Logf("%s: %s", story.name, time.Since(began).Round(10*time.Millisecond))
	}
}

// refused is a policy with a set: servers reach each other, and nobody else reaches them.
const refused = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: refused, name: servers}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress: [{from: [{podSelector: {matchLabels: {app: server}}}]}]
`

// aKernelRefuses has the kernel of n2 refuse the policy's set: a set of another type has its name, and a rule of somebody else's refers to that.
func (l *told) aKernelRefuses(t *testing.T) {
	own := newLane(t, l.Lab, "refused")
	kit.Must(t, l.Apply(kit.Context(t, patience), []byte(refused)))
	l.says(t, "refused", "servers", on(3, 3))
	name := l.setOf(t, "n2")
	kit.Must(t, l.Delete(kit.Context(t, patience), []byte(refused)))
	kit.Must(t, lab.Poll(kit.Context(t, patience), func(context.Context) error {
		if sets := l.sets(t, "n2"); slices.Contains(sets, name) {
			return fmt.Errorf("the set %s outlives its policy: %v", name, sets)
		}
		return nil
	}))
	l.iptables(t, "n2", "-N", "foreign")
	kit.Must(t, lab.Poll(kit.Context(t, patience), func(ctx context.Context) error { // a resync in between takes the set away again
		if _, err := l.Node("n2").Exec(ctx, "ipset", "create", "-exist", name, "hash:net"); err != nil {
			return err
		}
		return l.tryIPTables(ctx, "n2", "-A", "foreign", "-m", "set", "--match-set", name, "src", "-j", "RETURN")
	}))

	kit.Must(t, l.Apply(kit.Context(t, patience), []byte(refused)))
	const words = "a rule still refers to the set"
	l.says(t, "refused", "servers", standing{Programmed: "False/NodesFailing", Pods: 3, Nodes: 3, Enforcing: 2, Not: []string{"n2 Failing"}},
		"1 of 3 nodes do not enforce generation 1: n2; n2: it cannot put a change in force", "its NodeEnforcement and its enforcer's log have the reason")
	l.reports(t, "n2", func(s *v1alpha1.NodeEnforcementStatus) error {
		if got := enforcing(s); got != "False/Refused" || s.Failing != 1 || len(s.FailingPolicies) != 1 {
			return fmt.Errorf("it is %s, with %d failing policies, named: %v", got, s.Failing, s.FailingPolicies)
		}
		failing := s.FailingPolicies[0]
		message := failing.Message
		failing.Message = ""
		if diff := cmp.Diff(v1alpha1.FailingPolicy{Kind: "NetworkPolicy", Namespace: "refused", Name: "servers", Generation: 1}, failing); diff != "" {
			return fmt.Errorf("another policy fails (-want +got):\n%s", diff)
		}
		return holds("the failing policy", message, name, words)
	})
	l.reports(t, "n1", func(s *v1alpha1.NodeEnforcementStatus) error {
		if got := enforcing(s); got != "True/Enforcing" || s.Failing != 0 {
			return fmt.Errorf("it is %s, with %d failing policies", got, s.Failing)
		}
		return nil
	})
	np := l.policy(t, "refused", "servers")
	l.events(t, np, "Warning NodesFailing")
	l.says(t, "shown", "servers", on(3, 3)) // what was in force on n2 before still is

	l.iptables(t, "n2", "-F", "foreign")
	l.iptables(t, "n2", "-X", "foreign")
	l.says(t, "refused", "servers", on(3, 3), "enforced on 3 pods, on 3 nodes")
	own.closed(t, "once the kernel of n2 has taken it")
	l.reports(t, "n2", func(s *v1alpha1.NodeEnforcementStatus) error {
		if got := enforcing(s); got != "True/Enforcing" || s.Failing != 0 || len(s.FailingPolicies) != 0 {
			return fmt.Errorf("it is %s, with %d failing policies", got, s.Failing)
		}
		return nil
	})
	l.events(t, np, "Warning NodesFailing", "Normal Programmed")
}

// setOf is the one set of IPv4 addresses that a node holds.
func (l *told) setOf(t *testing.T, node string) string {
	t.Helper()
	var found []string
	for _, name := range l.sets(t, node) {
		if strings.HasPrefix(name, "RF-v1-4A-") {
			found = append(found, name)
		}
	}
	if len(found) != 1 {
		t.Fatalf("node %s holds the sets %v, not one", node, found)
	}
	return found[0]
}

func (l *told) sets(t *testing.T, node string) []string {
	t.Helper()
	out, err := l.Node(node).Exec(kit.Context(t, patience), "ipset", "list", "-n")
	kit.Must(t, err)
	return strings.Fields(string(out))
}

// somebodyEmptiesAChain breaks what n1 enforces. The node mends it by itself, and says that there was something to mend.
func (l *told) somebodyEmptiesAChain(t *testing.T) {
	own := newLane(t, l.Lab, "emptied")
	kit.Must(t, l.Apply(kit.Context(t, patience), []byte(deny("emptied", "servers"))))
	l.says(t, "emptied", "servers", on(3, 3))
	var before int64
	l.reports(t, "n1", func(s *v1alpha1.NodeEnforcementStatus) error {
		before = s.Repairs.Count
		return nil
	})
	l.iptables(t, "n1", "-t", "security", "-F", "RF-FORWARD")
	l.reports(t, "n1", func(s *v1alpha1.NodeEnforcementStatus) error {
		if s.Repairs.Count != before+1 || s.Repairs.LastTime == nil {
			return fmt.Errorf("%d repairs, after %d: %v", s.Repairs.Count, before, s.Repairs)
		}
		return holds("the last repair", s.Repairs.Last, "others had changed table: 1")
	})
	own.closed(t, "once n1 is repaired")
	l.says(t, "emptied", "servers", on(3, 3))
}

// anEnforcerIsDown kills the enforcer of n3. Its node falls silent and is known to have been left with what it had; a new policy is not in force there.
func (l *told) anEnforcerIsDown(t *testing.T) {
	own := newLane(t, l.Lab, "down")
	kit.Must(t, l.Apply(kit.Context(t, patience), []byte(deny("down", "servers"))))
	l.says(t, "down", "servers", on(3, 3))
	n3 := l.Node("n3")
	n3.KillEnforcer()
	kit.Must(t, l.Apply(kit.Context(t, patience), []byte(deny("down", "late"))))
	silent := standing{Programmed: "False/NodesUnknown", Pods: 3, Nodes: 3, Enforcing: 2, Not: []string{"n3 Unknown"}}
	const words = "its enforcer has not been heard of for too long"
	l.says(t, "down", "servers", silent, "1 of 3 nodes do not enforce generation 1: n3; n3: ", words, "what it enforced is still in force")
	l.says(t, "down", "late", silent, words)
	own.closed(t, "while the enforcer of n3 is down")
	l.events(t, l.policy(t, "down", "servers"), "Normal Programmed", "Warning NodesUnknown")
	l.aNewControllerKnows(t, silent)

	// What it finds missing at its start, it reports.
	const missing = "net.bridge.bridge-nf-call-iptables"
	_, err := n3.Exec(kit.Context(t, patience), "sysctl", "-w", missing+"=0")
	kit.Must(t, err)
	kit.Must(t, n3.StartEnforcer())
	l.reports(t, "n3", func(s *v1alpha1.NodeEnforcementStatus) error {
		for _, f := range s.Findings {
			if strings.Contains(f.Detail+f.Name, "bridge-nf-call-iptables") && f.Severity == "degraded" && f.Cost != "" && f.Remedy != "" {
				return nil
			}
		}
		return fmt.Errorf("no finding about %s: %v", missing, s.Findings)
	})
	_, err = n3.Exec(kit.Context(t, patience), "sysctl", "-w", missing+"=1") // without it, what pods of a bridge send each other passes no policy, and none is programmed
	kit.Must(t, err)
	l.says(t, "down", "servers", on(3, 3))
	l.says(t, "down", "late", on(3, 3))
	l.says(t, "down", "later", on(3, 3))
	own.closed(t, "once the enforcer of n3 is back")
}

// aNewControllerKnows of the node that has fallen silent before it came: it does not take what it finds for a report that has just come.
func (l *told) aNewControllerKnows(t *testing.T, silent standing) {
	t.Helper()
	before := l.says(t, "down", "servers", silent)
	l.StopController("c1")
	kit.Must(t, l.StartController("c1"))
	kit.Must(t, l.Apply(kit.Context(t, patience), []byte(deny("down", "later"))))
	l.says(t, "down", "later", silent) // it has waited for n3 itself
	if after := l.says(t, "down", "servers", silent); after.ResourceVersion != before.ResourceVersion {
		t.Errorf("the new controller has said something else of the policy meanwhile: %+v", after.Status)
	}
}

// aNodeIsDeleted takes n3 out of the cluster: its pods are not counted any more, though nobody has deleted them yet.
func (l *told) aNodeIsDeleted(t *testing.T) {
	own := newLane(t, l.Lab, "deleted")
	kit.Must(t, l.Apply(kit.Context(t, patience), []byte(deny("deleted", "servers"))))
	l.says(t, "deleted", "servers", on(3, 3))
	l.Node("n3").KillEnforcer()
	kit.Must(t, l.Client.CoreV1().Nodes().Delete(kit.Context(t, patience), "n3", metav1.DeleteOptions{}))
	l.says(t, "deleted", "servers", on(2, 2), "enforced on 2 pods, on 2 nodes")
	// What the garbage collector of a cluster does. The policies stay as they are.
	kit.Must(t, l.client.Delete(kit.Context(t, patience), &v1alpha1.NodeEnforcement{ObjectMeta: metav1.ObjectMeta{Name: "n3"}}))
	kit.Must(t, l.Apply(kit.Context(t, patience), []byte(deny("deleted", "late"))))
	l.says(t, "deleted", "late", on(2, 2))
	l.says(t, "deleted", "servers", on(2, 2))
	own.closed(t, "once n3 is deleted")
}
