//go:build unix

package audit

import (
	"os"
	"syscall"
)

// lockFileAlone locks a file for this process, until it is closed.
func lockFileAlone(f *os.File) error {
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
}
