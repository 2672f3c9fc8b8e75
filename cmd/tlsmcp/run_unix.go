//go:build unix

package main

import (
	"os"
	"syscall"
)

// become replaces this process by program. It returns only on failure.
func become(program string, argv []string) error {
	return syscall.Exec(program, argv, os.Environ())
}
