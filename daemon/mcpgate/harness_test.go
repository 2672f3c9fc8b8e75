package mcpgate

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"cyphers.ai/tlsmcp/daemon/mcpgate/children"
	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/identity"
	"cyphers.ai/tlsmcp/pkg/mcpwire"
	"cyphers.ai/tlsmcp/pkg/pki"
)

func TestMain(m *testing.M) {
	if code, ok := children.Main(os.Args[1:]); ok {
		os.Exit(code)
	}
	if os.Getenv(fakeStdio) != "" {
		serveStdio()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// world is a gateway with its agents, without the TLS in front.
type world struct {
	t  *testing.T
	g  *Gateway
	ca *pki.CA

	mu      sync.Mutex
	calls   []event.Call
	log     syncBuffer
	refuse  map[string]event.Reason // by fingerprint: who may not be in any more
	changed []string                // tools of which it was told, and to whom they showed
}

// newWorld starts a gateway before a backend.
func newWorld(t *testing.T, b config.Backend, g config.MCPGateway) *world {
	t.Helper()
	w := &world{t: t, refuse: map[string]event.Reason{}}
	w.ca = must(pki.NewCA(pki.CAOptions{}))(t)
	if b.Protocol == "" {
		b.Protocol = config.ProtocolMCP
	}
	if b.Path == "" {
		b.Path = "/mcp"
	}
	b.ConnectTimeout, b.PoolSize = 2*time.Second, 16
	if g.PinTools == "" {
		g.PinTools = "off"
	}
	if g.LogArguments == "" {
		g.LogArguments = "full"
	}
	w.g = must(New(Options{
		Log: slog.New(slog.NewJSONHandler(&w.log, nil)), Now: time.Now, Backend: b, Gateway: g, StateDir: t.TempDir(), Helper: []string{os.Args[0]},
		ToolChanged: func(tool, agent string) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.changed = append(w.changed, tool+" "+agent)
		},
		Call: func(c event.Call) { w.mu.Lock(); defer w.mu.Unlock(); w.calls = append(w.calls, c) },
		Ask: func(p *identity.Peer) (event.Reason, string) {
			w.mu.Lock()
			defer w.mu.Unlock()
			if p == nil {
				return "", ""
			}
			return w.refuse[p.Fingerprint], "as the test says"
		},
	}))(t)
	t.Cleanup(w.g.Close)
	return w
}

// syncBuffer is a log that is read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// client is an agent with a certificate of its own.
type client struct {
	*world
	peer    *identity.Peer
	url     string
	session string
	headers map[string]string
}

// agent makes a client; each call a fresh certificate of that name.
func (w *world) agent(name string) *client {
	w.t.Helper()
	leaf := must(w.ca.Issue(pki.LeafOptions{CommonName: name}))(w.t)
	peer := must(identity.FromChain([]*x509.Certificate{leaf.Cert, w.ca.Cert}, ""))(w.t)
	a := &agent{g: w.g, peer: peer, name: peer.ID, connID: 1, killed: func() (event.Reason, bool) { return "", false }}
	s := httptest.NewServer(a)
	w.t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	return &client{world: w, peer: peer, url: s.URL, headers: map[string]string{}}
}

// do sends a request to the gateway.
func (c *client) do(ctx context.Context, method, path, body string) *http.Response {
	c.t.Helper()
	r := must(http.NewRequestWithContext(ctx, method, c.url+path, strings.NewReader(body)))(c.t)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json, text/event-stream")
	if c.session != "" {
		r.Header.Set(mcpwire.HeaderSession, c.session)
	}
	for k, v := range c.headers {
		r.Header.Set(k, v)
	}
	return must(http.DefaultTransport.RoundTrip(r))(c.t)
}

// post posts a message and reads the answer whole.
func (c *client) post(body string) (status int, answer string) {
	c.t.Helper()
	resp := c.do(c.t.Context(), "POST", "/mcp", body)
	defer resp.Body.Close()
	b := must(io.ReadAll(resp.Body))(c.t)
	return resp.StatusCode, string(b)
}

// initialize begins a session.
func (c *client) initialize(version string) {
	c.t.Helper()
	resp := c.do(c.t.Context(), "POST", "/mcp", `{"jsonrpc":"2.0","id":"init","method":"initialize","params":{"protocolVersion":"`+version+`","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}`)
	defer resp.Body.Close()
	b := must(io.ReadAll(resp.Body))(c.t)
	c.session = resp.Header.Get(mcpwire.HeaderSession)
	if c.session == "" || resp.StatusCode != 200 {
		c.t.Fatalf("initialize: %s %s", resp.Status, b)
	}
}

// patience is how long anything may take on a machine that is busy.
const patience = 30 * time.Second

// eventually asks until it is so, or patience is over.
func eventually(so func() bool) bool {
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if so() {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
	}
}

// lastCall waits until the last call of that method is recorded with an outcome.
func (w *world) lastCall(method string, outcome event.Outcome) (last event.Call) {
	w.t.Helper()
	if !eventually(func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, c := range w.calls {
			if c.Method == method {
				last = c
			}
		}
		return last.Outcome == outcome
	}) {
		w.t.Fatalf("the last record of %s is %+v, and not %s", method, last, outcome)
	}
	return last
}

// errorOf reads a JSON-RPC error.
func errorOf(t *testing.T, answer string) (code int, reason, message string) {
	t.Helper()
	var e struct {
		Error struct {
			Code    int
			Message string
			Data    struct{ Reason string }
		}
	}
	if err := json.Unmarshal([]byte(answer), &e); err != nil {
		t.Fatalf("%v: %s", err, answer)
	}
	return e.Error.Code, e.Error.Data.Reason, e.Error.Message
}

// httpServer starts an HTTP server for the gateway to stand before.
func httpServer(t *testing.T, h http.HandlerFunc) config.Backend {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	return config.Backend{Network: "tcp", Address: s.Listener.Addr().(*net.TCPAddr).String()}
}

// events reads the data of a stream's messages, in order.
func events(r io.Reader) []string {
	var all []string
	scan := bufio.NewScanner(r)
	for scan.Scan() {
		if data, ok := strings.CutPrefix(scan.Text(), "data: "); ok {
			all = append(all, data)
		}
	}
	return all
}
