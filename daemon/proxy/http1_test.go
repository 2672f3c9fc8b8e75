package proxy

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
)

// TestBodiesPassWhole sends and returns bodies of many sizes over HTTP/1.1 and
// HTTP/2, with and without a length.
func TestBodiesPassWhole(t *testing.T) {
	f := startFront(t, httpBackend(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		sum := sha256.Sum256(b)
		w.Header().Set("X-Sum", fmt.Sprintf("%x", sum))
		if r.URL.Query().Get("length") != "" {
			w.Header().Set("Content-Length", strconv.Itoa(len(b)))
		}
		for len(b) > 0 {
			n := min(len(b), 10000)
			_, _ = w.Write(b[:n])
			b = b[n:]
		}
	}), nil)
	for _, h2 := range []bool{false, true} {
		client := f.http(h2)
		for _, size := range []int{0, 1, 100, 4095, 16383, 16384, 16385, 65536, 300000, 5 << 20} {
			for _, length := range []bool{true, false} {
				t.Run(fmt.Sprintf("h2=%v/%d/length=%v", h2, size, length), func(t *testing.T) {
					data := make([]byte, size)
					_, _ = rand.Read(data)
					var body io.Reader = bytes.NewReader(data)
					path := "/?length=1"
					if !length {
						body, path = struct{ io.Reader }{body}, "/"
					}
					resp := must(client.Post(f.url(path), "application/octet-stream", body))(t)
					back, err := io.ReadAll(resp.Body)
					resp.Body.Close()
					if err != nil || !bytes.Equal(back, data) {
						t.Fatalf("got %d bytes of %d, err %v", len(back), size, err)
					}
					if want := fmt.Sprintf("%x", sha256.Sum256(data)); resp.Header.Get("X-Sum") != want {
						t.Error("the backend got something else")
					}
				})
			}
		}
	}
}

func TestResponsesWithoutBodies(t *testing.T) {
	f := startFront(t, httpBackend(t, func(w http.ResponseWriter, r *http.Request) {
		status, _ := strconv.Atoi(r.URL.Query().Get("status"))
		if status == 200 {
			w.Header().Set("Content-Length", "1000")
		}
		w.WriteHeader(status)
	}), nil)
	for _, h2 := range []bool{false, true} {
		client := f.http(h2)
		for _, tc := range []struct {
			method string
			status int
		}{{"HEAD", 200}, {"GET", 204}, {"GET", 304}, {"POST", 204}} {
			req, _ := http.NewRequest(tc.method, f.url("/?status="+strconv.Itoa(tc.status)), nil)
			resp := must(client.Do(req))(t)
			b, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if resp.StatusCode != tc.status || len(b) != 0 || err != nil {
				t.Errorf("h2=%v %s: %d %q %v", h2, tc.method, resp.StatusCode, b, err)
			}
			if tc.method == "HEAD" && resp.ContentLength != 1000 {
				t.Errorf("HEAD said Content-Length %d", resp.ContentLength)
			}
		}
	}
}

// TestPipelining: requests sent at once are answered in order.
func TestPipelining(t *testing.T) {
	f := startFront(t, httpBackend(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s", r.URL.Path, b)
	}), nil)
	c := f.dial()
	var all strings.Builder
	for i := range 50 {
		fmt.Fprintf(&all, "POST /%d HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nb%02d", i, i)
	}
	go func() { _, _ = io.WriteString(c, all.String()) }()
	r := bufio.NewReader(c)
	for i := range 50 {
		resp := must(http.ReadResponse(r, nil))(t)
		b, _ := io.ReadAll(resp.Body)
		if want := fmt.Sprintf("/%d b%02d", i, i); string(b) != want {
			t.Fatalf("answer %d is %q", i, b)
		}
	}
}

func TestExpectContinue(t *testing.T) {
	f := startFront(t, httpBackend(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/no" {
			w.WriteHeader(403)
			return
		}
		b, _ := io.ReadAll(r.Body) // makes net/http send 100
		_, _ = w.Write(b)
	}), nil)
	c := f.dial()
	r := bufio.NewReader(c)
	fmt.Fprint(c, "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
	if line, _ := r.ReadString('\n'); !strings.HasPrefix(line, "HTTP/1.1 100") {
		t.Fatalf("first line %q", line)
	}
	_, _ = r.ReadString('\n')
	fmt.Fprint(c, "hello")
	resp := must(http.ReadResponse(r, nil))(t)
	if b, _ := io.ReadAll(resp.Body); string(b) != "hello" {
		t.Errorf("body %q", b)
	}
	fmt.Fprint(c, "POST /no HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
	resp = must(http.ReadResponse(r, nil))(t)
	if resp.StatusCode != 403 {
		t.Errorf("status %d, want 403 without the body", resp.StatusCode)
	}
}

// TestOldClients: HTTP/1.0 gets no chunks, and keep-alive only when it asks.
func TestOldClients(t *testing.T) {
	f := startFront(t, httpBackend(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/chunked" {
			_, _ = io.WriteString(w, "one ")
			w.(http.Flusher).Flush()
		}
		_, _ = io.WriteString(w, "two")
	}), nil)
	for path, want := range map[string]string{"/chunked": "one two", "/": "two"} {
		c := f.dial()
		fmt.Fprintf(c, "GET %s HTTP/1.0\r\nHost: a\r\n\r\n", path)
		b := string(must(io.ReadAll(c))(t))
		if !strings.HasSuffix(b, "\r\n\r\n"+want) || strings.Contains(b, "chunked\r\n") {
			t.Errorf("%s: %q", path, b)
		}
	}
	c := f.dial()
	r := bufio.NewReader(c)
	for range 2 {
		fmt.Fprint(c, "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
		resp := must(http.ReadResponse(r, nil))(t)
		if b, _ := io.ReadAll(resp.Body); string(b) != "two" || resp.Header.Get("Connection") != "keep-alive" {
			t.Errorf("%q %v", b, resp.Header)
		}
	}
}

func TestWebSocketAndHalfReads(t *testing.T) {
	f := startFront(t, rawBackend(t, func(c net.Conn) {
		r := bufio.NewReader(c)
		head := readRequest(r)
		if !strings.Contains(head, "Connection: Upgrade\r\nUpgrade: websocket\r\n") {
			fmt.Fprint(c, "HTTP/1.1 400 no\r\nContent-Length: 0\r\n\r\n")
			return
		}
		fmt.Fprint(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\nhello")
		_, _ = io.Copy(c, r)
	}), nil)
	c := f.dial()
	r := bufio.NewReader(c)
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\nearly")
	if head := readRequest(r); !strings.HasPrefix(head, "HTTP/1.1 101 ") || !strings.Contains(head, "Sec-WebSocket-Accept: x") {
		t.Fatalf("head %q", head)
	}
	buf := make([]byte, 10)
	if _, err := io.ReadFull(r, buf); err != nil || string(buf) != "helloearly" {
		t.Fatalf("%q %v", buf, err)
	}
	fmt.Fprint(c, "ping")
	if _, err := io.ReadFull(r, buf[:4]); err != nil || string(buf[:4]) != "ping" {
		t.Fatalf("%q %v", buf[:4], err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(r); len(rest) != 0 || err != nil {
		t.Errorf("%q %v", rest, err)
	}
	t.Run("other upgrades are removed", func(t *testing.T) {
		resp, _ := exchangeRaw(t, f.dial(), "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n")
		if resp.StatusCode != 400 {
			t.Errorf("status %d", resp.StatusCode)
		}
	})
}

// TestServerSentEvents: each event arrives as it is sent.
func TestServerSentEvents(t *testing.T) {
	next, ended := make(chan bool), make(chan bool, 2)
	f := startFront(t, httpBackend(t, func(w http.ResponseWriter, r *http.Request) {
		defer func() { ended <- true }()
		w.Header().Set("Content-Type", "text/event-stream")
		w.WriteHeader(200)
		for {
			select {
			case <-next:
				fmt.Fprint(w, "data: x\n\n")
				w.(http.Flusher).Flush()
			case <-r.Context().Done():
				return
			}
		}
	}), nil)
	for _, h2 := range []bool{false, true} {
		go func() { next <- true }()
		resp := must(f.http(h2).Get(f.url("/")))(t)
		r := bufio.NewReader(resp.Body)
		for i := range 5 {
			if i > 0 {
				next <- true
			}
			if line, err := r.ReadString('\n'); line != "data: x\n" {
				t.Fatalf("h2=%v: %q %v", h2, line, err)
			}
			_, _ = r.ReadString('\n')
		}
		resp.Body.Close()
		<-ended // else it takes what is meant for the next
	}
}
