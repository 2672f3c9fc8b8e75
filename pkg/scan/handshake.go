package scan

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"syscall"
	"time"

	"cyphers.ai/tlsmcp/pkg/scan/rawtls"
)

// handshake is what came of a handshake by crypto/tls.
type handshake struct {
	state  tls.ConnectionState
	flight *rawtls.Flight // what the server said, opened
	done   bool           // our side finished it
	wanted bool           // the server asked for a client certificate
	data   []byte         // that the server sent afterwards
	hungUp bool           // it hung up, without a word, before we did
	err    error          // of the handshake, or that came late; nil: none
}

// refused reports whether the server said no, at whatever time.
func (h *handshake) refused() bool {
	return h.hungUp || h.flight.Alert != nil && h.flight.Alert.Fatal
}

// refusal is what the server said, in words.
func (h *handshake) refusal() string {
	if h.flight.Alert != nil {
		return h.flight.Alert.String()
	}
	return "it hung up"
}

// trouble is what kept a handshake from telling anything. A refusal is none.
func (h *handshake) trouble() error {
	if h.done || h.refused() {
		return nil
	}
	return h.err
}

// then is what to do when a handshake is through.
type then struct {
	listen bool   // until the server ends
	say    string // this first
}

// shake makes a handshake, and then listens or not. It tries again when nothing
// came of it.
func (p *probe) shake(ctx context.Context, config *tls.Config, then then) (h *handshake) {
	for range tries {
		h = p.shakeOnce(ctx, config, then)
		if h.done || h.flight.Alert != nil || errors.Is(h.err, errBudget) || ctx.Err() != nil {
			break
		}
	}
	p.note(func(o *observation) { o.flight(h.flight) })
	return h
}

func (p *probe) shakeOnce(ctx context.Context, config *tls.Config, then then) *handshake {
	h := &handshake{flight: &rawtls.Flight{}}
	raw, err := p.connect(ctx)
	if err != nil {
		h.err = err
		return h
	}
	defer raw.Close()
	tap := rawtls.NewTap(raw)
	config = config.Clone()
	config.KeyLogWriter = tap.KeyLog()
	give := config.GetClientCertificate
	config.GetClientCertificate = func(info *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		h.wanted = true
		if give == nil {
			return &tls.Certificate{}, nil
		}
		return give(info)
	}
	conn := tls.Client(tap, config)
	h.err = conn.HandshakeContext(ctx)
	h.done = h.err == nil
	h.state = conn.ConnectionState()
	switch {
	case !h.done:
		h.hungUp = isHangUp(h.err)
	case then.listen:
		h.listen(conn, raw, then.say)
	default:
		_ = conn.CloseWrite()
	}
	h.flight = tap.Flight()
	return h
}

// Times for listening after a handshake. TLS 1.3 refuses late: the client is
// through before the server has seen its certificate.
const (
	aMoment = 150 * time.Millisecond  // for what is on its way already
	aWhile  = 1500 * time.Millisecond // for a server to end when we have
)

// listen reads until the server ends. One that asked for a certificate gets a
// moment to refuse before we hang up, so that its alert is not lost.
func (h *handshake) listen(conn *tls.Conn, raw net.Conn, say string) {
	wait := func(d time.Duration) error {
		if err := raw.SetReadDeadline(time.Now().Add(d)); err != nil {
			return err
		}
		return h.read(conn)
	}
	var err error
	switch {
	case say != "":
		if _, err = io.WriteString(conn, say); err == nil {
			err = wait(aWhile)
		}
	case h.wanted:
		if err = wait(aMoment); isTimeout(err) {
			_ = conn.CloseWrite()
			err = wait(aWhile)
		} else {
			h.hungUp = err != nil
		}
	default:
		_ = conn.CloseWrite()
		err = wait(aWhile)
	}
	if err != nil && !errors.Is(err, io.EOF) && !isTimeout(err) {
		h.err = err
	}
}

// maxData bounds what is read of an answer.
const maxData = 64 << 10

// read reads to the end, which is an error too.
func (h *handshake) read(conn *tls.Conn) error {
	buf := make([]byte, 4096)
	for len(h.data) < maxData {
		n, err := conn.Read(buf)
		h.data = append(h.data, buf[:n]...)
		if err != nil {
			return err
		}
	}
	return io.EOF
}

func isTimeout(err error) bool {
	n, ok := errors.AsType[net.Error](err)
	return ok && n.Timeout()
}

// isHangUp reports whether the other side ended the connection.
func isHangUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// clientConfig takes whatever the server has: the rules judge it, not the
// handshake.
func (p *probe) clientConfig() *tls.Config {
	var suites []uint16
	for _, list := range [][]*tls.CipherSuite{tls.CipherSuites(), tls.InsecureCipherSuites()} {
		for _, s := range list {
			suites = append(suites, s.ID)
		}
	}
	c := &tls.Config{
		ServerName:         p.target.name(),
		InsecureSkipVerify: true,
		MinVersion:         tls.VersionTLS10,
		MaxVersion:         tls.VersionTLS13,
		CipherSuites:       suites,
	}
	if cert := p.o.ClientCertificate; cert != nil {
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	return c
}
