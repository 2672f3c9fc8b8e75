package mcpgate

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"
)

// sseEvent is one event of a stream (HTML Living Standard, section 9.2.6).
type sseEvent struct {
	raw  []byte // its lines, each ending in LF, the empty one included
	name string
	data []byte // the data lines, joined by LF
	some bool   // there is a data line
}

// sseReader takes a stream apart into events.
type sseReader struct {
	in      *bufio.Reader
	skipLF  bool // the last line ended in CR: an LF that follows belongs to it
	started bool
}

func newSSEReader(r io.Reader) *sseReader { return &sseReader{in: bufio.NewReaderSize(r, 4<<10)} }

var errEventTooLarge = errors.New("an event of the stream is too large")

// next reads one event. What is cut short by the end of the stream is no event.
func (s *sseReader) next() (*sseEvent, error) {
	e := &sseEvent{}
	if !s.started {
		s.started = true
		if bom, err := s.in.Peek(3); err == nil && string(bom) == "\ufeff" {
			_, _ = s.in.Discard(3)
		}
	}
	for {
		line, err := s.line()
		if err != nil {
			return nil, err
		}
		e.raw = append(append(e.raw, line...), '\n')
		if len(e.raw) > maxAnswer {
			return nil, errEventTooLarge
		}
		if len(line) == 0 {
			return e, nil
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(name) {
		case "event":
			e.name = string(value)
		case "data":
			if e.some {
				e.data = append(e.data, '\n')
			}
			e.some = true
			e.data = append(e.data, value...)
		}
	}
}

// line reads a line that ends in CR LF, LF or CR, without its end.
func (s *sseReader) line() ([]byte, error) {
	var line []byte
	for {
		b, err := s.in.ReadByte()
		if err != nil {
			return nil, err
		}
		if s.skipLF {
			s.skipLF = false
			if b == '\n' {
				continue
			}
		}
		switch b {
		case '\n':
			return line, nil
		case '\r':
			s.skipLF = true
			return line, nil
		}
		if line = append(line, b); len(line) > maxAnswer {
			return nil, errEventTooLarge
		}
	}
}

// replaced is the event with other data; its other fields stay.
func (e *sseEvent) replaced(data []byte) []byte {
	var out []byte
	done := false
	for line := range bytes.Lines(e.raw) {
		if name, _, _ := bytes.Cut(bytes.TrimSuffix(line, []byte("\n")), []byte(":")); string(name) != "data" {
			out = append(out, line...)
			continue
		}
		if !done {
			out = appendData(out, data)
			done = true
		}
	}
	return out
}

func appendData(out, data []byte) []byte {
	for line := range bytes.SplitSeq(data, []byte("\n")) {
		// A CR would end the line; in JSON it can only be space.
		line = bytes.ReplaceAll(line, []byte("\r"), []byte(" "))
		out = append(append(append(out, "data: "...), line...), '\n')
	}
	return out
}

// appendMessage renders a message as an event.
func appendMessage(out, message []byte) []byte {
	return append(appendData(append(out, "event: message\n"...), message), '\n')
}

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
