//go:build !linux

package peercred

import (
	"errors"
	"fmt"
	"net"
)

// UserOf fails: only Linux is asked.
func UserOf(*net.TCPConn) (uint32, error) {
	return 0, fmt.Errorf("whose process connects: %w", errors.ErrUnsupported)
}
