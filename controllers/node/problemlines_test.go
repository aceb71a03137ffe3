package node

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"

	"github.com/ringfence-io/ringfence/enforcer"
	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// A tenant changes a policy with a thousand fields that are not understood, again and again. The log of every node stays small, and another's problem is in it.
func TestOneTenantsProblemsLeaveRoomInTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lines []string
		logger := funcr.New(func(_, line string) { lines = append(lines, line) }, funcr.Options{})
		ctx, log := logr.NewContext(context.Background(), logger), &syncLog{}
		problem := func(namespace, detail string) compile.Problem {
			return compile.Problem{Ref: policy.Ref{Kind: "NetworkPolicy", Namespace: namespace, Name: "p"}, Field: "spec", Detail: detail}
		}
		const minutes = 10
		for i := range minutes * 60 {
			var all []compile.Problem
			for k := range 1000 {
				all = append(all, problem("hostile", fmt.Sprint(i, k, strings.Repeat("x", 5000))))
			}
			log.note(ctx, enforcer.Report{Problems: append(all, problem("other", fmt.Sprint(i/60)))})
			time.Sleep(time.Second) // of the bubble's clock
		}
		others, bytes := 0, 0
		for _, line := range lines {
			bytes += len(line)
			if strings.Contains(line, `"namespace"="other"`) {
				others++
			}
		}
		if most := (minutes + 1) * (linesAWhile + 3); len(lines) > most || bytes > most*2000 {
			t.Errorf("%d lines, %d bytes in %d minutes", len(lines), bytes, minutes)
		}
		if others != minutes {
			t.Errorf("another tenant's %d problems have %d lines", minutes, others)
		}
	})
}
