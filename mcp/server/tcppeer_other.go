//go:build !linux

package server

import (
	"errors"
	"net"
)

// tcpPeer fails: only Linux is asked.
func tcpPeer(*net.TCPConn) (uint32, error) {
	return 0, errors.New("whose process connects is told on Linux only")
}
