package mcpgate

import (
	"errors"
	"net/http"
	"sync"
	"time"
)

// sseWriter writes a stream to a client and keeps it alive with comments while
// nothing is said.
type sseWriter struct {
	w http.ResponseWriter

	mu   sync.Mutex // guards what follows, and writing
	last time.Time
	err  error
	stop chan struct{}
	done sync.WaitGroup
}

// keepAlive is how long a stream is silent before a comment is sent.
const keepAlive = 15 * time.Second

// startSSE sends the head of a stream.
func startSSE(w http.ResponseWriter) *sseWriter {
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
	s := &sseWriter{w: w, last: time.Now(), stop: make(chan struct{})}
	w.WriteHeader(http.StatusOK)
	s.err = http.NewResponseController(w).Flush()
	s.done.Go(s.keepAlive)
	return s
}

func (s *sseWriter) keepAlive() {
	t := time.NewTicker(keepAlive / 3)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			s.mu.Lock()
			quiet := time.Since(s.last) >= keepAlive
			s.mu.Unlock()
			if quiet {
				_ = s.write([]byte(":\n\n"))
			}
		case <-s.stop:
			return
		}
	}
}

// write sends whole events, at once.
func (s *sseWriter) write(b []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	s.last = time.Now()
	if _, s.err = s.w.Write(b); s.err == nil {
		s.err = http.NewResponseController(s.w).Flush()
	}
	return s.err
}

// close ends the keeping alive. Nothing is written afterwards: the response is
// the server's again.
func (s *sseWriter) close() {
	close(s.stop)
	s.done.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = errStreamOver
	}
}

var errStreamOver = errors.New("the stream is over")
