package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/go-logr/logr"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/node"
	"github.com/ringfence-io/ringfence/enforcer/attachment"
	"github.com/ringfence-io/ringfence/enforcer/compile"
	"github.com/ringfence-io/ringfence/enforcer/dataplane"
)

// sourceChecks are what --source-check may say, and what that is.
var sourceChecks = []struct {
	flag  string
	check compile.SourceCheck
	mode  v1alpha1.SourceCheckMode
}{
	{"enforce", compile.SourceCheckEnforce, v1alpha1.SourceCheckModeEnforce},
	{"audit", compile.SourceCheckAudit, v1alpha1.SourceCheckModeAudit},
	{"off", compile.SourceCheckOff, v1alpha1.SourceCheckModeOff},
}

// sources is what the flags say of what pods send from, on this kernel.
func (o *enforcerOptions) sources(plane *dataplane.Dataplane, logger logr.Logger) (node.Sources, error) {
	for _, c := range sourceChecks {
		if c.flag != o.sourceCheck {
			continue
		}
		s := node.Sources{Mode: c.mode, Links: &attachment.Table{Kernel: plane, Dir: o.cniCache, Check: c.check, Log: logger}}
		s.Unable = func() string {
			if plane.Capabilities().Guards {
				return ""
			}
			return "the kernel lacks nf_tables' families netdev and bridge"
		}
		return s, nil
	}
	return node.Sources{}, o.validateSources()
}

func (o *enforcerOptions) validateSources() error {
	for _, c := range sourceChecks {
		if c.flag == o.sourceCheck {
			return nil
		}
	}
	return fmt.Errorf("--source-check %q is not known: enforce, audit or off", o.sourceCheck)
}

// watchLinks calls changed whenever a link comes or goes. When nobody watches, that is logged, and tried again; each resync looks at the links all the same.
func watchLinks(plane *dataplane.Dataplane, logger logr.Logger) func(context.Context, func()) error {
	const pause = 10 * time.Second
	return func(ctx context.Context, changed func()) error {
		go func() {
			for ctx.Err() == nil {
				if err := plane.WatchLinks(ctx, changed); err != nil {
					logger.Info("new links of pods are seen at the next resync only; watching them is tried again",
						"error", err.Error(), "after", pause.String())
				}
				select {
				case <-ctx.Done():
				case <-time.After(pause):
					changed()
				}
			}
		}()
		return nil
	}
}
