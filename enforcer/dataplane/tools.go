package dataplane

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	goiptables "github.com/coreos/go-iptables/iptables"
	"github.com/go-logr/logr"
	"golang.org/x/sys/unix"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
)

const (
	// lockWait is how long one run of a program queues for the xtables lock. flock(2) serves in turn, so that a waiter
	// gets its chance; we only take ourselves out of the queue now and then to heed the context.
	lockWait = 5 * time.Second
	// patience is when we give up if the context has not ended before: waiting for the lock, or for a program that does not end.
	patience = time.Minute
	// killGrace is how long a program that was killed may hold on to its pipes.
	killGrace = 2 * time.Second
)

// tools are the programs of one back end, of both families.
type tools struct {
	backend  string
	version  string
	log      logr.Logger
	lockWait time.Duration // of one run; whole seconds
	patience time.Duration
	family   map[iptables.Family]familyTools
}

// familyTools are the programs of one family: ours to run with an input or for an output, and go-iptables' for base chains.
type familyTools struct {
	save, restore program
	hooks         *goiptables.IPTables
}

// program is one executable and the arguments that every run of it begins with.
type program struct {
	name string // what it is called in messages
	path string
	args []string
}

// save is the output of iptables-save for one table, or for all that exist if table is empty, with our part of those that it does not show. It takes no
// lock: it reads the table in one piece, and again if it changed meanwhile.
func (t *tools) save(ctx context.Context, f iptables.Family, table string) ([]byte, error) {
	var args []string
	if table != "" {
		args = []string{"-t", table}
	}
	out, err := t.read(ctx, f, args...)
	if err != nil {
		return nil, err
	}
	return t.withUnshown(ctx, f, out, false)
}

// saveCounters is save with the counters in front of each rule.
func (t *tools) saveCounters(ctx context.Context, f iptables.Family, table string) ([]byte, error) {
	args := []string{"-c"}
	if table != "" {
		args = append(args, "-t", table)
	}
	out, err := t.read(ctx, f, args...)
	if err != nil {
		return nil, err
	}
	return t.withUnshown(ctx, f, out, true)
}

// read runs iptables-save. One that hangs must not hold up whoever else reads or writes.
func (t *tools) read(ctx context.Context, f iptables.Family, args ...string) ([]byte, error) {
	ctx, cancel := t.bounded(ctx)
	defer cancel()
	return t.family[f].save.run(ctx, "", args...)
}

func (t *tools) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, t.patience, fmt.Errorf("waited %s", t.patience))
}

// restore hands input to iptables-restore, which takes all of it or nothing. Chains that the input does not name stay as
// they are, and so do other programs' rules and counters.
func (t *tools) restore(ctx context.Context, f iptables.Family, input string) error {
	return t.restoreAll(ctx, map[iptables.Family]string{f: input})[f]
}

// restoreAll is restore for several families, whose programs run beside each other.
func (t *tools) restoreAll(ctx context.Context, inputs map[iptables.Family]string) map[iptables.Family]error {
	ctx, cancel := t.bounded(ctx)
	defer cancel()
	begun := map[iptables.Family]func() ([]byte, error){}
	begin := func(ctx context.Context, f iptables.Family) {
		begun[f] = t.family[f].restore.start(ctx, inputs[f], "--noflush", "-w", strconv.Itoa(int(t.lockWait/time.Second)))
	}
	errs := map[iptables.Family]error{}
	for _, f := range iptables.Families {
		if _, ok := inputs[f]; ok {
			begin(ctx, f)
		}
	}
	for f := range inputs {
		errs[f] = t.locked(ctx, func(ctx context.Context) error {
			if begun[f] == nil {
				begin(ctx, f)
			}
			_, err := begun[f]()
			begun[f] = nil
			return err
		})
	}
	return errs
}

// longestPause is between two runs that find the lock taken. Each queues for it, so that the pause costs nothing while the lock is held; it is there for
// programs that do not queue, and delays the moment at which a lock that has come free is ours.
const longestPause = 200 * time.Millisecond

// locked calls f until it fails for another reason than the xtables lock, for as long as the context and our patience last.
func (t *tools) locked(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := t.bounded(ctx)
	defer cancel()
	var waited error
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, longestPause) {
		err := f(ctx)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil: // the program was killed, while it queued or while it worked
			return errors.Join(waited, err)
		case !lockHeld(err):
			return err
		}
		t.log.Info("Waiting for another program to release the xtables lock")
		waited = ErrLocked
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ErrLocked, context.Cause(ctx))
		case <-time.After(pause + rand.N(pause)):
		}
	}
}

// lockHeld recognises the lock by what the programs say: their exit status for it, 4, is also that of other failures.
func lockHeld(err error) bool {
	const says = "holding the xtables lock"
	var ours *ToolError
	if errors.As(err, &ours) {
		return strings.Contains(ours.Stderr, says)
	}
	var theirs *goiptables.Error
	return errors.As(err, &theirs) && strings.Contains(theirs.Error(), says)
}

// run executes the program with input on its stdin. Killing it at the end of ctx is safe: it changes the kernel by one
// system call, or one netlink transaction. With it go the programs that it has started: distributions put scripts in its place. It dies
// with this process, so that it cannot apply a plan of ours after our successor has looked at the kernel. The kernel means the thread
// when it says parent, so the thread is kept.
func (p program) run(ctx context.Context, input string, args ...string) ([]byte, error) {
	return p.start(ctx, input, args...)()
}

// yielding is in a context whose programs have the least priority.
type yielding struct{}

// leastPriority is the nice value that leaves the processors to everybody else.
const leastPriority = 19

// Yielding is a context for what runs beside other methods and has time: programs that are started with it leave the processors to others. To read a large
// table takes a third of a second of both, and a change that comes meanwhile is not to take longer for it.
func (d *Dataplane) Yielding(ctx context.Context) context.Context {
	return context.WithValue(ctx, yielding{}, true)
}

// environment is that of programs. glibc gets them memory in few large pieces, of huge pages where the kernel has them: a program of the legacy back end
// copies a table of 4,000 rules several times, and a third of the processor's time went into a thousand faults of small pages. Other C libraries do not heed
// it.
func environment() []string {
	all := os.Environ()
	if os.Getenv(tunables) != "" {
		return all
	}
	return append(all, tunables+"=glibc.malloc.hugetlb=1:glibc.malloc.top_pad=8388608:glibc.malloc.mmap_threshold=268435456")
}

const tunables = "GLIBC_TUNABLES"

// start is the first half of run. What it returns is the other, on the same goroutine: it waits for the program, and says what that wrote.
func (p program) start(ctx context.Context, input string, args ...string) (wait func() ([]byte, error)) {
	cmd := exec.CommandContext(ctx, p.path, append(append([]string(nil), p.args...), args...)...)
	cmd.WaitDelay, cmd.Env = killGrace, environment()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	runtime.LockOSThread()
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &stdout, &stderr
	err := cmd.Start()
	if err == nil && ctx.Value(yielding{}) != nil {
		_ = unix.Setpriority(unix.PRIO_PROCESS, cmd.Process.Pid, leastPriority) // which fails if it has ended
	}
	return func() ([]byte, error) {
		defer runtime.UnlockOSThread()
		if err == nil {
			err = cmd.Wait()
		}
		if err == nil {
			return stdout.Bytes(), nil
		}
		if ctx.Err() != nil {
			err = fmt.Errorf("it has not ended: %w: %w", ctx.Err(), context.Cause(ctx))
		}
		e := &ToolError{Tool: p.name, Stderr: stderr.String(), Err: err}
		e.Answered = ctx.Err() == nil && cmd.ProcessState != nil && cmd.ProcessState.Exited() && !lockHeld(e)
		e.Line, e.Text = offendingLine(e.Stderr, input)
		return nil, e
	}
}

// The programs name a line as "Error occurred at line: 3", "line 3 failed", or "line 3: RULE_APPEND failed (...)".
var lineInError = regexp.MustCompile(`line:? (\d+)`)

// offendingLine is the line of input that stderr names. A kernel that refuses the whole is reported for the line COMMIT.
func offendingLine(stderr, input string) (int, string) {
	m := lineInError.FindStringSubmatch(stderr)
	if m == nil {
		return 0, ""
	}
	n, err := strconv.Atoi(m[1])
	lines := strings.Split(input, "\n")
	if err != nil || n < 1 || n > len(lines) {
		return 0, ""
	}
	return n, lines[n-1]
}
