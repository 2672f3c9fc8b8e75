package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/event"
)

// TestBrokenBackends: what the client sees when the backend misbehaves.
func TestBrokenBackends(t *testing.T) {
	for _, tc := range []struct {
		rule, response string
		status         int
		whole          bool
	}{
		{"no answer", "", 502, true},
		{"not HTTP", "hello\r\n\r\n", 502, true},
		{"a bare LF", "HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n", 502, true},
		{"both framings", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 502, true},
		{"two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", 502, true},
		{"a folded field", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: a\r\n b\r\n\r\n", 502, true},
		{"a body in 204", "HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\nhello", 502, true},
		{"an upgrade unasked", "HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", 502, true},
		{"a huge head", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 100000) + "\r\n\r\n", 502, true},
		{"a short body", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", 200, false},
		{"short chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\nhello", 200, false},
		{"a bad chunk later", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n", 200, false},
		{"no length", "HTTP/1.1 200 OK\r\n\r\nhello", 200, true},
		{"HTTP/1.0", "HTTP/1.0 200 OK\r\n\r\nhello", 200, true},
	} {
		t.Run(tc.rule, func(t *testing.T) {
			f := startFront(t, rawBackend(t, func(c net.Conn) {
				readRequest(bufio.NewReader(c))
				_, _ = io.WriteString(c, tc.response)
				if strings.Contains(tc.rule, "later") {
					time.Sleep(50 * time.Millisecond)
				}
			}), nil)
			for _, h2 := range []bool{false, true} {
				resp, err := f.http(h2).Get(f.url("/"))
				if err != nil {
					if !tc.whole && tc.status == 200 {
						continue // cut before the head was seen
					}
					t.Fatalf("h2=%v: %v", h2, err)
				}
				b, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if resp.StatusCode != tc.status {
					t.Errorf("h2=%v: status %d, want %d: %s", h2, resp.StatusCode, tc.status, b)
				}
				if (err == nil) != tc.whole {
					t.Errorf("h2=%v: body %q, err %v, want whole=%v", h2, b, err, tc.whole)
				}
			}
		})
	}
	t.Run("absent", func(t *testing.T) {
		f := startFront(t, config.Backend{Network: "tcp", Address: "127.0.0.1:1"}, nil)
		c := f.dial()
		for range 2 { // the client's connection goes on
			resp, body := exchangeRaw(t, c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			if resp.StatusCode != 502 || !strings.Contains(body, `"code":"backend_unreachable"`) || strings.Contains(body, "127.0.0.1") {
				t.Errorf("%d %s", resp.StatusCode, body)
			}
		}
	})
	t.Run("silent", func(t *testing.T) {
		b := rawBackend(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
		b.ResponseTimeout = 100 * time.Millisecond
		f := startFront(t, b, nil)
		for _, h2 := range []bool{false, true} {
			resp := must(f.http(h2).Get(f.url("/")))(t)
			resp.Body.Close()
			if resp.StatusCode != 504 {
				t.Errorf("h2=%v: status %d, want 504", h2, resp.StatusCode)
			}
		}
	})
}

// TestRetry: a kept-alive connection that died is replaced once, for requests
// that may be sent twice, and never for others.
func TestRetry(t *testing.T) {
	var conns, posts atomic.Int32
	f := startFront(t, rawBackend(t, func(c net.Conn) {
		conns.Add(1)
		r := bufio.NewReader(c)
		readRequest(r)
		fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		if head := readRequest(r); strings.HasPrefix(head, "POST") {
			posts.Add(1)
		}
		// and close without an answer
	}), nil)
	c := f.dial()
	for i := range 4 {
		resp, _ := exchangeRaw(t, c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		if resp.StatusCode != 200 {
			t.Fatalf("GET %d: status %d", i, resp.StatusCode)
		}
	}
	if n := conns.Load(); n != 4 {
		t.Errorf("%d connections, want 4", n)
	}
	resp, _ := exchangeRaw(t, c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx")
	if resp.StatusCode != 502 || posts.Load() != 1 {
		t.Errorf("POST: status %d, seen %d times", resp.StatusCode, posts.Load())
	}
}

// TestSlowClients: header, body and idle time limits each end the connection
// with the right word.
func TestSlowClients(t *testing.T) {
	backend := httpBackend(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	quick := func(l *config.Listen) { l.HeaderTimeout, l.IdleTimeout = time.Second, time.Second }
	for _, tc := range []struct {
		rule, sent string
		status     int
		reason     event.Reason
	}{
		{"a head that does not end", "GET / HTTP/1.1\r\nHost: a\r\n", 408, event.HeaderTimeout},
		{"a body that does not come", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc", 408, event.StalledClient},
		{"silence", "", 0, event.IdleTimeout},
	} {
		t.Run(tc.rule, func(t *testing.T) {
			t.Parallel()
			f := startFront(t, backend, quick)
			c := f.dial()
			fmt.Fprint(c, tc.sent)
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if tc.status == 0 {
				if err == nil {
					t.Fatal("an answer to nothing")
				}
			} else if err != nil || resp.StatusCode != tc.status {
				t.Fatalf("%v %v, want %d", resp, err, tc.status)
			}
			if e := f.waitEvent(event.Closed); e.Reason != tc.reason {
				t.Errorf("reason %s, want %s", e.Reason, tc.reason)
			}
		})
	}
	t.Run("a head that drips", func(t *testing.T) {
		t.Parallel()
		f := startFront(t, backend, quick)
		c := f.dial()
		start := time.Now()
		go func() {
			for i := range 100 {
				if _, err := fmt.Fprintf(c, "%c", "GET / HTTP/1.1\r\nX: "[min(i, 18)]); err != nil {
					return
				}
				time.Sleep(100 * time.Millisecond)
			}
		}()
		resp := must(http.ReadResponse(bufio.NewReader(c), nil))(t)
		if resp.StatusCode != 408 || time.Since(start) > 8*time.Second {
			t.Errorf("%d after %s", resp.StatusCode, time.Since(start))
		}
	})
	t.Run("a client that does not read", func(t *testing.T) {
		t.Parallel()
		f := startFront(t, httpBackend(t, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(w, io.LimitReader(zeros{}, 1<<30))
		}), quick)
		c := f.dial()
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		if e := f.waitEvent(event.Closed); e.Reason != event.StalledClient {
			t.Errorf("reason %s", e.Reason)
		}
	})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestParkedConnections: a connection left alone gives up its goroutine, and
// works as before when the client speaks again; a kill finds it all the same.
func TestParkedConnections(t *testing.T) {
	f := startFront(t, httpBackend(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "ok") }), nil)
	c := f.dial()
	ask := func() {
		t.Helper()
		if resp, b := exchangeRaw(t, c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); resp.StatusCode != 200 || b != "ok" {
			t.Fatalf("%d %s", resp.StatusCode, b)
		}
	}
	ask()
	for range 3 {
		time.Sleep(800 * time.Millisecond) // two looks of the sweeper, and parked
		ask()
	}
	time.Sleep(800 * time.Millisecond)
	f.mu.Lock()
	for lc := range f.live {
		f.mu.Unlock()
		lc.Kill(event.Revoked, "test")
		f.mu.Lock()
	}
	f.mu.Unlock()
	if e := f.waitEvent(event.Closed); e.Reason != event.Revoked || e.Requests != 4 {
		t.Errorf("%+v", e)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("the connection lives on")
	}
}

// TestClientHangsUp: a client that leaves while the backend thinks ends the
// backend's work too.
func TestClientHangsUp(t *testing.T) {
	came, gone := make(chan bool, 2), make(chan bool, 2)
	f := startFront(t, rawBackend(t, func(c net.Conn) {
		r := bufio.NewReader(c)
		readRequest(r)
		came <- true
		_, err := r.ReadByte()
		gone <- err != nil
	}), nil)
	c := f.dial()
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	<-came
	_ = c.Close()
	select {
	case <-gone:
	case <-time.After(patience):
		t.Fatal("the backend was not told")
	}
	if e := f.waitEvent(event.Closed); e.Reason != event.ClientClosed {
		t.Errorf("reason %s", e.Reason)
	}
}

// TestKillInFlight: after a kill no byte of a request reaches the backend, and
// one that waits for the backend is cut at once.
func TestKillInFlight(t *testing.T) {
	started := make(chan bool, 1)
	f := startFront(t, httpBackend(t, func(w http.ResponseWriter, r *http.Request) { started <- true; <-r.Context().Done() }), nil)
	for _, h2 := range []bool{false, true} {
		bestOfFive(t, 50*time.Millisecond, func() time.Duration {
			errs := make(chan error, 1)
			go func() {
				resp, err := f.http(h2).Get(f.url("/"))
				if err == nil {
					resp.Body.Close()
				}
				errs <- err
			}()
			<-started
			begin := time.Now()
			f.mu.Lock()
			for c := range f.live {
				go c.Kill(event.Revoked, "test")
			}
			f.mu.Unlock()
			if err := <-errs; err == nil {
				t.Errorf("h2=%v: answered after the kill", h2)
			}
			return time.Since(begin)
		})
	}
}

// TestEarlyAnswer: a backend that answers before the body has come is heard at
// once, and the rest of the body is not waited for.
func TestEarlyAnswer(t *testing.T) {
	f := startFront(t, rawBackend(t, func(c net.Conn) {
		readRequest(bufio.NewReader(c))
		_, _ = io.WriteString(c, "HTTP/1.1 413 Too Much\r\nContent-Length: 2\r\n\r\nno")
		_, _ = io.Copy(io.Discard, c)
	}), nil)
	for _, h2 := range []bool{false, true} {
		body, more := io.Pipe()
		go func() { _, _ = more.Write([]byte("begun, and never ended")) }()
		begin := time.Now()
		req, _ := http.NewRequest("POST", f.url("/"), body)
		resp := must(f.http(h2).Do(req))(t)
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		_ = more.Close()
		if resp.StatusCode != 413 || string(b) != "no" || err != nil {
			t.Errorf("h2=%v: %d %q %v", h2, resp.StatusCode, b, err)
		}
		if took := time.Since(begin); took > patience/3 {
			t.Errorf("h2=%v: the answer took %s", h2, took)
		}
	}
}

// TestHeadsInPieces: a client whose heads come in two pieces, one after the
// other for longer than the header timeout, is not taken for a slow one.
func TestHeadsInPieces(t *testing.T) {
	f := startFront(t, httpBackend(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "ok") }),
		func(l *config.Listen) { l.HeaderTimeout = 3 * time.Second })
	c := f.dial()
	for i := range 8 { // each well within the time, and all of them beyond it
		fmt.Fprint(c, "GET / HTTP/1.1\r\n")
		time.Sleep(500 * time.Millisecond)
		if resp, _ := exchangeRaw(t, c, "Host: a\r\n\r\n"); resp.StatusCode != 200 {
			t.Fatalf("request %d: status %d", i, resp.StatusCode)
		}
	}
}
