package proxy

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"cyphers.ai/tlsmcp/daemon/edge"
	"cyphers.ai/tlsmcp/daemon/sock"
	"cyphers.ai/tlsmcp/pkg/event"
)

// http1 is an HTTP/1.1 client connection. Between requests it is all that is
// kept: about a hundred bytes, no goroutine, no buffer.
type http1 struct {
	p     *Proxy
	c     *edge.Conn
	in    []byte // plain bytes read and not yet used; nil while idle
	inBuf *[]byte
	about []byte // who the client is, rendered for the backend

	local *localClient // not nil when a handler of this process answers
	anew  func()       // run, bound once
}

// scratch is what one exchange works with. It is pooled.
type scratch struct {
	q    request
	p    response
	out  []byte // to the backend
	back []byte // to the client
}

var scratches = sync.Pool{New: func() any { return &scratch{out: make([]byte, 0, 4<<10), back: make([]byte, 0, 4<<10)} }}

func (p *Proxy) serveHTTP1(c *edge.Conn) {
	h := &http1{p: p, c: c}
	who := append(identityHeaders(c.Peer, p.backend.IdentityHeaders), forwardedHeaders(c.Remote.Addr())...)
	if p.local != nil {
		h.local = &localClient{p.local(c), who}
	} else {
		h.about = appendFields(nil, who)
	}
	h.anew = h.run
	h.run()
}

// run serves requests until the connection ends or is parked.
func (h *http1) run() {
	for {
		if len(h.in) == 0 {
			h.release()
			if h.c.Draining() && !h.c.Newcomer() {
				h.c.End(event.Drained, "")
				return
			}
			h.c.Enter(edge.PhaseIdle)
			switch err := h.c.Wait(); {
			case err == nil:
			case errors.Is(err, edge.ErrIdle):
				if !h.c.Draining() && h.c.Park(h.anew) {
					return
				}
				continue
			default:
				h.end(clientGone(err))
				return
			}
		}
		if end := h.exchange(); end != nil {
			h.end(end)
			return
		}
	}
}

// ending is why a connection ends.
type ending struct {
	reason event.Reason
	detail string
}

func (h *http1) end(e *ending) {
	h.release()
	h.c.End(e.reason, e.detail)
}

func (h *http1) release() {
	if h.inBuf != nil {
		sock.Put(h.inBuf)
		h.inBuf, h.in = nil, nil
	}
}

func clientGone(err error) *ending {
	switch {
	case errors.Is(err, io.EOF):
		return &ending{event.ClientClosed, ""}
	case errors.Is(err, edge.ErrStalled):
		return &ending{event.StalledClient, "sent nothing more"}
	default:
		return &ending{event.Reset, err.Error()}
	}
}

// more reads behind what h.in holds, making room for it first.
func (h *http1) more() error {
	const room = 4 << 10
	if h.inBuf == nil {
		h.inBuf = sock.Get(false)
		h.in = (*h.inBuf)[:0]
	}
	if cap(h.in)-len(h.in) < room {
		h.makeRoom(room)
	}
	n, err := h.c.Read(h.in[len(h.in):cap(h.in)])
	h.in = h.in[:len(h.in)+n]
	if n > 0 {
		return nil
	}
	return err
}

// makeRoom moves h.in to the front of its buffer, or to a larger one.
func (h *http1) makeRoom(room int) {
	old := h.inBuf
	if cap(*old)-len(h.in) < room {
		if cap(*old) < sock.Large {
			h.inBuf = sock.Get(true)
		} else { // max_header_bytes allows more than the pool's largest
			grown := make([]byte, 2*cap(*old))
			h.inBuf = &grown
		}
	}
	h.in = append((*h.inBuf)[:0], h.in...)
	if h.inBuf != old {
		sock.Put(old)
	}
}

// readHead reads until h.in begins with a whole request head.
func (h *http1) readHead() (head []byte, f *fault, gone *ending) {
	from := 0
	for {
		end, resume, err := headEnd(h.in, from)
		switch {
		case err != nil:
			return nil, asFault(err), nil
		case end > h.p.listen.MaxHeaderBytes || end == 0 && len(h.in) > h.p.listen.MaxHeaderBytes:
			return nil, asFault(errHeadTooLarge), nil
		case end > 0:
			return h.in[:end], nil, nil
		}
		from = resume
		h.c.Enter(edge.PhaseHeader)
		switch err := h.more(); {
		case err == nil:
		case errors.Is(err, edge.ErrStalled) && (len(h.in) > 0 || h.c.Partial()):
			return nil, &fault{408, event.HeaderTimeout, "the request head was not finished in time", false, true}, nil
		case errors.Is(err, edge.ErrStalled):
			return nil, nil, nil // idle after all
		case errors.Is(err, io.EOF) && len(h.in) > 0:
			return nil, nil, &ending{event.ClientClosed, "in the middle of a request head"}
		default:
			return nil, nil, clientGone(err)
		}
	}
}

func asFault(err error) *fault {
	var m *malformed
	if errors.As(err, &m) {
		return &fault{m.status, event.BadRequest, m.why, false, true}
	}
	return &fault{400, event.BadRequest, err.Error(), false, true}
}

// exchange takes one request to the backend and its response back. It returns
// nil when the connection can go on.
func (h *http1) exchange() *ending {
	head, f, gone := h.readHead()
	if gone != nil {
		return gone
	}
	if head == nil && f == nil {
		return nil
	}
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)
	x := &exchange{h: h, s: s, started: time.Now()}
	if f == nil {
		if err := parseRequest(head, &s.q); err != nil {
			f = asFault(err)
		}
	}
	if f != nil {
		return x.answer(f)
	}
	h.c.Requests.Add(1)
	h.in = h.in[len(head):]
	if h.local != nil {
		return x.serveLocal()
	}
	return x.run()
}

// exchange is one request and its response.
type exchange struct {
	h       *http1
	s       *scratch
	b       *backendConn
	started time.Time

	isHead   bool // copied out of the head, whose bytes the body overwrites
	old      bool // an HTTP/1.0 client
	keep     bool // the client's connection may go on
	repeat   bool // the request may be sent twice
	upload   *upload
	answered bool // a byte of the final response went to the client
}

func (x *exchange) run() *ending {
	q := &x.s.q
	x.isHead = string(q.method) == "HEAD"
	x.old = q.minor == 0
	x.keep = !q.close && (q.minor == 1 || q.keepAlive)
	x.s.out = x.appendRequest(x.s.out[:0])

	whole, f := x.beginBody(q)
	if f != nil {
		return x.answer(f)
	}
	x.repeat = whole && idempotent(q.method)
	websocket := q.websocket
	if f := x.send(whole); f != nil {
		return x.answer(f)
	}
	return x.receive(websocket)
}

func idempotent[T text](method T) bool {
	switch string(method) {
	case "GET", "HEAD", "OPTIONS", "PUT", "DELETE":
		return true
	}
	return false
}

// appendRequest renders the head for the backend.
func (x *exchange) appendRequest(b []byte) []byte {
	q := &x.s.q
	b = appendRequestLine(b, q.method, q.target)
	if q.host == nil { // HTTP/1.0
		b = appendField(b, "Host", "localhost")
	}
	for _, f := range q.fields {
		switch known(f.name) {
		case hTrailer:
			b = appendTrailerNames(b, f.value)
			continue
		case hHost, hExpect:
		case hOther:
			if len(q.nominated) > 0 && nominated(f.name, q.nominated) {
				continue
			}
		default:
			continue
		}
		b = appendField(b, f.name, f.value)
	}
	b = appendFraming(b, q.length, q.method)
	switch {
	case q.websocket:
		b = append(b, "Connection: Upgrade\r\nUpgrade: websocket\r\n"...)
	case q.trailers:
		b = append(b, acceptTrailers...)
	}
	b = append(b, x.h.about...)
	return append(b, "\r\n"...)
}

// appendTrailerNames announces the trailer fields that will pass.
func appendTrailerNames(b, names []byte) []byte {
	for n := range elements(names) {
		if passesAsTrailer(n) {
			b = appendField(b, "Trailer", n)
		}
	}
	return b
}

// bodyExpected says whether a request of this method without a body should say
// so (RFC 9110, section 8.6).
func bodyExpected[T text](method T) bool {
	switch string(method) {
	case "POST", "PUT", "PATCH":
		return true
	}
	return false
}

// beginBody checks the body bytes that came with the head and appends them to
// the head, so that a fault is found before the backend hears of the request.
// It reports whether the body is whole.
func (x *exchange) beginBody(q *request) (whole bool, f *fault) {
	body := &bodyReader{remaining: q.length}
	if q.length < 0 {
		body.chunks = &chunkReader{}
	}
	var err error
	x.s.out, x.h.in, err = body.pass(x.s.out, x.h.in)
	if err != nil {
		return false, asFault(bad(err.Error()))
	}
	if body.done() {
		return true, nil
	}
	x.upload = &upload{x: x, body: body, done: make(chan struct{})}
	return false, nil
}

// send gets a backend connection and writes what is in out. A kept-alive
// connection that died is replaced once.
func (x *exchange) send(whole bool) *fault {
	for try := 0; ; try++ {
		if f := x.connect(try > 0, !x.repeat); f != nil {
			return f
		}
		n, err := x.b.Write(x.s.out)
		if err == nil {
			break
		}
		reused := x.b.reused
		x.drop()
		// What did not leave can be sent again; what left in part only if the
		// request may be sent twice.
		if !reused || !whole || try > 0 || n > 0 && !x.repeat {
			return backendFault(err)
		}
	}
	if x.upload != nil {
		x.h.c.Enter(edge.PhaseBody)
		x.upload.started = true
		go x.upload.run()
	} else {
		x.h.c.Enter(edge.PhaseBackend)
	}
	return nil
}

// connect gets a backend connection, and makes a Kill of the client's close it.
// A client that was killed already gets none.
func (x *exchange) connect(fresh, careful bool) *fault {
	// The dialer has its own time limit.
	b, err := x.h.p.pool.get(context.Background(), fresh, careful)
	if err != nil {
		return unreachable(err)
	}
	if !x.h.c.SetHook(b) {
		b.close()
		return &fault{502, event.Reset, "the connection was cut", false, true}
	}
	x.b = b
	return nil
}

// drop ends the use of the backend connection for good.
func (x *exchange) drop() {
	if x.b == nil {
		return
	}
	x.settle()
	x.h.c.SetHook(nil)
	x.b.close()
	x.b = nil
}

// settle ends the upload if it is still under way, and reports whether the body
// was sent whole.
func (x *exchange) settle() bool {
	if x.upload == nil {
		return true
	}
	if !x.upload.started {
		return false
	}
	select {
	case <-x.upload.done:
	default:
		// It may wait for the client or for the backend.
		x.h.c.Interrupt()
		_ = x.b.SetWriteDeadline(time.Unix(1, 0))
		<-x.upload.done
		if x.upload.err == nil { // it was at its last byte
			x.h.c.Resume()
			_ = x.b.SetWriteDeadline(time.Time{})
		}
	}
	return x.upload.err == nil
}

// answer sends a response of our own.
func (x *exchange) answer(f *fault) *ending {
	x.drop()
	end := &ending{f.reason, f.detail}
	if x.answered {
		return end
	}
	if reason, killed := x.h.c.Killed(); killed {
		return &ending{reason, ""}
	}
	closes := f.ends || !x.keep || x.upload != nil
	x.h.c.Enter(edge.PhaseBusy)
	_, err := x.h.c.Write(f.render(x.isHead, closes))
	x.h.p.observer.Request("http/1.1", f.status, time.Since(x.started))
	x.h.p.logFault(x.h.c, f)
	if err != nil {
		return clientGone(err)
	}
	if !closes {
		return nil
	}
	x.h.c.Linger()
	return end
}
