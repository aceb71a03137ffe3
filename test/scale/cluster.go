// Package scale plays clusters that are too large to be run: a real API server and the real controller, as its own process, with nodes that are
// a name, pods that nobody runs, and enforcers without a kernel. What is written to the API is counted where it leaves.
//
// Every node's enforcer is a Reporter of controllers/node/report with a token of its own, bound to its node, so that the rights of config/rbac, the admission
// policy and the API server's fairness are as on a cluster. They share connections and what they watch: what a thousand watches cost the API
// server is not part of this.
package scale

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/status"
	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/lab"
	labserver "github.com/ringfence-io/ringfence/lab/apiserver"
	"github.com/ringfence-io/ringfence/lab/host"
	"github.com/ringfence-io/ringfence/lab/process"
	"github.com/ringfence-io/ringfence/test/apiserver"
)

// What config/default calls our programs, and where they run.
const (
	systemNamespace   = "ringfence-system"
	enforcerAccount   = "ringfence-enforcer"
	controllerAccount = "ringfence-controller"
)

// Cluster is one that runs. Its methods are for one goroutine.
type Cluster struct {
	Size
	dir, program string
	host         *host.Host
	server       *labserver.Server
	admin        *rest.Config
	kube         kubernetes.Interface
	client       client.Client
	stop         context.CancelFunc // of what is watched
	statuses     *statuses
	fleet        *fleet
	nodes        *traffic // by node
	counter      *counter // of the controller
	controller   *process.Process
	revision     int
}

// Start starts a cluster with everything but enforcers and a controller. The name is that of a network namespace, and dir an existing
// directory. The caller closes the cluster, also if there was an error.
func Start(ctx context.Context, size Size, program, name, dir string) (*Cluster, error) {
	log.SetLogger(logr.Discard()) // what goes wrong with a watch here, whoever waits for it says
	c := &Cluster{Size: size, program: program, dir: dir, statuses: newStatuses(), nodes: newTraffic()}
	var err error
	if c.host, err = host.New(name); err != nil {
		return c, err
	}
	c.server, err = labserver.Start(ctx, labserver.Options{Host: c.host, Addresses: []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}, Dir: dir})
	if err != nil {
		return c, err
	}
	if c.admin, err = c.server.Config(labserver.Admin); err != nil {
		return c, err
	}
	binary := rest.CopyConfig(c.admin)
	binary.ContentType = runtime.ContentTypeProtobuf
	if c.kube, err = kubernetes.NewForConfig(binary); err != nil {
		return c, fmt.Errorf("making a client: %w", err)
	}
	if c.client, err = Install(ctx, c.admin); err != nil {
		return c, err
	}
	return c, c.fill(ctx)
}

// Install installs our kinds, and what our programs may do, by the rights of an administrator. It returns the client that it has made for that.
func Install(ctx context.Context, admin *rest.Config) (client.Client, error) {
	if err := apiserver.InstallCRDs(admin, apiserver.CRDs); err != nil {
		return nil, err
	}
	writer, err := client.New(admin, client.Options{Scheme: status.Scheme()})
	if err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	rights, err := lab.Rights()
	if err != nil {
		return nil, err
	}
	return writer, create(ctx, writer, rights)
}

func create(ctx context.Context, writer client.Client, objects []*unstructured.Unstructured) error {
	for _, object := range objects {
		if err := writer.Create(ctx, object); err != nil {
			return fmt.Errorf("creating %s %s: %w", object.GetKind(), object.GetName(), err)
		}
	}
	return nil
}

// fill stores namespaces, nodes, pods and policies.
func (c *Cluster) fill(ctx context.Context) error {
	to := newStore(c.host)
	defer to.client.CloseIdleConnections()
	for _, kind := range []struct {
		resource string // in etcd's keys
		count    int
		make     func(i int) storable
	}{
		{"namespaces", c.Namespaces, func(i int) storable { return namespace(i) }},
		{nodesResource, c.Nodes, func(i int) storable { return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: nodeName(i)}} }},
		{"pods", c.AllPods(), func(i int) storable { return c.pod(i/c.Pods, i%c.Pods) }},
		{"networkpolicies", c.Namespaces * c.Policies, func(i int) storable { return c.policy(i/c.Policies, i%c.Policies, 0) }},
	} {
		if err := to.put(ctx, kind.resource, kind.count, kind.make); err != nil {
			return fmt.Errorf("filling the cluster with %s: %w", kind.resource, err)
		}
	}
	if err := c.client.Create(ctx, forEveryone(0)); err != nil {
		return fmt.Errorf("creating the policy for all pods: %w", err)
	}
	return nil
}

// StartEnforcers starts the enforcers of all nodes, some after others, as a DaemonSet's pods start, and waits until each has reported once.
func (c *Cluster) StartEnforcers(ctx context.Context, heartbeat time.Duration) error {
	if c.fleet == nil {
		if err := c.prepareFleet(ctx); err != nil {
			return err
		}
	}
	before := c.nodes.now()
	c.fleet.start(heartbeat)
	return c.everyNodeReports(ctx, before)
}

// StopEnforcers ends them all. What they have reported stays.
func (c *Cluster) StopEnforcers() { c.fleet.stop() }

// prepareFleet watches policies and statuses, and makes the enforcers.
func (c *Cluster) prepareFleet(ctx context.Context) error {
	stores, err := c.watch(ctx)
	if err != nil {
		return err
	}
	var pods []*compile.Pod
	var namespaces []*compile.Namespace
	podList, err := c.kube.CoreV1().Pods("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("reading pods: %w", err)
	}
	var shared compile.Interner
	for i := range podList.Items {
		pods = append(pods, shared.Pod(compile.NewPod(&podList.Items[i])))
	}
	namespaceList, err := c.kube.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("reading namespaces: %w", err)
	}
	for i := range namespaceList.Items {
		namespaces = append(namespaces, compile.NewNamespace(&namespaceList.Items[i]))
	}
	nodes, err := c.makeNodes(ctx)
	if err != nil {
		return err
	}
	c.fleet, err = newFleet(nodes, pods, namespaces, stores)
	return err
}

// watch watches the kinds of policies, by resource.group, and what is said of them.
func (c *Cluster) watch(ctx context.Context) (map[string]toolscache.SharedIndexInformer, error) {
	all, err := cache.New(c.admin, cache.Options{Scheme: status.Scheme()})
	if err != nil {
		return nil, fmt.Errorf("watching: %w", err)
	}
	watching, stop := context.WithCancel(context.Background())
	c.stop = stop
	go func() { _ = all.Start(watching) }() // nothing is watched after an error, and whoever waits for it says so
	stores := map[string]toolscache.SharedIndexInformer{}
	see := func(o any) {
		switch o := o.(type) {
		case *v1alpha1.PolicyEnforcement:
			c.statuses.see(o, &o.Status.EnforcementStatus)
		case *v1alpha1.ClusterNetworkPolicy:
			c.statuses.see(o, &o.Status)
		}
	}
	for _, w := range []struct {
		resource string
		example  client.Object
	}{
		{"networkpolicies.networking.k8s.io", &networkingv1.NetworkPolicy{}},
		{"clusternetworkpolicies.policy.ringfence.io", &v1alpha1.ClusterNetworkPolicy{}},
		{"namespaceisolations.policy.ringfence.io", &v1alpha1.NamespaceIsolation{}},
		{"", &v1alpha1.PolicyEnforcement{}},
	} {
		informer, err := all.GetInformer(ctx, w.example)
		if err != nil {
			return nil, fmt.Errorf("watching %T: %w", w.example, err)
		}
		shared, ok := informer.(toolscache.SharedIndexInformer)
		if !ok {
			return nil, fmt.Errorf("watching %T: the cache gave a %T", w.example, informer)
		}
		if _, err := shared.AddEventHandler(toolscache.ResourceEventHandlerFuncs{AddFunc: see, UpdateFunc: func(_, o any) { see(o) }}); err != nil {
			return nil, fmt.Errorf("watching %T: %w", w.example, err)
		}
		if w.resource != "" {
			stores[w.resource] = shared
		}
	}
	return stores, nil
}

// makeNodes makes the enforcers, each with a token that is bound to its node.
func (c *Cluster) makeNodes(ctx context.Context) ([]*node, error) {
	transport, err := rest.TransportFor(rest.AnonymousClientConfig(c.admin))
	if err != nil {
		return nil, fmt.Errorf("making a transport for the nodes: %w", err)
	}
	ours := rest.AnonymousClientConfig(c.admin)
	ours.QPS, ours.APIPath, ours.GroupVersion = -1, "/apis", &v1alpha1.GroupVersion
	ours.NegotiatedSerializer = serializer.NewCodecFactory(status.Scheme()).WithoutConversion()
	nodes := make([]*node, c.Nodes)
	err = InParallel(c.Nodes, func(i int) error {
		name := nodeName(i)
		uid := uidOf(nodesResource, &metav1.ObjectMeta{Name: name})
		token, err := c.token(ctx, enforcerAccount, &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Node", Name: name, UID: uid})
		if err != nil {
			return err
		}
		nodes[i], err = newNode(name, uid, token, ours, counting{to: c.nodes, sort: func(*http.Request) string { return name }, base: transport})
		return err
	})
	return nodes, err
}

// token asks for one of an account, bound to an object if there is one.
func (c *Cluster) token(ctx context.Context, account string, to *authenticationv1.BoundObjectReference) (string, error) {
	life := int64(24 * 60 * 60)
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &life, BoundObjectRef: to}}
	answer, err := c.kube.CoreV1().ServiceAccounts(systemNamespace).CreateToken(ctx, account, request, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("asking for a token of %s: %w", account, err)
	}
	return answer.Status.Token, nil
}

// StartController starts the controller.
func (c *Cluster) StartController(ctx context.Context) error {
	if c.counter == nil {
		token, err := c.token(ctx, controllerAccount, nil)
		if err != nil {
			return err
		}
		if c.counter, err = newCounter(c.admin); err != nil {
			return err
		}
		if err := c.counter.writeKubeconfig(c.kubeconfig(), token); err != nil {
			return err
		}
	}
	var err error
	c.controller, err = startProgram(c.program, c.kubeconfig(), c.ControllerLog())
	return err
}

func (c *Cluster) kubeconfig() string { return filepath.Join(c.dir, "controller.kubeconfig") }

// ControllerLog is the file that the controller writes its log to.
func (c *Cluster) ControllerLog() string { return filepath.Join(c.dir, "controller.log") }

// StopController asks the controller to end, and waits until it has.
func (c *Cluster) StopController() {
	c.controller.Stop(30 * time.Second)
	c.controller = nil
}

// Close ends everything.
func (c *Cluster) Close() error {
	if c.fleet != nil && c.fleet.stop != nil {
		c.fleet.stop()
	}
	if c.controller != nil {
		c.StopController()
	}
	if c.stop != nil {
		c.stop()
	}
	if c.counter != nil {
		c.counter.server.CloseClientConnections()
		c.counter.server.Close()
	}
	var errs []error
	if c.server != nil {
		c.server.Stop()
	}
	if c.host != nil {
		errs = append(errs, c.host.Close())
	}
	return errors.Join(errs...)
}

// InParallel calls f for every i below n, with a few at once, until one fails.
func InParallel(n int, f func(i int) error) error {
	group, ctx := errgroup.WithContext(context.Background())
	group.SetLimit(32)
	for i := 0; i < n && ctx.Err() == nil; i++ {
		group.Go(func() error { return f(i) })
	}
	return group.Wait()
}
