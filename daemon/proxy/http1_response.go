package proxy

import (
	"errors"
	"io"
	"iter"
	"strconv"
	"time"

	"cyphers.ai/tlsmcp/pkg/event"
)

// receive brings the response back.
func (x *exchange) receive(websocket bool) *ending {
	for {
		f := x.responseHead()
		if f != nil {
			if f = x.retried(f); f != nil {
				return x.answer(x.blame(f))
			}
			continue
		}
		p := &x.s.p
		switch {
		case p.status == 101:
			if !websocket || !p.websocket {
				return x.answer(&fault{502, event.BackendMalformed, "the backend switched protocols unasked", false, true})
			}
			return x.tunnel()
		case p.status < 200:
			if end := x.interim(); end != nil {
				return end
			}
		default:
			return x.final()
		}
	}
}

// retried sends the request again after a kept-alive connection turned out
// dead, when that is safe. It returns nil when it did.
func (x *exchange) retried(f *fault) *fault {
	if f.reason != event.BackendBroke || !x.repeat || !x.b.reused || !x.b.in.Empty() {
		return f
	}
	x.repeat = false
	x.drop()
	if f := x.connect(true, false); f != nil {
		return f
	}
	if _, err := x.b.Write(x.s.out); err != nil {
		return backendFault(err)
	}
	return nil
}

// blame finds out whether it was the client's upload that broke the exchange.
func (x *exchange) blame(f *fault) *fault {
	if x.upload == nil {
		return f
	}
	x.drop()
	if x.upload.fault != nil {
		return x.upload.fault
	}
	return f
}

// responseHead reads and parses the next response head; the bytes stay in the
// reader until the head has been passed on.
func (x *exchange) responseHead() *fault {
	f := x.b.readResponse(&x.s.p, x.h.p.backend.ResponseTimeout)
	if reason, killed := x.h.c.Killed(); f != nil && killed {
		return &fault{502, reason, "", false, true}
	}
	return f
}

// readResponse reads a response head, within timeout unless that is 0. The
// fields of p are views of b's buffer until the next Fill.
func (b *backendConn) readResponse(p *response, timeout time.Duration) *fault {
	if timeout > 0 {
		_ = b.SetReadDeadline(time.Now().Add(timeout))
		defer func() { _ = b.SetReadDeadline(time.Time{}) }()
	}
	from := 0
	for {
		buf := b.in.Buffered()
		end, resume, err := headEnd(buf, from)
		if err == nil && end > 0 {
			if err = parseResponse(buf[:end], p); err == nil {
				p.size = end
				return nil
			}
		}
		if err != nil {
			return malformedBackend(err)
		}
		from = resume
		err = b.in.Fill()
		switch {
		case err == nil:
		case errors.Is(err, io.ErrShortBuffer):
			return malformedBackend(errors.New("the head is larger than 64 KiB"))
		default:
			return backendFault(err)
		}
	}
}

func malformedBackend(err error) *fault {
	return &fault{502, event.BackendMalformed, "the backend's response is not clean HTTP: " + err.Error(), true, true}
}

// interim passes on a 1xx response.
func (x *exchange) interim() *ending {
	p := &x.s.p
	if !x.old {
		back := appendPlain(appendStatus(x.s.back[:0], p), p)
		x.s.back = append(back, "\r\n"...)
		if _, err := x.h.c.Write(x.s.back); err != nil {
			x.drop()
			return clientGone(err)
		}
	}
	x.b.in.Consume(p.size)
	x.repeat = false
	return nil
}

func appendStatus(b []byte, p *response) []byte {
	b = append(b, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(p.status), 10)
	b = append(b, ' ')
	b = append(b, p.reason...)
	return append(b, "\r\n"...)
}

// appendPlain renders the fields that pass.
func appendPlain(b []byte, p *response) []byte {
	for f := range p.passing() {
		b = appendField(b, f.name, f.value)
	}
	return b
}

// passing yields the fields that are for the client: not those of the backend's
// own connection, and not those that the framing to the client replaces.
func (p *response) passing() iter.Seq[field] {
	return func(yield func(field) bool) {
		for _, f := range p.fields {
			switch known(f.name) {
			case hConnection, hContentLength, hTransferEncoding, hTE, hUpgrade, hHopByHop:
				continue
			}
			if len(p.nominated) > 0 && nominated(f.name, p.nominated) {
				continue
			}
			if !yield(f) {
				return
			}
		}
	}
}

// framing is how the end of a response body is told.
type framing uint8

const (
	noBody framing = iota
	byLength
	byChunks
	byClose
)

func (p *response) framing(isHead bool) framing {
	switch {
	case isHead || p.status == 204 || p.status == 304:
		return noBody
	case p.chunked:
		return byChunks
	case p.length >= 0:
		return byLength
	}
	return byClose
}

// final passes on the final response.
func (x *exchange) final() *ending {
	p := &x.s.p
	x.keep = x.keep && !x.h.c.Draining()
	status, size := p.status, p.size
	backendCloses := p.close || p.minor == 0
	r := &relay{x: x, framing: p.framing(x.isHead), remaining: p.length}
	if x.old && (r.framing == byChunks || r.framing == byClose) {
		x.keep = false
		r.plain = true
	}
	x.s.back = x.appendResponse(x.s.back[:0], p, r)
	x.b.in.Consume(size)
	x.answered = true

	end := r.run()
	x.h.p.observer.Request("http/1.1", status, time.Since(x.started))
	if end != nil {
		x.h.c.Kill(end.reason, end.detail) // no close_notify: it must not look complete
		x.drop()
		return end
	}
	whole := x.settle()
	if !whole || backendCloses || r.framing == byClose {
		x.drop()
	} else {
		x.h.c.SetHook(nil)
		x.h.p.pool.put(x.b)
	}
	switch {
	case !whole:
		x.h.c.Linger()
		return &ending{event.ServerClosed, "the backend answered before the request was whole"}
	case !x.keep:
		x.h.c.Linger()
		if x.h.c.Draining() {
			return &ending{event.Drained, ""}
		}
		return &ending{event.ServerClosed, "the client or the backend asked for it"}
	}
	return nil
}

func (x *exchange) appendResponse(b []byte, p *response, r *relay) []byte {
	b = appendPlain(appendStatus(b, p), p)
	switch {
	case x.old && p.length < 0: // ends with the connection, or has no body
	case p.chunked, r.framing == byClose:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	case p.length >= 0 && p.status != 204:
		b = appendLength(b, p.length)
	}
	switch {
	case !x.keep:
		b = append(b, "Connection: close\r\n"...)
	case x.old:
		b = append(b, "Connection: keep-alive\r\n"...)
	}
	return append(b, "\r\n"...)
}

// relay passes a response body on as it comes.
type relay struct {
	x         *exchange
	framing   framing
	remaining int64
	chunks    chunkReader
	plain     bool // to an HTTP/1.0 client: without chunks
}

// run sends the head, which is in back, and the body behind it.
func (r *relay) run() *ending {
	in := &r.x.b.in
	for {
		piece, used, done, err := r.take(in.Buffered())
		if err != nil {
			return &ending{event.BackendMalformed, err.Error()}
		}
		if len(piece) > 0 {
			if _, err := r.x.h.c.Write(piece); err != nil {
				return clientGone(err)
			}
		}
		if used > 0 {
			in.Consume(used)
		}
		if done {
			return nil
		}
		r.x.s.back = r.x.s.back[:0]
		err = in.Fill()
		switch {
		case err == nil:
		case errors.Is(err, io.EOF) && r.framing == byClose:
			return r.finish()
		default:
			return &ending{event.BackendBroke, "the backend ended the connection in the middle of a response"}
		}
	}
}

// finish ends a body that the backend ended by closing.
func (r *relay) finish() *ending {
	if r.plain {
		return nil
	}
	if _, err := r.x.h.c.Write([]byte("0\r\n\r\n")); err != nil {
		return clientGone(err)
	}
	return nil
}

// take says what to send the client for the bytes that the backend sent so
// far: a view of them where they pass as they are, or back, where they follow
// the head or are framed anew.
func (r *relay) take(buf []byte) (piece []byte, used int, done bool, err error) {
	back := r.x.s.back
	switch {
	case r.framing == noBody:
		return back, 0, true, nil
	case r.framing == byLength:
		used = int(min(int64(len(buf)), r.remaining))
		r.remaining -= int64(used)
		done = r.remaining == 0
		if len(back) == 0 {
			return buf[:used], used, done, nil
		}
		back = append(back, buf[:used]...)
	case r.framing == byChunks && r.plain:
		back, used, err = r.takePlain(back, buf)
		done = r.chunks.done()
	case r.framing == byChunks:
		var pass int
		pass, used, err = r.chunks.feed(buf)
		done = err == nil && r.chunks.done()
		if len(back) == 0 && !done {
			return buf[:pass], used, false, err
		}
		back = append(back, buf[:pass]...)
		if done {
			back, err = r.chunks.sectionEnd(back)
		}
	case r.plain || len(buf) == 0:
		used = len(buf)
		back = append(back, buf...)
	default: // byClose, made into chunks
		used = len(buf)
		back = strconv.AppendInt(back, int64(used), 16)
		back = append(append(append(back, "\r\n"...), buf...), "\r\n"...)
	}
	r.x.s.back = back
	return back, used, done, err
}

// takePlain takes the chunks apart for an HTTP/1.0 client.
func (r *relay) takePlain(back, buf []byte) ([]byte, int, error) {
	used := 0
	for used < len(buf) && !r.chunks.done() {
		if r.chunks.state == chunkData {
			n := int(min(uint64(len(buf)-used), r.chunks.remaining))
			back = append(back, buf[used:used+n]...)
		}
		n, err := r.chunks.advance(buf[used:])
		if err != nil {
			return back, used, err
		}
		used += n
	}
	return back, used, nil
}
