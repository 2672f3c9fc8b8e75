package edge

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// Network is how an address is bound. The unspecified IPv6 address takes IPv4
// too ("tcp"), unless the unspecified IPv4 address is among the others that are
// to be bound.
func Network(addr netip.AddrPort, others ...netip.AddrPort) string {
	switch {
	case addr.Addr().Is4():
		return "tcp4"
	case addr.Addr() == netip.IPv6Unspecified() &&
		!slices.Contains(others, netip.AddrPortFrom(netip.IPv4Unspecified(), addr.Port())):
		return "tcp"
	}
	return "tcp6"
}

// Listen binds one address, as [Network] says. Keep-alive probes are set on the
// listening socket, from which the kernel copies them: three system calls fewer
// per connection.
func Listen(ctx context.Context, addr netip.AddrPort, others ...netip.AddrPort) (net.Listener, error) {
	lc := net.ListenConfig{
		KeepAlive: -1,
		Control: func(_, _ string, rc syscall.RawConn) error {
			var serr error
			err := rc.Control(func(fd uintptr) {
				serr = errors.Join(
					unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1),
					unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 60),
					unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 15),
					unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 4),
				)
			})
			return errors.Join(err, serr)
		},
	}
	l, err := lc.Listen(ctx, Network(addr, others...), addr.String())
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	return l, nil
}

// MatchSockets checks that the sockets that systemd passed are those of
// listen.address, no more and no fewer, so that a socket unit and a
// configuration that drifted apart are noticed before the wrong port is open.
func MatchSockets(passed []net.Listener, want []netip.AddrPort) error {
	left := map[netip.AddrPort]bool{}
	for _, a := range want {
		left[a] = true
	}
	for _, l := range passed {
		a, ok := l.Addr().(*net.TCPAddr)
		if !ok {
			return fmt.Errorf("socket %s from systemd is not TCP", l.Addr())
		}
		ap := addrPort(a)
		if !left[ap] {
			return fmt.Errorf("socket %s from systemd is not in listen.address %v: make ListenStream= and listen.address the same", ap, want)
		}
		delete(left, ap)
	}
	for a := range left {
		return fmt.Errorf("listen.address %s has no socket from systemd: make ListenStream= and listen.address the same", a)
	}
	return nil
}

func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, net.ErrClosed)
}
