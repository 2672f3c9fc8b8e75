// Package freeport finds addresses for the servers of tests that must be told
// theirs before they listen.
//
// A port that the kernel gave out a moment ago may be the next connection's own by
// the time that a server wants it, and suites that run side by side make thousands
// of connections. So ports are taken from below those that the kernel gives out
// (32768 and more on Linux), at random.
package freeport

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
)

const lowest, highest = 10_000, 32_000

// Address is a TCP address on loopback that nobody listens on.
func Address() (string, error) {
	for range 1000 {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(lowest+rand.IntN(highest-lowest)))
		if l, err := net.Listen("tcp", address); err == nil {
			return address, l.Close()
		}
	}
	return "", errors.New("no free port was found in a thousand tries")
}
