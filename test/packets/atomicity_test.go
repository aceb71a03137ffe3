package packets

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ringfence-io/ringfence/enforcer"
	"github.com/ringfence-io/ringfence/enforcer/dataplane"
	"github.com/ringfence-io/ringfence/enforcer/iptables"
	"github.com/ringfence-io/ringfence/lab/probe"
	"github.com/ringfence-io/ringfence/lab/topology"
	"github.com/ringfence-io/ringfence/test/kit"
	"github.com/ringfence-io/ringfence/test/ladder"
)

const (
	changes = 300  // of policies, pods and labels
	kills   = 50   // of enforcers
	rate    = 1200 // probes per second
)

// TestNoVerdictIsEverWrong applies change after change, kills enforcers at random moments, the middle of an apply included, and
// starts them again, beside another program that changes rules too. Not one of the probes that run all the time, of
// allowed and of denied connections, sees anything else than what holds before, during and after every change.
func TestNoVerdictIsEverWrong(t *testing.T) {
	kit.NeedNetfilter(t)
	for _, c := range combinations() {
		// Both families are probed anyway, and a back end does the same on either kind of network.
		if c.family != iptables.IPv4 || (c.backend == dataplane.Legacy) != (c.kind == topology.Bridged) {
			continue
		}
		t.Run(c.String(), func(t *testing.T) {
			t.Parallel()
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			w := newWorld(t, c)
			w.listenInBothFamilies(t)
			f := newFire(t, w, seed)
			f.apply(0)
			watch, err := probe.Watch(watched(t, w), rate)
			kit.Must(t, err)
			stop := f.disturb()
			for i := 1; i <= changes; i++ {
				f.apply(i)
			}
			stop()
			report, err := watch.Stop(20 * time.Second)
			kit.Must(t, err)
			f.endAt(changes)

			t.Logf("%d changes, %d kills: %s", changes, f.killed, report)
			if f.killed < kills {
				t.Errorf("killed %d enforcers, want %d", f.killed, kills)
			}
			if len(report.Wrong) > 0 {
				t.Errorf("%d wrong verdicts", len(report.Wrong))
			}
			if report.Rate() < 1000 || report.Answered == 0 || report.Silent == 0 {
				t.Errorf("too few probes to say anything: %s", report)
			}
		})
	}
}

// listenInBothFamilies has all places of the watched lines answer, whatever the family of w.
func (w *world) listenInBothFamilies(t *testing.T) {
	t.Helper()
	for _, name := range []string{"web", "db", "client", "far", "remote", "outside"} {
		listen(t, w.places[name].host, w.places[name].V6)
	}
}

// fire runs an enforcer process on each node and kills some.
type fire struct {
	t         *testing.T
	w         *world
	seed      uint64
	rng       *rand.Rand
	version   version // that is started
	processes []*process
	killed    int
	took      time.Duration // of an apply, on average
}

// version is a program that has enforcer processes, and the back end on which they enforce.
type version struct {
	program string
	layout  iptables.Layout
	backend string
}

func newFire(t *testing.T, w *world, seed uint64) *fire {
	self, err := os.Executable()
	kit.Must(t, err)
	f := &fire{t: t, w: w, seed: seed, rng: rand.New(rand.NewPCG(seed, 1)), took: 50 * time.Millisecond}
	f.version = version{self, iptables.OwnLayout, w.backend}
	for _, n := range w.nodes {
		f.processes = append(f.processes, f.start(n))
	}
	return f
}

// apply has both enforcers apply a change. Kills are spread evenly over the changes; each comes at a random moment of the time
// that an apply, or a start with an apply, takes.
func (f *fire) apply(change int) {
	f.t.Helper()
	begin := time.Now()
	for _, p := range f.processes {
		p.send(f.t, change)
	}
	for f.killed*changes < kills*change {
		i := f.rng.IntN(len(f.processes))
		p := f.processes[i]
		time.Sleep(time.Duration(f.rng.Int64N(int64(2 * f.took))))
		p.kill(f.t, f.rng.IntN(2) == 0)
		f.killed++
		f.processes[i] = f.start(p.node)
		f.processes[i].send(f.t, change)
		begin = time.Now()
	}
	for _, p := range f.processes {
		p.wait(f.t, change)
	}
	f.took = (9*f.took + time.Since(begin)) / 10
}

// endAt stops the processes, and holds the kernel to what the last of them should have left after a change.
func (f *fire) endAt(change int) {
	f.t.Helper()
	c, err := churned(f.seed, change)
	kit.Must(f.t, err)
	for _, p := range f.processes {
		p.kill(f.t, true)
		if r := p.node.sync(f.t, c, true); !r.Applied.Empty() {
			f.t.Errorf("%s does not hold what its enforcer has applied:\n%s", p.node.name, r.Applied)
		}
	}
}

// disturb lets another program change rules of its own in the tables filter and security of every node, until the returned
// function is called.
func (f *fire) disturb() (stop func()) {
	ctx, cancel := context.WithCancel(f.t.Context())
	var wg sync.WaitGroup
	for _, n := range f.w.nodes {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				table, family := []string{"filter", "security"}[i%2], iptables.Families[i/2%2]
				for _, op := range []string{"-A", "-D"} {
					args := []string{"-w", "-t", table, op, "FORWARD", "-p", "udp", "--dport", "9", "-j", "ACCEPT"}
					if out, err := n.Command(context.WithoutCancel(ctx), programOf(family, f.w.backend), args...).CombinedOutput(); err != nil {
						f.t.Errorf("the other program: %v: %s", err, out)
					}
				}
				select {
				case <-ctx.Done():
				case <-time.After(100 * time.Millisecond):
				}
			}
		})
	}
	return func() { cancel(); wg.Wait() }
}

// process is an enforcer in a process of its own.
type process struct {
	node   *node
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	done   chan int // the changes that it has applied
	stderr *bytes.Buffer
}

// processConfig is what an enforcer process is told at its start.
type processConfig struct {
	Node, Backend string
	Layout        iptables.Layout
	Seed          uint64
	Mortal        bool
}

// enforcerEnv makes the test program an enforcer process, and holds its processConfig.
const enforcerEnv = "RINGFENCE_PACKETS_ENFORCER"

func (f *fire) start(n *node) *process {
	f.t.Helper()
	p := &process{node: n, cmd: f.command(n, false), done: make(chan int, 1), stderr: &bytes.Buffer{}}
	p.cmd.Stderr = p.stderr
	var err error
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.stdin, err = p.cmd.StdinPipe()
	kit.Must(f.t, err)
	stdout, err := p.cmd.StdoutPipe()
	kit.Must(f.t, err)
	kit.Must(f.t, p.cmd.Start())
	go func() {
		defer close(p.done)
		var change int
		for {
			if _, err := fmt.Fscanln(stdout, &change); err != nil {
				return
			}
			p.done <- change
		}
	}()
	return p
}

// command is an enforcer process that has not been started. A mortal one dies after the first step of its first plan.
func (f *fire) command(n *node, mortal bool) *exec.Cmd {
	f.t.Helper()
	config, err := json.Marshal(processConfig{Node: n.name, Backend: f.version.backend, Layout: f.version.layout, Seed: f.seed, Mortal: mortal})
	kit.Must(f.t, err)
	cmd := n.Command(f.t.Context(), f.version.program)
	cmd.Env = append(os.Environ(), enforcerEnv+"="+string(config))
	return cmd
}

func (p *process) send(t *testing.T, change int) {
	t.Helper()
	_, err := fmt.Fprintln(p.stdin, change)
	kit.Must(t, err)
}

func (p *process) wait(t *testing.T, change int) {
	t.Helper()
	select {
	case got, ok := <-p.done:
		if !ok || got != change {
			p.kill(t, true)
			t.Fatalf("%s: the enforcer has ended, want change %d applied: %s", p.node.name, change, p.stderr)
		}
	case <-time.After(time.Minute):
		t.Fatalf("%s: the enforcer has not applied change %d within a minute", p.node.name, change)
	}
}

// kill ends the process at once; with group, also the iptables program that it may have started.
func (p *process) kill(t *testing.T, group bool) {
	t.Helper()
	pid := p.cmd.Process.Pid
	if group {
		pid = -pid
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && err != syscall.ESRCH {
		t.Fatal(err)
	}
	for range p.done { // until its output ends
	}
	_ = p.cmd.Wait() // killed
}

// enforcerProcess applies the changes that it reads from in, one number per line, and says so on out.
func enforcerProcess(in io.Reader, out io.Writer) int {
	if err := enforce(in, out); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func enforce(in io.Reader, out io.Writer) error {
	var config processConfig
	if err := json.Unmarshal([]byte(os.Getenv(enforcerEnv)), &config); err != nil {
		return err
	}
	ctx := context.Background()
	plane, err := dataplane.New(ctx, dataplane.Options{Backend: config.Backend, Layout: config.Layout})
	if err != nil {
		return err
	}
	caps, kernel, dying := plane.Capabilities(), enforcer.Dataplane(plane), &mortal{Dataplane: plane}
	if config.Mortal {
		kernel = dying
	}
	options := iptables.Options{Families: caps.Families, Table: caps.Table, SelfMatch: caps.SelfMatch, HoldCut: caps.HoldCut, Layout: config.Layout}
	if config.Layout != iptables.OwnLayout {
		options.FanOut = anotherFanOut
	}
	e := enforcer.New(kernel, options)
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		var change int
		if _, err := fmt.Sscan(lines.Text(), &change); err != nil {
			return err
		}
		c, err := churned(config.Seed, change)
		if err != nil {
			return err
		}
		_, err = e.Sync(ctx, ladder.Snapshot(c.Cluster, config.Node), false)
		if errors.Is(err, errDied) && dying.err == nil {
			_, err := fmt.Fprintln(out, dying.died)
			return err
		}
		if err != nil {
			return errors.Join(err, dying.err)
		}
		if _, err := fmt.Fprintln(out, change); err != nil {
			return err
		}
	}
	return lines.Err()
}
