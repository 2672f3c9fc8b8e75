package e2e

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2/hpack"

	"cyphers.ai/tlsmcp/pkg/pki"
)

// problem is the daemon's own answer.
type problem struct {
	Title, Code, Detail string
	Status              int
}

// mustBeProblem holds an answer to a problem document (RFC 9457).
func mustBeProblem(t *testing.T, resp *http.Response, body string, status int, code string) {
	t.Helper()
	var p problem
	if err := json.Unmarshal([]byte(body), &p); err != nil {
		t.Fatalf("%s %q: %v", resp.Status, body, err)
	}
	if resp.StatusCode != status || p.Status != status || p.Code != code || p.Title == "" || p.Detail == "" {
		t.Errorf("%s %+v, want %d %s", resp.Status, p, status, code)
	}
	if got := resp.Header.Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("Content-Type: %q", got)
	}
}

func TestBackendAbsent(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"http", "h2c"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			addr := freeAddress(t)
			d := w.start(set{"backend.address": addr, "backend.protocol": protocol})
			alice := w.client("alice")
			c, r := w.dial(d, alice, "http/1.1"), (*bufio.Reader)(nil)
			r = bufio.NewReader(c)
			resp, body, err := ask(c, r, "/hello")
			if err != nil {
				t.Fatal(err)
			}
			mustBeProblem(t, resp, body, http.StatusBadGateway, "backend_unreachable")
			if strings.Contains(body, addr) {
				t.Errorf("the client is told where the backend is: %s", body)
			}
			resp, body, err = fetch(w.http(alice, true), d, "/hello")
			if err != nil {
				t.Fatal(err)
			}
			mustBeProblem(t, resp, body, http.StatusBadGateway, "backend_unreachable")
			d.expect(t, kv{"msg": "backend", "reason": "backend_unreachable"})
			if status, page := d.ready(); status != http.StatusServiceUnavailable || !strings.Contains(page, "[-] backend fail") {
				t.Errorf("%d\n%s", status, page)
			}
			// The client's connection outlives the backend's absence.
			b := serveBackend(t, must(net.Listen("tcp", addr))(t))
			if resp, body, err := ask(c, r, "/hello"); err != nil || resp.StatusCode != http.StatusOK || body != "hello" {
				t.Errorf("%v %q %v", resp, body, err)
			}
			if b.requests.Load() != 1 {
				t.Errorf("%d requests", b.requests.Load())
			}
			if status, page := d.ready(); status != http.StatusOK {
				t.Errorf("%d\n%s", status, page)
			}
		})
	}
	t.Run("tcp", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		d := w.start(set{"backend.address": freeAddress(t), "backend.protocol": "tcp"})
		c := w.dial(d, w.client("alice"))
		_ = c.SetDeadline(time.Now().Add(patience))
		if got, _ := readAll(c); got != "" {
			t.Errorf("the client got %q", got)
		}
		d.expect(t, kv{"msg": "connection closed", "reason": "backend_unreachable"})
	})
}

func TestBackendDies(t *testing.T) {
	t.Parallel()
	w, b := newWorld(t), newBackend(t)
	alice := w.client("alice")
	for _, protocol := range []string{"http", "h2c"} {
		d := w.start(set{"backend.address": b.addr, "backend.protocol": protocol})
		for _, h2 := range []bool{false, true} {
			resp, body, err := fetch(w.http(alice, h2), d, "/die")
			if err == nil {
				t.Errorf("%s, h2 %t: a response that broke off looks whole: %s %q", protocol, h2, resp.Status, body)
			}
			if resp != nil && body != "the beginning" {
				t.Errorf("%s, h2 %t: of the response came %q", protocol, h2, body)
			}
		}
		if protocol == "http" {
			d.expect(t, kv{"msg": "connection closed", "reason": "backend_broke"})
		}
		mustFetch(t, w.http(alice, true), d, "/hello") // others are none the worse for it
	}
}

func TestBackendSlow(t *testing.T) {
	t.Parallel()
	w, b := newWorld(t), newBackend(t)
	alice := w.client("alice")
	for _, protocol := range []string{"http", "h2c"} {
		d := w.start(set{"backend.address": b.addr, "backend.protocol": protocol, "backend.response_timeout": "300ms"})
		for _, h2 := range []bool{false, true} {
			from := time.Now()
			resp, body, err := fetch(w.http(alice, h2), d, "/hold")
			if err != nil {
				t.Fatalf("%s, h2 %t: %v", protocol, h2, err)
			}
			mustBeProblem(t, resp, body, http.StatusGatewayTimeout, "backend_timeout")
			if took := time.Since(from); took < 300*time.Millisecond || took > atOnce {
				t.Errorf("%s, h2 %t: it took %s", protocol, h2, took)
			}
		}
		// The limit is on the response's beginning: a stream may go on.
		l := w.streaming(d, alice)
		time.Sleep(600 * time.Millisecond)
		if err := l.alive(); err != nil {
			t.Error(err)
		}
	}
}

// TestSlowClients is about clients that hold on to what they do not use.
func TestSlowClients(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	came, gone := make(chan struct{}, 16), make(chan struct{}, 16)
	l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	s := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/wait":
			came <- struct{}{}
			<-r.Context().Done()
			gone <- struct{}{}
			return
		case "/nothing":
			http.NotFound(rw, r)
			return
		}
		flood := make([]byte, 64<<10)
		for {
			if _, err := rw.Write(flood); err != nil {
				gone <- struct{}{}
				return
			}
		}
	})}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	d := w.start(set{"backend.address": l.Addr().String(), "listen.header_timeout": "1s", "listen.idle_timeout": "2s"})
	alice := w.client("alice")
	backendLetGo := func(t *testing.T) {
		t.Helper()
		select {
		case <-gone:
		case <-time.After(patience):
			t.Error("the backend is still at it")
		}
	}

	t.Run("a head of one byte at a time is cut at the header timeout", func(t *testing.T) {
		c := w.dial(d, alice, "http/1.1")
		from := time.Now()
		go func() {
			for _, b := range []byte("GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 100)) {
				if _, err := c.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(100 * time.Millisecond)
			}
		}()
		_ = c.SetReadDeadline(time.Now().Add(patience))
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || resp.StatusCode != http.StatusRequestTimeout {
			t.Errorf("%v, %v", resp, err)
		}
		if took := time.Since(from); took < time.Second || took > 8*time.Second {
			t.Errorf("it took %s", took)
		}
		d.expect(t, kv{"msg": "connection closed", "reason": "header_timeout"})
	})
	t.Run("silence is cut at the idle timeout", func(t *testing.T) {
		over1, over2 := w.dial(d, alice, "http/1.1"), w.dial(d, alice, "h2")
		if status := rawH2(t, over2, hpack.HeaderField{Name: "x", Value: "y"}, "/nothing"); status != "404" {
			t.Errorf("the status is %q", status)
		}
		for _, c := range []*tls.Conn{over1, over2} {
			_ = c.SetReadDeadline(time.Now().Add(patience))
			if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s: still open", c.ConnectionState().NegotiatedProtocol)
			}
		}
		d.expect(t, kv{"msg": "connection closed", "reason": "idle_timeout", "alpn": "http/1.1"})
	})
	t.Run("a client that stops reading is cut, and the backend with it", func(t *testing.T) {
		c := w.dial(d, alice, "http/1.1")
		if _, err := io.WriteString(c, "GET /flood HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		d.expect(t, kv{"msg": "connection closed", "reason": "stalled_client"})
		backendLetGo(t)
	})
	t.Run("a client that vanishes while the backend works lets the backend go", func(t *testing.T) {
		for _, how := range []struct {
			name  string
			leave func(*net.TCPConn) error
		}{
			{"a reset", func(c *net.TCPConn) error { return errors.Join(c.SetLinger(0), c.Close()) }},
			{"half-closed without a goodbye", (*net.TCPConn).CloseWrite},
		} {
			t.Run(how.name, func(t *testing.T) {
				c := w.dial(d, alice, "http/1.1")
				if _, err := io.WriteString(c, "GET /wait HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
					t.Fatal(err)
				}
				select {
				case <-came:
				case <-time.After(patience):
					t.Fatal("the request does not reach the backend")
				}
				if err := how.leave(c.NetConn().(*net.TCPConn)); err != nil {
					t.Fatal(err)
				}
				backendLetGo(t)
			})
		}
	})
}

// TestOutOfDescriptors starves the daemon of file descriptors: it says so,
// serves whom it has, and takes others again when there is room.
func TestOutOfDescriptors(t *testing.T) {
	t.Parallel()
	w, b := newWorld(t), newBackend(t)
	d := w.launch(set{"backend.address": b.addr}, func(cmd *exec.Cmd) {
		cmd.Args = append([]string{"sh", "-c", `ulimit -n 64; exec "$0" "$@"`}, cmd.Args...)
		cmd.Path = must(exec.LookPath("sh"))(t)
	})
	d.awaitServing()
	d.expect(t, kv{"msg": "the descriptor limit is lower than listen.max_connections needs", "count": 64})
	alice := w.client("alice")
	early, reader := w.talk(d, alice, "/hello")

	var crowd []net.Conn
	for range 100 { // the kernel takes them all
		crowd = append(crowd, must(net.Dial("tcp", d.addr))(t))
	}
	from := time.Now()
	said := kv{"msg": "accept", "level": "ERROR"}
	e := d.expect(t, said)
	if !strings.Contains(e.str("error"), "too many open files") || !strings.Contains(e.str("hint"), "LimitNOFILE") {
		t.Errorf("the log says %v", e)
	}
	for range 3 {
		if resp, body, err := ask(early, reader, "/hello"); err != nil || resp.StatusCode != http.StatusOK {
			t.Errorf("a connection that was open: %v %q %v", resp, body, err)
		}
		time.Sleep(300 * time.Millisecond)
	}
	// Backing off: with pauses that double up to a second, few lines a second.
	if n := d.count(said); n > 12+2*int(time.Since(from).Seconds()) {
		t.Errorf("%d lines within %s", n, time.Since(from))
	}
	for _, c := range crowd {
		_ = c.Close()
	}
	ok := eventually(patience, func() bool { _, _, err := fetch(w.http(alice, false), d, "/hello"); return err == nil })
	if !ok {
		t.Error("it does not recover")
	}
}

// TestAnswersReachTheirAskers is that answers never get to the wrong client, over
// both protocols at once and one pool of backend connections.
func TestAnswersReachTheirAskers(t *testing.T) {
	t.Parallel()
	w, b := newWorld(t), newBackend(t)
	d := w.start(set{"backend.address": b.addr, "backend.pool_size": 4})
	askers := map[string]*pki.Leaf{"alice": w.client("alice"), "bob": w.client("bob")}
	errs := make(chan error)
	running := 0
	for name, leaf := range askers {
		for _, h2 := range []bool{false, true} {
			c := w.http(leaf, h2)
			for n := range 8 {
				running++
				go func() { errs <- asks(c, d, name, n) }()
			}
		}
	}
	for range running {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

// asks makes requests that each can be told from all others.
func asks(c *http.Client, d *daemon, name string, n int) error {
	for i := range 25 {
		path := fmt.Sprintf("/seen?%s-%d-%d", name, n, i)
		resp, err := c.Post("https://"+d.addr+path, "text/plain", strings.NewReader(path))
		if err != nil {
			return err
		}
		var s seen
		err = json.NewDecoder(resp.Body).Decode(&s)
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if err != nil {
			return err
		}
		if got := s.Header.Get("X-Tlsmcp-Identity"); got != name || s.Target != path || s.Body != path {
			return fmt.Errorf("%s asked for %s and got what %s asked for: %s", name, path, got, s.Target)
		}
	}
	return nil
}
