// Package process runs the lab's long-lived programs: one log file each, stopped gently or at once, never forgotten.
//
// Invariants:
//   - no child outlives the caller's process, however that ends;
//   - the child never reads the caller's standard input and never hears the caller's Ctrl-C: the lab decides in
//     which order things end;
//   - [Process.Done] is closed once the child has ended and been waited for, whoever ended it.
package process

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// Process is a program that was started.
type Process struct {
	name string
	log  string
	cmd  *exec.Cmd
	done chan struct{}
	err  error // why it ended: valid once done is closed

}

// Start starts cmd, which must not have been started. What it prints is appended to the file log; name is what errors
// call it.
func Start(cmd *exec.Cmd, name, log string) (*Process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("opening the log of %s: %w", name, err)
	}
	defer out.Close() // the child has its own descriptor
	cmd.Stdin, cmd.Stdout, cmd.Stderr = nil, out, out
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true // a terminal's Ctrl-C goes to a whole process group
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	if err := onSpawner(cmd.Start); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	p := &Process{name: name, log: log, cmd: cmd, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// PID is the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Running reports whether the process has not ended yet.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Err says, of a process that has ended, how, with the last lines of its log. It is nil while the process runs.
func (p *Process) Err() error {
	if p.Running() {
		return nil
	}
	how := "exit status 0"
	if p.err != nil {
		how = p.err.Error()
	}
	return fmt.Errorf("%s ended (%s); the end of %s:\n%s", p.name, how, p.log, tail(p.log, 12))
}

// Kill ends the process at once, as a crash would, and waits until it is gone.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // fails only when it has ended already
	<-p.done
}

// Stop asks the process to end, and kills it when it has not after grace.
func (p *Process) Stop(grace time.Duration) {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		p.Kill()
	}
}

// spawner is the thread that starts all children. The kernel sends Pdeathsig when the thread that forked ends, not
// when its process does: this one is never given back to the runtime, and so ends with the process alone.
var spawner = sync.OnceValue(func() chan<- func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range work {
			f()
		}
	}()
	return work
})

func onSpawner(start func() error) error {
	done := make(chan error)
	spawner() <- func() { done <- start() }
	return <-done
}

// tail returns the last n lines of a file, or why it cannot.
func tail(name string, n int) string {
	all, err := os.ReadFile(name)
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(bytes.TrimRight(all, "\n"), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-n):], []byte("\n")))
}
