// Package scene shows the enforcer at work: it starts a lab with the sample application, and finds out who reaches whom: before any
// policy, with the sample policies of namespaces, and with what a cluster's administrator can do. It says of each connection
// whether it is what the API texts demand.
//
// Results go to one writer and progress to another, so that the results can be piped. While a scene stays up, [Ask] tries
// connections in it from another process.
package scene

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/ringfence-io/ringfence/lab"
	"github.com/ringfence-io/ringfence/lab/matrix"
)

// Pods are those of the sample application, in the order of the matrix.
var Pods = []string{"shop/frontend", "shop/backend", "shop/database", "monitoring/prometheus", "outsider/visitor"}

// Options say what to show, and how.
type Options struct {
	// Name tells scenes that are up at the same time apart.
	Name string
	// Lab is the cluster to start. Its Dir, Progress and Report are the scene's to set.
	Lab lab.Options
	// Once ends the scene after the last act.
	Once bool
	// Program is how to call ringfence, for the commands that are suggested.
	Program string

	// Out takes the results, Progress all else.
	Out, Progress io.Writer
	// JSON writes the results as JSON. Style is for text.
	JSON  bool
	Style matrix.Style
	// Timeout bounds each wait: for pods, enforcers, and the policies' effect.
	Timeout time.Duration
}

// Result is what was found, as JSON shows it.
type Result struct {
	Nodes       int     `json:"nodes"`
	CNI         string  `json:"cni"`
	Backend     string  `json:"backend"`
	Steps       []*Step `json:"steps"`
	Differences int     `json:"differences"`
	Seconds     float64 `json:"seconds"`

	explanation error // of the differences
}

// scene is one that is being shown.
type scene struct {
	opts  Options
	lab   *lab.Lab
	began time.Time
}

// Play shows the scene. With Once it returns after the last act, and a difference is an error; else when ctx ends.
// Whatever happens, it leaves nothing behind.
func Play(ctx context.Context, opts Options) (err error) {
	s := &scene{opts: opts, began: time.Now()}
	dir, unlock, err := claim(opts.Name)
	if err != nil {
		return err
	}
	defer unlock()
	opts.Lab.Dir = dir
	opts.Lab.Controller = !opts.Lab.NoEnforcer // who would else have anything to say?
	opts.Lab.Progress = s.progress
	opts.Lab.Report = func(err error) { s.progress(err.Error()) }
	if s.lab, err = lab.Start(ctx, opts.Lab); err != nil {
		return err
	}
	defer func() {
		s.progress("ending the lab")
		err = errors.Join(err, s.lab.Close())
	}()
	result, err := s.play(ctx)
	if err != nil {
		return err
	}
	if opts.Once {
		return result.explanation
	}
	if result.explanation != nil {
		s.progress(result.explanation.Error())
	}
	return s.stay(ctx, result)
}

// play shows all acts.
func (s *scene) play(ctx context.Context) (*Result, error) {
	o := s.opts.Lab.Defaults()
	r := &Result{Nodes: o.Nodes, CNI: string(o.CNI), Backend: o.Backend}
	if err := s.wait(ctx, "enforcers", s.lab.WaitEnforcers); err != nil {
		return nil, errors.Join(err, s.logs())
	}
	for _, a := range acts {
		s.progress(a.doing)
		if err := a.do(s, ctx); err != nil {
			return nil, err
		}
		step, err := s.look(ctx, a, r)
		if err != nil {
			return nil, err
		}
		r.Steps = append(r.Steps, step)
		r.Differences += step.Matrix.Differences()
		s.section(step)
	}
	r.Seconds = time.Since(s.began).Round(10 * time.Millisecond).Seconds()
	return r, s.finish(r)
}

// look lays the matrix out and measures until it is as demanded. What is still otherwise when time is up is no error, but
// explained in the result.
func (s *scene) look(ctx context.Context, a act, r *Result) (*Step, error) {
	step := &Step{Name: a.name, Title: a.title}
	var notes map[string]map[string]bool
	err := s.wait(ctx, "pods", func(ctx context.Context) error {
		if _, err := s.lab.WaitReady(ctx); err != nil {
			return err
		}
		cluster, err := s.lab.Cluster(ctx)
		if err != nil {
			return err
		}
		step.Objects = objects(cluster)
		if step.Matrix, err = matrix.Of(ctx, s.lab, Pods...); err != nil {
			return err
		}
		notes = demandedNotes(s.lab, cluster, step.Matrix)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(notes) > 0 && !s.opts.Lab.NoEnforcer {
		// Nothing else would tell that a policy that changes no verdict has arrived.
		err := s.wait(ctx, "the rules that count", func(ctx context.Context) error { return s.waitForCounting(ctx, notes) })
		if err != nil {
			return nil, errors.Join(err, s.logs())
		}
	}
	if err := s.measure(ctx, step.Matrix, r); err != nil {
		return nil, err
	}
	if len(notes) > 0 && !s.opts.Lab.NoEnforcer {
		if step.WouldDeny, err = s.counted(ctx, notes); err != nil {
			r.Differences++
			r.explanation = errors.Join(r.explanation, err)
		}
	}
	if a.tells && !s.opts.Lab.NoEnforcer {
		err := s.wait(ctx, "the policies' statuses", func(ctx context.Context) (err error) {
			step.Standings, err = s.waitForStandings(ctx)
			return err
		})
		if err != nil {
			return nil, errors.Join(err, s.logs())
		}
	}
	return step, nil
}

// measure tries all connections of a matrix.
func (s *scene) measure(ctx context.Context, m *matrix.Matrix, r *Result) error {
	s.progress(fmt.Sprintf("trying %d connections", len(m.Attempts)))
	try := m.Settle
	if s.opts.Lab.NoEnforcer { // nothing to wait for
		try = m.Measure
	}
	err := s.wait(ctx, "the policies' effect", try)
	if ctx.Err() != nil {
		return err
	}
	if m.Differences() > 0 {
		r.explanation = errors.Join(r.explanation, err, m.Explain(), s.logs())
	}
	return nil
}

// wait bounds a wait and says what for.
func (s *scene) wait(ctx context.Context, what string, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, s.opts.Timeout, fmt.Errorf("waited %s for %s", s.opts.Timeout, what))
	defer cancel()
	return f(ctx)
}

// logs is the end of each program's log, as an error to join to another one.
func (s *scene) logs() error {
	errs := []error{logEnd("the controller", s.lab.ControllerLog("c1"))}
	for _, n := range s.lab.Nodes {
		errs = append(errs, logEnd(n.Name+"'s enforcer", n.EnforcerLog()))
	}
	return errors.Join(errs...)
}

// logEnd is the end of a program's log, nil if there is none: the program is not among those that were started.
func logEnd(program, file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return fmt.Errorf("the end of the log of %s:\n%s", program, strings.Join(lines[max(0, len(lines)-8):], "\n"))
}

// finish writes what comes after the matrices.
func (s *scene) finish(r *Result) error {
	if s.opts.JSON {
		encoder := json.NewEncoder(s.opts.Out)
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(r); err != nil {
			return fmt.Errorf("writing the result: %w", err)
		}
		return nil
	}
	fmt.Fprintf(s.opts.Out, "\n%s\n\n", r.Steps[0].Matrix.Legend(s.opts.Style))
	for _, step := range r.Steps {
		fmt.Fprintf(s.opts.Out, "%-8s %3d connect, %s\n", step.Name+":", step.Matrix.Connecting(), step.Matrix.Summary(s.opts.Style))
	}
	return nil
}

// section writes what was found in an act as text.
func (s *scene) section(step *Step) {
	if s.opts.JSON {
		return
	}
	fmt.Fprintf(s.opts.Out, "\n%s\n\n", step.Title)
	if err := step.Matrix.Write(s.opts.Out, s.opts.Style); err != nil {
		s.progress(err.Error())
	}
	s.writeStandings(step.Standings)
	s.writeCounted(step.WouldDeny)
}

// progress says what is being done, with the time since the start.
func (s *scene) progress(what string) {
	d := time.Since(s.began)
	fmt.Fprintf(s.opts.Progress, "%3d:%04.1f  %s\n", int(d.Minutes()), d.Seconds()-60*float64(int(d.Minutes())), what)
}

// stay answers other processes until ctx ends.
func (s *scene) stay(ctx context.Context, r *Result) error {
	stop, err := s.serve(ctx)
	if err != nil {
		return err
	}
	defer stop()
	s.suggest(r)
	<-ctx.Done()
	return nil
}
