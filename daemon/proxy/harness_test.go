package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"cyphers.ai/tlsmcp/daemon/edge"
	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/identity"
	"cyphers.ai/tlsmcp/pkg/pki"
)

// front is a running edge and proxy before a backend of the test's choice.
type front struct {
	t      *testing.T
	addr   string
	ca     *pki.CA
	client tls.Certificate
	server *edge.Server
	proxy  *Proxy
	stop   context.CancelFunc
	done   chan struct{} // closed when the server has stopped

	mu     sync.Mutex
	events []event.Connection
	live   map[*edge.Conn]bool
	refuse event.Reason // what Verify answers from now on
}

type silent struct{}

func (silent) Request(string, int, time.Duration) {}

// startFront starts one; change adjusts the configuration first.
func startFront(t *testing.T, backend config.Backend, change func(*config.Listen)) *front {
	t.Helper()
	return startFrontWith(t, backend, change, func(*Proxy) {})
}

// startFrontWith starts one whose proxy is prepared before it serves.
func startFrontWith(t *testing.T, backend config.Backend, change func(*config.Listen), prepare func(*Proxy)) *front {
	t.Helper()
	listen := config.Listen{
		MaxConnections: 1000, HandshakeTimeout: 5 * time.Second, HeaderTimeout: 2 * time.Second,
		IdleTimeout: 5 * time.Second, DrainTimeout: 2 * time.Second, MaxHeaderBytes: 64 << 10,
	}
	if change != nil {
		change(&listen)
	}
	if backend.Protocol == "" {
		backend.Protocol = config.ProtocolHTTP
	}
	backend.ConnectTimeout, backend.PoolSize = 2*time.Second, 64
	if backend.IdentityHeaders == nil {
		backend.IdentityHeaders = []config.IdentityHeader{config.HeaderClientCert, config.HeaderClientCertChain, config.HeaderXFCC, config.HeaderXTlsmcp}
	}
	ca := must(pki.NewCA(pki.CAOptions{}))(t)
	srv := must(ca.Issue(pki.LeafOptions{CommonName: "server", DNS: []string{"localhost"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}}))(t)
	cli := must(ca.Issue(pki.LeafOptions{CommonName: "payment-api", URIs: []string{"spiffe://prod.example/service/pay"}}))(t)
	f := &front{t: t, ca: ca, live: map[*edge.Conn]bool{}, client: must(cli.TLS())(t)}
	f.proxy = New(backend, listen, slog.New(slog.DiscardHandler), silent{})
	prepare(f.proxy)
	serverCert := must(srv.TLS())(t)
	tlsConfig := edge.NewTLSConfig(edge.Policy{
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &serverCert, nil },
		Mode:           config.MTLSRequired, ALPN: f.proxy.ALPN(), Verify: f.verify,
	})
	f.server = must(edge.NewServer(edge.Options{
		Log: slog.New(slog.DiscardHandler), TLS: func() *tls.Config { return tlsConfig }, Verify: f.verify,
		Register: func(c *edge.Conn) { f.lock(func() { f.live[c] = true }) }, Unregister: func(c *edge.Conn) { f.lock(func() { delete(f.live, c) }) },
		Serve: f.proxy.Serve, Event: func(e event.Connection) { f.lock(func() { f.events = append(f.events, e) }) },
		ExpectsProxy: listen.ExpectsProxyHeader, Self: func(netip.AddrPort) bool { return false }, Draining: f.proxy.Drain, MaxConnections: listen.MaxConnections, HandshakeTimeout: listen.HandshakeTimeout,
		HeaderTimeout: listen.HeaderTimeout, IdleTimeout: listen.IdleTimeout,
	}))(t)
	l := must(edge.Listen(t.Context(), netip.MustParseAddrPort("127.0.0.1:0")))(t)
	f.addr = l.Addr().String()
	var ctx context.Context
	ctx, f.stop = context.WithCancel(context.Background())
	f.done = make(chan struct{})
	go func() {
		defer close(f.done)
		if err := f.server.Run(ctx, []net.Listener{l}, func() time.Duration { return listen.DrainTimeout }); err != nil {
			t.Errorf("run: %v", err)
		}
	}()
	t.Cleanup(func() { f.stop(); <-f.done; f.proxy.Close() })
	return f
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

func (f *front) lock(do func()) { f.mu.Lock(); defer f.mu.Unlock(); do() }

func (f *front) verify(presented []*x509.Certificate) edge.Verdict {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refuse != "" {
		return edge.Verdict{Reason: f.refuse, Detail: "as the test says"}
	}
	peer, err := identity.FromChain(append(presented[:1:1], f.ca.Cert), "")
	if err != nil {
		return edge.Verdict{Reason: event.BadCertificate, Detail: err.Error()}
	}
	return edge.Verdict{Peer: peer, Rule: "test"}
}

// patience is how long anything may take on a machine that is busy. Time limits
// that a connection must not reach are longer.
const patience = 30 * time.Second

// bestOfFive tries until one try is as fast as it must be: what else the machine
// does makes some slow, and not all of them.
func bestOfFive(t *testing.T, within time.Duration, try func() time.Duration) {
	t.Helper()
	best := time.Hour
	for range 5 {
		if best = min(best, try()); best < within || t.Failed() {
			return
		}
	}
	t.Errorf("the best of five took %v, want less than %v", best, within)
}

// waitEvent waits for an event of the kind.
func (f *front) waitEvent(kind event.Kind) event.Connection {
	f.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		f.mu.Lock()
		for _, e := range f.events {
			if e.Kind == kind {
				f.mu.Unlock()
				return e
			}
		}
		f.mu.Unlock()
	}
	f.t.Fatalf("no %s event; events: %+v", kind, f.events)
	return event.Connection{}
}

func (f *front) tlsConfig(alpn ...string) *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(f.ca.Cert)
	return &tls.Config{RootCAs: pool, ServerName: "localhost", Certificates: []tls.Certificate{f.client}, NextProtos: alpn, DynamicRecordSizingDisabled: true}
}

// dial opens a connection that the test writes raw bytes to.
func (f *front) dial(alpn ...string) *tls.Conn {
	f.t.Helper()
	c := must(tls.Dial("tcp", f.addr, f.tlsConfig(alpn...)))(f.t)
	f.t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c
}

// over speaks TLS over a connection that the test made.
func (f *front) over(c net.Conn) *tls.Conn { return tls.Client(c, f.tlsConfig()) }

// client returns an HTTP client; protocols as in http.Protocols.
func (f *front) http(h2 bool) *http.Client {
	tr := &http.Transport{TLSClientConfig: f.tlsConfig(), Protocols: new(http.Protocols), DisableCompression: true}
	tr.Protocols.SetHTTP1(!h2)
	tr.Protocols.SetHTTP2(h2)
	f.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: patience}
}

func (f *front) url(path string) string { return "https://" + f.addr + path }

// httpBackend starts an HTTP backend.
func httpBackend(t *testing.T, h http.HandlerFunc) config.Backend {
	t.Helper()
	l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	s := &http.Server{Handler: h}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	return config.Backend{Network: "tcp", Address: l.Addr().String()}
}

// rawBackend answers each connection with a function of its own.
func rawBackend(t *testing.T, serve func(net.Conn)) config.Backend {
	t.Helper()
	l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { defer c.Close(); serve(c) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	return config.Backend{Network: "tcp", Address: l.Addr().String()}
}

// readRequest reads a request head from a raw backend's connection.
func readRequest(r *bufio.Reader) string {
	var b strings.Builder
	for {
		line, err := r.ReadString('\n')
		b.WriteString(line)
		if err != nil || line == "\r\n" {
			return b.String()
		}
	}
}

// exchange writes raw bytes and reads until the connection ends or, with a
// whole response in hand, a little longer.
func exchangeRaw(t *testing.T, c net.Conn, request string) (*http.Response, string) {
	t.Helper()
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("read response: %v", err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return resp, string(body)
}
