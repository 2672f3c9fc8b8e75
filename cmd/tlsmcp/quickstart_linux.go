package main

import (
	"os"
	"syscall"
)

// ownGroup puts a child in a process group of its own, so that Ctrl-C reaches
// it only through us and once, and has the kernel kill it if we are killed.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// terminate asks a process to end in good order.
func terminate(p *os.Process) error { return p.Signal(syscall.SIGTERM) }
