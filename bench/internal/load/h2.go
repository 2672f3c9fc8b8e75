package load

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"cyphers.ai/tlsmcp/bench/internal/certs"
	"cyphers.ai/tlsmcp/bench/internal/origin"
)

// h2load keeps a fixed number of streams open on each of a few connections. It
// works frames by hand over x/net's Framer and hpack: the client of net/http
// costs more than most proxies do.
type h2load struct {
	d     *dialer
	conns []*h2conn
}

const (
	h2Window  = 1 << 30 // of a connection: opened once, refilled at half
	h2Default = 65535   // RFC 9113, 6.9.2
)

// h2conn is one client connection; one goroutine reads and writes it.
type h2conn struct {
	*tls.Conn
	in      *bufio.Reader
	out     *bufio.Writer
	fr      *http2.Framer
	dec     *hpack.Decoder
	enc     *hpack.Encoder
	block   bytes.Buffer // what enc writes to
	nextID  uint32
	status  string // of the header block being decoded
	unacked uint32 // body bytes taken from the connection's window
	open    map[uint32]*stream
	spare   []*stream // ended, to be used again
}

type stream struct {
	sent time.Time
	body int
	ok   bool // it was answered 200
}

func openHTTP2(ctx context.Context, d *dialer) (Generator, error) {
	if d.spec.Streams < 1 {
		return nil, fmt.Errorf("open http2 load: %d streams", d.spec.Streams)
	}
	conns, err := dialAll(d.spec.Conns, func() (*h2conn, error) { return newH2Conn(ctx, d) })
	if err != nil {
		return nil, err
	}
	return &h2load{d: d, conns: conns}, nil
}

func newH2Conn(ctx context.Context, d *dialer) (*h2conn, error) {
	tc, err := d.dial(ctx)
	if err != nil {
		return nil, err
	}
	c := &h2conn{
		Conn: tc, in: bufio.NewReaderSize(tc, 32<<10), out: bufio.NewWriterSize(tc, 16<<10),
		nextID: 1, open: make(map[uint32]*stream),
	}
	c.fr = http2.NewFramer(c.out, c.in)
	c.fr.SetReuseFrames()
	c.enc = hpack.NewEncoder(&c.block)
	// 4096 is the table size that both sides start from: RFC 9113, 6.5.2.
	c.dec = hpack.NewDecoder(4096, func(f hpack.HeaderField) {
		if f.Name == ":status" {
			c.status = f.Value
		}
	})
	if err := c.greet(); err != nil {
		return nil, errors.Join(err, tc.Close())
	}
	var t tally
	c.run(d.spec.Streams, func() bool { return t.ops >= int64(warmUps*d.spec.Streams) }, &t)
	if t.failed > 0 {
		return nil, errors.Join(fmt.Errorf("warm up: %v", t.errors), tc.Close())
	}
	return c, nil
}

func (c *h2conn) greet() error {
	if _, err := c.out.WriteString(http2.ClientPreface); err != nil {
		return err
	}
	if err := c.fr.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 0}); err != nil {
		return err
	}
	if err := c.fr.WriteWindowUpdate(0, h2Window-h2Default); err != nil {
		return err
	}
	return c.out.Flush()
}

func (g *h2load) Run(ctx context.Context) (Result, error) {
	var stop atomic.Bool
	defer time.AfterFunc(g.d.spec.Duration, func() { stop.Store(true) }).Stop()
	defer context.AfterFunc(ctx, func() { stop.Store(true) })()
	all := make([]tally, len(g.conns))
	start := time.Now()
	var wg sync.WaitGroup
	for i, c := range g.conns {
		if err := c.SetDeadline(start.Add(g.d.spec.Duration + grace)); err != nil {
			return Result{}, err
		}
		wg.Go(func() { c.run(g.d.spec.Streams, stop.Load, &all[i]) })
	}
	wg.Wait()
	return total(time.Since(start), all), ctx.Err()
}

func (g *h2load) Close() {
	for _, c := range g.conns {
		_ = c.Close() // nothing is left to be told
	}
}

// run keeps n streams open until done, then waits for the last of them. What is
// open when the connection fails counts as failed, once each.
func (c *h2conn) run(n int, done func() bool, t *tally) {
	err := c.loop(n, done, t)
	if err == nil {
		return
	}
	t.fail(err)
	t.failed += max(int64(len(c.open))-1, 0)
	clear(c.open)
}

func (c *h2conn) loop(n int, done func() bool, t *tally) error {
	for range n {
		if err := c.send(); err != nil {
			return err
		}
	}
	for len(c.open) > 0 {
		// Answers that are here already are taken first: what they set off
		// goes out in one write.
		if c.in.Buffered() == 0 {
			if err := c.out.Flush(); err != nil {
				return err
			}
		}
		f, err := c.fr.ReadFrame()
		if err != nil {
			return fmt.Errorf("read frame: %w", err)
		}
		ended, err := c.take(f)
		if err != nil {
			return err
		}
		if ended == 0 {
			continue
		}
		if err := c.end(ended, t); err != nil {
			t.fail(err)
		}
		if !done() {
			if err := c.send(); err != nil {
				return err
			}
		}
	}
	return c.out.Flush()
}

// send opens the next stream.
func (c *h2conn) send() error {
	c.block.Reset()
	for _, f := range [...]hpack.HeaderField{
		{Name: ":method", Value: "GET"},
		{Name: ":scheme", Value: "https"},
		{Name: ":authority", Value: certs.ServerName},
		{Name: ":path", Value: "/"},
		{Name: "user-agent", Value: "bench"},
		{Name: "accept", Value: "*/*"},
	} {
		if err := c.enc.WriteField(f); err != nil {
			return err
		}
	}
	id := c.nextID
	c.nextID += 2
	s := &stream{}
	if n := len(c.spare); n > 0 {
		s, c.spare = c.spare[n-1], c.spare[:n-1]
	}
	*s = stream{sent: time.Now()}
	c.open[id] = s
	return c.fr.WriteHeaders(http2.HeadersFrameParam{
		StreamID: id, BlockFragment: c.block.Bytes(), EndHeaders: true, EndStream: true,
	})
}

// take works one frame, and tells which stream it ended, if any.
func (c *h2conn) take(f http2.Frame) (ended uint32, err error) {
	id := f.Header().StreamID
	switch f := f.(type) {
	case *http2.HeadersFrame:
		if !f.HeadersEnded() {
			return 0, errors.New("a header block in several frames is not read here")
		}
		c.status = ""
		if _, err := c.dec.Write(f.HeaderBlockFragment()); err != nil {
			return 0, fmt.Errorf("decode header: %w", err)
		}
		if err := c.dec.Close(); err != nil {
			return 0, fmt.Errorf("decode header: %w", err)
		}
		if s := c.open[id]; s != nil && c.status != "" {
			s.ok = c.status == "200"
		}
		if f.StreamEnded() {
			ended = id
		}
	case *http2.DataFrame:
		if s := c.open[id]; s != nil {
			s.body += len(f.Data())
		}
		if f.StreamEnded() {
			ended = id
		}
		c.unacked += f.Length
		if c.unacked >= h2Window/2 {
			if err := c.fr.WriteWindowUpdate(0, c.unacked); err != nil {
				return 0, err
			}
			c.unacked = 0
		}
	case *http2.SettingsFrame:
		if !f.IsAck() {
			return 0, c.fr.WriteSettingsAck()
		}
	case *http2.PingFrame:
		if !f.IsAck() {
			return 0, c.fr.WritePing(true, f.Data)
		}
	case *http2.RSTStreamFrame:
		ended = id // it has no whole answer, so it counts as failed
	case *http2.GoAwayFrame:
		return 0, fmt.Errorf("the server sent GOAWAY (%s)", f.ErrCode)
	}
	return ended, nil
}

func (c *h2conn) end(id uint32, t *tally) error {
	s := c.open[id]
	if s == nil {
		return fmt.Errorf("stream %d ended and was not open", id)
	}
	delete(c.open, id)
	c.spare = append(c.spare, s)
	if !s.ok || s.body != origin.BodySize {
		return fmt.Errorf("stream ended with 200: %v, %d body bytes, want %d", s.ok, s.body, origin.BodySize)
	}
	t.ops++
	t.hist.add(time.Since(s.sent))
	return nil
}
