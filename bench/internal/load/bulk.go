package load

import (
	"context"
	"fmt"
	"sync"
	"time"

	"cyphers.ai/tlsmcp/bench/internal/certs"
	"cyphers.ai/tlsmcp/bench/internal/origin"
)

// bulk moves one long body on each connection, one way.
type bulk struct {
	d     *dialer
	share int64 // bytes on each connection
	conns []*conn
}

const (
	bulkBuffer = 64 << 10
	// bulkTime bounds a run that moves bytes: a proxy slower than this is
	// stuck.
	bulkTime = 5 * time.Minute
)

func openBulk(ctx context.Context, d *dialer) (Generator, error) {
	g := &bulk{d: d, share: d.spec.Bytes / int64(d.spec.Conns)}
	if g.share < 1 {
		return nil, fmt.Errorf("open %s load: %d bytes", d.spec.Mode, d.spec.Bytes)
	}
	var err error
	g.conns, err = dialAll(d.spec.Conns, func() (*conn, error) { return newConn(ctx, d, bulkBuffer) })
	if err != nil {
		return nil, err
	}
	return g, nil
}

func (g *bulk) Run(ctx context.Context) (Result, error) {
	defer context.AfterFunc(ctx, g.Close)()
	all := make([]tally, len(g.conns))
	start := time.Now()
	var wg sync.WaitGroup
	for i, c := range g.conns {
		if err := c.until(start.Add(bulkTime)); err != nil {
			return Result{}, err
		}
		wg.Go(func() {
			move := g.download
			if g.d.spec.Mode == Upload {
				move = g.upload
			}
			if err := move(c); err != nil {
				all[i].fail(err)
				return
			}
			all[i].ops++
			all[i].bytes += g.share
			all[i].hist.add(time.Since(start))
		})
	}
	wg.Wait()
	return total(time.Since(start), all), ctx.Err()
}

func (g *bulk) download(c *conn) error {
	if _, err := c.Write(get(fmt.Sprintf("/bulk?n=%d", g.share))); err != nil {
		return err
	}
	h, err := c.answer()
	if err == nil && h.length != g.share {
		err = fmt.Errorf("a body of %d bytes, want %d", h.length, g.share)
	}
	return err
}

func (g *bulk) upload(c *conn) error {
	head := fmt.Appendf(nil, "POST / HTTP/1.1\r\nHost: %s\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n",
		certs.ServerName, g.share)
	if _, err := c.Write(head); err != nil {
		return err
	}
	zeros := make([]byte, bulkBuffer)
	for left := g.share; left > 0; {
		n, err := c.Write(zeros[:min(left, int64(len(zeros)))])
		if err != nil {
			return err
		}
		left -= int64(n)
	}
	h, err := c.answer()
	if err == nil && h.length != origin.BodySize {
		err = fmt.Errorf("a body of %d bytes, want %d", h.length, origin.BodySize)
	}
	return err
}

func (g *bulk) Close() {
	for _, c := range g.conns {
		_ = c.Close() // nothing is left to be told
	}
}
