package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// backend is the program behind the daemon: an HTTP server that speaks
// HTTP/1.1 and HTTP/2 without TLS, and counts who reaches it.
type backend struct {
	addr     string
	conns    atomic.Int64 // accepted, ever
	requests atomic.Int64
	release  chan struct{} // /hold answers once this is closed
	once     sync.Once
}

// seen is what the backend saw of a request, as /seen answers it.
type seen struct {
	Proto, Method, Target, Host, Body string
	Header, Trailer                   http.Header
}

func newBackend(t *testing.T) *backend {
	t.Helper()
	return serveBackend(t, must(net.Listen("tcp", "127.0.0.1:0"))(t))
}

func serveBackend(t *testing.T, l net.Listener) *backend {
	b := &backend{addr: l.Addr().String(), release: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("/hello", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })
	mux.HandleFunc("/seen", b.seen)
	mux.HandleFunc("/ticks", ticks)
	mux.HandleFunc("/hold", b.hold)
	mux.HandleFunc("/die", die)
	mux.HandleFunc("/upgrade", upgrade)
	s := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			b.requests.Add(1)
			mux.ServeHTTP(w, r)
		}),
		Protocols: new(http.Protocols),
		ConnState: func(_ net.Conn, s http.ConnState) {
			// Not when it is new: the sidecar tries now and then whether the
			// backend answers, and says nothing.
			if s == http.StateActive {
				b.conns.Add(1)
			}
		},
	}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { b.letGo(); _ = s.Close(); <-done })
	return b
}

// letGo ends what /hold holds.
func (b *backend) letGo() { b.once.Do(func() { close(b.release) }) }

func (b *backend) seen(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(seen{r.Proto, r.Method, r.RequestURI, r.Host, string(body), r.Header, r.Trailer})
}

// ticks is a server-sent event stream that does not end by itself.
func ticks(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for n := 0; ; n++ {
		if _, err := fmt.Fprintf(w, "id: %d\ndata: tick\n\n", n); err != nil {
			return
		}
		if http.NewResponseController(w).Flush() != nil {
			return
		}
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return
		}
	}
}

// hold answers when the test says so.
func (b *backend) hold(w http.ResponseWriter, r *http.Request) {
	select {
	case <-b.release:
		_, _ = io.WriteString(w, "held")
	case <-r.Context().Done():
	}
}

// die breaks off in the middle of a response.
func die(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", "1000")
	_, _ = io.WriteString(w, "the beginning")
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

// upgrade switches to a protocol that echoes bytes. The daemon passes what
// comes after the switch as it is, so WebSocket frames are not needed.
func upgrade(w http.ResponseWriter, _ *http.Request) {
	c, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer c.Close()
	_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	_, _ = io.Copy(c, rw)
}

// parseSeen reads what /seen answered.
func parseSeen(t *testing.T, body string) (s seen) {
	t.Helper()
	if err := json.Unmarshal([]byte(body), &s); err != nil {
		t.Fatalf("%v in %q", err, body)
	}
	return s
}

// tcpBackend serves raw connections until the test ends.
type tcpBackend struct {
	addr  string
	conns atomic.Int64 // in which echo was told something
	bytes atomic.Int64 // that echo and silent backends were sent
}

func newTCPBackend(t *testing.T, serve func(*tcpBackend, net.Conn)) *tcpBackend {
	t.Helper()
	return serveTCPBackend(t, must(net.Listen("tcp", "127.0.0.1:0"))(t), serve)
}

func serveTCPBackend(t *testing.T, l net.Listener, serve func(*tcpBackend, net.Conn)) *tcpBackend {
	b := &tcpBackend{addr: l.Addr().String()}
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[c] = true
			mu.Unlock()
			wg.Go(func() {
				serve(b, c)
				_ = c.Close()
				mu.Lock()
				delete(open, c)
				mu.Unlock()
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return b
}

// echo sends back what comes, and ends its side when the other does.
func echo(b *tcpBackend, c net.Conn) {
	first := make([]byte, 4<<10)
	n, err := c.Read(first)
	if n == 0 || err != nil {
		return // the sidecar tries now and then whether the backend answers
	}
	b.conns.Add(1)
	if _, err := c.Write(first[:n]); err != nil {
		return
	}
	more, _ := io.Copy(c, c)
	b.bytes.Add(int64(n) + more)
}
