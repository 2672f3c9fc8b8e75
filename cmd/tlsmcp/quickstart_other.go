//go:build !linux

package main

import (
	"os"
	"syscall"
)

// ownGroup asks for nothing: tlsmcpd is for Linux, and what may be called so on
// another system gets no more than an ordinary child does.
func ownGroup() *syscall.SysProcAttr { return nil }

// terminate ends a process. Not every system can ask for it.
func terminate(p *os.Process) error { return p.Kill() }
