// Package edge is where a client arrives: listen, accept, read the PROXY
// header, shake hands under a deadline, verify, and hand over a [Conn] that
// knows whose it is.
//
// It also keeps the connections afterwards. A connection that is between
// requests has no goroutine and no buffer: it waits in an epoll set (poller)
// and gets a goroutine back when the client speaks. Time limits are kept by one
// sweeper that looks four times a second at what has moved, so the data path
// arms no timers.
package edge

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/identity"
)

// Verdict is what trust says of a client. A Reason means refused.
type Verdict struct {
	Peer   *identity.Peer
	Rule   string
	Reason event.Reason
	Detail string
}

// Options configure a Server. All fields are required unless said otherwise.
type Options struct {
	Log *slog.Logger

	// TLS returns the configuration for the next handshake, made by
	// [NewTLSConfig].
	TLS func() *tls.Config

	// Verify decides on a client by the certificates that it presented. It is
	// asked during the handshake and again once the connection is registered,
	// so that a revocation arriving in between is not missed.
	Verify func(presented []*x509.Certificate) Verdict

	// Register and Unregister keep the table of live connections.
	Register, Unregister func(*Conn)

	// Serve forwards the connection. It owns it from then on, and ends it by
	// Conn.End; it may return before that, having parked the connection.
	Serve func(*Conn)

	// Event is told of each decision and each end. It must not block.
	Event func(event.Connection)

	// ExpectsProxy says whether connections from an address begin with a PROXY
	// protocol header.
	ExpectsProxy func(netip.Addr) bool

	// Self says whether a connection is the daemon's own look at itself, which
	// must come through when the house is full.
	Self func(netip.AddrPort) bool

	// Draining is called once, when no more connections are accepted.
	Draining func()

	MaxConnections   int
	HandshakesPerIP  int // per second; 0: no limit
	HandshakeTimeout time.Duration
	HeaderTimeout    time.Duration
	IdleTimeout      time.Duration
}

// Server accepts and keeps client connections.
type Server struct {
	opts     Options
	poller   *poller
	limit    limiter
	nextID   atomic.Uint64
	open     atomic.Int64 // accepted and not yet closed, handshakes included
	draining atomic.Bool
	cutting  atomic.Bool // the drain time is over: whoever still gets in is cut

	conns sync.WaitGroup // one for each open connection

	mu    sync.Mutex
	live  map[*Conn]struct{} // handshake done, not ended
	swept []*Conn            // the sweeper's scratch space
}

// NewServer returns a server that has not begun to accept.
func NewServer(opts Options) (*Server, error) {
	p, err := newPoller()
	if err != nil {
		return nil, err
	}
	return &Server{
		opts:   opts,
		poller: p,
		limit:  limiter{perSecond: opts.HandshakesPerIP},
		live:   map[*Conn]struct{}{},
	}, nil
}

// Open says how many connections are open, those in their handshake included.
func (s *Server) Open() int { return int(s.open.Load()) }

// Run accepts from the listeners until ctx ends, then drains: it stops
// accepting, lets what is under way finish for as long as drain allows, and
// cuts what is left. It returns when every connection has ended.
func (s *Server) Run(ctx context.Context, listeners []net.Listener, drain func() time.Duration) error {
	keepers := new(sync.WaitGroup)
	stopSweep := make(chan struct{})
	keepers.Go(s.poller.run)
	keepers.Go(func() { s.runSweeper(stopSweep) })

	accepting, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make(chan error, len(listeners))
	var acceptors sync.WaitGroup
	for _, l := range listeners {
		acceptors.Go(func() {
			if err := s.accept(accepting, l); err != nil {
				errs <- err
				cancel()
			}
		})
	}
	<-accepting.Done()
	s.draining.Store(true)
	s.opts.Draining()
	for _, l := range listeners {
		_ = l.Close()
	}
	acceptors.Wait()
	s.drain(drain())

	close(stopSweep)
	s.poller.close()
	keepers.Wait()
	select {
	case err := <-errs:
		return err
	default:
		return nil
	}
}

func (s *Server) runSweeper(stop <-chan struct{}) {
	t := time.NewTicker(sweepEvery)
	defer t.Stop()
	for {
		select {
		case now := <-t.C:
			s.sweep(now)
			s.limit.tick(now)
		case <-stop:
			return
		}
	}
}

// drain waits for the connections to end, and ends them after a while.
func (s *Server) drain(patience time.Duration) {
	done := make(chan struct{})
	go func() { s.conns.Wait(); close(done) }()
	s.endIdle()
	select {
	case <-done:
		return
	case <-time.After(patience):
	}
	s.cutting.Store(true)
	for _, c := range s.all() {
		c.Kill(event.Drained, "still busy when the drain time of "+patience.String()+" was over")
	}
	<-done
}

// endIdle ends the connections that are between requests. Newcomers get a moment
// more; the sweeper comes back for them.
func (s *Server) endIdle() {
	for _, c := range s.poller.expired(time.Now().Add(time.Hour)) {
		c.Kill(event.Drained, "idle when the server stopped")
	}
	for _, c := range s.all() {
		if reads := c.rec.reads.Load(); reads%2 == 1 && Phase(c.phase.Load()) == PhaseIdle && !c.Newcomer() {
			c.rec.poke(reads)
		}
	}
}

func (s *Server) all() []*Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*Conn, 0, len(s.live))
	for c := range s.live {
		all = append(all, c)
	}
	return all
}

// accept takes connections until ctx ends or the listener breaks.
func (s *Server) accept(ctx context.Context, l net.Listener) error {
	const first, most = 5 * time.Millisecond, time.Second
	backoff := first
	for {
		nc, err := l.Accept()
		if err == nil {
			backoff = first
			s.admit(nc.(*net.TCPConn))
			continue
		}
		if ctx.Err() != nil {
			return nil
		}
		if !acceptAgain(err) {
			return err
		}
		// Out of descriptors or memory: others must end before one more fits.
		s.opts.Log.Error("accept", event.KeyListener, l.Addr().String(), event.KeyError, err.Error(),
			event.KeyHint, "raise LimitNOFILE, or lower listen.max_connections")
		select {
		case <-time.After(backoff):
		case <-ctx.Done():
			return nil
		}
		backoff = min(2*backoff, most)
	}
}

// acceptAgain reports whether an accept error passes by itself.
func acceptAgain(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED, syscall.EPROTO, syscall.EPERM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// admit starts a handshake, unless the house is full.
func (s *Server) admit(tcp *net.TCPConn) {
	open := s.open.Add(1)
	s.conns.Add(1)
	if open > int64(s.opts.MaxConnections) && !s.opts.Self(addrPort(tcp.RemoteAddr())) {
		s.refuseEarly(tcp, event.TooManyConns, "listen.max_connections is reached")
		return
	}
	go s.handle(tcp)
}

// refuseEarly turns away a connection that has no handshake behind it.
func (s *Server) refuseEarly(tcp *net.TCPConn, reason event.Reason, detail string) {
	s.opts.Event(event.Connection{
		Kind: event.Refused, Time: time.Now(), ConnID: s.nextID.Add(1),
		Remote: addrPort(tcp.RemoteAddr()), Local: addrPort(tcp.LocalAddr()),
		Reason: reason, Detail: detail,
	})
	_ = tcp.SetLinger(0)
	_ = tcp.Close()
	s.done()
}

func (s *Server) done() {
	s.open.Add(-1)
	s.conns.Done()
}

// handle takes one connection from accept to Serve.
func (s *Server) handle(tcp *net.TCPConn) {
	started := time.Now()
	peer := addrPort(tcp.RemoteAddr()) // at the other end of the socket: perhaps a load balancer
	remote, local := peer, addrPort(tcp.LocalAddr())
	_ = tcp.SetDeadline(started.Add(s.opts.HandshakeTimeout))

	if s.opts.ExpectsProxy(peer.Addr()) {
		h, err := readProxyHeader(tcp)
		if err != nil {
			s.refuseEarly(tcp, event.ProxyHeader, err.Error())
			return
		}
		if h.src.IsValid() {
			remote, local = h.src, h.dst
		}
	}
	if !s.opts.Self(peer) && !s.limit.allow(remote.Addr()) {
		s.refuseEarly(tcp, event.RateLimited, "more handshakes from this address than listen.handshakes_per_ip")
		return
	}
	rec, err := newRecordConn(tcp)
	if err != nil {
		s.refuseEarly(tcp, event.HandshakeFailed, err.Error())
		return
	}
	rec.hello = &helloNote{}
	c := &Conn{
		ID: s.nextID.Add(1), Remote: remote, Local: local, started: started,
		rec: rec, server: s,
	}
	if refusal := c.shakeHands(); refusal != nil {
		s.refuse(c, refusal)
		return
	}
	_ = tcp.SetDeadline(time.Time{})

	s.mu.Lock()
	s.live[c] = struct{}{}
	s.mu.Unlock()
	s.opts.Register(c)
	if s.cutting.Load() {
		c.Kill(event.Drained, "came in when the drain time was over")
	}
	// Ask again: what was revoked between the handshake and Register found no
	// connection to cut.
	if v := s.opts.Verify(c.tls.ConnectionState().PeerCertificates); v.Reason != "" {
		s.retract(c)
		s.refuse(c, &refusal{v})
		return
	}
	rec.hello = nil
	e := c.Event(event.Accepted)
	e.Duration = time.Since(started)
	s.opts.Event(e)
	s.opts.Serve(c)
}

// refuse reports and closes a connection whose handshake did not come to an
// end.
func (s *Server) refuse(c *Conn, r *refusal) {
	hello := c.rec.hello
	e := event.Connection{
		Kind: event.Refused, Time: time.Now(), ConnID: c.ID, Remote: c.Remote, Local: c.Local,
		SNI: hello.sni, Reason: r.Reason, Detail: r.Detail, Duration: time.Since(c.started),
	}
	if hello.version != 0 {
		e.Version = tls.VersionName(hello.version)
	}
	if r.Peer != nil {
		e.Identity, e.Issuer, e.Serial = r.Peer.ID, r.Peer.Issuer, r.Peer.Serial
	}
	s.opts.Event(e)
	c.rec.in.Release()
	if r.Reason != event.HandshakeTimeout {
		c.rec.lastWord()
	}
	_ = c.rec.Close()
	s.done()
}

// forget is Conn.End's last step.
func (s *Server) forget(c *Conn, reason event.Reason, detail string) {
	s.retract(c)
	e := c.Event(event.Closed)
	e.Reason, e.Detail = reason, detail
	e.BytesIn, e.BytesOut, e.Requests = c.BytesIn.Load(), c.BytesOut.Load(), c.Requests.Load()
	e.Duration = time.Since(c.started)
	s.opts.Event(e)
	s.done()
}

// retract takes a connection off the tables of live ones.
func (s *Server) retract(c *Conn) {
	s.mu.Lock()
	delete(s.live, c)
	s.mu.Unlock()
	s.opts.Unregister(c)
}
