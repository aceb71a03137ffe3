package node

import (
	"context"
	"slices"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/ringfence-io/ringfence/controllers/cached"
	"github.com/ringfence-io/ringfence/enforcer"
	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// syncLog logs what a person who looks for trouble would want to know of syncs, and each problem once as long as it lasts.
type syncLog struct {
	problems map[compile.Problem]bool // logged already
	last     []compile.Problem        // what these were of
	leftover []string                 // likewise
	waiting  []string                 // likewise
	lines    problemLines             // how many of them
	missing  bool                     // the cluster has no node of this name: logged already
}

// missingNode logs, once, that the cluster has no node of this name: then no pod is local, and nothing is enforced.
func (l *syncLog) missingNode(ctx context.Context, name string, exists bool) {
	if !exists && !l.missing {
		log.FromContext(ctx).Info("the cluster has no node of this name, so no pod counts as local: give the name that "+
			"'kubectl get nodes' prints with --node-name or NODE_NAME", "node", name)
	}
	l.missing = !exists
}

// concluded logs what came of a sync.
func (l *syncLog) concluded(ctx context.Context, o *outcome) { l.note(ctx, o.Report) }

func (l *syncLog) note(ctx context.Context, r enforcer.Report) {
	logger := log.FromContext(ctx)
	if !r.Repairs.Empty() {
		logger.Info("another program changed Ringfence's rules: repaired", "changes", r.Repairs.Counts(), "plan", abridged(r.Repairs.String()))
	}
	if debug := logger.V(1); debug.Enabled() && !r.Applied.Empty() { // the text of a whole policy is several megabytes
		debug.Info("applied", "plan", r.Applied.String(), "counts", r.Counts)
	}
	l.noteProblems(ctx, r.Problems)
	if len(r.Waiting) > 0 && !slices.Equal(r.Waiting, l.waiting) {
		logger.Info("the policies of namespaces have changed so much that it takes several syncs: they are in force as they were until all is ready",
			"namespaces", r.Waiting)
	}
	l.waiting = r.Waiting
	if len(r.Leftover) > 0 && !slices.Equal(r.Leftover, l.leftover) {
		logger.Info("sets that are needed no more stay, since rules of another program refer to them: take these rules away", "sets", r.Leftover)
	}
	l.leftover = r.Leftover
}

// noteProblems logs the problems that were not there before, as many as a namespace may have lines.
func (l *syncLog) noteProblems(ctx context.Context, problems []compile.Problem) {
	if policy.IsOneSlice(problems, l.last) {
		return
	}
	l.last = problems
	logger := log.FromContext(ctx)
	logged, now := make(map[compile.Problem]bool, len(problems)), time.Now()
	over := func(namespace string, leftOut int) {
		logger.Info("more parts of policies could not be enforced as written than have a line", "namespace", namespace, "leftOut", leftOut)
	}
	for _, p := range problems {
		if !l.problems[p] && l.lines.may(now, p.Ref.Namespace, over) {
			logger.Info("a part of a policy cannot be enforced as written", "kind", p.Ref.Kind, "namespace", p.Ref.Namespace,
				"name", p.Ref.Name, "field", p.Field, "detail", cached.Shortened(p.Detail, longestLine))
		}
		logged[p] = true
	}
	l.problems = logged
}

// abridged is text short enough for one log line.
func abridged(text string) string {
	const limit = 4096
	if len(text) > limit {
		return text[:limit] + "..."
	}
	return text
}
