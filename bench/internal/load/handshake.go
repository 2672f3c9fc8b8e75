package load

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// handshakes does full handshakes, one after another on each worker. In TLS 1.3
// a client is done before the server has checked its certificate, so each
// connection is closed in order, and the server's own close is waited for: by
// then it has done its half, and an alert in its place is a failure.
type handshakes struct{ d *dialer }

func (g *handshakes) Run(ctx context.Context) (Result, error) {
	var stop atomic.Bool
	defer time.AfterFunc(g.d.spec.Duration, func() { stop.Store(true) }).Stop()
	defer context.AfterFunc(ctx, func() { stop.Store(true) })()
	all := make([]tally, g.d.spec.Conns)
	start := time.Now()
	var wg sync.WaitGroup
	for i := range all {
		wg.Go(func() {
			t := &all[i]
			for !stop.Load() {
				begun := time.Now()
				if err := g.one(ctx); err != nil {
					t.fail(err)
					time.Sleep(time.Millisecond) // a port that refuses answers at once
					continue
				}
				t.ops++
				t.hist.add(time.Since(begun))
			}
		})
	}
	wg.Wait()
	return total(time.Since(start), all), ctx.Err()
}

func (g *handshakes) one(ctx context.Context) error {
	c, err := g.d.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.CloseWrite(); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	n, err := io.Copy(io.Discard, c)
	if err != nil {
		return fmt.Errorf("wait for the server's close: %w", err)
	}
	if n > 0 {
		return fmt.Errorf("the server sent %d bytes to a client that asked nothing", n)
	}
	return nil
}

// Close has nothing to do: every connection is closed where it is opened.
func (g *handshakes) Close() {}
