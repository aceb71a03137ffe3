//go:build cluster

package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/ringfence-io/ringfence/test/kit"
)

// namespaces are those of config/samples/application, and guarded those that config/samples/policies has policies for.
var (
	namespaces = []string{"shop", "monitoring", "outsider"}
	guarded    = namespaces[:2]
)

// What the sample policies demand, by the API's texts. A pod always reaches itself.
const demanded = `
from \ to              frontend-8080 frontend-9113 backend-8080 backend-9100 database-5432 database-9187 prometheus-9090 prometheus-8125/udp visitor-8080
shop/frontend          yes           yes           yes          no           no            no            no              yes                 no
shop/backend           no            no            yes          yes          yes           no            no              yes                 no
shop/database          no            no            no           no           yes           yes           no              no                  no
monitoring/prometheus  no            yes           no           yes          no            yes           yes             yes                 no
outsider/visitor       yes           no            no           no           no            no            no              no                  yes
`

// pair is who tries to reach what: "shop/frontend" and "backend-8080", as in demanded.
type pair struct{ from, to string }

// reach is who reaches whom.
type reach map[pair]bool

// read reads a table as demanded is.
func read(table string) reach {
	lines := strings.Split(strings.TrimSpace(table), "\n")
	columns := strings.Fields(lines[0])[3:] // behind `from \ to`
	out := reach{}
	for _, line := range lines[1:] {
		cells := strings.Fields(line)
		for i, to := range columns {
			out[pair{cells[0], to}] = cells[i+1] == "yes"
		}
	}
	return out
}

// but is the same with other verdicts for some.
func (r reach) but(others reach) reach {
	out := maps.Clone(r)
	maps.Copy(out, others)
	return out
}

// as gives each pair the verdict of a rule.
func (r reach) as(rule func(pair) bool) reach {
	out := reach{}
	for p := range r {
		out[p] = rule(p)
	}
	return out
}

func everything(pair) bool { return true }

// withinTheNamespace is what isolation by tenant leaves of the sample application, where each namespace is a tenant.
func withinTheNamespace(p pair) bool {
	pod, _, _ := strings.Cut(p.to, "-")
	namespace, _, _ := strings.Cut(p.from, "/")
	return namespaceOf[pod] == namespace
}

// namespaceOf is the namespace of each pod of the application.
var namespaceOf = map[string]string{"frontend": "shop", "backend": "shop", "database": "shop", "prometheus": "monitoring", "visitor": "outsider"}

// application is the sample application, running.
type application struct {
	pods map[string]corev1.Pod // by "shop/frontend"
}

// start starts the sample application, with an image that the cluster has.
func start(t *testing.T, agnhost string) *application {
	t.Helper()
	text := kubectl(t, "kustomize", inRepository("config/samples/application"))
	feed(t, strings.ReplaceAll(text, sampleImage, agnhost), "apply", "-f", "-")
	app := &application{map[string]corev1.Pod{}}
	for _, namespace := range namespaces {
		kubectl(t, "-n", namespace, "wait", "--for=condition=Ready", "pod", "--all", "--timeout", patience.String())
		for _, pod := range get[corev1.PodList](t, "-n", namespace, "pods").Items {
			app.pods[namespace+"/"+pod.Name] = pod
		}
	}
	return app
}

// sampleImage is what the sample application runs.
const sampleImage = "registry.k8s.io/e2e-test-images/agnhost:2.53"

// addresses are where the pod of a column listens, with its port.
func (app *application) addresses(to string) (protocol string, all []string) {
	to, protocol, _ = strings.Cut(to, "/")
	pod, port, _ := strings.Cut(to, "-")
	for _, ip := range app.pods[namespaceOf[pod]+"/"+pod].Status.PodIPs {
		all = append(all, net.JoinHostPort(ip.IP, port))
	}
	if protocol == "" {
		protocol = "tcp"
	}
	return protocol, all
}

// in is how a command is run in a pod.
func (app *application) in(from string, command ...string) []string {
	pod := app.pods[from]
	return append([]string{"-n", pod.Namespace, "exec", pod.Name, "-c", pod.Spec.Containers[0].Name, "--"}, command...)
}

// try tries every pair at once. Where a pod has addresses of both families, both have to give the same verdict.
func (app *application) try(t *testing.T, pairs reach) (reach, string) {
	t.Helper()
	scripts := map[string]*strings.Builder{}
	for p := range pairs {
		if scripts[p.from] == nil {
			scripts[p.from] = &strings.Builder{}
		}
		protocol, addresses := app.addresses(p.to)
		for _, address := range addresses {
			fmt.Fprintf(scripts[p.from], "{ if /agnhost connect %s --protocol=%s --timeout=2s >/dev/null 2>&1; then echo %s yes; else echo %s no; fi; } &\n",
				address, protocol, p.to, p.to)
		}
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	seen, split := reach{}, []string{}
	for from, script := range scripts {
		wg.Go(func() {
			out, err := run(t.Context(), "", app.in(from, "sh", "-c", script.String()+"wait")...)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				split = append(split, err.Error())
			}
			for line := range strings.Lines(out) {
				to, verdict, _ := strings.Cut(strings.TrimSpace(line), " ")
				p := pair{from, to}
				if before, known := seen[p]; known && before != (verdict == "yes") {
					split = append(split, fmt.Sprintf("%s reaches %s at one address, and not at the other", from, to))
				}
				seen[p] = verdict == "yes"
			}
		})
	}
	wg.Wait()
	slices.Sort(split)
	return seen, strings.Join(split, "\n")
}

// bound is how long a change may take that was said to be in force, or to come into force soon.
const bound = 30 * time.Second

// expect waits until everybody reaches whom they should.
func (app *application) expect(t *testing.T, want reach) {
	t.Helper()
	kit.EventuallySucceeds(t, bound, "everybody reaches whom they should", func(context.Context) error {
		got, trouble := app.try(t, want)
		if diff := cmp.Diff(want.lines(), got.lines()); diff != "" {
			trouble += "\nwho reaches whom is not as demanded (-want +got):\n" + diff
		}
		if trouble != "" {
			return errors.New(trouble)
		}
		return nil
	})
}

// lines are the pairs that reach, for people.
func (r reach) lines() []string {
	var out []string
	for p, yes := range r {
		if yes {
			out = append(out, p.from+" -> "+p.to)
		}
	}
	slices.Sort(out)
	return out
}

// reaches tries one pair, at its first address, for half a second.
func (app *application) reaches(t *testing.T, p pair) bool {
	t.Helper()
	_, addresses := app.addresses(p.to)
	_, err := run(t.Context(), "", app.in(p.from, "/agnhost", "connect", addresses[0], "--timeout=500ms")...)
	return err == nil
}
