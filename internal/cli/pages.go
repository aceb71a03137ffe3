package cli

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/util/wait"
)

// letGoOfStart gives back the pages of the program's own file that only what is over has used: the packages that are linked in, client-go's
// scheme before all, read more of it while they set themselves up than the program reads afterwards.
func letGoOfStart(log logr.Logger) {
	if err := letGoOfFile(); err != nil {
		log.Info("what only the start has used of the program's file stays in memory, some 10 MB", "reason", err.Error())
	}
}

// letGoOnceRead does so again when the cluster has been read, which is when the manager starts it, and when the first sync has succeeded: reading the
// whole cluster takes other parts of the program than following it, and the first sync takes the most memory of its own. From then on the heap may grow as it
// may while the cluster is followed, and one processor is enough.
func letGoOnceRead(ctx context.Context, synced func() error, log logr.Logger) error {
	letGoOfStart(log)
	err := wait.PollUntilContextCancel(ctx, time.Second, false, func(context.Context) (bool, error) { return synced() == nil, nil })
	if err != nil {
		return nil //nolint:nilerr // the end came first
	}
	letGoOfStart(log)
	leastGrowth.Store(gcGrowth)
	useProcessors(steadyProcessors)
	return nil
}

// letGoOfFile has the kernel unmap what it can read again from the program's file when it is needed: pages that cannot be written, so that
// nothing is lost.
func letGoOfFile() error {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("finding the program's file: %w", err)
	}
	self, err := procfs.Self()
	if err != nil {
		return fmt.Errorf("finding the own process: %w", err)
	}
	maps, err := self.ProcMaps()
	if err != nil {
		return fmt.Errorf("reading what is mapped: %w", err)
	}
	for _, m := range maps {
		if m.Pathname != program || m.Perms.Write {
			continue
		}
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, m.StartAddr, m.EndAddr-m.StartAddr, unix.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("unmapping %s: %w", program, errno)
		}
	}
	return nil
}
