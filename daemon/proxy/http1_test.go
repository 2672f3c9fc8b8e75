package proxy

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/event"
)

// TestAmbiguousRequestsAreRefused holds each line of what must not pass, and
// that nothing of it reaches the backend.
func TestAmbiguousRequestsAreRefused(t *testing.T) {
	var reached atomic.Int32
	backend := rawBackend(t, func(c net.Conn) {
		if n, _ := c.Read(make([]byte, 1)); n > 0 {
			reached.Add(1)
		}
	})
	f := startFront(t, backend, nil)
	const host = "Host: a\r\n"
	long := strings.Repeat("a", 5000)
	for _, tc := range []struct {
		rule, request string
		status        int
	}{
		{"both Content-Length and Transfer-Encoding", "POST / HTTP/1.1\r\n" + host + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		{"several Content-Lengths", "POST / HTTP/1.1\r\n" + host + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400},
		{"several equal Content-Lengths", "POST / HTTP/1.1\r\n" + host + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400},
		{"a list of Content-Lengths", "POST / HTTP/1.1\r\n" + host + "Content-Length: 5, 5\r\n\r\nhello", 400},
		{"a signed Content-Length", "POST / HTTP/1.1\r\n" + host + "Content-Length: +5\r\n\r\nhello", 400},
		{"a negative Content-Length", "POST / HTTP/1.1\r\n" + host + "Content-Length: -5\r\n\r\nhello", 400},
		{"a hexadecimal Content-Length", "POST / HTTP/1.1\r\n" + host + "Content-Length: 0x5\r\n\r\nhello", 400},
		{"an overflowing Content-Length", "POST / HTTP/1.1\r\n" + host + "Content-Length: 18446744073709551621\r\n\r\nhello", 400},
		{"an empty Content-Length", "POST / HTTP/1.1\r\n" + host + "Content-Length:\r\n\r\nhello", 400},
		{"Transfer-Encoding identity", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: identity\r\n\r\n", 501},
		{"Transfer-Encoding gzip, chunked", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501},
		{"Transfer-Encoding chunked, chunked", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 501},
		{"two Transfer-Encodings", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		{"Transfer-Encoding with a vertical tab", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400},
		{"Transfer-Encoding quoted", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", 501},
		{"Transfer-Encoding in HTTP/1.0", "POST / HTTP/1.0\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		{"a bare LF after the request line", "GET / HTTP/1.1\n" + host + "\r\n", 400},
		{"a bare LF after a field", "GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", 400},
		{"a bare LF as the end", "GET / HTTP/1.1\r\n" + host + "\n", 400},
		{"a bare CR in a value", "GET / HTTP/1.1\r\n" + host + "X: a\rb\r\n\r\n", 400},
		{"a bare CR in the target", "GET /\rX HTTP/1.1\r\n" + host + "\r\n", 400},
		{"an empty line before the request", "\r\nGET / HTTP/1.1\r\n" + host + "\r\n", 400},
		{"a folded field", "GET / HTTP/1.1\r\n" + host + "X: a\r\n b\r\n\r\n", 400},
		{"a folded first field", "GET / HTTP/1.1\r\n X: a\r\n" + host + "\r\n", 400},
		{"a space before the colon", "GET / HTTP/1.1\r\n" + host + "Transfer-Encoding : chunked\r\n\r\n", 400},
		{"a tab before the colon", "GET / HTTP/1.1\r\n" + host + "Content-Length\t: 4\r\n\r\nbody", 400},
		{"a field without a colon", "GET / HTTP/1.1\r\n" + host + "nonsense\r\n\r\n", 400},
		{"a field without a name", "GET / HTTP/1.1\r\n" + host + ": x\r\n\r\n", 400},
		{"a NUL in a value", "GET / HTTP/1.1\r\n" + host + "X: a\x00b\r\n\r\n", 400},
		{"a control character in a value", "GET / HTTP/1.1\r\n" + host + "X: a\x01b\r\n\r\n", 400},
		{"a DEL in a value", "GET / HTTP/1.1\r\n" + host + "X: a\x7fb\r\n\r\n", 400},
		{"a NUL in a name", "GET / HTTP/1.1\r\n" + host + "X\x00: ab\r\n\r\n", 400},
		{"a non-ASCII name", "GET / HTTP/1.1\r\n" + host + "X\xc3\xa9: ab\r\n\r\n", 400},
		{"absolute-form", "GET http://a/ HTTP/1.1\r\n" + host + "\r\n", 400},
		{"absolute-form that disagrees with Host", "GET http://b/ HTTP/1.1\r\n" + host + "\r\n", 400},
		{"authority-form", "GET a:80 HTTP/1.1\r\n" + host + "\r\n", 400},
		{"asterisk-form for GET", "GET * HTTP/1.1\r\n" + host + "\r\n", 400},
		{"two Hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400},
		{"no Host", "GET / HTTP/1.1\r\nX: y\r\n\r\n", 400},
		{"an empty Host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", 400},
		{"a Host with a path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400},
		{"a Host with user information", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400},
		{"a Host that is a list", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400},
		{"Connection naming Content-Length", "POST / HTTP/1.1\r\n" + host + "Connection: Content-Length\r\nContent-Length: 5\r\n\r\nhello", 400},
		{"Connection naming Host", "GET / HTTP/1.1\r\n" + host + "Connection: host\r\n\r\n", 400},
		{"a fragment in the target", "GET /a#b HTTP/1.1\r\n" + host + "\r\n", 400},
		{"a space in the target", "GET /a b HTTP/1.1\r\n" + host + "\r\n", 400},
		{"a tab for a space", "GET\t/ HTTP/1.1\r\n" + host + "\r\n", 400},
		{"two spaces", "GET  / HTTP/1.1\r\n" + host + "\r\n", 400},
		{"a space at the end of the request line", "GET / HTTP/1.1 \r\n" + host + "\r\n", 400},
		{"HTTP/0.9", "GET /\r\n\r\n", 400},
		{"HTTP/1.2", "GET / HTTP/1.2\r\n" + host + "\r\n", 400},
		{"HTTP/01.1", "GET / HTTP/01.1\r\n" + host + "\r\n", 505},
		{"the HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
		{"CONNECT", "CONNECT a:80 HTTP/1.1\r\n" + host + "\r\n", 405},
		{"TRACE", "TRACE / HTTP/1.1\r\n" + host + "\r\n", 405},
		{"a method with a bracket", "G{T / HTTP/1.1\r\n" + host + "\r\n", 400},
		{"an unknown expectation", "POST / HTTP/1.1\r\n" + host + "Expect: 200-ok\r\nContent-Length: 1\r\n\r\nx", 417},
		{"a header section over the limit", "GET / HTTP/1.1\r\n" + host + strings.Repeat("X: "+long+"\r\n", 14) + "\r\n", 431},
		{"too many fields", "GET / HTTP/1.1\r\n" + host + strings.Repeat("X: y\r\n", 300) + "\r\n", 431},
		{"a chunk size with a sign", chunked("+5\r\nhello\r\n0\r\n\r\n"), 400},
		{"a chunk size with a minus", chunked("-1\r\n"), 400},
		{"a chunk size in 0x", chunked("0x5\r\nhello\r\n0\r\n\r\n"), 400},
		{"a chunk size with a leading space", chunked(" 5\r\nhello\r\n0\r\n\r\n"), 400},
		{"a chunk size with a trailing space", chunked("5 \r\nhello\r\n0\r\n\r\n"), 400},
		{"an overflowing chunk size", chunked("10000000000000005\r\nhello\r\n0\r\n\r\n"), 400},
		{"a chunk size of many zeros", chunked(strings.Repeat("0", 100) + "5\r\nhello\r\n0\r\n\r\n"), 400},
		{"an empty chunk size", chunked("\r\nhello\r\n0\r\n\r\n"), 400},
		{"a bare LF after a chunk size", chunked("5\nhello\r\n0\r\n\r\n"), 400},
		{"a bare LF after chunk data", chunked("5\r\nhello\n0\r\n\r\n"), 400},
		{"no CR LF after chunk data", chunked("5\r\nhelloX0\r\n\r\n"), 400},
		{"chunk data longer than said", chunked("5\r\nhello!\r\n0\r\n\r\n"), 400},
		{"a bare LF in a chunk extension", chunked("5;a\nb\r\nhello\r\n0\r\n\r\n"), 400},
		{"a CR in a quoted chunk extension", chunked("5;a=\"\r\n\"\r\nhello\r\n0\r\n\r\n"), 400},
		{"chunk extensions over the limit", chunked("5;" + long + "\r\nhello\r\n0\r\n\r\n"), 400},
		{"a malformed trailer", chunked("0\r\nX : y\r\n\r\n"), 400},
		{"a bare LF in the trailer", chunked("0\r\nX: y\n\r\n"), 400},
		{"a trailer section over the limit", chunked("0\r\n" + strings.Repeat("X: "+long+"\r\n", 2) + "\r\n"), 400},
	} {
		t.Run(tc.rule, func(t *testing.T) {
			resp, body := exchangeRaw(t, f.dial(), tc.request)
			if resp.StatusCode != tc.status {
				t.Errorf("status %d, want %d; %s", resp.StatusCode, tc.status, body)
			}
			if !resp.Close {
				t.Error("the connection would go on")
			}
		})
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("%d of them reached the backend", n)
	}
}

func chunked(body string) string {
	return "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + body
}

// TestLateChunkFault: a fault found after the head went on closes the backend
// connection without a terminator.
func TestLateChunkFault(t *testing.T) {
	got := make(chan string, 1)
	f := startFront(t, rawBackend(t, func(c net.Conn) { b, _ := io.ReadAll(c); got <- string(b) }), nil)
	c := f.dial()
	fmt.Fprint(c, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
	time.Sleep(100 * time.Millisecond)
	resp, _ := exchangeRaw(t, c, "zz\r\n0\r\n\r\n")
	if resp.StatusCode != 400 {
		t.Errorf("status %d, want 400", resp.StatusCode)
	}
	if b := <-got; strings.Contains(b, "\r\n0\r\n") || !strings.HasSuffix(b, "hello\r\n") {
		t.Errorf("the backend got %q", b)
	}
}

// TestIdentityCannotBeSpoofed: every spelling that a client sends is removed,
// ours arrive, in the head and in trailers.
func TestIdentityCannotBeSpoofed(t *testing.T) {
	got := make(chan http.Header, 1)
	trailer := make(chan http.Header, 1)
	f := startFront(t, httpBackend(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		got <- r.Header.Clone()
		trailer <- r.Trailer.Clone()
	}), nil)
	spoofed := []string{"Client-Cert", "client-cert", "CLIENT_CERT", "Client-Cert-Chain", "client_cert_chain", "X-Forwarded-Client-Cert",
		"x_forwarded_client_cert", "X-Tlsmcp-Identity", "x-tlsmcp_identity", "X_TLSMCP_Serial", "X-Tlsmcp-Anything", "X-Tlsmcp",
		"X-Forwarded-For", "x_forwarded_for", "X-Forwarded-Proto", "X-Forwarded-Host", "x_forwarded_port", "X-Real-IP", "Forwarded"}
	var head, tail strings.Builder
	for _, n := range spoofed {
		fmt.Fprintf(&head, "%s: evil\r\n", n)
		fmt.Fprintf(&tail, "%s: evil\r\n", n)
	}
	resp, body := exchangeRaw(t, f.dial(), "POST / HTTP/1.1\r\nHost: a\r\nConnection: x-tlsmcp-identity, client-cert, x-mine\r\nX-Mine: gone\r\nX-Kept: yes\r\n"+
		head.String()+"Transfer-Encoding: chunked\r\nTrailer: X-Fine, X-Tlsmcp-Identity\r\n\r\n2\r\nhi\r\n0\r\nX-Fine: 1\r\n"+tail.String()+"\r\n")
	if resp.StatusCode != 200 {
		t.Fatalf("status %d %s", resp.StatusCode, body)
	}
	check := func(t *testing.T, h http.Header) {
		for n, vs := range h {
			for _, v := range vs {
				if strings.Contains(v, "evil") {
					t.Errorf("%s: %s arrived", n, v)
				}
			}
		}
		want := map[string]string{"X-Tlsmcp-Identity": "spiffe://prod.example/service/pay", "X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "https", "X-Kept": "yes", "X-Mine": ""}
		for n, v := range want {
			if h.Get(n) != v || len(h[n]) > 1 {
				t.Errorf("%s = %q, want %q", n, h[n], v)
			}
		}
		raw := ":" + base64.StdEncoding.EncodeToString(f.client.Certificate[0]) + ":"
		if h.Get("Client-Cert") != raw {
			t.Errorf("Client-Cert = %q", h.Get("Client-Cert"))
		}
		if !strings.Contains(h.Get("X-Forwarded-Client-Cert"), `Subject="CN=payment-api";URI=spiffe://prod.example/service/pay`) {
			t.Errorf("XFCC = %q", h.Get("X-Forwarded-Client-Cert"))
		}
	}
	check(t, <-got)
	if tr := <-trailer; tr.Get("X-Fine") != "1" || tr.Get("X-Tlsmcp-Identity") != "" || len(tr) != 1 {
		t.Errorf("trailers %v", tr)
	}
	t.Run("h2", func(t *testing.T) {
		req, _ := http.NewRequest("GET", f.url("/"), nil)
		for _, n := range spoofed {
			req.Header[strings.ToLower(n)] = []string{"evil"}
		}
		req.Header.Set("X-Kept", "yes")
		resp := must(f.http(true).Do(req))(t)
		resp.Body.Close()
		check(t, <-got)
		<-trailer
	})
}

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
	next := make(chan bool)
	f := startFront(t, httpBackend(t, func(w http.ResponseWriter, r *http.Request) {
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
		time.Sleep(time.Second) // the backend's end of it has noticed
	}
}

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
		if resp.StatusCode != 408 || time.Since(start) > 4*time.Second {
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
	gone := make(chan bool, 2)
	f := startFront(t, rawBackend(t, func(c net.Conn) {
		r := bufio.NewReader(c)
		readRequest(r)
		_, err := r.ReadByte()
		gone <- err != nil
	}), nil)
	c := f.dial()
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	time.Sleep(50 * time.Millisecond)
	_ = c.Close()
	select {
	case <-gone:
	case <-time.After(5 * time.Second):
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
		if took := time.Since(begin); took > 50*time.Millisecond {
			t.Errorf("h2=%v: cut after %s", h2, took)
		}
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
		if took := time.Since(begin); took > 2*time.Second {
			t.Errorf("h2=%v: the answer took %s", h2, took)
		}
	}
}

// TestHeadsInPieces: a client whose heads come in two pieces, one after the
// other for longer than the header timeout, is not taken for a slow one.
func TestHeadsInPieces(t *testing.T) {
	f := startFront(t, httpBackend(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "ok") }),
		func(l *config.Listen) { l.HeaderTimeout = time.Second })
	c := f.dial()
	for i := range 8 {
		fmt.Fprint(c, "GET / HTTP/1.1\r\n")
		time.Sleep(300 * time.Millisecond)
		if resp, _ := exchangeRaw(t, c, "Host: a\r\n\r\n"); resp.StatusCode != 200 {
			t.Fatalf("request %d: status %d", i, resp.StatusCode)
		}
	}
}
