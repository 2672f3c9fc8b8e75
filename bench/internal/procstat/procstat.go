// Package procstat reads what a process and all its descendants have used:
// processor time and resident memory, from /proc.
//
// A proxy under test is a tree: nginx and haproxy run a worker under a master,
// and only the sum is fair. The kernel counts processor time in clock ticks of
// 10 ms, so a reading is good to about one tick a process: measure for seconds,
// not for milliseconds.
package procstat

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"syscall"
	"time"
)

// tick is the unit of the times in /proc/PID/stat. USER_HZ is 100 in the
// kernel's interface on every architecture that Go supports.
const tick = 10 * time.Millisecond

// CPU is processor time used since the start.
type CPU struct {
	User   time.Duration
	System time.Duration
}

// Total is user and kernel time together.
func (c CPU) Total() time.Duration { return c.User + c.System }

// Sub is what was used since an earlier reading.
func (c CPU) Sub(earlier CPU) CPU {
	return CPU{User: c.User - earlier.User, System: c.System - earlier.System}
}

// Usage is one reading of a process tree.
type Usage struct {
	CPU       CPU
	RSS       int64 // bytes; pages shared by two processes of the tree count twice
	Processes int
}

// Read reads the tree whose root is pid. It errs when pid itself is gone; a
// descendant that ends meanwhile is left out.
func Read(pid int) (Usage, error) {
	all, err := readAll()
	if err != nil {
		return Usage{}, err
	}
	if _, ok := all[pid]; !ok {
		return Usage{}, fmt.Errorf("read usage: no process %d", pid)
	}
	var u Usage
	for p, s := range all {
		if !descends(all, p, pid) {
			continue
		}
		u.CPU.User += time.Duration(s.utime) * tick
		u.CPU.System += time.Duration(s.stime) * tick
		u.RSS += s.rss * int64(os.Getpagesize())
		u.Processes++
	}
	return u, nil
}

// descends tells whether p is root or below it. The walk is bounded by the
// number of processes: a parent that was reused in between could make a loop.
func descends(all map[int]stat, p, root int) bool {
	for range len(all) {
		if p == root {
			return true
		}
		s, ok := all[p]
		if !ok {
			return false
		}
		p = s.ppid
	}
	return false
}

func readAll() (map[int]stat, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	all := make(map[int]stat, len(entries))
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue // not a process
		}
		line, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // ended since the listing
		}
		if err != nil {
			return nil, fmt.Errorf("read process %d: %w", pid, err)
		}
		s, err := parseStat(line)
		if err != nil {
			return nil, fmt.Errorf("read process %d: %w", pid, err)
		}
		all[pid] = s
	}
	return all, nil
}

// stat is the part of /proc/PID/stat that is used here: see proc_pid_stat(5).
type stat struct {
	ppid         int
	utime, stime int64 // ticks
	rss          int64 // pages
}

func parseStat(line []byte) (stat, error) {
	// The name stands in parentheses and may hold spaces and parentheses
	// itself; the last one closes it.
	i := bytes.LastIndexByte(line, ')')
	if i < 0 {
		return stat{}, errors.New("stat line has no name")
	}
	f := bytes.Fields(line[i+1:]) // f[0] is field 3 of the manual page
	if len(f) < 22 {
		return stat{}, fmt.Errorf("stat line has %d fields after the name, want at least 22", len(f))
	}
	var err error
	number := func(field int) int64 {
		n, e := strconv.ParseInt(string(f[field-3]), 10, 64)
		if e != nil || n < 0 {
			err = fmt.Errorf("stat field %d is %q, not a count", field, f[field-3])
		}
		return n
	}
	s := stat{ppid: int(number(4)), utime: number(14), stime: number(15), rss: number(24)}
	if err != nil {
		return stat{}, err
	}
	return s, nil
}

// Machine is the processor time that everything on the machine has used since
// it started, and what a hypervisor took away from it. Time in interrupts is
// not in it, as it is in no process's either.
func Machine() (time.Duration, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, fmt.Errorf("read machine's usage: %w", err)
	}
	return parseMachine(text)
}

// parseMachine reads the first line of /proc/stat: see proc_stat(5).
func parseMachine(text []byte) (time.Duration, error) {
	line, _, _ := bytes.Cut(text, []byte("\n"))
	f := bytes.Fields(line)
	if len(f) < 9 || string(f[0]) != "cpu" {
		return 0, fmt.Errorf("first line of stat is %q", line)
	}
	var sum time.Duration
	for _, i := range []int{1, 2, 3, 8} { // user, nice, system, steal
		n, err := strconv.ParseUint(string(f[i]), 10, 37) // 37 bits are 43 years, and four of them must fit
		if err != nil {
			return 0, fmt.Errorf("stat field %d is %q, not a count", i, f[i])
		}
		sum += time.Duration(n) * tick
	}
	return sum, nil
}
