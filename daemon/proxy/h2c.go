package proxy

//lint:file-ignore SA1019 x/net's HTTP/2 has fixes that the copy in the standard library of this Go release lacks

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"sync"
	"time"

	"golang.org/x/net/http2"

	"cyphers.ai/tlsmcp/daemon/edge"
)

// h2cBackend forwards to a program that speaks HTTP/2 without TLS, such as a
// gRPC server. Requests are framed anew, so nothing ambiguous gets past; the
// standard library's reverse proxy carries them, trailers included.
type h2cBackend struct {
	p         *Proxy
	transport *http2.Transport
	front     *netHTTPFront
}

func newH2CBackend(p *Proxy) *h2cBackend {
	return &h2cBackend{
		p: p,
		transport: &http2.Transport{
			AllowHTTP:          true,
			DisableCompression: true,
			DialTLSContext: func(ctx context.Context, _, _ string, _ *tls.Config) (net.Conn, error) {
				return p.pool.dialer.DialContext(ctx, p.backend.Network, p.backend.Address)
			},
			ReadIdleTimeout: 30 * time.Second,
			IdleConnTimeout: keepIdle,
		},
		front: newNetHTTPFront(p),
	}
}

func (b *h2cBackend) close() {
	b.transport.CloseIdleConnections()
	b.front.close()
}

// handler forwards the requests of one client connection.
func (b *h2cBackend) handler(c *edge.Conn, about []field) http.Handler {
	rp := &httputil.ReverseProxy{
		Transport:     b.roundTripper(),
		FlushInterval: -1,
		ErrorLog:      log.New(io.Discard, "", 0),
		Rewrite: func(pr *httputil.ProxyRequest) {
			// One name for all: the transport keeps a connection for each.
			pr.Out.URL.Scheme, pr.Out.URL.Host = "http", "backend"
			pr.Out.Host = pr.In.Host
			for name := range pr.Out.Header {
				if k := known(name); k == hIdentity || k == hForwarded {
					delete(pr.Out.Header, name)
				}
			}
			for _, f := range about {
				pr.Out.Header.Set(string(f.name), string(f.value))
			}
			if pr.Out.Body != nil {
				pr.Out.Body = pr.In.Body // an uploadBody
			}
			carryTrailers(pr)
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if r.Context().Err() != nil {
				panic(http.ErrAbortHandler) // the client is gone
			}
			f := h2cFault(err)
			b.p.logFault(c, f)
			f.write(w, r)
		},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.Requests.Add(1)
		started := time.Now()
		if err := checkHTTP2(r); err != nil {
			f := asFault(err)
			f.write(w, r)
			b.p.observer.Request("h2", f.status, time.Since(started))
			return
		}
		if _, killed := c.Killed(); killed {
			panic(http.ErrAbortHandler)
		}
		sw := &statusWriter{ResponseWriter: w, status: http.StatusOK, guard: stallGuard{w: w, limit: b.p.listen.IdleTimeout}}
		defer func() { b.p.observer.Request("h2", sw.status, time.Since(started)) }()
		body := &uploadBody{ReadCloser: r.Body, w: w}
		defer body.retire()
		r.Body = body
		rp.ServeHTTP(sw, r)
	})
}

// h2cFault tells a backend that is not there from one that does not answer and
// one that breaks off before it has.
func h2cFault(err error) *fault {
	var op *net.OpError
	switch {
	case errors.As(err, &op) && op.Op == "dial":
		return unreachable(err)
	case errors.Is(err, context.DeadlineExceeded):
		return backendFault(os.ErrDeadlineExceeded)
	}
	return backendFault(err)
}

// roundTripper bounds the wait for a response head when that is asked for.
func (b *h2cBackend) roundTripper() http.RoundTripper {
	t := b.p.backend.ResponseTimeout
	if t == 0 {
		return b.transport
	}
	return roundTripFunc(func(r *http.Request) (*http.Response, error) {
		ctx, cancel := context.WithCancelCause(r.Context())
		timer := time.AfterFunc(t, func() { cancel(context.DeadlineExceeded) })
		resp, err := b.transport.RoundTrip(r.WithContext(ctx))
		if !timer.Stop() && err != nil {
			err = context.DeadlineExceeded
		}
		if err != nil {
			cancel(nil)
		}
		return resp, err
	})
}

type roundTripFunc func(*http.Request) (*http.Response, error)

func (f roundTripFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// uploadBody is a request body on its way to the backend. ReverseProxy keeps
// the transport's Close from the body, so a transport that reads it for a
// stream that the backend has ended already would wait for the client to say
// more: the answer of a gRPC server that gives up a stream would not arrive.
type uploadBody struct {
	io.ReadCloser

	mu    sync.Mutex          // guards what follows
	w     http.ResponseWriter // nil once the handler returned: it must not be used then
	ended bool                // read to its end, or closed
}

func (b *uploadBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	gone := b.w == nil
	b.mu.Unlock()
	if gone {
		return 0, http.ErrBodyReadAfterClose
	}
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.mu.Lock()
		b.ended = true
		b.mu.Unlock()
	}
	return n, err
}

// Close ends a Read under way. The body itself is the server's to close.
func (b *uploadBody) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.ended && b.w != nil {
		_ = http.NewResponseController(b.w).SetReadDeadline(time.Unix(1, 0))
	}
	b.ended = true
	return nil
}

func (b *uploadBody) retire() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.w = nil
}

// carryTrailers makes the request's trailers follow its body. Their values are
// there only once the body has been read, by when ReverseProxy has copied the
// request.
func carryTrailers(pr *httputil.ProxyRequest) {
	if len(pr.In.Trailer) == 0 || pr.Out.Body == nil {
		return
	}
	out := http.Header{}
	for name := range pr.In.Trailer {
		if passesAsTrailer(name) {
			out[name] = nil
		}
	}
	pr.Out.Trailer = out
	pr.Out.Body = &trailerBody{ReadCloser: pr.Out.Body, from: pr.In, to: out}
}

type trailerBody struct {
	io.ReadCloser
	from *http.Request
	to   http.Header
}

func (b *trailerBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		for name := range b.to {
			b.to[name] = b.from.Trailer[name]
		}
	}
	return n, err
}

// statusWriter remembers the status for the metrics, and does not let a client
// stall it.
type statusWriter struct {
	http.ResponseWriter
	status int
	guard  stallGuard
}

func (w *statusWriter) Write(p []byte) (n int, err error) {
	err = w.guard.do(func() error {
		n, err = w.ResponseWriter.Write(p)
		return err
	})
	return n, err
}

// FlushError is what http.ResponseController calls.
func (w *statusWriter) FlushError() error {
	return w.guard.do(http.NewResponseController(w.ResponseWriter).Flush)
}

func (w *statusWriter) WriteHeader(status int) {
	if status >= 200 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// netHTTPFront lets HTTP/1.1 clients reach an HTTP/2 backend, through the
// standard library's server.
type netHTTPFront struct {
	server *http.Server
	feed   chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newNetHTTPFront(p *Proxy) *netHTTPFront {
	f := &netHTTPFront{feed: make(chan net.Conn), closed: make(chan struct{})}
	f.server = &http.Server{
		MaxHeaderBytes:    p.listen.MaxHeaderBytes,
		ReadHeaderTimeout: p.listen.HeaderTimeout,
		IdleTimeout:       p.listen.IdleTimeout,
		ErrorLog:          log.New(io.Discard, "", 0),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, handlerKey{}, c.(*fedConn).handler)
		},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.Context().Value(handlerKey{}).(http.Handler).ServeHTTP(w, r)
		}),
	}
	go func() { _ = f.server.Serve(f) }() // ends with close
	return f
}

type handlerKey struct{}

// fedConn is a connection on its way through the standard library's server.
type fedConn struct {
	net.Conn
	handler http.Handler
	once    sync.Once
	done    chan struct{}
}

func (c *fedConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { close(c.done) })
	return err
}

// serve returns when the server is done with the connection.
func (f *netHTTPFront) serve(c *edge.Conn, h http.Handler) {
	fc := &fedConn{Conn: c.NetConn(), handler: h, done: make(chan struct{})}
	select {
	case f.feed <- fc:
		<-fc.done
	case <-f.closed:
	}
}

func (f *netHTTPFront) drain(ctx context.Context) { _ = f.server.Shutdown(ctx) }

func (f *netHTTPFront) close() {
	_ = f.Close()
	_ = f.server.Close()
}

// Accept, Close and Addr make f the listener of its own server.
func (f *netHTTPFront) Accept() (net.Conn, error) {
	select {
	case c := <-f.feed:
		return c, nil
	case <-f.closed:
		return nil, net.ErrClosed
	}
}

func (f *netHTTPFront) Close() error {
	f.once.Do(func() { close(f.closed) })
	return nil
}

func (f *netHTTPFront) Addr() net.Addr { return &net.TCPAddr{} }
