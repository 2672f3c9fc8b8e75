//go:build !linux

package peercred

import (
	"errors"
	"net"
)

// Of fails: only Linux is asked.
func Of(*net.UnixConn) (Cred, error) {
	return Cred{}, errors.New("peer credentials are read on Linux only")
}
