package proxy

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/textproto"
	"net/url"
	"strconv"
	"time"

	"cyphers.ai/tlsmcp/daemon/edge"
	"cyphers.ai/tlsmcp/pkg/event"
)

// Answer makes the proxy hand each request to a handler of this process rather
// than to a backend. It is for what must read messages whole before it
// forwards them. It is called before the first Serve, and with is called once
// for each connection.
//
// The handler gets requests that passed the checks that a forwarded one passes:
// no hop-by-hop fields, and of those that say who the client is only ours. Its
// request's context ends with the connection, or when the client hangs up. As
// with net/http it may panic with [http.ErrAbortHandler] to cut the response
// short.
func (p *Proxy) Answer(with func(*edge.Conn) http.Handler) { p.local = with }

// localClient is what a handler of this process gets of an HTTP/1.1 client.
type localClient struct {
	handler http.Handler
	who     []field
}

// serveLocal is run for a handler of this process.
func (x *exchange) serveLocal() *ending {
	q := &x.s.q
	h := x.h
	x.isHead = string(q.method) == "HEAD"
	x.old = q.minor == 0
	x.keep = !q.close && (q.minor == 1 || q.keepAlive)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r, err := h.localRequest(q)
	if err != nil {
		return x.answer(asFault(err))
	}
	if !h.c.SetHook(closeFunc(func() error { cancel(); return nil })) {
		return x.answer(&fault{502, event.Reset, "the connection was cut", false, true})
	}
	defer h.c.SetHook(nil)
	body := &localBody{x: x, body: bodyReader{remaining: q.length}, expect: q.expect}
	if q.length < 0 {
		body.body.chunks = &chunkReader{}
	}
	r.Body = body
	body.whole()
	w := &localWriter{x: x, header: http.Header{}}
	aborted := run(h.local.handler, w, r.WithContext(ctx))
	h.c.Enter(edge.PhaseBusy)
	if aborted {
		h.c.Kill(event.BackendBroke, "the answer was cut short")
		return &ending{event.BackendBroke, ""}
	}
	if !body.body.done() {
		x.keep = false
	}
	w.finish()
	h.p.observer.Request("http/1.1", w.status, time.Since(x.started))
	return w.ending(body)
}

// run reports whether the handler gave the response up.
func run(h http.Handler, w http.ResponseWriter, r *http.Request) (aborted bool) {
	defer func() {
		if p := recover(); p != nil {
			if err, ok := p.(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
				panic(p)
			}
			aborted = true
		}
	}()
	h.ServeHTTP(w, r)
	return false
}

type closeFunc func() error

func (f closeFunc) Close() error { return f() }

// localRequest is the request as net/http would have it. It holds no view of
// the head, whose bytes the body overwrites.
func (h *http1) localRequest(q *request) (*http.Request, error) {
	r := &http.Request{
		Method: string(q.method), RequestURI: string(q.target), Host: string(q.host),
		Proto: "HTTP/1." + strconv.Itoa(q.minor), ProtoMajor: 1, ProtoMinor: q.minor,
		ContentLength: q.length, RemoteAddr: h.c.Remote.String(), Header: http.Header{},
	}
	u, err := url.ParseRequestURI(r.RequestURI)
	if err != nil {
		return nil, bad("the target is not a path")
	}
	r.URL = u
	for _, f := range q.fields {
		if known(f.name) == hOther && !nominated(f.name, q.nominated) {
			addField(r.Header, string(f.name), string(f.value))
		}
	}
	addFields(r.Header, h.local.who)
	return r, nil
}

func addField(h http.Header, name, value string) {
	name = textproto.CanonicalMIMEHeaderKey(name)
	h[name] = append(h[name], value)
}

func addFields(h http.Header, fs []field) {
	for _, f := range fs {
		addField(h, string(f.name), string(f.value))
	}
}

// localBody reads a request body that is checked as it is read.
type localBody struct {
	x      *exchange
	body   bodyReader
	expect bool // the client waits for a word before it sends the body
	err    error
}

func (b *localBody) Read(p []byte) (int, error) {
	h := b.x.h
	for {
		switch {
		case b.err != nil:
			return 0, b.err
		case b.body.done():
			return 0, io.EOF
		case b.expect && len(h.in) == 0:
			b.expect = false
			if _, b.err = h.c.Write([]byte("HTTP/1.1 100 Continue\r\n\r\n")); b.err != nil {
				return 0, b.err
			}
		}
		if len(h.in) == 0 {
			h.c.Enter(edge.PhaseBody)
			if b.err = h.moreBody(); b.err != nil {
				continue
			}
		}
		n, used, err := b.body.read(p, h.in)
		h.in = h.in[used:]
		b.err = err
		b.whole()
		if n > 0 {
			return n, nil
		}
	}
}

// Close does nothing: what was not read ends the connection.
func (b *localBody) Close() error { return nil }

// whole notes the end of the body: what is awaited now is the answer, for which
// no buffer is held.
func (b *localBody) whole() {
	if !b.body.done() {
		return
	}
	b.x.h.c.Enter(edge.PhaseBackend)
	if len(b.x.h.in) == 0 {
		b.x.h.release()
	}
}

// read copies body bytes out of in; used bytes of it are done with.
func (r *bodyReader) read(p, in []byte) (n, used int, err error) {
	switch {
	case r.chunks == nil:
		n = copy(p, in[:min(int64(len(in)), r.remaining)])
		r.remaining -= int64(n)
		return n, n, nil
	case r.chunks.state == chunkData:
		n = copy(p, in[:min(uint64(len(in)), r.chunks.remaining)])
		used, err = r.chunks.advance(in[:n])
		return n, used, err
	}
	used, err = r.chunks.advance(in)
	return 0, used, err
}

// localWriter writes a handler's response. A response that fits the buffer and
// was not flushed leaves whole, with its length; any other leaves in chunks.
type localWriter struct {
	x      *exchange
	header http.Header
	status int
	begun  bool // the head was sent
	buf    []byte
	err    error // of the client's connection
}

const localBuffer = 32 << 10

func (w *localWriter) Header() http.Header { return w.header }

func (w *localWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
}

func (w *localWriter) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	if w.err != nil {
		return 0, w.err
	}
	w.buf = append(w.buf, p...)
	if len(w.buf) >= localBuffer {
		w.send(false)
	}
	return len(p), w.err
}

// FlushError is what http.ResponseController calls.
func (w *localWriter) FlushError() error {
	w.WriteHeader(http.StatusOK)
	if w.err == nil {
		w.send(false)
	}
	return w.err
}

func (w *localWriter) finish() {
	w.WriteHeader(http.StatusOK)
	if w.err == nil {
		w.send(true)
	}
}

// send sends what is buffered, behind the head if that was not sent.
func (w *localWriter) send(last bool) {
	x := w.x
	empty := x.isHead || w.status == http.StatusNoContent || w.status == http.StatusNotModified
	var out []byte
	if !w.begun {
		if !last && x.old {
			x.keep = false
		}
		x.keep = x.keep && !x.h.c.Draining()
		out = w.appendHead(nil, last, empty)
	}
	// Only what was begun before its length was known is in chunks.
	chunked := (w.begun || !last) && !x.old
	switch {
	case empty:
	case !chunked:
		out = append(out, w.buf...)
	default:
		if len(w.buf) > 0 {
			out = append(strconv.AppendInt(out, int64(len(w.buf)), 16), "\r\n"...)
			out = append(append(out, w.buf...), "\r\n"...)
		}
		if last {
			out = append(out, "0\r\n\r\n"...)
		}
	}
	w.begun = true
	w.buf = w.buf[:0]
	if len(out) > 0 {
		_, w.err = x.h.c.Write(out)
	}
}

func (w *localWriter) appendHead(b []byte, last, empty bool) []byte {
	b = append(b, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(w.status), 10)
	b = append(append(append(b, ' '), http.StatusText(w.status)...), "\r\n"...)
	for name, values := range w.header {
		if known(name) != hOther || !isToken(name) {
			continue
		}
		for _, v := range values {
			if validValue(v) {
				b = appendField(b, name, v)
			}
		}
	}
	switch {
	case w.status == http.StatusNoContent || w.status == http.StatusNotModified:
	case last && !(empty && len(w.buf) == 0):
		b = appendLength(b, int64(len(w.buf)))
	case !w.x.old && !last:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	}
	switch {
	case !w.x.keep:
		b = append(b, "Connection: close\r\n"...)
	case w.x.old:
		b = append(b, "Connection: keep-alive\r\n"...)
	}
	return append(b, "\r\n"...)
}

// ending says how the connection goes on after the response.
func (w *localWriter) ending(body *localBody) *ending {
	x := w.x
	switch {
	case w.err != nil:
		return clientGone(w.err)
	case body.err != nil && !errors.Is(body.err, io.EOF):
		x.h.c.Linger()
		var m *malformed
		if errors.As(asBody(body.err), &m) {
			return &ending{event.BadRequest, m.why}
		}
		return clientGone(body.err)
	case x.keep:
		return nil
	}
	x.h.c.Linger()
	if x.h.c.Draining() {
		return &ending{event.Drained, ""}
	}
	return &ending{event.ServerClosed, "the client asked for it, or its request was not read whole"}
}

// asBody tells a body that is malformed from one that did not come.
func asBody(err error) error {
	for _, e := range []error{errChunkSize, errChunkExt, errChunkEnd, errChunkTrailer} {
		if errors.Is(err, e) {
			return bad(err.Error())
		}
	}
	return err
}

// localHandler hands the streams of an HTTP/2 connection to a handler of this
// process.
func (f *http2Front) localHandler(c *edge.Conn, about []field) http.Handler {
	handler := f.p.local(c)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.Requests.Add(1)
		started := time.Now()
		if err := checkHTTP2(r); err != nil {
			fault := asFault(err)
			fault.write(w, r)
			f.p.observer.Request("h2", fault.status, time.Since(started))
			return
		}
		if _, killed := c.Killed(); killed {
			panic(http.ErrAbortHandler)
		}
		clean := make(http.Header, len(r.Header)+len(about))
		for name, values := range r.Header {
			if known(name) == hOther {
				clean[name] = values
			}
		}
		addFields(clean, about)
		r.Header = clean
		r.Body = &patientBody{r.Body, http.NewResponseController(w), f.p.listen.IdleTimeout}
		sw := &statusWriter{ResponseWriter: w, status: http.StatusOK, guard: stallGuard{w: w, limit: f.p.listen.IdleTimeout}}
		defer func() { f.p.observer.Request("h2", sw.status, time.Since(started)) }()
		handler.ServeHTTP(sw, r)
	})
}

// patientBody gives the client of an HTTP/2 stream so long for each part of its
// body.
type patientBody struct {
	io.ReadCloser
	rc    *http.ResponseController
	limit time.Duration
}

func (b *patientBody) Read(p []byte) (int, error) {
	_ = b.rc.SetReadDeadline(time.Now().Add(b.limit))
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		_ = b.rc.SetReadDeadline(time.Time{}) // an answer that streams for long is no fault
	}
	return n, err
}
