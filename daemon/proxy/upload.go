package proxy

import (
	"errors"
	"io"

	"cyphers.ai/tlsmcp/daemon/edge"
	"cyphers.ai/tlsmcp/daemon/sock"
	"cyphers.ai/tlsmcp/pkg/event"
)

// bodyReader finds the end of a request body and checks what it passes.
type bodyReader struct {
	remaining int64        // by Content-Length
	chunks    *chunkReader // by chunks; nil otherwise
}

func (r *bodyReader) done() bool {
	if r.chunks != nil {
		return r.chunks.done()
	}
	return r.remaining == 0
}

// take says how the body goes on in b: the first pass bytes are to be sent as
// they are, then tail; used bytes of b are done with.
func (r *bodyReader) take(b []byte) (pass int, tail []byte, used int, err error) {
	if r.chunks == nil {
		n := int(min(int64(len(b)), r.remaining))
		r.remaining -= int64(n)
		return n, nil, n, nil
	}
	pass, used, err = r.chunks.feed(b)
	if err == nil && r.chunks.done() {
		tail, err = r.chunks.sectionEnd(nil)
	}
	return pass, tail, used, err
}

// pass appends to out as much of the body as in holds, and returns the rest.
func (r *bodyReader) pass(out, in []byte) (_, rest []byte, err error) {
	if len(in) == 0 || r.done() {
		return out, in, nil
	}
	n, tail, used, err := r.take(in)
	return append(append(out, in[:n]...), tail...), in[used:], err
}

// upload sends a request body that did not come with its head, while the
// response may already be under way. Until done is closed it owns the reading
// side of the client and the writing side of the backend.
type upload struct {
	x    *exchange
	body *bodyReader
	done chan struct{}

	started bool
	err     error  // why it ended early
	fault   *fault // what to tell the client of that, if it was the client's doing
}

func (u *upload) run() {
	defer close(u.done)
	h, b := u.x.h, u.x.b
	for !u.body.done() {
		if len(h.in) == 0 {
			if err := h.moreBody(); err != nil {
				u.clientFailed(err)
				// Without a terminator, so that the backend does not take the
				// request for whole.
				_ = b.Close()
				return
			}
		}
		n, tail, used, err := u.body.take(h.in)
		if err != nil {
			u.err = err
			u.fault = asFault(bad(err.Error()))
			_ = b.Close()
			return
		}
		if err := writeBoth(b, h.in[:n], tail); err != nil {
			u.err = err // the backend may have answered all the same
			return
		}
		h.in = h.in[used:]
	}
	h.c.Enter(edge.PhaseBackend)
}

func (u *upload) clientFailed(err error) {
	u.err = err
	switch {
	case isTimeout(err): // settle's interruption: the client did nothing wrong
	case errors.Is(err, edge.ErrStalled):
		u.fault = &fault{408, event.StalledClient, "the request body did not arrive in time", false, true}
	default:
		u.fault = &fault{400, event.ClientClosed, "the client left in the middle of a request body", false, true}
	}
}

func writeBoth(w io.Writer, head, tail []byte) error {
	if len(head) > 0 {
		if _, err := w.Write(head); err != nil {
			return err
		}
	}
	if len(tail) > 0 {
		if _, err := w.Write(tail); err != nil {
			return err
		}
	}
	return nil
}

// moreBody reads what the client has sent, up to a buffer full: several
// records go to the backend in one write.
func (h *http1) moreBody() error {
	if cap(*h.inBuf) < sock.Large {
		h.makeRoom(sock.Small + 1) // h.in is empty: this takes a larger buffer
	}
	if err := h.more(); err != nil {
		return err
	}
	for h.c.Ready() && cap(h.in)-len(h.in) >= 16<<10 {
		if err := h.more(); err != nil {
			return err
		}
	}
	return nil
}
