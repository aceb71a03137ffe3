package watchcost

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
)

// Target is what one watch is of.
type Target struct {
	group     schema.GroupVersion
	kind      string
	resource  string
	namespace string // empty: all
	field     string // a field that must have a value, empty: none
	value     string
	metadata  bool // without spec and status
}

// Pods are all pods of the cluster.
func Pods() Target { return Target{group: corev1.SchemeGroupVersion, kind: "Pod", resource: "pods"} }

// PodsOf are the pods of a namespace.
func PodsOf(namespace int) Target {
	t := Pods()
	t.namespace = namespaceName(namespace)
	return t
}

// PodsAt are the pods of a node.
func PodsAt(node int) Target { return Pods().only("spec.nodeName", nodeName(node)) }

// PodsMetadata are all pods of the cluster, without spec and status.
func PodsMetadata() Target {
	t := Pods()
	t.metadata = true
	return t
}

// PodSlices are all slices.
func PodSlices() Target {
	return Target{group: schema.GroupVersion{Group: sliceGroup, Version: sliceVersion}, kind: "PodSlice", resource: sliceResource}
}

func (t Target) only(field, value string) Target {
	t.field, t.value = field, value
	return t
}

// Others are what the enforcer of a node watches besides pods, if the SIG's kind is not there: eleven watches.
func Others(node int) []Target {
	core := func(kind, resource string) Target {
		return Target{group: corev1.SchemeGroupVersion, kind: kind, resource: resource}
	}
	ours := func(kind, resource string) Target {
		return Target{group: v1alpha1.GroupVersion, kind: kind, resource: resource}
	}
	targets := []Target{
		core("Namespace", "namespaces"),
		core("Node", "nodes").only("metadata.name", nodeName(node)),
		{group: networkingv1.SchemeGroupVersion, kind: "NetworkPolicy", resource: "networkpolicies"},
		ours("ClusterNetworkPolicy", "clusternetworkpolicies"), ours("NamespaceIsolation", "namespaceisolations"),
	}
	for _, name := range []string{
		"clusternetworkpolicies." + v1alpha1.GroupVersion.Group, "namespaceisolations." + v1alpha1.GroupVersion.Group,
		"clusternetworkpolicies.policy.networking.k8s.io",
	} {
		crd := Target{group: apiextensionsv1.SchemeGroupVersion, kind: "CustomResourceDefinition", resource: "customresourcedefinitions"}
		targets = append(targets, crd.only("metadata.name", name))
	}
	for namespace, name := range map[string]string{
		"kube-system": "kube-dns", "openshift-dns": "dns-default", "rke2": "rke2-coredns-rke2-coredns",
	} {
		service := core("Service", "services").only("metadata.name", name)
		service.namespace = namespace
		targets = append(targets, service)
	}
	return targets
}

// hears is how many events of a round come on a watch of pods.
func (t Target) hears(r Round) (events int) {
	for i := range r.pods {
		at := r.size.place(r.first + i)
		switch {
		case t.resource != Pods().resource || t.namespace != "" && t.namespace != at.namespace:
		case t.field == "":
			events += PodEvents
		case t.value == at.node:
			events += PodNodeEvents
		}
	}
	return events
}

// Client watches as an enforcer does.
type Client struct {
	received, sent, connections atomic.Int64

	http    *http.Client
	config  *rest.Config
	codecs  serializer.CodecFactory
	clients map[schema.GroupVersion]rest.Interface
	stop    context.CancelFunc
	ctx     context.Context
	watches []*watch
	reading sync.WaitGroup

	mu    sync.Mutex
	conns []net.Conn
}

// newClient makes a client, which connects when it first asks for something.
func (c *Cluster) newClient() (*Client, error) {
	w := &Client{codecs: codecs(), clients: map[schema.GroupVersion]rest.Interface{}, config: rest.CopyConfig(c.watcher)}
	w.ctx, w.stop = context.WithCancel(context.Background())
	w.config.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := c.host.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		w.connections.Add(1)
		w.mu.Lock()
		defer w.mu.Unlock()
		w.conns = append(w.conns, conn)
		return counted{conn, w}, nil
	}
	var err error
	if w.http, err = rest.HTTPClientFor(w.config); err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	return w, nil
}

// codecs know the kinds that are watched, as the enforcer's do.
var codecs = sync.OnceValue(func() serializer.CodecFactory {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{scheme.AddToScheme, v1alpha1.AddToScheme, apiextensionsv1.AddToScheme} {
		if err := add(s); err != nil {
			panic(err) // no scheme refuses these
		}
	}
	metav1.AddToGroupVersion(s, PodSlices().group)
	return serializer.NewCodecFactory(s)
})

// counted counts the bytes of a connection: all of TLS and HTTP/2, but nothing of TCP.
type counted struct {
	net.Conn
	of *Client
}

// Read reads from the connection.
func (c counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.of.received.Add(int64(n))
	return n, err
}

// Write writes to the connection.
func (c counted) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.of.sent.Add(int64(n))
	return n, err
}

// request is one for a target, with the content that the enforcer asks for.
func (w *Client) request(t Target, options metav1.ListOptions) (*rest.Request, error) {
	if w.clients[t.group] == nil {
		client, err := apiutil.RESTClientForGVK(t.group.WithKind(t.kind), false, false, w.config, w.codecs, w.http)
		if err != nil {
			return nil, fmt.Errorf("making a client of %s: %w", t.group, err)
		}
		w.clients[t.group] = client
	}
	if t.field != "" {
		options.FieldSelector = fields.OneTermEqualSelector(t.field, t.value).String()
	}
	q := w.clients[t.group].Get().Resource(t.resource).NamespaceIfScoped(t.namespace, t.namespace != "").
		VersionedParams(&options, metav1.ParameterCodec)
	if t.metadata {
		as := "PartialObjectMetadata"
		if !options.Watch {
			as += "List"
		}
		q.SetHeader("Accept", "application/vnd.kubernetes.protobuf;as="+as+";g=meta.k8s.io;v=v1")
	}
	return q, nil
}

// watch is one that is open.
type watch struct {
	target    Target
	events    atomic.Int64 // behind the initial ones
	bookmarks atomic.Int64
	initial   chan int // has how many objects there were, once all have come
	ended     chan struct{}
	err       error // why it ended
}

// lasting is longer than any measurement.
const lasting = int64(6 * 60 * 60)

// watch opens a watch from a resource version on; with an empty one it begins with all objects that there are, streamed (WatchList).
func (w *Client) watch(t Target, from string) (*watch, error) {
	options := metav1.ListOptions{Watch: true, AllowWatchBookmarks: true, ResourceVersion: from, TimeoutSeconds: new(lasting)}
	if from == "" {
		options.SendInitialEvents, options.ResourceVersionMatch = new(true), metav1.ResourceVersionMatchNotOlderThan
	}
	q, err := w.request(t, options)
	if err != nil {
		return nil, err
	}
	stream, err := q.Stream(w.ctx)
	if err != nil {
		return nil, fmt.Errorf("watching %s: %w", t.resource, err)
	}
	open := &watch{target: t, initial: make(chan int, 1), ended: make(chan struct{})}
	w.watches = append(w.watches, open)
	w.reading.Go(func() {
		open.err = errors.Join(open.read(stream, from == ""), stream.Close())
		close(open.ended)
	})
	return open, nil
}

// read reads until the watch ends, and tells bookmarks from events: the first bookmark says that all initial objects have come.
func (o *watch) read(stream io.Reader, initially bool) error {
	next := frames(stream)
	for {
		bookmark, err := next()
		switch {
		case err != nil:
			return err
		case bookmark && initially:
			initially = false
			o.initial <- int(o.events.Swap(0))
		case bookmark:
			o.bookmarks.Add(1)
		default:
			o.events.Add(1)
		}
	}
}

// headSize is how much of an event is looked at: its type stands in the beginning of each encoding.
const headSize = 64

// frames returns what reads one event of a watch after another, in either encoding, and reports whether it is a bookmark. An event in Protocol Buffers
// follows its length, whose first byte is zero as no event has 16 MB. One in JSON is a line.
func frames(stream io.Reader) func() (bookmark bool, err error) {
	r := bufio.NewReaderSize(stream, 16<<10)
	return func() (bool, error) {
		first, err := r.Peek(1)
		if err != nil {
			return false, err
		}
		if first[0] == '{' {
			return line(r)
		}
		var length [4]byte
		if _, err := io.ReadFull(r, length[:]); err != nil {
			return false, err
		}
		size := int(binary.BigEndian.Uint32(length[:]))
		head, err := r.Peek(min(size, headSize))
		if err != nil {
			return false, err
		}
		bookmark, err := is(head)
		if err != nil {
			return false, err
		}
		_, err = r.Discard(size)
		return bookmark, err
	}
}

func line(r *bufio.Reader) (bool, error) {
	part, err := r.ReadSlice('\n')
	bookmark, failed := is(part[:min(len(part), headSize)])
	for errors.Is(err, bufio.ErrBufferFull) {
		_, err = r.ReadSlice('\n')
	}
	return bookmark, errors.Join(failed, err)
}

// is reports whether what begins so is a bookmark. It fails for the error with which a server ends a watch.
func is(head []byte) (bookmark bool, err error) {
	if bytes.Contains(head, []byte("ERROR")) {
		return false, fmt.Errorf("the API server has ended a watch: %q", head)
	}
	return bytes.Contains(head, []byte("BOOKMARK")), nil
}

// List reads all objects of a target, as a client does that does not stream them, and returns the size of what came, without compression.
func (w *Client) List(t Target) (size int64, err error) {
	q, err := w.request(t, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return 0, err
	}
	stream, err := q.Stream(w.ctx)
	if err != nil {
		return 0, fmt.Errorf("listing %s: %w", t.resource, err)
	}
	defer func() { err = errors.Join(err, stream.Close()) }()
	return io.Copy(io.Discard, stream)
}

// Stream opens a watch that begins with all objects, and returns how many there are once all have come.
func (w *Client) Stream(t Target) (int, error) {
	open, err := w.watch(t, "")
	if err != nil {
		return 0, err
	}
	select {
	case n := <-open.initial:
		return n, nil
	case <-open.ended:
		return 0, fmt.Errorf("watching %s: %w", t.resource, open.err)
	}
}

// Close ends all that the client has open.
func (w *Client) Close() {
	w.stop()
	w.reading.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, conn := range w.conns {
		conn.Close()
	}
}
