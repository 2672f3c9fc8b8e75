package proxy

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"cyphers.ai/tlsmcp/daemon/edge"
	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/event"
)

// startLocal starts a front whose requests a handler answers.
func startLocal(t *testing.T, h http.HandlerFunc) *front {
	t.Helper()
	return startFrontWith(t, config.Backend{Network: "tcp", Address: "127.0.0.1:1"}, nil, func(p *Proxy) {
		p.Answer(func(*edge.Conn) http.Handler { return h })
	})
}

// echo answers with what the handler got.
func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("X-Path", r.URL.Path+"?"+r.URL.RawQuery)
	w.Header().Set("X-Who", strings.Join(r.Header.Values("X-Tlsmcp-Identity"), ","))
	w.Header().Set("X-Odd", r.Header.Get("X-Odd")+r.Header.Get("Keep-Alive"))
	fmt.Fprintf(w, "%s %s %s", r.Method, r.Host, body)
}

func TestLocalHandler(t *testing.T) {
	f := startLocal(t, echo)
	for _, tt := range []struct {
		rule, request string
		status        int
		body, header  string
	}{
		{"a body by length is read", "POST /p?q HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello", 200, "POST h hello", "/p?q"},
		{"a body in chunks is read", "POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nA: b\r\n\r\n", 200, "POST h hello", "/p?"},
		{"no body is an empty one", "GET / HTTP/1.1\r\nHost: h\r\n\r\n", 200, "GET h ", "/?"},
		{"a bad chunk is refused", "POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n+2\r\nhe\r\n0\r\n\r\n", 400, "", ""},
		{"a malformed head is refused before", "POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx", 400, "", ""},
		{"HTTP/1.0 is answered", "POST / HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi", 200, "POST  hi", "/?"},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			resp, body := exchangeRaw(t, f.dial(), tt.request)
			if resp.StatusCode != tt.status || tt.body != "" && body != tt.body || tt.header != "" && resp.Header.Get("X-Path") != tt.header {
				t.Errorf("%s %q %v", resp.Status, body, resp.Header)
			}
		})
	}
	t.Run("what a client says of itself does not reach the handler", func(t *testing.T) {
		for _, h2 := range []bool{false, true} {
			r := must(http.NewRequest("POST", f.url("/"), strings.NewReader("x")))(t)
			r.Header.Set("X-Tlsmcp-Identity", "root")
			r.Header.Set("X_Tlsmcp_Identity", "root")
			r.Header.Set("X-Odd", "kept")
			if !h2 {
				r.Header.Set("Keep-Alive", "gone")
			}
			resp := must(f.http(h2).Do(r))(t)
			resp.Body.Close()
			if resp.Header.Get("X-Who") != "spiffe://prod.example/service/pay" || resp.Header.Get("X-Odd") != "kept" {
				t.Errorf("h2 %v: %v", h2, resp.Header)
			}
		}
	})
	t.Run("requests follow each other on one connection", func(t *testing.T) {
		c := f.dial()
		in := bufio.NewReader(c)
		one := "POST /1 HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\na"
		if _, err := io.WriteString(c, one+strings.Replace(one, "/1", "/2", 1)); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"/1?", "/2?"} {
			resp := must(http.ReadResponse(in, nil))(t)
			_, _ = io.Copy(io.Discard, resp.Body)
			if resp.Header.Get("X-Path") != want {
				t.Errorf("got %v, want %s", resp.Header, want)
			}
		}
		time.Sleep(time.Second) // it is parked now
		if resp, body := exchangeRaw(t, c, one); resp.StatusCode != 200 || body != "POST h a" {
			t.Errorf("%s %q", resp.Status, body)
		}
	})
	t.Run("a client that waits for a word gets it", func(t *testing.T) {
		c := f.dial()
		if _, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		in := bufio.NewReader(c)
		if line := must(in.ReadString('\n'))(t); !strings.Contains(line, "100 Continue") {
			t.Fatalf("%q", line)
		}
		_ = must(in.ReadString('\n'))(t)
		if _, err := io.WriteString(c, "ok"); err != nil {
			t.Fatal(err)
		}
		if resp := must(http.ReadResponse(in, nil))(t); resp.StatusCode != 200 {
			t.Errorf("%s", resp.Status)
		}
	})
}

func TestLocalStreams(t *testing.T) {
	left := make(chan error, 4)
	f := startLocal(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/abort":
			fmt.Fprint(w, "half")
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		case "/unread":
			fmt.Fprint(w, "enough")
			return
		}
		for i := range 3 {
			fmt.Fprintf(w, "part %d\n", i)
			if err := http.NewResponseController(w).Flush(); err != nil {
				return
			}
		}
		if r.URL.Path == "/wait" {
			<-r.Context().Done()
			left <- r.Context().Err()
		}
	})
	for _, h2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("h2 %v", h2), func(t *testing.T) {
			resp := must(f.http(h2).Get(f.url("/stream")))(t)
			if body := must(io.ReadAll(resp.Body))(t); string(body) != "part 0\npart 1\npart 2\n" {
				t.Errorf("%q", body)
			}
			resp = must(f.http(h2).Get(f.url("/abort")))(t)
			if body, err := io.ReadAll(resp.Body); err == nil {
				t.Errorf("a response that was cut short looks whole: %q", body)
			}
			resp = must(f.http(h2).Get(f.url("/wait")))(t)
			in := bufio.NewReader(resp.Body)
			for range 3 {
				_ = must(in.ReadString('\n'))(t)
			}
			resp.Body.Close() // the client hangs up
			select {
			case <-left:
			case <-time.After(patience):
				t.Error("the handler was not told that its client left")
			}
		})
	}
	t.Run("a body that is not read ends the connection", func(t *testing.T) {
		c := f.dial()
		resp, body := exchangeRaw(t, c, "POST /unread HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nx")
		if body != "enough" || !resp.Close {
			t.Errorf("%q, close %v", body, resp.Close)
		}
	})
	t.Run("a killed connection ends its handler", func(t *testing.T) {
		bestOfFive(t, 50*time.Millisecond, func() time.Duration {
			resp := must(f.http(false).Get(f.url("/wait")))(t)
			defer resp.Body.Close()
			in := bufio.NewReader(resp.Body)
			for range 3 { // then it waits
				_ = must(in.ReadString('\n'))(t)
			}
			from := time.Now()
			f.mu.Lock()
			var live []*edge.Conn
			for c := range f.live {
				live = append(live, c)
			}
			f.mu.Unlock()
			for _, c := range live {
				c.Kill(event.Revoked, "test")
			}
			if err := <-left; err == nil {
				t.Error("its handler ended by itself")
			}
			took := time.Since(from)
			if _, err := io.ReadAll(resp.Body); err == nil || errors.Is(err, io.EOF) {
				t.Error("the response looks whole")
			}
			return took
		})
	})
}
