package load

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"cyphers.ai/tlsmcp/bench/internal/certs"
	"cyphers.ai/tlsmcp/bench/internal/origin"
)

// warmUps is how many requests each connection does before it is measured:
// enough that the proxy has its backend connections.
const warmUps = 10

func get(path string) []byte {
	return fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n", path, certs.ServerName)
}

// conn is one HTTP/1.1 client connection.
type conn struct {
	*tls.Conn
	buf []byte
}

func newConn(ctx context.Context, d *dialer, bufSize int) (*conn, error) {
	c, err := d.dial(ctx)
	if err != nil {
		return nil, err
	}
	return &conn{Conn: c, buf: make([]byte, bufSize)}, nil
}

// until sets the time by which everything on the connection is over.
func (c *conn) until(t time.Time) error { return c.SetDeadline(t) }

// roundTrip sends one request and reads its answer. It tells whether the peer
// said that it closes.
func (c *conn) roundTrip(req []byte) (closes bool, err error) {
	if _, err := c.Write(req); err != nil {
		return false, err
	}
	h, err := c.answer()
	if err == nil && h.length != origin.BodySize {
		err = fmt.Errorf("a body of %d bytes, want %d", h.length, origin.BodySize)
	}
	return h.closes, err
}

// answer reads one answer and throws its body away.
func (c *conn) answer() (responseHead, error) {
	held := 0
	for {
		h, n, err := parseHead(c.buf[:held])
		if err == nil {
			return h, c.discard(h.length - int64(held-n))
		}
		if !errors.Is(err, errShort) {
			return responseHead{}, err
		}
		if held == len(c.buf) {
			return responseHead{}, errors.New("response head too long")
		}
		got, err := c.Read(c.buf[held:])
		if got == 0 && err != nil {
			if err == io.EOF {
				err = errors.New("closed before an answer")
			}
			return responseHead{}, err
		}
		held += got
	}
}

func (c *conn) discard(n int64) error {
	if n < 0 {
		return errors.New("more bytes than the answer has")
	}
	for n > 0 {
		got, err := c.Read(c.buf[:min(int64(len(c.buf)), n)])
		n -= int64(got)
		if err != nil && n > 0 {
			return fmt.Errorf("%d bytes of the body are missing: %w", n, err)
		}
	}
	return nil
}

// errShort says that the head is not whole yet.
var errShort = errors.New("more bytes needed")

type responseHead struct {
	length int64
	closes bool
}

// parseHead reads a response head from the start of b and says how long it is.
// Only a 200 with a Content-Length passes.
func parseHead(b []byte) (responseHead, int, error) {
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 {
		return responseHead{}, 0, errShort
	}
	line, rest, _ := bytes.Cut(b[:end], []byte("\r\n"))
	if !bytes.HasPrefix(line, []byte("HTTP/1.1 200")) {
		return responseHead{}, 0, fmt.Errorf("answered %q", line)
	}
	h := responseHead{length: -1}
	for len(rest) > 0 {
		var field []byte
		field, rest, _ = bytes.Cut(rest, []byte("\r\n"))
		name, value, _ := bytes.Cut(field, []byte(":"))
		switch {
		case len(name) == 14 && bytes.EqualFold(name, []byte("content-length")):
			n, err := strconv.ParseUint(string(bytes.TrimSpace(value)), 10, 63)
			if err != nil {
				return responseHead{}, 0, fmt.Errorf("content length %q", value)
			}
			h.length = int64(n)
		case len(name) == 10 && bytes.EqualFold(name, []byte("connection")):
			h.closes = bytes.EqualFold(bytes.TrimSpace(value), []byte("close"))
		}
	}
	if h.length < 0 {
		return responseHead{}, 0, errors.New("answered without a content length")
	}
	return h, end + 4, nil
}

// closed is the closed loop. A connection that fails, or that the peer ends
// with "Connection: close", is dialled again; only the first is a failure.
type closed struct {
	d     *dialer
	req   []byte
	conns []*conn
}

const smallBuffer = 8 << 10

func openClosed(ctx context.Context, d *dialer) (Generator, error) {
	g := &closed{d: d, req: get("/")}
	var err error
	g.conns, err = dialAll(d.spec.Conns, func() (*conn, error) { return warmConn(ctx, d, g.req) })
	if err != nil {
		return nil, err
	}
	return g, nil
}

func warmConn(ctx context.Context, d *dialer, req []byte) (*conn, error) {
	c, err := newConn(ctx, d, smallBuffer)
	if err != nil {
		return nil, err
	}
	for range warmUps {
		if _, err := c.roundTrip(req); err != nil {
			return nil, errors.Join(fmt.Errorf("warm up: %w", err), c.Close())
		}
	}
	return c, nil
}

func (g *closed) Run(ctx context.Context) (Result, error) {
	var stop atomic.Bool
	defer time.AfterFunc(g.d.spec.Duration, func() { stop.Store(true) }).Stop()
	defer context.AfterFunc(ctx, func() { stop.Store(true) })()
	cut := time.Now().Add(g.d.spec.Duration + grace)
	all := make([]tally, len(g.conns))
	start := time.Now()
	var wg sync.WaitGroup
	for i := range g.conns {
		wg.Go(func() { g.worker(ctx, i, cut, &stop, &all[i]) })
	}
	wg.Wait()
	return total(time.Since(start), all), ctx.Err()
}

func (g *closed) worker(ctx context.Context, i int, cut time.Time, stop *atomic.Bool, t *tally) {
	if g.conns[i] != nil {
		if err := g.conns[i].until(cut); err != nil {
			t.fail(err)
			return
		}
	}
	for !stop.Load() {
		if g.conns[i] == nil {
			c, err := newConn(ctx, g.d, smallBuffer)
			if err == nil {
				err = c.until(cut)
			}
			if err != nil {
				t.fail(fmt.Errorf("connect again: %w", err))
				time.Sleep(time.Millisecond) // a port that refuses answers at once
				continue
			}
			g.conns[i] = c
		}
		sent := time.Now()
		closes, err := g.conns[i].roundTrip(g.req)
		if err != nil {
			t.fail(err)
		} else {
			t.ops++
			t.hist.add(time.Since(sent))
		}
		if err != nil || closes {
			_ = g.conns[i].Close() // it is done for
			g.conns[i] = nil
		}
	}
}

func (g *closed) Close() {
	for _, c := range g.conns {
		if c != nil {
			_ = c.Close() // nothing is left to be told
		}
	}
}
