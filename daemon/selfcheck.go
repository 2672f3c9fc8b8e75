package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/pki"
)

// selfCheck remembers the connections that the daemon makes to itself, so that
// they do not show up as somebody at the door.
type selfCheck struct {
	mu   sync.Mutex // guards what follows
	mine map[netip.AddrPort]bool
	told map[netip.AddrPort]chan event.Connection // who waits for what became of one
}

// tell hands an event about one of these connections to whoever waits for it. With
// the last one the connection is over, and its port may be anybody's.
func (s *selfCheck) tell(e event.Connection) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.Kind == event.Refused || e.Kind == event.Closed {
		delete(s.mine, e.Remote)
	}
	select {
	case s.told[e.Remote] <- e: // nil, when nobody waits
	default:
	}
}

// await gives a channel for the first event about a connection, and what ends
// the wait.
func (s *selfCheck) await(from netip.AddrPort) (<-chan event.Connection, func()) {
	c := make(chan event.Connection, 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.told == nil {
		s.told = map[netip.AddrPort]chan event.Connection{}
	}
	s.told[from] = c
	return c, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.told, from)
	}
}

func (s *selfCheck) made(remote netip.AddrPort) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mine[remote]
}

func (s *selfCheck) note(a netip.AddrPort, mine bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mine == nil {
		s.mine = map[netip.AddrPort]bool{}
	}
	if mine {
		s.mine[a] = true
	} else {
		delete(s.mine, a)
	}
}

// dial connects to one of the daemon's own addresses. The port that it comes
// from is taken and noted before anybody can see the connection.
func (s *selfCheck) dial(ctx context.Context, to netip.AddrPort) (c net.Conn, from netip.AddrPort, err error) {
	dialer := net.Dialer{Control: func(_, _ string, rc syscall.RawConn) error {
		var berr error
		err := rc.Control(func(fd uintptr) { from, berr = bindTo(int(fd), to.Addr()) })
		if err = errors.Join(err, berr); err == nil {
			s.note(from, true)
		}
		return err
	}}
	c, err = dialer.DialContext(ctx, "tcp", to.String())
	if err != nil && from.IsValid() {
		s.note(from, false)
	}
	return c, from, err
}

// bindTo gives a socket an address of this host and a port that is free.
func bindTo(fd int, a netip.Addr) (netip.AddrPort, error) {
	var sa unix.Sockaddr = &unix.SockaddrInet6{Addr: a.As16()}
	if a.Is4() {
		sa = &unix.SockaddrInet4{Addr: a.As4()}
	}
	if err := unix.Bind(fd, sa); err != nil {
		return netip.AddrPort{}, os.NewSyscallError("bind", err)
	}
	bound, err := unix.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}, os.NewSyscallError("getsockname", err)
	}
	port := 0
	switch b := bound.(type) {
	case *unix.SockaddrInet4:
		port = b.Port
	case *unix.SockaddrInet6:
		port = b.Port
	}
	return netip.AddrPortFrom(a, uint16(port)), nil
}

// errWrongCertificate says that somebody else answers on our port.
var errWrongCertificate = errors.New("the listener answered with a certificate that is not ours")

// selfCheck shakes hands with the daemon's own listener, as far as a client
// without a certificate gets: the accept loop runs, the handshake finishes, and
// the certificate is the one that the keyring holds.
func (d *Daemon) selfCheck(ctx context.Context) error {
	if d.keys.Current() == nil {
		return nil // the Hub has not issued it yet: that is no reason to start again
	}
	// The certificate is compared with the one that serves, which says more
	// than a chain to some root would.
	st, err := d.shakeOwnHands(ctx, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, NextProtos: d.proxy.ALPN()})
	if err != nil {
		return err
	}
	if pki.Fingerprint(st.PeerCertificates[0]) != d.keys.Current().Fingerprint {
		return errWrongCertificate
	}
	return nil
}

// shakeOwnHands makes a handshake with the daemon's own listener. A client of TLS
// 1.3 does not learn by it whether it is let in.
func (d *Daemon) shakeOwnHands(ctx context.Context, cfg *tls.Config) (tls.ConnectionState, error) {
	c, _, end, err := d.callSelf(ctx)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer end()
	t := tls.Client(c, cfg)
	if err := t.HandshakeContext(ctx); err != nil {
		return tls.ConnectionState{}, fmt.Errorf("handshake with own listener: %w", err)
	}
	return t.ConnectionState(), nil
}

// callSelf connects to the daemon's own listener, up to where the handshake
// begins. It tells where from, and how to end it.
func (d *Daemon) callSelf(ctx context.Context) (c net.Conn, from netip.AddrPort, end func(), err error) {
	addr := d.listeners[0].Addr().(*net.TCPAddr).AddrPort()
	addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
	if addr.Addr().IsUnspecified() {
		loopback := netip.IPv6Loopback()
		if addr.Addr().Is4() {
			loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		}
		addr = netip.AddrPortFrom(loopback, addr.Port())
	}
	if c, from, err = d.self.dial(ctx, addr); err != nil {
		return nil, from, nil, fmt.Errorf("connect to own listener: %w", err)
	}
	end = func() {
		_ = c.Close()
		// The last event comes after the end of the connection, on a busy host
		// long after it; tell forgets it then. One that was never accepted has none,
		// and the kernel gives its port to nobody else so soon.
		time.AfterFunc(time.Minute, func() { d.self.note(from, false) })
	}
	if d.config().Listen.ExpectsProxyHeader(from.Addr()) {
		if _, err := c.Write([]byte("PROXY UNKNOWN\r\n")); err != nil {
			end()
			return nil, from, nil, fmt.Errorf("connect to own listener: %w", err)
		}
	}
	return c, from, end, nil
}
