package scale

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/lab"
	"github.com/ringfence-io/ringfence/test/kit/proc"
)

// Cost is what something took that happened in the cluster.
type Cost struct {
	Nodes      Counts // writes of NodeEnforcements, by node
	Controller Counts // requests of the controller, by sort
	News       int    // writes of NodeEnforcements that were no mere signs of life
	Wall       time.Duration
	Use        proc.Usage    // of the controller: the CPU of this time; memory as it is afterwards
	Server     time.Duration // CPU of the API server, with etcd
}

// Says is what the controller wrote, but for its lease.
func (c Cost) Says() Count {
	var sum Count
	for sort, count := range c.Controller {
		if says(sort) {
			sum = sum.Plus(count)
		}
	}
	return sum
}

// meter is what has been counted up to a moment.
type meter struct {
	at     time.Time
	nodes  Counts
	own    Counts
	news   int64
	use    proc.Usage
	server time.Duration
}

func (c *Cluster) read() (meter, error) {
	m := meter{at: time.Now(), nodes: c.nodes.now(), own: Counts{}}
	if c.fleet != nil && c.fleet.news != nil {
		m.news = c.fleet.news.Load()
	}
	if c.counter != nil {
		m.own = c.counter.now()
	}
	if c.controller != nil {
		if err := c.controller.Err(); err != nil {
			return m, err
		}
		var err error
		if m.use, err = proc.UsageOf(c.controller.PID()); err != nil {
			return m, err
		}
	}
	for _, pid := range c.server.PIDs() {
		use, err := proc.UsageOf(pid)
		if err != nil {
			return m, err
		}
		m.server += use.CPU
	}
	return m, nil
}

// Cost is what do took, and what followed from it until nothing was written any more.
func (c *Cluster) Cost(ctx context.Context, do func(context.Context) error) (Cost, error) {
	before, err := c.read()
	if err != nil {
		return Cost{}, err
	}
	ctx, cancel := c.whileItRuns(ctx)
	defer cancel()
	if err := do(ctx); err != nil {
		return Cost{}, err
	}
	took := time.Since(before.at)
	if err := c.Settle(ctx); err != nil {
		return Cost{}, err
	}
	cost, err := c.since(before)
	cost.Wall = took
	return cost, err
}

// whileItRuns ends with the controller, if one was started: nobody would say any more what is waited for, and a controller that has ended is
// quiet for the wrong reason.
func (c *Cluster) whileItRuns(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	if running := c.controller; running != nil {
		go func() {
			select {
			case <-running.Done():
				cancel(running.Err())
			case <-ctx.Done():
			}
		}()
	}
	return ctx, func() { cancel(nil) }
}

func (c *Cluster) since(before meter) (Cost, error) {
	after, err := c.read()
	if err != nil {
		return Cost{}, err
	}
	cost := Cost{
		Nodes: after.nodes.Minus(before.nodes), Controller: after.own.Minus(before.own), News: int(after.news - before.news),
		Wall: after.at.Sub(before.at), Use: after.use, Server: after.server - before.server,
	}
	cost.Use.CPU -= before.use.CPU
	return cost, nil
}

// calm is longer than any pause between two writes that follow from one change: a node waits 1.5 s at most, a policy's counts 1 s.
const calm = 2 * time.Second

// Settle waits until nobody has written anything for a while, but for the lease.
func (c *Cluster) Settle(ctx context.Context) error {
	return lab.Poll(ctx, func(context.Context) error {
		since := time.Now().Add(-calm)
		if sort := c.nodes.restless(since, func(string) bool { return true }); sort != "" {
			return fmt.Errorf("waiting for calm: %s writes", sort)
		}
		return c.controllerIsCalm(since)
	})
}

func (c *Cluster) controllerIsCalm(since time.Time) error {
	if c.controller == nil {
		return nil
	}
	if sort := c.counter.restless(since, says); sort != "" {
		return fmt.Errorf("waiting for calm: the controller writes %s", sort)
	}
	return nil
}

// Begin starts the controller, and says what it took until every policy was programmed and nothing more was written.
func (c *Cluster) Begin(ctx context.Context) (Cost, error) {
	return c.Cost(ctx, func(ctx context.Context) error {
		if err := c.StartController(ctx); err != nil {
			return err
		}
		ctx, cancel := c.whileItRuns(ctx)
		defer cancel()
		return lab.Poll(ctx, func(context.Context) error {
			if n := c.statuses.count(); n < c.AllPolicies() {
				return fmt.Errorf("%d of %d policies are programmed", n, c.AllPolicies())
			}
			return nil
		})
	})
}

// Restart has another controller take over, and says what that took until it had looked at everything.
func (c *Cluster) Restart(ctx context.Context) (Cost, error) {
	c.StopController()
	return c.Cost(ctx, func(ctx context.Context) error {
		leases := c.counter.now()[Leases].Requests
		if err := c.StartController(ctx); err != nil {
			return err
		}
		return c.untilIdle(ctx, func() bool { return c.counter.now()[Leases].Requests >= leases+2 })
	})
}

// untilIdle waits until the controller that was started last has done next to nothing for a while, and has got as far as is said.
func (c *Cluster) untilIdle(ctx context.Context, ready func() bool) error {
	ctx, cancel := c.whileItRuns(ctx)
	defer cancel()
	idle := time.Now() // since when
	var before proc.Usage
	return lab.Poll(ctx, func(context.Context) error {
		use, err := proc.UsageOf(c.controller.PID())
		if err != nil {
			return err
		}
		if !ready() || use.CPU-before.CPU > 30*time.Millisecond {
			idle, before = time.Now(), use
		}
		if time.Since(idle) < calm {
			return fmt.Errorf("the controller still works")
		}
		return nil
	})
}

// Change is one that was made to a policy.
type Change struct {
	Cost
	Concerned int           // nodes
	Strangers []string      // nodes that wrote and were not concerned
	Took      time.Duration // from the beginning of the write to the news that this generation is programmed
}

// ChangeFew changes a policy that selects one application of a namespace.
func (c *Cluster) ChangeFew(ctx context.Context, namespace int) (Change, error) {
	return c.changePolicy(ctx, namespace, 1)
}

// ChangeNamespace changes a policy that selects all pods of a namespace.
func (c *Cluster) ChangeNamespace(ctx context.Context, namespace int) (Change, error) {
	return c.changePolicy(ctx, namespace, 0)
}

func (c *Cluster) changePolicy(ctx context.Context, namespace, i int) (Change, error) {
	c.revision++
	p := c.policy(namespace, i, c.revision)
	return c.change(ctx, c.concerned(namespace, i), func(ctx context.Context) (metav1.Object, error) {
		return c.kube.NetworkingV1().NetworkPolicies(p.Namespace).Update(ctx, p, metav1.UpdateOptions{})
	})
}

// ChangeEveryone changes the policy that selects all pods.
func (c *Cluster) ChangeEveryone(ctx context.Context) (Change, error) {
	return c.change(ctx, c.everywhere(), c.editEveryone)
}

// editEveryone writes another revision of the policy that selects all pods.
func (c *Cluster) editEveryone(ctx context.Context) (metav1.Object, error) {
	c.revision++
	object := &v1alpha1.ClusterNetworkPolicy{}
	if err := c.client.Get(ctx, types.NamespacedName{Name: everyone}, object); err != nil {
		return nil, fmt.Errorf("reading the policy for all pods: %w", err)
	}
	base := object.DeepCopy()
	object.Spec = forEveryone(c.revision).Spec
	return object, c.client.Patch(ctx, object, client.MergeFrom(base))
}

func (c *Cluster) change(ctx context.Context, concerned map[string]bool, write func(context.Context) (metav1.Object, error)) (Change, error) {
	var change Change
	cost, err := c.Cost(ctx, func(ctx context.Context) error {
		var err error
		change.Took, err = c.until(ctx, write)
		return err
	})
	change.Cost, change.Concerned, change.Strangers = cost, len(concerned), strangers(cost.Nodes, concerned)
	return change, err
}

// until writes a policy, and waits until what was written is programmed.
func (c *Cluster) until(ctx context.Context, write func(context.Context) (metav1.Object, error)) (time.Duration, error) {
	began := time.Now()
	o, err := write(ctx)
	if err != nil {
		return 0, fmt.Errorf("changing a policy: %w", err)
	}
	at, err := c.statuses.programmed(ctx, version{types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}, o.GetGeneration()})
	return at.Sub(began), err
}

// strangers are the nodes that wrote and were not concerned.
func strangers(wrote Counts, concerned map[string]bool) []string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(wrote)) {
		if !concerned[name] {
			names = append(names, name)
		}
	}
	return names
}

// Burst creates n policies at once, for one application each, and says how long each of them took.
func (c *Cluster) Burst(ctx context.Context, n int) (Change, []time.Duration, error) {
	concerned := map[string]bool{}
	took := make([]time.Duration, n)
	var change Change
	cost, err := c.Cost(ctx, func(ctx context.Context) error {
		var failed error
		var mu sync.Mutex
		var all sync.WaitGroup
		for i := range n {
			namespace, app := i%c.Namespaces, 1+i/c.Namespaces
			maps.Copy(concerned, c.concerned(namespace, app))
			p := c.named(fmt.Sprintf("burst-%d", i), namespace, app, 0)
			all.Go(func() {
				d, err := c.until(ctx, func(ctx context.Context) (metav1.Object, error) {
					return c.kube.NetworkingV1().NetworkPolicies(p.Namespace).Create(ctx, p, metav1.CreateOptions{})
				})
				mu.Lock()
				defer mu.Unlock()
				took[i] = d
				if err != nil {
					failed = err
				}
			})
		}
		all.Wait()
		return failed
	})
	change.Cost, change.Concerned, change.Strangers = cost, len(concerned), strangers(cost.Nodes, concerned)
	return change, took, err
}

// Quiet watches a cluster in which nothing happens. The controller must have come to rest before, and not write anything; enforcers may write
// signs of life.
func (c *Cluster) Quiet(ctx context.Context, d time.Duration) (Cost, error) {
	ctx, cancel := c.whileItRuns(ctx)
	defer cancel()
	if err := lab.Poll(ctx, func(context.Context) error { return c.controllerIsCalm(time.Now().Add(-calm)) }); err != nil {
		return Cost{}, err
	}
	before, err := c.read()
	if err != nil {
		return Cost{}, err
	}
	select {
	case <-time.After(d):
	case <-ctx.Done():
		return Cost{}, context.Cause(ctx)
	}
	return c.since(before)
}
