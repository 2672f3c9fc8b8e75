package proxy

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
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
	begun, got := make(chan struct{}), make(chan string, 1)
	f := startFront(t, rawBackend(t, func(c net.Conn) {
		var first []byte
		for one := make([]byte, 1); !bytes.HasSuffix(first, []byte("hello\r\n")); first = append(first, one...) {
			if _, err := io.ReadFull(c, one); err != nil {
				break
			}
		}
		close(begun)
		b, _ := io.ReadAll(c)
		got <- string(first) + string(b)
	}), nil)
	c := f.dial()
	fmt.Fprint(c, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
	<-begun
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
