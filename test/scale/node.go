package scale

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/node/report"
	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// node is an enforcer without a kernel: it knows what concerns its node, and reports it as enforcers do.
type node struct {
	name     string
	uid      types.UID
	writer   report.Writer
	reporter *report.Reporter
	stop     func()     // ends the reporter
	held     sync.Mutex // whoever holds it holds up the node's reports
	objects  map[policy.Ref]policy.Object
	pods     map[*compile.Pod]int // how many policies select each
	concerns policy.Concerns
	stale    bool // the concerns are not those of objects and pods
}

// newNode makes the enforcer of a node, whose token it has. Its requests go through transport.
func newNode(name string, uid types.UID, token string, config *rest.Config, transport http.RoundTripper) (*node, error) {
	c, err := rest.RESTClientForConfigAndClient(config, &http.Client{Transport: bearer{token, transport}})
	if err != nil {
		return nil, fmt.Errorf("making a client of %s: %w", name, err)
	}
	return &node{name: name, uid: uid, writer: report.NewWriter(c)}, nil
}

// start starts the node's enforcer, as a new process.
func (n *node) start(ctx context.Context, heartbeat time.Duration, news *atomic.Int64) {
	ctx, cancel := context.WithCancel(ctx)
	w := &paced{Writer: n.writer, held: &n.held, heartbeat: heartbeat, news: news}
	n.reporter = report.NewReporter(n.name, w, func() types.UID { return n.uid }, heartbeat, facts, nil)
	var run sync.WaitGroup
	run.Go(func() { _ = n.reporter.Start(ctx) }) // it returns nil when ctx ends
	n.stop = func() {
		cancel()
		run.Wait()
	}
}

// hold holds up the node's reports until release is called, which may be called again.
func (n *node) hold() (release func()) {
	n.held.Lock()
	return sync.OnceFunc(n.held.Unlock)
}

// facts are what an enforcer says of an ordinary node.
var facts = v1alpha1.NodeEnforcementStatus{
	Version: "v0.1.0", Backend: "nft", IPTablesVersion: "v1.8.11 (nf_tables)", Table: "security",
	Families: []v1alpha1.Family{v1alpha1.IPv4, v1alpha1.IPv6},
}

// add notes a policy that selects pods here.
func (n *node) add(o policy.Object, pods []*compile.Pod) {
	n.objects[o.Ref] = o
	for _, p := range pods {
		n.pods[p]++
	}
	n.stale = true
}

// remove forgets it.
func (n *node) remove(ref policy.Ref, pods []*compile.Pod) {
	delete(n.objects, ref)
	for _, p := range pods {
		if n.pods[p]--; n.pods[p] == 0 {
			delete(n.pods, p)
		}
	}
	n.stale = true
}

// concern is what a compile for the node would say of its concerns.
func (n *node) concern(namespaces map[string]*compile.Namespace) policy.Concerns {
	if !n.stale {
		return n.concerns
	}
	n.concerns = policy.Concerns{
		Objects: slices.SortedFunc(maps.Values(n.objects), func(a, b policy.Object) int { return a.Ref.Compare(b.Ref) }),
	}
	for p := range n.pods {
		n.concerns.Pods = append(n.concerns.Pods, p.Digest(namespaces[p.Namespace]))
	}
	slices.Sort(n.concerns.Pods)
	n.stale = false
	return n.concerns
}

// bearer adds a token to requests.
type bearer struct {
	token string
	base  http.RoundTripper
}

// RoundTrip sends the request on.
func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+b.token)
	return b.base.RoundTrip(r)
}

// paced counts the reports that come sooner after the node's last one than a sign of life would: they say that something has changed.
type paced struct {
	report.Writer
	held      *sync.Mutex
	heartbeat time.Duration
	last      time.Time
	news      *atomic.Int64
}

// WriteReport writes the report. A Reporter writes one at a time.
func (p *paced) WriteReport(ctx context.Context, report *v1alpha1.NodeEnforcement) error {
	p.held.Lock()
	p.held.Unlock() //nolint:staticcheck // the report waits for as long as another holds it
	now := time.Now()
	if now.Sub(p.last) < p.heartbeat {
		p.news.Add(1)
	}
	p.last = now
	return p.Writer.WriteReport(ctx, report)
}
