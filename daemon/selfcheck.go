package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"cyphers.ai/tlsmcp/pkg/pki"
)

// selfCheck remembers the connections that the daemon makes to itself, so that
// they do not show up as somebody at the door.
type selfCheck struct {
	mu   sync.Mutex
	mine map[netip.AddrPort]bool
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

// errWrongCertificate says that somebody else answers on our port.
var errWrongCertificate = errors.New("the listener answered with a certificate that is not ours")

// selfCheck shakes hands with the daemon's own listener, as far as a client
// without a certificate gets: the accept loop runs, the handshake finishes, and
// the certificate is the one that the keyring holds.
func (d *Daemon) selfCheck(ctx context.Context) error {
	addr := d.listeners[0].Addr().(*net.TCPAddr).AddrPort()
	if addr.Addr().IsUnspecified() {
		loopback := netip.IPv6Loopback()
		if addr.Addr().Is4() {
			loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		}
		addr = netip.AddrPortFrom(loopback, addr.Port())
	}
	var dialer net.Dialer
	c, err := dialer.DialContext(ctx, "tcp", addr.String())
	if err != nil {
		return fmt.Errorf("connect to own listener: %w", err)
	}
	defer c.Close()
	self := c.LocalAddr().(*net.TCPAddr).AddrPort()
	self = netip.AddrPortFrom(self.Addr().Unmap(), self.Port())
	d.self.note(self, true)
	// The last event comes after the end of the connection; the kernel does
	// not give the port to anybody else so soon.
	defer time.AfterFunc(time.Second, func() { d.self.note(self, false) })
	if d.config().Listen.ExpectsProxyHeader(self.Addr()) {
		if _, err := c.Write([]byte("PROXY UNKNOWN\r\n")); err != nil {
			return fmt.Errorf("connect to own listener: %w", err)
		}
	}
	// The certificate is compared with the one that serves, which says more
	// than a chain to some root would.
	t := tls.Client(c, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, NextProtos: d.proxy.ALPN()})
	if err := t.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("handshake with own listener: %w", err)
	}
	leaf := t.ConnectionState().PeerCertificates[0]
	if pki.Fingerprint(leaf) != d.keys.Current().Fingerprint {
		return errWrongCertificate
	}
	return nil
}
