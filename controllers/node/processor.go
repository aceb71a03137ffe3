package node

import (
	"syscall"
	"time"
)

// threadTime is the processor's time that the thread has taken.
func threadTime() time.Duration {
	const thread = 1 // RUSAGE_THREAD
	return timeOf(thread)
}

// processTime is the processor's time that the process has taken, and the programs that it has run.
func processTime() time.Duration {
	return timeOf(syscall.RUSAGE_SELF) + timeOf(syscall.RUSAGE_CHILDREN)
}

func timeOf(who int) time.Duration {
	var r syscall.Rusage
	if syscall.Getrusage(who, &r) != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
