package proxy

import (
	"net/http"
	"sync"
	"time"
)

// stallGuard resets an HTTP/2 stream whose client takes nothing for as long as
// limit. It is needed because such a client need not stall the connection: it
// keeps the stream's flow-control window closed (RFC 9113, section 6.9) and
// holds a goroutine, a buffer and a backend connection by that.
type stallGuard struct {
	w     http.ResponseWriter
	limit time.Duration

	mu      sync.Mutex
	timer   *time.Timer
	writing bool
}

// do runs a write to the client under the guard.
func (g *stallGuard) do(write func() error) error {
	g.mu.Lock()
	g.writing = true
	if g.timer == nil {
		g.timer = time.AfterFunc(g.limit, g.stalled)
	} else {
		g.timer.Reset(g.limit)
	}
	g.mu.Unlock()
	err := write()
	g.mu.Lock()
	g.writing = false
	g.timer.Stop()
	g.mu.Unlock()
	return err
}

func (g *stallGuard) stalled() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.writing { // else the write came to its end while the timer fired
		_ = http.NewResponseController(g.w).SetWriteDeadline(time.Unix(1, 0))
	}
}
