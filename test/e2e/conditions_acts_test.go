package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/lab"
	"github.com/ringfence-io/ringfence/lab/kubelet"
	"github.com/ringfence-io/ringfence/lab/probe"
	"github.com/ringfence-io/ringfence/test/kit"
)

const (
	churned = 120 // changes of policy, where nothing else happens
	lives   = 8   // of pods that come and go with the same addresses, on each node
)

func policyChurn(t *testing.T, s *stage) string {
	for range churned {
		kit.Must(t, s.changeOne(kit.Context(t, patience)))
	}
	return fmt.Sprintf("%d changes", churned)
}

// podChurn runs, on each node, one pod after another with the same addresses: each other one belongs to those who may reach web.
func podChurn(t *testing.T, s *stage) string {
	var all sync.WaitGroup
	for i, n := range s.lab.Nodes {
		own := []string{fmt.Sprintf("10.244.%d.200", i+1), fmt.Sprintf("fd00:10:244:%d::200", i+1)}
		all.Go(func() {
			for life := range lives {
				pod := actor([]string{"blue", "green"}[life%2], fmt.Sprintf("%s-%d", n.Name, life), n.Name)
				pod.Labels = map[string]string{"app": []string{"client", "stranger"}[life%2], "grade": "a"}
				pod.Annotations = map[string]string{kubelet.Addresses: strings.Join(own, ",")}
				ran, err := s.lab.RunPod(kit.Context(t, patience), pod)
				if err == nil && join(ran.Addresses) != strings.Join(own, ",") {
					err = fmt.Errorf("pod %s has %s", ran.Name, join(ran.Addresses))
				}
				if err = errors.Join(err, s.lab.DeletePod(kit.Context(t, patience), pod.Namespace, pod.Name)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	return fmt.Sprintf("%d pods", lives*len(s.lab.Nodes))
}

const (
	returns    = 8   // of namespaces that were left
	bystanders = 150 // pods in each of these, so that it takes an enforcer some time to know all
)

// reachedAndLeft has policies name the pods of a namespace, then their addresses, until nobody hears of the namespace any more, then the pods again. All other
// time they name all namespaces in between. A policy that came into force before the pods that it names are known would deny what it allows, and allow what it
// denies.
func reachedAndLeft(t *testing.T, s *stage) string {
	for _, namespace := range []string{"blue", "green"} {
		s.stand(t, namespace)
	}
	left := 0
	for i := range returns {
		for part, to := range byAddress {
			kit.Must(t, s.change(kit.Context(t, patience), part, to))
		}
		kit.Must(t, lab.Poll(kit.Context(t, patience), func(ctx context.Context) error {
			// Something has to ask for a sync.
			if err := s.change(ctx, beside, 1-s.at[beside]); err != nil {
				return err
			}
			return s.hears(ctx, "ringfence_watched_namespaces 1", "ringfence_all_pods_watched 0", "ringfence_unknown_namespaces 0")
		}))
		left++
		if i%2 == 1 {
			kit.Must(t, s.change(kit.Context(t, patience), toBlue, 1)) // all namespaces
			kit.Must(t, lab.Poll(kit.Context(t, patience), func(ctx context.Context) error { return s.hears(ctx, "ringfence_all_pods_watched 1") }))
		}
		s.goHome(t)
		kit.Must(t, lab.Poll(kit.Context(t, patience), func(ctx context.Context) error { return s.hears(ctx, "ringfence_unknown_namespaces 0") }))
		pause(t.Context(), 300*time.Millisecond)
	}
	return fmt.Sprintf("%d times left", left)
}

// stand has a namespace hold pods that do nothing.
func (s *stage) stand(t *testing.T, namespace string) {
	t.Helper()
	for i := range bystanders {
		pod := actor(namespace, fmt.Sprintf("bystander-%d", i), "elsewhere")
		pod.Labels = map[string]string{"app": "bystander"}
		_, err := s.lab.Client.CoreV1().Pods(namespace).Create(kit.Context(t, patience), pod, metav1.CreateOptions{})
		kit.Must(t, client.IgnoreAlreadyExists(err))
	}
}

// hears reports whether the metrics of all enforcers have these lines.
func (s *stage) hears(ctx context.Context, lines ...string) error {
	for _, n := range s.lab.Nodes {
		has, err := n.Metrics(ctx)
		if err != nil {
			return err
		}
		for _, line := range lines {
			if !strings.Contains(has, "\n"+line+"\n") {
				return fmt.Errorf("the metrics of %s do not have %q", n.Name, line)
			}
		}
	}
	return nil
}

// kills ends enforcers at random moments of their start, and of what they do then: half of them get as far as to be ready.
func kills(t *testing.T, s *stage) string {
	stop := s.churn(t)
	var all sync.WaitGroup
	for i, n := range s.lab.Nodes {
		all.Go(func() {
			for k := i; k < killCount(t) && !t.Failed(); k += len(s.lab.Nodes) {
				pause(t.Context(), rand.N(2*s.took))
				s.kill(t, n)
			}
		})
	}
	all.Wait()
	return fmt.Sprintf("%d kills, %d changes", killCount(t), stop())
}

// kill ends a node's enforcer as the kernel does that is out of memory, now and then together with the program that it may have started, and starts the
// next one.
func (*stage) kill(t *testing.T, n *lab.Node) {
	t.Helper()
	if pid := n.EnforcerPID(); pid != 0 && rand.N(2) == 0 {
		if err := syscall.Kill(-pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			t.Error(err)
		}
	}
	n.KillEnforcer()
	if err := n.StartEnforcer(); err != nil {
		t.Error(err)
	}
}

// upgrades replaces the enforcers by those of another release, whose chains and sets have other names, and those by the first again.
func upgrades(t *testing.T, s *stage) string {
	return s.takeOver(t, s.next, s.backend, func() {
		before, now := names(s.held), names(s.ours(t))
		for what := range before {
			if slices.Equal(before[what], now[what]) {
				t.Errorf("the other layout has the same names: %s: %q", what, now[what])
				return
			}
		}
	})
}

// switches has the enforcers use the other back end, and the first one again.
func switches(t *testing.T, s *stage) string {
	return s.takeOver(t, s.program, map[string]string{"legacy": "nft", "nft": "legacy"}[s.backend], func() {})
}

// takeOver has other enforcers take over, and the first ones again. All policies have changed since the ones before died; some more do, and some
// enforcers are killed, before the cluster comes to rest and is looked at: nodes hold all that they should, where it should be, and nothing where it was.
func (s *stage) takeOver(t *testing.T, binary, backend string, look func()) string {
	t.Helper()
	takeovers, changes, killed := 2*(1+killCount(t)/100), 0, 0
	for i := range takeovers {
		there := i%2 == 0
		for _, n := range s.lab.Nodes {
			n.KillEnforcer()
			if n.SetEnforcer(s.program, s.backend); there {
				n.SetEnforcer(binary, backend)
			}
		}
		s.changeAll(t)
		for _, n := range s.lab.Nodes {
			kit.Must(t, n.StartEnforcer())
		}
		stop := s.churn(t)
		for _, n := range s.lab.Nodes {
			for range rand.N(3) {
				pause(t.Context(), rand.N(s.took))
				s.kill(t, n)
				killed++
			}
		}
		s.ready(t)
		changes += len(parts) + stop()
		s.goHome(t)
		if there {
			s.complete(t, backend)
			look()
		} else {
			s.holds(t, s.held)
		}
	}
	return fmt.Sprintf("%d takeovers, %d kills, %d changes", takeovers, killed, changes)
}

// complete waits until nodes hold in one back end as many chains and sets of ours as at home, and none in the other.
func (s *stage) complete(t *testing.T, backend string) {
	t.Helper()
	want, got := map[string]int{}, map[string]int{}
	for what, all := range names(s.held) {
		want[strings.Replace(what, "-"+s.backend+"-", "-"+backend+"-", 1)] = len(all)
	}
	kit.Must(t, lab.Poll(kit.Context(t, patience), func(context.Context) error {
		clear(got)
		for what, all := range names(s.ours(t)) {
			got[what] = len(all)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			return fmt.Errorf("nodes do not hold as much as before (-before +now):\n%s", diff)
		}
		return nil
	}))
}

// flushings are what empties tables and sets, whosever they are.
var flushings = [][]string{
	everyTable("legacy"),
	everyTable("nft"),
	slices.Concat([]string{"nft flush ruleset"}, everyTable("legacy")),
	{"ipset flush"},
	slices.Concat(everyTable("legacy"), everyTable("nft"), []string{"nft flush ruleset", "ipset flush"}),
}

// everyTable empties the tables of a back end and then deletes their chains, but for those that an enforcer has filled again meanwhile.
func everyTable(backend string) []string {
	var commands []string
	for _, program := range []string{"iptables-", "ip6tables-"} {
		for _, table := range []string{"raw", "mangle", "nat", "filter", "security"} {
			do := fmt.Sprintf("%s%s -w -t %s", program, backend, table)
			commands = append(commands, do+" -F", "{ "+do+" -X || true; }")
		}
	}
	return commands
}

// flushes empties everything on each node, in several ways, at random moments between two resyncs, and waits each time until all is repaired.
func flushes(t *testing.T, s *stage) string {
	interval := resyncInterval(t)
	for _, n := range s.lab.Nodes {
		n.SetEnforcer(s.program, s.backend, "--resync-interval="+interval.String())
	}
	starting := s.restartAll(t)
	var flushing time.Duration
	var took []time.Duration
	for _, commands := range flushings {
		pause(t.Context(), 2*apart+rand.N(interval))
		began := time.Now()
		for _, n := range s.lab.Nodes {
			_, err := n.Exec(kit.Context(t, patience), "sh", "-c", strings.Join(commands, " && "))
			kit.Must(t, err)
		}
		flushing = max(flushing, time.Since(began))
		s.holds(t, s.held)
		took = append(took, time.Since(began))
	}
	for _, n := range s.lab.Nodes {
		n.SetEnforcer(s.program, s.backend)
	}
	// What a sync takes on this machine, now that it is as busy as it is, shows by how long a start takes: there is one in it.
	s.repair = flushing + interval + max(repairTime, starting, s.restartAll(t))
	return fmt.Sprintf("%d flushes, repaired after %s", len(flushings), percentiles(took))
}

// The policies that are written while the lock is held: blue is let in to web, and nobody to stranger any more.
const (
	openingPolicy = `{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: opening, namespace: red}, ` +
		`spec: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: blue}}}], ports: [{port: 84}]}]}}`
	closingPolicy = `{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: shut, namespace: green}, ` +
		`spec: {podSelector: {matchLabels: {app: stranger}}}}`
)

// underLock are the flows that change with these policies, as they are before.
func (s *stage) underLock(written bool) []probe.Watched {
	var all []probe.Watched
	for _, family := range iptables.Families {
		for _, from := range []string{"client", "remote"} {
			all = append(all, s.flow(from, "web", policy.TCP, 84, family, written), s.flow(from, "stranger", policy.TCP, 83, family, !written))
		}
	}
	return all
}

// lockHeld takes every node's xtables lock while policies change, and while an enforcer that waits for it is killed. What is written meanwhile comes into
// force once the lock is free, and is not said to be in force before.
func lockHeld(t *testing.T, s *stage) string {
	held := fromEnv(t, lockVariable, defaultLockHeld, time.ParseDuration)
	var locks []*os.File
	for _, n := range s.lab.Nodes {
		lock, err := os.OpenFile(n.XtablesLock(), os.O_CREATE, 0o600)
		kit.Must(t, err)
		defer lock.Close()
		kit.Must(t, syscall.Flock(int(lock.Fd()), syscall.LOCK_EX))
		locks = append(locks, lock)
	}
	over := time.Now().Add(held)
	stop := s.churn(t)
	before, err := probe.Watch(s.underLock(false), conditionsRate/10)
	kit.Must(t, err)
	ended := sync.OnceValues(func() (probe.Report, error) { return before.Stop(conditionsGrace) })
	t.Cleanup(func() { _, _ = ended() })
	written := []byte(openingPolicy + "\n---\n" + closingPolicy)
	kit.Must(t, s.lab.Apply(kit.Context(t, patience), written))
	killAt := time.Now().Add(held / 2)
	for time.Now().Before(over) {
		if said := s.programmed(t, "opening", "shut"); len(said) > 0 {
			t.Fatalf("said to be programmed while the lock is held: %q", said)
		}
		if !killAt.IsZero() && time.Now().After(killAt) {
			s.kill(t, s.lab.Nodes[0])
			killAt = time.Time{}
		}
		pause(t.Context(), 100*time.Millisecond)
	}
	freed := time.Now()
	for _, lock := range locks {
		kit.Must(t, lock.Close())
	}
	kit.Must(t, lab.Poll(kit.Context(t, patience), func(context.Context) error {
		if said := s.programmed(t, "opening", "shut"); len(said) < 2 {
			return fmt.Errorf("of two policies only %q are said to be programmed", said)
		}
		return nil
	}))
	after := time.Since(freed)
	report, err := ended()
	kit.Must(t, err)
	for _, changed := range report.Wrong {
		if changed.Sent.Before(freed.Add(-onItsWay)) {
			t.Errorf("the lock was held until %s, and yet: %s", freed.Format(time.StampMicro), changed)
		}
	}
	report, err = probe.Once(s.underLock(true), conditionsRate, conditionsGrace)
	kit.Must(t, err)
	if len(report.Wrong) > 0 {
		t.Errorf("said to be programmed: %s", report)
	}
	kit.Must(t, s.lab.Delete(kit.Context(t, patience), written))
	return fmt.Sprintf("%s held, %d changes, in force %s later", held, stop(), after.Round(time.Millisecond))
}

// onItsWay is how long a packet may be, on a busy machine, between the moment that is noted of it and the rules.
const onItsWay = 100 * time.Millisecond

// programmed are those of some NetworkPolicies that are said to be in force.
func (s *stage) programmed(t *testing.T, policies ...string) []string {
	t.Helper()
	all, err := s.lab.PolicyEnforcements(kit.Context(t, patience))
	kit.Must(t, err)
	var said []string
	for _, e := range all {
		if slices.Contains(policies, e.Name) && meta.IsStatusConditionTrue(e.Status.Conditions, v1alpha1.ProgrammedCondition) {
			said = append(said, e.Name)
		}
	}
	return said
}

// apiAway kills the API server, and enforcers that start without it.
func apiAway(t *testing.T, s *stage) string {
	away := fromEnv(t, awayVariable, defaultAPIAway, time.ParseDuration)
	s.lab.API.Kill()
	over := time.Now().Add(away)
	var restarts atomic.Int32
	var all sync.WaitGroup
	for _, n := range s.lab.Nodes {
		all.Go(func() {
			for time.Now().Before(over) && !t.Failed() {
				s.kill(t, n)
				restarts.Add(1)
				pause(t.Context(), min(rand.N(away/5), time.Until(over)))
			}
		})
	}
	all.Wait()
	kit.Must(t, s.lab.API.Resume(t.Context()))
	s.ready(t)
	for i := range ofPolicies {
		kit.Must(t, s.change(kit.Context(t, patience), i, 1))
	}
	return fmt.Sprintf("%s away, %d restarts", away, restarts.Load())
}
