package scan

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"cyphers.ai/tlsmcp/pkg/scan/rawtls"
)

var (
	errBudget     = errors.New("the limit of connections to one target is reached")
	errNoStartTLS = errors.New("the server does not offer STARTTLS")
)

// probe asks one server. Its methods may run at the same time.
type probe struct {
	target Target
	o      *Options
	slots  chan struct{} // one for each connection that may be open

	mu          sync.Mutex
	address     string // that answered first, and is asked from then on
	connections int
	seen        *observation
}

func newProbe(t Target, o *Options) *probe {
	return &probe{target: t, o: o, slots: make(chan struct{}, o.Parallel), address: t.dialAddress(), seen: newObservation()}
}

// note changes the observation.
func (p *probe) note(change func(*observation)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(p.seen)
}

// slotted gives its slot back when it is closed.
type slotted struct {
	net.Conn
	release func()
}

func (s *slotted) Close() error {
	defer s.release()
	return s.Conn.Close()
}

// CloseWrite ends what we say, so that the server ends too.
func (s *slotted) CloseWrite() error {
	if c, ok := s.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}

// connect opens a connection, up to where TLS begins.
func (p *probe) connect(ctx context.Context) (net.Conn, error) {
	select {
	case p.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	release := sync.OnceFunc(func() { <-p.slots })
	p.mu.Lock()
	address, over := p.address, p.connections >= p.o.MaxConnections
	p.connections++
	p.mu.Unlock()
	if over {
		release()
		return nil, errBudget
	}
	conn, err := p.dial(ctx, address)
	if err != nil {
		release()
		return nil, err
	}
	c := &slotted{conn, release}
	if err := startTLS(c, p.target.StartTLS); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// dial connects to where the first connection went. A name with several
// addresses is tried by the dialer as a client would (RFC 8305); later
// connections must not end up at another server, or two would be mixed in one
// report.
func (p *probe) dial(ctx context.Context, address string) (net.Conn, error) {
	dialCtx, cancel := context.WithTimeout(ctx, p.o.Timeout)
	defer cancel()
	conn, err := p.o.Dial(dialCtx, "tcp", address)
	if err != nil {
		return nil, err
	}
	until := time.Now().Add(p.o.Timeout)
	if d, ok := ctx.Deadline(); ok && d.Before(until) {
		until = d
	}
	if err := conn.SetDeadline(until); err != nil {
		conn.Close()
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.seen.address == "" {
		p.seen.address = conn.RemoteAddr().String()
		if _, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
			p.address = p.seen.address
		}
	}
	return conn, nil
}

// tries is how often a question is asked that brought no answer. A server under
// load hangs up now and then, and that is no refusal.
const tries = 2

// ask sends one hello, and reads the answer.
func (p *probe) ask(ctx context.Context, h *rawtls.Hello) (f *rawtls.Flight, err error) {
	if h.Version > rawtls.SSL30 {
		h.ServerName = p.target.sni()
	}
	for range tries {
		f, err = p.askOnce(ctx, h)
		if err == nil && !(f.Hello == nil && f.Alert == nil) || errors.Is(err, errBudget) || ctx.Err() != nil {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	p.note(func(o *observation) { o.flight(f) })
	return f, nil
}

func (p *probe) askOnce(ctx context.Context, h *rawtls.Hello) (*rawtls.Flight, error) {
	conn, err := p.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	return rawtls.Ask(conn, h)
}

// startTLS talks the server into TLS. It reads byte by byte: what follows the
// answer belongs to TLS.
func startTLS(conn net.Conn, how StartTLS) error {
	switch how {
	case SMTP:
		if err := smtpReply(conn, 220); err != nil {
			return fmt.Errorf("SMTP greeting: %w", err)
		}
		if _, err := io.WriteString(conn, "EHLO tlsmcp.invalid\r\n"); err != nil {
			return err
		}
		if err := smtpReply(conn, 250); err != nil {
			return fmt.Errorf("SMTP EHLO: %w", err)
		}
		if _, err := io.WriteString(conn, "STARTTLS\r\n"); err != nil {
			return err
		}
		if err := smtpReply(conn, 220); err != nil {
			return fmt.Errorf("%w: %w", errNoStartTLS, err)
		}
	case Postgres:
		// SSLRequest: its length and a version that no protocol has.
		if _, err := conn.Write([]byte{0, 0, 0, 8, 4, 210, 22, 47}); err != nil {
			return err
		}
		var answer [1]byte
		if _, err := io.ReadFull(conn, answer[:]); err != nil {
			return fmt.Errorf("PostgreSQL SSLRequest: %w", err)
		}
		if answer[0] != 'S' {
			return fmt.Errorf("%w: PostgreSQL answers %q", errNoStartTLS, answer[:])
		}
	}
	return nil
}

// smtpReply reads a reply of one or more lines and wants its code.
func smtpReply(r io.Reader, want int) error {
	for range 100 {
		line, err := readLine(r)
		if err != nil {
			return err
		}
		if !strings.HasPrefix(line, fmt.Sprint(want)) {
			return fmt.Errorf("the server says %q", line)
		}
		if len(line) < 4 || line[3] != '-' {
			return nil
		}
	}
	return errors.New("the reply does not end")
}

func readLine(r io.Reader) (string, error) {
	var line []byte
	var b [1]byte
	for len(line) < 1000 {
		if _, err := io.ReadFull(r, b[:]); err != nil {
			return "", err
		}
		if b[0] == '\n' {
			return string(bytes.TrimSuffix(line, []byte("\r"))), nil
		}
		line = append(line, b[0])
	}
	return "", errors.New("the line does not end")
}
