package lab

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/ringfence-io/ringfence/lab/process"
)

// FirstControllerMetrics is the port where the first controller has its metrics, on the world's loopback, with its probes behind. The next one has the
// next two ports.
const FirstControllerMetrics = 9500

// controllerGroup is those of a lab, by their names. One that has ended stays among them, with its ports and its log.
type controllerGroup struct {
	mu    sync.Mutex
	named map[string]*controller
}

type controller struct {
	metrics, health int // ports
	process         *process.Process
}

// StartController starts a controller, of which none may be running by this name. It competes with the others for the lead.
func (l *Lab) StartController(name string) error {
	l.controllers.mu.Lock()
	defer l.controllers.mu.Unlock()
	c, ok := l.controllers.named[name]
	if ok && c.process.Running() {
		return fmt.Errorf("starting controller %s: it is running", name)
	}
	if !ok {
		port := FirstControllerMetrics + 2*len(l.controllers.named)
		c = &controller{metrics: port, health: port + 1}
	}
	args := append([]string{
		"controller", "--kubeconfig", l.controllerKubeconfig(),
		"--leader-elect", "--leader-elect-namespace", systemNamespace,
		"--log-format", "text",
		"--metrics-bind-address", fmt.Sprintf("127.0.0.1:%d", c.metrics), "--metrics-secure=false",
		"--health-probe-bind-address", fmt.Sprintf("127.0.0.1:%d", c.health),
	}, l.opts.ControllerArgs...)
	cmd := l.World.Command(context.Background(), l.opts.EnforcerBinary, args...)
	started, err := process.Start(cmd, "controller "+name, l.ControllerLog(name))
	if err != nil {
		return err
	}
	c.process = started
	if l.controllers.named == nil {
		l.controllers.named = map[string]*controller{}
	}
	l.controllers.named[name] = c
	return nil
}

// ControllerLog is the file that the controllers of a name write their log to, one after another.
func (l *Lab) ControllerLog(name string) string { return filepath.Join(l.Dir, name+"-controller.log") }

// StopController asks a controller to end, so that it gives the lead up, and waits until it has. One that does not run is as it should be.
func (l *Lab) StopController(name string) {
	if c := l.controller(name); c != nil {
		c.process.Stop(controllerGrace)
	}
}

// controllerGrace is for a controller that is to give the lead up while the API server may be slow.
const controllerGrace = 30 * time.Second

// KillController ends a controller as a crash would: nobody else leads before its lease has run out.
func (l *Lab) KillController(name string) {
	if c := l.controller(name); c != nil {
		c.process.Kill()
	}
}

// ControllerReady reports nil once a controller answers, whether it leads or waits for that.
func (l *Lab) ControllerReady(ctx context.Context, name string) error {
	c := l.controller(name)
	if c == nil {
		return fmt.Errorf("there is no controller %s", name)
	}
	if err := c.process.Err(); err != nil {
		return err
	}
	if err := get(ctx, l.World, c.health, "/readyz"); err != nil {
		return fmt.Errorf("asking controller %s: %w", name, err)
	}
	return nil
}

// controller is the present one of that name, as it stands; nil if there has never been one.
func (l *Lab) controller(name string) *controller {
	l.controllers.mu.Lock()
	defer l.controllers.mu.Unlock()
	c, ok := l.controllers.named[name]
	if !ok {
		return nil
	}
	present := *c
	return &present
}

// stopControllers ends them all.
func (l *Lab) stopControllers(grace time.Duration) {
	l.controllers.mu.Lock()
	defer l.controllers.mu.Unlock()
	var all sync.WaitGroup
	for _, c := range l.controllers.named {
		all.Go(func() { c.process.Stop(grace) })
	}
	all.Wait()
}
