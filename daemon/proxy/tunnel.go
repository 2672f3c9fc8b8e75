package proxy

import (
	"errors"
	"io"

	"cyphers.ai/tlsmcp/daemon/edge"
	"cyphers.ai/tlsmcp/daemon/sock"
	"cyphers.ai/tlsmcp/pkg/event"
)

// tunnel joins client and backend after a 101 response.
func (x *exchange) tunnel() *ending {
	p := &x.s.p
	back := appendPlain(appendStatus(x.s.back[:0], p), p)
	x.s.back = append(back, "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"...)
	x.b.in.Consume(p.size)
	x.answered = true
	x.h.p.observer.Request("websocket", 101, 0)
	if _, err := x.h.c.Write(x.s.back); err != nil {
		x.drop()
		return clientGone(err)
	}
	if len(x.h.in) > 0 {
		if _, err := x.b.Write(x.h.in); err != nil {
			x.drop()
			return &ending{event.BackendBroke, err.Error()}
		}
	}
	x.h.release()
	end := join(x.h.c, x.b)
	x.drop()
	return end
}

// join copies bytes both ways until both sides have ended. Either may end its
// direction first (half-close). Neither holds a buffer while it waits.
func join(c *edge.Conn, b *backendConn) *ending {
	c.Enter(edge.PhaseTunnel)
	up := make(chan *ending, 1)
	go func() {
		end := copyUp(c, b)
		up <- end // first: closing the backend is what copyDown sees
		if end != nil {
			_ = b.Close()
		}
	}()
	down := copyDown(c, b)
	if down != nil {
		// Unless the other direction broke before, and broke this one.
		select {
		case end := <-up:
			if end != nil {
				down = end
			}
			c.Kill(down.reason, down.detail)
			return down
		default:
			c.Kill(down.reason, down.detail)
		}
	}
	switch end := <-up; {
	case down != nil:
		return down
	case end != nil:
		return end
	}
	return &ending{event.ClientClosed, ""}
}

// copyUp copies from the client to the backend. A nil ending is a clean end.
func copyUp(c *edge.Conn, b *backendConn) *ending {
	for {
		if err := c.Wait(); err != nil {
			return endOf(err, b)
		}
		buf := sock.Get(false)
		n, err := c.Read(*buf)
		var werr error
		if n > 0 {
			_, werr = b.Write((*buf)[:n])
		}
		sock.Put(buf)
		switch {
		case werr != nil:
			return &ending{event.BackendBroke, werr.Error()}
		case err != nil:
			return endOf(err, b)
		}
	}
}

func endOf(err error, b *backendConn) *ending {
	if !errors.Is(err, io.EOF) {
		return clientGone(err)
	}
	if w, ok := b.Conn.(interface{ CloseWrite() error }); ok {
		_ = w.CloseWrite()
	}
	return nil
}

// copyDown copies from the backend to the client.
func copyDown(c *edge.Conn, b *backendConn) *ending {
	for {
		if b.in.Empty() {
			if err := b.in.Fill(); err != nil {
				if !errors.Is(err, io.EOF) {
					return &ending{event.BackendBroke, err.Error()}
				}
				if err := c.CloseWrite(); err != nil {
					return clientGone(err)
				}
				return nil
			}
		}
		buf := b.in.Buffered()
		if _, err := c.Write(buf); err != nil {
			return clientGone(err)
		}
		b.in.Consume(len(buf))
	}
}
