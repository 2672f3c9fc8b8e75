package origin

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	tests := []struct {
		rule string
		in   string
		want request
		n    int
		bad  bool
	}{
		{"a plain request gets the fixed body", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", request{bulk: -1}, 27, false},
		{"bulk names its length", "GET /bulk?n=70000 HTTP/1.1\r\n\r\n", request{bulk: 70000}, 30, false},
		{"a body is announced in any case of letters", "POST / HTTP/1.1\r\ncontent-LENGTH: 5\r\n\r\nhello", request{bulk: -1, body: 5}, 38, false},
		{"a chunked body is refused", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", request{}, 0, true},
		{"a negative length is refused", "POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n", request{}, 0, true},
		{"a length beyond 63 bits is refused", "GET /bulk?n=9223372036854775808 HTTP/1.1\r\n\r\n", request{}, 0, true},
		{"HTTP/1.0 is refused", "GET / HTTP/1.0\r\n\r\n", request{}, 0, true},
		{"a line of one word is refused", "GET\r\n\r\n", request{}, 0, true},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			got, n, err := parse([]byte(tt.in))
			if (err != nil) != tt.bad || errors.Is(err, errShort) {
				t.Fatalf("error %v, want one: %v", err, tt.bad)
			}
			if got != tt.want || n != tt.n {
				t.Errorf("got %+v of %d bytes, want %+v of %d", got, n, tt.want, tt.n)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("POST /bulk?n=5 HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello"))
	f.Add([]byte("GET / HTTP/1.1\r\nHost: a\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		req, n, err := parse(in)
		if err != nil {
			return
		}
		if n < 4 || n > len(in) || !bytes.HasSuffix(in[:n], []byte("\r\n\r\n")) {
			t.Fatalf("head of %d bytes does not end in an empty line", n)
		}
		if req.body < 0 || req.bulk < -1 {
			t.Fatalf("negative lengths: %+v", req)
		}
		// What comes after the head does not change how it is read.
		again, m, err := parse(append(bytes.Clone(in[:n]), "x"...))
		if err != nil || again != req || m != n {
			t.Fatalf("read again: %+v %d %v, first %+v %d", again, m, err, req, n)
		}
	})
}

// start runs an origin for one test and dials it.
func start(t *testing.T) (net.Conn, *bufio.Reader) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c, bufio.NewReader(c)
}

func TestServe(t *testing.T) {
	body := strings.Repeat("b", 3*headLimit)
	tests := []struct {
		rule string
		in   string
		want []int // body lengths, in order
	}{
		{"pipelined requests are answered in order", "GET / HTTP/1.1\r\n\r\nGET /bulk?n=3 HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n", []int{BodySize, 3, BodySize}},
		{"a request body longer than the buffer is drained", "POST / HTTP/1.1\r\nContent-Length: 49152\r\n\r\n" + body + "GET /bulk?n=1 HTTP/1.1\r\n\r\n", []int{BodySize, 1}},
		{"bulk is longer than one write", "GET /bulk?n=600000 HTTP/1.1\r\n\r\n", []int{600000}},
		{"an empty bulk answer keeps the connection", "GET /bulk?n=0 HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n", []int{0, BodySize}},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			c, r := start(t)
			if _, err := io.WriteString(c, tt.in); err != nil {
				t.Fatal(err)
			}
			for i, want := range tt.want {
				resp, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Fatalf("response %d: %v", i, err)
				}
				got, err := io.Copy(io.Discard, resp.Body)
				if err != nil || resp.StatusCode != http.StatusOK || got != int64(want) {
					t.Errorf("response %d: status %d, %d bytes, %v; want %d bytes", i, resp.StatusCode, got, err, want)
				}
			}
		})
	}
}

func TestServeRefusesChunked(t *testing.T) {
	c, r := start(t)
	if _, err := io.WriteString(c, "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusNotImplemented {
		t.Errorf("status %d, want 501", resp.StatusCode)
	}
	if _, err := r.ReadByte(); err != io.EOF {
		t.Errorf("after a refusal: %v, want the end of the connection", err)
	}
}
