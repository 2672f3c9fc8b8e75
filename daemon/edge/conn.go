package edge

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/identity"
	"cyphers.ai/tlsmcp/pkg/scan/rawtls"
)

// Conn is a client that was let in: an encrypted connection, and whose it is.
//
// Whoever serves a Conn must call End once, at the end; Kill may come from
// anywhere at any time and makes the server's next read or write fail.
type Conn struct {
	ID     uint64
	Peer   *identity.Peer // nil for an anonymous client under mtls.mode = "optional" or "disabled"
	Rule   string         // the allow rule that let it in
	Remote netip.AddrPort // the client; behind a PROXY header, the one it names
	Local  netip.AddrPort // where it connected to, likewise
	ALPN   string
	SNI    string

	version, cipher uint16
	group           tls.CurveID
	started         time.Time

	// full says that the last Read filled its buffer: the TLS layer may hold
	// the rest of a record, which no one can see from outside.
	full bool

	tls    *tls.Conn
	rec    *recordConn
	server *Server

	// BytesIn and BytesOut count plain bytes; Requests counts requests. They
	// belong to whoever serves the connection, and are read by others.
	BytesIn, BytesOut, Requests atomic.Uint64

	phase    atomic.Uint32 // what it waits for: see Phase
	retiring atomic.Bool   // no further request is invited: see Retire
	watch    watch         // the sweeper's own notes

	mu     sync.Mutex
	ended  bool         // End ran
	reason event.Reason // why it was killed; empty while it lives
	detail string
	hook   io.Closer // closed by Kill as well: the backend connection in use
	parked *parked   // non-nil while no goroutine serves it
}

// ErrIdle is returned by Wait when the connection has been silent for a while
// and nothing is buffered: a good moment to Park.
var ErrIdle = errors.New("edge: connection is idle")

// ErrStalled is returned by Read when the client sent nothing for as long as
// its phase allows.
var ErrStalled = errors.New("edge: client stalled")

// Wait blocks until the client sent something, holding no buffer meanwhile.
func (c *Conn) Wait() error {
	if c.full || c.rec.buffered() {
		return nil
	}
	err := c.rec.fill()
	if err == errPoked {
		return ErrIdle
	}
	return err
}

// Read reads plain bytes.
func (c *Conn) Read(p []byte) (int, error) {
	n, err := c.tls.Read(p)
	c.full = n == len(p)
	c.BytesIn.Add(uint64(n))
	if err != nil && errors.Is(err, errPoked) {
		err = ErrStalled
	}
	return n, err
}

// Partial reports whether a record has begun to arrive and has not ended.
func (c *Conn) Partial() bool { return c.rec.buffered() || c.rec.record > 0 }

// Ready reports whether a whole record waits to be read, so that Read will not
// block.
func (c *Conn) Ready() bool { return c.full || c.rec.recordBuffered() }

// Interrupt makes a Read under way in another goroutine, and any later one,
// fail. Resume takes it back.
func (c *Conn) Interrupt() { _ = c.rec.SetReadDeadline(time.Unix(1, 0)) }

// Resume makes Read work again after Interrupt.
func (c *Conn) Resume() { _ = c.rec.SetReadDeadline(time.Time{}) }

// Write sends p in as few system calls as it takes.
func (c *Conn) Write(p []byte) (int, error) {
	const record = 16 << 10
	var n int
	var err error
	if len(p) <= record {
		n, err = c.tls.Write(p)
	} else {
		c.rec.cork()
		n, err = c.tls.Write(p)
		if ferr := c.rec.uncork(); err == nil {
			err = ferr
		}
	}
	c.BytesOut.Add(uint64(n))
	return n, err
}

// CloseWrite tells the client that no more will come (close_notify) and
// leaves the other direction open.
func (c *Conn) CloseWrite() error {
	if err := c.tls.CloseWrite(); err != nil {
		return err
	}
	return c.rec.tcp.CloseWrite()
}

// Phase says what a connection is waiting for. It decides what the sweeper
// does with one that does not move.
type Phase uint32

// The phases.
const (
	PhaseBusy    Phase = iota // nothing is expected of the client; writes must move
	PhaseIdle                 // between requests: Wait returns ErrIdle, the connection may be parked
	PhaseHeader               // a request head has begun: the header timeout runs
	PhaseBody                 // a request body is awaited: each read must move within the idle timeout
	PhaseBackend              // the backend is awaited: a client that hangs up is noticed
	PhaseTunnel               // bytes both ways: ends when neither side moved for the idle timeout
	PhaseManaged              // HTTP/2 keeps its own timers
	PhaseClosing
)

// String is the phase for people and for the control API.
func (p Phase) String() string {
	switch p {
	case PhaseBusy:
		return "busy"
	case PhaseIdle:
		return "idle"
	case PhaseHeader:
		return "header"
	case PhaseBody:
		return "body"
	case PhaseBackend:
		return "backend"
	case PhaseTunnel:
		return "tunnel"
	case PhaseManaged:
		return "http2"
	}
	return "closing"
}

// Waits is what the connection waits for.
func (c *Conn) Waits() Phase { return Phase(c.phase.Load()) }

// Started is when the connection was accepted.
func (c *Conn) Started() time.Time { return c.started }

// Enter says what the connection waits for from here on.
func (c *Conn) Enter(p Phase) { c.phase.Store(uint32(p)) }

// SetHook names what Kill closes besides the connection, or nothing when h is
// nil. It reports false when the connection was killed already; h is then not
// taken.
func (c *Conn) SetHook(h io.Closer) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reason != "" && h != nil {
		return false
	}
	c.hook = h
	return true
}

// Kill cuts the connection at once, whatever it is doing. The first reason
// given stays. It reports whether the connection was alive.
func (c *Conn) Kill(reason event.Reason, detail string) bool {
	c.mu.Lock()
	if c.ended || c.reason != "" {
		c.mu.Unlock()
		return false
	}
	c.reason, c.detail = reason, detail
	hook := c.hook
	wasParked := c.server.poller.remove(c)
	c.mu.Unlock()

	_ = c.rec.Close()
	if hook != nil {
		_ = hook.Close()
	}
	if wasParked {
		c.End(reason, detail) // nobody else is left to do it
	}
	return true
}

// Killed reports whether Kill was called, and why.
func (c *Conn) Killed() (event.Reason, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reason, c.reason != ""
}

// End ends the connection and reports it. After a Kill the reason of the
// Kill is reported.
func (c *Conn) End(reason event.Reason, detail string) {
	c.mu.Lock()
	if c.ended {
		c.mu.Unlock()
		return
	}
	c.ended = true
	killed := c.reason != ""
	if killed {
		reason, detail = c.reason, c.detail
	}
	c.hook = nil
	c.server.poller.remove(c)
	c.mu.Unlock()

	// A server that was given the connection as a net.Conn may have a reader of
	// its own on it still: what that holds is the garbage collector's.
	managed := Phase(c.phase.Swap(uint32(PhaseClosing))) == PhaseManaged
	if !killed && reason != event.ClientClosed {
		_ = c.tls.Close() // sends close_notify; bounded by its own deadline
	}
	_ = c.rec.Close()
	if !managed {
		c.rec.in.Release()
	}
	c.server.forget(c, reason, detail)
}

// Linger ends the sending side and reads what the client is still sending, for
// a short while and only so much, so that the kernel does not answer unread
// bytes with a reset that destroys the response on its way (RFC 9112,
// section 9.6).
func (c *Conn) Linger() {
	const most, patience = 256 << 10, 500 * time.Millisecond
	if c.CloseWrite() != nil {
		return
	}
	c.Enter(PhaseClosing)
	_ = c.rec.SetReadDeadline(time.Now().Add(patience))
	_, _ = io.CopyN(io.Discard, c.rec.tcp, most)
}

// Park gives up the goroutine: resume is called on a new one when the client
// sends something. It must be the serving goroutine's last act; nothing may be
// buffered. It reports false, having done nothing, when the connection was
// killed meanwhile; the caller then goes on and will find that out.
func (c *Conn) Park(resume func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reason != "" || c.full || c.rec.buffered() {
		return false
	}
	c.Enter(PhaseIdle)
	return c.server.poller.add(c, resume)
}

// NetConn returns the connection as a net.Conn, for servers that want one.
// Closing it says goodbye to the client; End is still owed.
func (c *Conn) NetConn() net.Conn { return netConn{c} }

type netConn struct{ *Conn }

func (n netConn) Close() error                         { return n.tls.Close() }
func (n netConn) LocalAddr() net.Addr                  { return net.TCPAddrFromAddrPort(n.Local) }
func (n netConn) RemoteAddr() net.Addr                 { return net.TCPAddrFromAddrPort(n.Remote) }
func (n netConn) SetDeadline(t time.Time) error        { return n.tls.SetDeadline(t) }
func (n netConn) SetReadDeadline(t time.Time) error    { return n.tls.SetReadDeadline(t) }
func (n netConn) SetWriteDeadline(t time.Time) error   { return n.tls.SetWriteDeadline(t) }
func (n netConn) ConnectionState() tls.ConnectionState { return n.tls.ConnectionState() }

// Event begins an event about this connection.
func (c *Conn) Event(kind event.Kind) event.Connection {
	e := event.Connection{
		Kind: kind, Time: time.Now(), ConnID: c.ID, Remote: c.Remote, Local: c.Local,
		Rule: c.Rule, Version: tls.VersionName(c.version), Group: rawtls.GroupName(uint16(c.group)),
		Cipher: tls.CipherSuiteName(c.cipher), ALPN: c.ALPN, SNI: c.SNI,
	}
	if c.Peer != nil {
		e.Identity, e.Issuer, e.Serial = c.Peer.ID, c.Peer.Issuer, c.Peer.Serial
	}
	return e
}

// firstWord is how long a client that has just come in may take for its first
// request while the server drains. It has not learned yet that it should go
// elsewhere, and unlike one that waits between two requests it does not expect
// to be hung up on (RFC 9112, section 9.3.1, lets it retry only what it knows was
// not processed).
const firstWord = 2 * time.Second

// Newcomer reports whether the client has come in a moment ago and sent no
// request yet.
func (c *Conn) Newcomer() bool {
	return !c.retiring.Load() && c.Requests.Load() == 0 && time.Since(c.started) < firstWord
}

// Draining reports whether the server is shutting down, so that no further
// request should be invited; or that this connection was retired.
func (c *Conn) Draining() bool { return c.server.draining.Load() || c.retiring.Load() }

// Retire ends the connection in good order: at once when it is between
// requests, else after the present one, and after patience in any case. It
// reports whether the connection was alive and not retired before.
func (c *Conn) Retire(reason event.Reason, detail string, patience time.Duration) bool {
	if c.retiring.Swap(true) {
		return false
	}
	c.mu.Lock()
	if c.ended || c.reason != "" {
		c.mu.Unlock()
		return false
	}
	parked := c.server.poller.remove(c)
	if parked {
		c.reason, c.detail = reason, detail
	}
	c.mu.Unlock()
	if parked {
		c.End(reason, detail)
		return true
	}
	if reads := c.rec.reads.Load(); reads%2 == 1 && Phase(c.phase.Load()) == PhaseIdle {
		c.rec.poke(reads)
	}
	time.AfterFunc(patience, func() { c.Kill(reason, detail) }) // does nothing to one that has ended
	return true
}

func addrPort(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		ap := t.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}
