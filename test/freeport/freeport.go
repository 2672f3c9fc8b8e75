// Package freeport finds addresses for the servers of tests that must be told
// theirs before they listen.
//
// A port that the kernel gave out a moment ago may be the next connection's own by
// the time that a server wants it, and suites that run side by side make thousands
// of connections. So ports are taken from below those that the kernel gives out
// (32768 and more on Linux), at random.
//
// Nor is a port given out again, to whichever process asks, before its server has
// had the time to listen: a connection is made on it and closed, and is remembered
// by the kernel for a minute (TIME-WAIT, RFC 9293 section 3.6). That keeps away who
// binds without SO_REUSEADDR, as Address does, and not who binds with it, as
// servers do.
package freeport

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"syscall"
)

const lowest, highest = 10_000, 32_000

// Address is a TCP address on loopback that nobody listens on, and that is given to
// nobody else for a minute.
func Address() (string, error) {
	for range 1000 {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(lowest+rand.IntN(highest-lowest)))
		alone := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error { return reuse(c, false) }}
		l, err := alone.Listen(context.Background(), "tcp", address)
		if err != nil {
			continue
		}
		return address, errors.Join(leaveTrace(l.(*net.TCPListener)), l.Close())
	}
	return "", errors.New("no free port was found in a thousand tries")
}

// reuse sets SO_REUSEADDR, which Go sets on every listener.
func reuse(c syscall.RawConn, on bool) error {
	value := 0
	if on {
		value = 1
	}
	var failed error
	err := c.Control(func(fd uintptr) {
		failed = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_REUSEADDR, value)
	})
	return errors.Join(err, failed)
}

// leaveTrace makes a connection on the listener's port and ends it from that side,
// which is the one that the kernel then remembers. It lets servers reuse the port.
func leaveTrace(l *net.TCPListener) error {
	raw, err := l.SyscallConn()
	if err != nil {
		return err
	}
	if err := reuse(raw, true); err != nil { // a connection has it from its listener
		return err
	}
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return err
	}
	defer client.Close()
	server, err := l.Accept()
	if err != nil {
		return err
	}
	if err := server.Close(); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, client) // until its end is here: who ends first is remembered
	return err
}
