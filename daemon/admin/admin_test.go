package admin

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cyphers.ai/tlsmcp/pkg/metric"
)

// start runs a server on a free loopback port until the test ends.
func start(t *testing.T, checks ...Check) string {
	t.Helper()
	ln, err := Listen(netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	return serve(t, ln, checks...)
}

func serve(t *testing.T, ln net.Listener, checks ...Check) string {
	t.Helper()
	reg := metric.New()
	reg.Counter("tlsmcp_test_total", "x").Add(3)
	s, err := New(ln, reg, func() []Check { return checks }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return s.Addr().String()
}

// get asks with a given Host and Accept header; empty ones are the client's.
func get(t *testing.T, addr, path, host, accept string) (int, string, http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body), res.Header
}

var since = time.Date(2026, 11, 23, 10, 0, 0, 0, time.FixedZone("", 3600))

var (
	good     = Check{Name: "listener", OK: true, Required: true, Detail: "127.0.0.1:8443"}
	optional = Check{Name: "crl", Detail: "server down\nretrying", Since: since}
	bad      = Check{Name: "certificate", Required: true, Detail: "expired", Since: since}
)

func TestAnswers(t *testing.T) {
	tests := map[string]struct {
		checks       []Check
		path, accept string
		status       int
		body         string
	}{
		"alive whatever the checks say": {[]Check{bad}, "/livez", "", 200, "ok\n"},
		"ready without checks":          {nil, "/readyz", "", 200, "ok\n"},
		"ready when all is well":        {[]Check{good}, "/readyz", "", 200, "ok\n"},
		"ready when what fails is not required": {
			[]Check{good, optional}, "/readyz", "", 200, "ok\n"},
		"not ready when a required check fails, and it says which": {
			[]Check{good, optional, bad}, "/readyz", "", 503,
			"[-] certificate fail: expired (since 2026-11-23T09:00:00Z)\nnot ready\n"},
		"verbose lists every check, each on one line": {
			[]Check{good, optional}, "/readyz?verbose", "", 200,
			"[+] listener ok: 127.0.0.1:8443\n[!] crl fail (not required): server down; retrying (since 2026-11-23T09:00:00Z)\nok\n"},
		"verbose and not ready": {
			[]Check{good, bad}, "/readyz?verbose", "", 503,
			"[+] listener ok: 127.0.0.1:8443\n[-] certificate fail: expired (since 2026-11-23T09:00:00Z)\nnot ready\n"},
		"JSON by query": {
			[]Check{good, bad}, "/readyz?format=json", "", 503,
			`{"ready":false,"checks":[{"name":"listener","ok":true,"required":true,"detail":"127.0.0.1:8443"},` +
				`{"name":"certificate","ok":false,"required":true,"detail":"expired","since":"2026-11-23T09:00:00Z"}]}` + "\n"},
		"JSON by Accept": {
			nil, "/readyz", "application/json", 200, `{"ready":true,"checks":[]}` + "\n"},
		"nothing else is here": {nil, "/", "", 404, "404 page not found\n"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			addr := start(t, test.checks...)
			status, body, header := get(t, addr, test.path, "", test.accept)
			if status != test.status || body != test.body {
				t.Errorf("got %d %q\nwant %d %q", status, body, test.status, test.body)
			}
			if header.Get("Cache-Control") != "no-store" {
				t.Error("the answer may be cached")
			}
			if isJSON := header.Get("Content-Type") == "application/json"; isJSON != strings.HasPrefix(test.body, "{") {
				t.Errorf("Content-Type %q", header.Get("Content-Type"))
			}
		})
	}
}

func TestMetrics(t *testing.T) {
	status, body, _ := get(t, start(t), "/metrics", "", "")
	if status != 200 || !strings.Contains(body, "\ntlsmcp_test_total 3\n") {
		t.Errorf("got %d %q", status, body)
	}
}

func TestOnlyReading(t *testing.T) {
	addr := start(t)
	for _, path := range []string{"/livez", "/readyz", "/metrics"} {
		res, err := http.Post("http://"+addr+path, "text/plain", strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("POST %s: %d", path, res.StatusCode)
		}
		if res, err = http.Head("http://" + addr + path); err != nil || res.StatusCode != 200 {
			t.Errorf("HEAD %s: %v %v", path, res, err)
		}
	}
}

func TestHostHeader(t *testing.T) {
	tests := map[string]bool{
		"":                       true,
		"localhost":              true,
		"LocalHost:9090":         true,
		"localhost.":             true,
		"127.0.0.1":              true,
		"127.0.0.1:9090":         true,
		"127.8.9.1:1":            true,
		"[::1]":                  true,
		"[::1]:9090":             true,
		"::1":                    true,
		"[::ffff:127.0.0.1]:1":   true,
		"evil.example":           false,
		"evil.example:9090":      false,
		"localhost.evil.example": false,
		"127.0.0.1.evil.example": false,
		"192.0.2.1":              false,
		"0.0.0.0:9090":           false,
		"[::]:9090":              false,
		"2130706433":             false, // 127.0.0.1 as one number
		"[":                      false,
		"[]":                     false,
		":9090":                  false,
	}
	for host, want := range tests {
		t.Run(fmt.Sprintf("%q", host), func(t *testing.T) {
			if got := isLoopbackHost(host); got != want {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
	t.Run("a page that rebinds its name reads nothing", func(t *testing.T) {
		addr := start(t)
		for _, path := range []string{"/metrics", "/readyz", "/livez"} {
			if status, body, _ := get(t, addr, path, "evil.example", ""); status != http.StatusMisdirectedRequest || strings.Contains(body, "tlsmcp_") {
				t.Errorf("%s: %d %q", path, status, body)
			}
		}
	})
	t.Run("HTTP/1.0 without the header is answered", func(t *testing.T) {
		c, err := net.Dial("tcp", start(t))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, "GET /livez HTTP/1.0\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.Contains(line, "200") {
			t.Errorf("got %q, %v", line, err)
		}
	})
}

func FuzzHostHeader(f *testing.F) {
	for _, s := range []string{"", "localhost:1", "[::1]:1", "[", "127.0.0.1.evil.example", "::1%lo", ":"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, host string) {
		// Whatever passes is nothing that a resolver could be asked for.
		if !isLoopbackHost(host) || host == "" {
			return
		}
		name := host
		if h, _, err := net.SplitHostPort(host); err == nil {
			name = h
		}
		name = strings.Trim(name, "[].")
		addr, err := netip.ParseAddr(name)
		if !strings.EqualFold(name, "localhost") && (err != nil || !addr.Unmap().IsLoopback()) {
			t.Errorf("%q passes", host)
		}
	})
}

func TestOnlyLoopback(t *testing.T) {
	for _, addr := range []string{"0.0.0.0:0", "[::]:0", "192.0.2.1:0"} {
		if ln, err := Listen(netip.MustParseAddrPort(addr)); err == nil {
			ln.Close()
			t.Errorf("%s was listened on", addr)
		}
	}
	t.Run("a listener from elsewhere is checked too", func(t *testing.T) {
		ln := addressed{addr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1}}
		if _, err := New(ln, metric.New(), nil, slog.New(slog.DiscardHandler)); err == nil {
			t.Error("it was accepted")
		}
	})
	t.Run("a port that is taken is an error", func(t *testing.T) {
		taken := start(t)
		if ln, err := Listen(netip.MustParseAddrPort(taken)); err == nil {
			ln.Close()
			t.Error("it was not")
		}
	})
	t.Run("a Unix socket will do", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "admin")
		ln, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		serve(t, ln)
		client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}}}
		defer client.CloseIdleConnections()
		res, err := client.Get("http://localhost/livez")
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != 200 {
			t.Errorf("got %d", res.StatusCode)
		}
	})
}

// addressed is a listener that has nothing but an address.
type addressed struct {
	net.Listener
	addr net.Addr
}

func (a addressed) Addr() net.Addr { return a.addr }

// pipes is a listener of in-memory connections, for tests in a bubble.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (p pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p pipes) Close() error {
	select {
	case <-p.closed:
	default:
		close(p.closed)
	}
	return nil
}

func (p pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

func TestASlowClientIsCutAfterTheHeaderTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pipes{make(chan net.Conn), make(chan struct{})}
		s, err := New(p, metric.New(), func() []Check { return nil }, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- s.Run(ctx) }()
		client, server := net.Pipe()
		p.conns <- server
		began := time.Now()
		if _, err := io.WriteString(client, "GET /livez HTTP/1.1\r\n"); err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, client) // until the server hangs up
		if took := time.Since(began); took < headerTimeout || took > headerTimeout+time.Second {
			t.Errorf("cut after %v, want %v", took, headerTimeout)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestRunSaysWhyItCannotServe(t *testing.T) {
	ln, err := Listen(netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(ln, metric.New(), nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	if err := s.Run(t.Context()); err == nil {
		t.Error("it returned nil")
	}
}
