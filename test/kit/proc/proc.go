// Package proc reads in proc(5) what a process takes of the machine.
package proc

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"
)

// Usage is what a process has taken of the machine. Memory is in bytes; Peak and Now count the program's own text too.
type Usage struct {
	CPU       time.Duration
	Peak      int // VmHWM
	Now       int // VmRSS
	Anonymous int // RssAnon: what is of no file
}

// UsageOf returns the usage of a process so far.
func UsageOf(pid int) (Usage, error) {
	u, err := usageOf(fmt.Sprintf("/proc/%d", pid))
	if err != nil {
		return u, fmt.Errorf("reading what process %d takes: %w", pid, err)
	}
	return u, nil
}

func usageOf(dir string) (Usage, error) {
	var u Usage
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return u, err
	}
	// The second field is the program's name in brackets, which may hold spaces: utime is the twelfth behind it, stime the next. Both are in
	// hundredths of a second, whatever the kernel's own clock.
	behind := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(behind) < 13 {
		return u, fmt.Errorf("stat is %q", stat)
	}
	for _, field := range behind[11:13] {
		ticks, err := strconv.Atoi(string(field))
		if err != nil {
			return u, err
		}
		u.CPU += time.Duration(ticks) * 10 * time.Millisecond
	}
	status, err := os.ReadFile(dir + "/status")
	if err != nil {
		return u, err
	}
	for line := range bytes.Lines(status) {
		fields := bytes.Fields(line)
		if len(fields) < 2 {
			continue
		}
		to := map[string]*int{"VmHWM:": &u.Peak, "VmRSS:": &u.Now, "RssAnon:": &u.Anonymous}[string(fields[0])]
		if to == nil {
			continue
		}
		kib, err := strconv.Atoi(string(fields[1]))
		if err != nil {
			return u, err
		}
		*to = kib << 10
	}
	return u, nil
}
