package load

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// idle opens connections and holds them. The first run opens them, with one
// request on each; every later run does one more request on each that is held,
// which shows whether they all lived through what happened in between.
type idle struct {
	d     *dialer
	conns []*conn
}

// idleBuffer is small: the generator holds as many buffers as connections.
const idleBuffer = 1 << 10

const openers = 16

func (g *idle) Run(ctx context.Context) (Result, error) {
	first := g.conns == nil
	if first {
		g.conns = make([]*conn, g.d.spec.Conns)
	}
	req := get("/")
	all := make([]tally, openers)
	var next atomic.Int64
	start := time.Now()
	var wg sync.WaitGroup
	for w := range all {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(g.conns)) && ctx.Err() == nil; i = next.Add(1) - 1 {
				g.touch(ctx, int(i), first, req, &all[w])
			}
		})
	}
	wg.Wait()
	r := total(time.Since(start), all)
	for _, c := range g.conns {
		if c != nil {
			r.Conns++
		}
	}
	return r, ctx.Err()
}

// touch opens the i-th connection when first is set, and does one request on
// it. One that is lost stays lost, and is counted when that is found.
func (g *idle) touch(ctx context.Context, i int, first bool, req []byte, t *tally) {
	begun := time.Now()
	if first {
		c, err := newConn(ctx, g.d, idleBuffer)
		if err != nil {
			t.fail(fmt.Errorf("open: %w", err))
			return
		}
		g.conns[i] = c
	}
	c := g.conns[i]
	if c == nil {
		return
	}
	err := c.until(time.Now().Add(grace))
	if err == nil {
		_, err = c.roundTrip(req)
	}
	if err == nil {
		err = c.until(time.Time{}) // held without a limit
	}
	if err != nil {
		t.fail(err)
		_ = c.Close() // it is done for
		g.conns[i] = nil
		return
	}
	t.ops++
	t.hist.add(time.Since(begun))
}

func (g *idle) Close() {
	var wg sync.WaitGroup
	var next atomic.Int64
	for range openers {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(g.conns)); i = next.Add(1) - 1 {
				if c := g.conns[i]; c != nil {
					_ = c.Close() // nothing is left to be told
				}
			}
		})
	}
	wg.Wait()
}
