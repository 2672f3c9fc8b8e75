package proxy

//lint:file-ignore SA1019 x/net's HTTP/2 has fixes that the copy in the standard library of this Go release lacks

import (
	"context"
	"errors"
	"io"
	"log"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"

	"cyphers.ai/tlsmcp/daemon/edge"
	"cyphers.ai/tlsmcp/daemon/sock"
	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/event"
)

// http2Front serves HTTP/2 clients (RFC 9113). The frames are x/net's affair;
// each stream becomes one exchange over the shared pool. It is behind a small
// seam, serve and drain, so that a stream loop of our own can take its place.
type http2Front struct {
	p      *Proxy
	server *http2.Server
	base   *http.Server
	h2c    *h2cBackend // nil unless the backend speaks HTTP/2
}

const (
	maxStreams = 128     // at once, per connection
	maxFrame   = 1 << 14 // the smallest that RFC 9113 allows to insist on
	window     = 1 << 20 // per stream and per connection
)

func newHTTP2Front(p *Proxy) *http2Front {
	f := &http2Front{
		p: p,
		server: &http2.Server{
			MaxConcurrentStreams:         maxStreams,
			MaxReadFrameSize:             maxFrame,
			MaxUploadBufferPerConnection: window,
			MaxUploadBufferPerStream:     window,
			IdleTimeout:                  p.listen.IdleTimeout,
		},
		base: &http.Server{
			MaxHeaderBytes:    p.listen.MaxHeaderBytes,
			ReadHeaderTimeout: p.listen.HeaderTimeout,
			IdleTimeout:       p.listen.IdleTimeout,
			ErrorLog:          log.New(io.Discard, "", 0), // each outcome has an event already
		},
	}
	// It fails only for cipher suites that TLS 1.3 does not have.
	_ = http2.ConfigureServer(f.base, f.server)
	if p.backend.Protocol == config.ProtocolH2C {
		f.h2c = newH2CBackend(p)
	}
	return f
}

func (f *http2Front) serve(c *edge.Conn) {
	c.Enter(edge.PhaseManaged)
	handler := f.handler(c)
	if c.Draining() {
		// It came in when the others had been told already. GOAWAY lets it begin
		// streams for a moment still.
		defer time.AfterFunc(100*time.Millisecond, f.drain).Stop()
	}
	if c.ALPN == http2.NextProtoTLS {
		f.server.ServeConn(newBatchConn(c.NetConn()), &http2.ServeConnOpts{BaseConfig: f.base, Handler: handler})
	} else {
		f.h2c.front.serve(c, handler)
	}
	reason := event.ClientClosed
	if c.Draining() {
		reason = event.Drained
	}
	c.End(reason, "")
}

func (f *http2Front) handler(c *edge.Conn) http.Handler {
	about := append(identityHeaders(c.Peer, f.p.backend.IdentityHeaders), forwardedHeaders(c.Remote.Addr())...)
	if f.h2c != nil {
		return f.h2c.handler(c, about)
	}
	if f.p.local != nil {
		return f.localHandler(c, about)
	}
	rendered := appendFields(nil, about)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.Requests.Add(1)
		st := &stream{p: f.p, c: c, w: w, r: r, about: rendered, started: time.Now()}
		st.run()
	})
}

func (f *http2Front) drain() {
	// With no listeners of its own, Shutdown sends GOAWAY and returns.
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = f.base.Shutdown(ctx)
	if f.h2c != nil {
		f.h2c.front.drain(ctx)
	}
}

func (f *http2Front) close() {
	if f.h2c != nil {
		f.h2c.close()
	}
}

// stream is one HTTP/2 request and its response.
type stream struct {
	p       *Proxy
	c       *edge.Conn
	w       http.ResponseWriter
	r       *http.Request
	about   []byte
	started time.Time

	b      *backendConn
	stop   func() bool // ends the watch on the request's context
	upDone chan error  // of the upload; nil when there is no body
	upStop atomic.Bool // the upload must end: no more read deadlines in the future
}

func (st *stream) run() {
	if err := checkHTTP2(st.r); err != nil {
		st.answer(asFault(err))
		return
	}
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)
	s.out = st.appendRequest(s.out[:0])
	if f := st.exchange(s); f != nil {
		st.answer(f)
	}
}

// checkHTTP2 refuses what HTTP/1.1 could not say, or would say ambiguously.
func checkHTTP2(r *http.Request) error {
	switch {
	case notForwarded(r.Method):
		return errNotForwarded
	case !isToken(r.Method):
		return bad(":method is not a token")
	case !validHost(r.Host):
		return bad(":authority is not a host and port")
	case r.RequestURI != "*" && !strings.HasPrefix(r.RequestURI, "/"):
		return bad(":path must begin with a slash")
	}
	if hs := r.Header["Host"]; len(hs) > 1 || len(hs) == 1 && hs[0] != r.Host {
		return bad("Host and :authority disagree")
	}
	if !all(r.RequestURI, targetChar) {
		return bad(":path has a character that no URI has")
	}
	for name, values := range r.Header {
		if !isToken(name) {
			return bad("a header field has no proper name")
		}
		for _, v := range values {
			if !validValue(v) {
				return bad("a header field value has a control character")
			}
		}
	}
	return nil
}

func (st *stream) appendRequest(b []byte) []byte {
	r := st.r
	b = appendRequestLine(b, r.Method, r.RequestURI)
	b = appendField(b, "Host", r.Host)
	trailers := false
	for name, values := range r.Header {
		switch known(name) {
		case hOther:
			for _, v := range values {
				b = appendField(b, name, v)
			}
		case hTE:
			trailers = len(values) == 1 && equalFold(values[0], "trailers")
		}
	}
	for name := range r.Trailer {
		if passesAsTrailer(name) {
			b = appendField(b, "Trailer", name)
		}
	}
	b = appendFraming(b, r.ContentLength, r.Method)
	if trailers {
		b = append(b, acceptTrailers...)
	}
	return append(append(b, st.about...), "\r\n"...)
}

// exchange sends the request and brings the response back.
func (st *stream) exchange(s *scratch) *fault {
	repeat := st.r.ContentLength == 0 && idempotent(st.r.Method)
	for try := 0; ; try++ {
		f, again := st.attempt(s, try > 0, repeat)
		if again && try == 0 {
			continue
		}
		return f
	}
}

// attempt makes one try. again says that a kept-alive connection was dead and
// nothing was lost.
func (st *stream) attempt(s *scratch, fresh, repeat bool) (f *fault, again bool) {
	b, err := st.p.pool.get(st.r.Context(), fresh, !repeat)
	if err != nil {
		return unreachable(err), false
	}
	if _, killed := st.c.Killed(); killed {
		b.close()
		panic(http.ErrAbortHandler)
	}
	st.b = b
	st.stop = context.AfterFunc(st.r.Context(), func() { _ = b.Close() })
	if _, err := b.Write(s.out); err != nil {
		st.drop()
		return backendFault(err), b.reused && repeat
	}
	if st.r.ContentLength != 0 {
		st.upDone = make(chan error, 1)
		go func() { st.upDone <- st.upload() }()
	}
	for {
		silent := b.in.Empty()
		if f := b.readResponse(&s.p, st.p.backend.ResponseTimeout); f != nil {
			st.drop()
			return f, f.reason == event.BackendBroke && b.reused && repeat && silent
		}
		if s.p.status >= 200 {
			return st.finish(s), false
		}
		repeat = false
		if s.p.status == 101 {
			st.drop()
			return malformedBackend(errors.New("it switched protocols unasked")), false
		}
		if s.p.status != 100 { // x/net sends that one by itself
			copyHeader(st.w.Header(), &s.p)
			st.w.WriteHeader(s.p.status)
			clear(st.w.Header())
		}
		b.in.Consume(s.p.size)
	}
}

// drop ends the use of the backend connection for good.
func (st *stream) drop() {
	st.settle()
	st.b.close()
	st.b = nil
}

// settle ends the upload if it is still under way, and reports whether the
// request was sent whole and the stream is still the client's.
func (st *stream) settle() bool {
	live := st.stop() // false: the client reset the stream, and the connection is being closed
	if st.upDone == nil {
		return live
	}
	select {
	case err := <-st.upDone:
		return err == nil && live
	default:
	}
	// It may wait for the client or for the backend.
	st.upStop.Store(true)
	_ = http.NewResponseController(st.w).SetReadDeadline(time.Unix(1, 0))
	_ = st.b.SetWriteDeadline(time.Unix(1, 0))
	if <-st.upDone != nil {
		return false
	}
	return st.b.SetWriteDeadline(time.Time{}) == nil && live
}

// finish passes on the final response.
func (st *stream) finish(s *scratch) *fault {
	p := &s.p
	status := p.status
	r := &streamRelay{st: st, framing: p.framing(st.r.Method == "HEAD"), remaining: p.length, guard: stallGuard{w: st.w, limit: st.p.listen.IdleTimeout}}
	reusable := !p.close && p.minor == 1 && r.framing != byClose
	copyHeader(st.w.Header(), p)
	if st.c.Draining() {
		// To x/net's server this means GOAWAY after the streams that are open.
		st.w.Header().Set("Connection", "close")
	}
	if p.length >= 0 && status != 204 {
		st.w.Header()["Content-Length"] = []string{strconv.FormatInt(p.length, 10)}
	}
	st.w.WriteHeader(status)
	st.b.in.Consume(p.size)
	err := r.run()
	st.p.observer.Request("h2", status, time.Since(st.started))
	if err != nil {
		st.drop()
		panic(http.ErrAbortHandler) // RST_STREAM: it must not look complete
	}
	if st.settle() && reusable {
		st.p.pool.put(st.b)
	} else {
		st.b.close()
	}
	return nil
}

// copyHeader moves the fields that pass into an http.Header.
func copyHeader(h http.Header, p *response) {
	for f := range p.passing() {
		if known(f.name) == hTrailer {
			continue // x/net announces the trailers itself
		}
		name := textproto.CanonicalMIMEHeaderKey(string(f.name))
		h[name] = append(h[name], string(f.value))
	}
}

// upload sends the request body.
func (st *stream) upload() error {
	buf := sock.Get(true)
	defer sock.Put(buf)
	rc := http.NewResponseController(st.w)
	chunked := st.r.ContentLength < 0
	const room = 16 // for a chunk's size line in front and CR LF behind
	for {
		_ = rc.SetReadDeadline(time.Now().Add(st.p.listen.IdleTimeout))
		if st.upStop.Load() { // settle's deadline may have come before ours
			_ = rc.SetReadDeadline(time.Unix(1, 0))
		}
		n, err := st.r.Body.Read((*buf)[room : len(*buf)-room])
		if n > 0 {
			if werr := st.writeBody(*buf, room, n, chunked); werr != nil {
				return werr
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			_ = st.b.Close() // without a terminator
			return err
		}
	}
	if !chunked {
		return nil
	}
	end := []byte("0\r\n")
	for name, values := range st.r.Trailer {
		if passesAsTrailer(name) {
			for _, v := range values {
				end = appendField(end, name, v)
			}
		}
	}
	_, err := st.b.Write(append(end, "\r\n"...))
	return err
}

// writeBody sends buf[room:room+n], as a chunk if need be, in one write.
func (st *stream) writeBody(buf []byte, room, n int, chunked bool) error {
	if !chunked {
		_, err := st.b.Write(buf[room : room+n])
		return err
	}
	var size [20]byte
	line := append(strconv.AppendInt(size[:0], int64(n), 16), "\r\n"...)
	start := room - len(line)
	copy(buf[start:], line)
	_, err := st.b.Write(append(buf[start:room+n], "\r\n"...))
	return err
}

// answer sends a response of our own.
func (st *stream) answer(f *fault) {
	if st.r.Context().Err() != nil {
		panic(http.ErrAbortHandler) // the client is gone
	}
	f.write(st.w, st.r)
	st.p.observer.Request("h2", f.status, time.Since(st.started))
	st.p.logFault(st.c, f)
}
