package load

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cyphers.ai/tlsmcp/bench/internal/certs"
	"cyphers.ai/tlsmcp/bench/internal/origin"
)

// peer is a TLS server that requires client certificates, as a proxy does.
type peer struct {
	spec  Spec // to reach it
	mu    sync.Mutex
	conns map[net.Conn]struct{} // guarded by mu
}

// dropAll cuts every connection that is open now.
func (p *peer) dropAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
}

func newPeer(t *testing.T, h http.HandlerFunc, change ...func(*tls.Config)) *peer {
	t.Helper()
	dir := t.TempDir()
	a, err := certs.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	server, client := certs.PairIn(dir, "server"), certs.PairIn(dir, "client")
	if _, err := a.Server(server); err != nil {
		t.Fatal(err)
	}
	if err := a.Client(client); err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(server.CertFile, server.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(a.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	cfg := &tls.Config{
		Certificates: []tls.Certificate{pair}, ClientCAs: roots,
		ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13,
		NextProtos: []string{"h2", "http/1.1"},
	}
	for _, f := range change {
		f(cfg)
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{conns: make(map[net.Conn]struct{}), spec: Spec{
		Address: l.Addr().String(), CAFile: a.CAFile, CertFile: client.CertFile, KeyFile: client.KeyFile,
	}}
	srv := &http.Server{
		Handler: h, TLSConfig: cfg, ErrorLog: log.New(io.Discard, "", 0),
		ConnState: func(c net.Conn, s http.ConnState) {
			p.mu.Lock()
			defer p.mu.Unlock()
			switch s {
			case http.StateNew:
				p.conns[c] = struct{}{}
			case http.StateClosed:
				delete(p.conns, c)
			}
		},
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.ServeTLS(l, "", "") // it ends when the test closes it
	}()
	t.Cleanup(func() {
		_ = srv.Close()
		<-done
	})
	return p
}

func answer(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	n := int64(origin.BodySize)
	if s := r.URL.Query().Get("n"); s != "" {
		n, _ = strconv.ParseInt(s, 10, 64)
	}
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	_, _ = io.CopyN(w, zeroReader{}, n)
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// open opens a generator for one test.
func open(t *testing.T, p *peer, s Spec) Generator {
	t.Helper()
	s.Address, s.CAFile, s.CertFile, s.KeyFile = p.spec.Address, p.spec.CAFile, p.spec.CertFile, p.spec.KeyFile
	g, err := Open(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	return g
}

func run(t *testing.T, g Generator) Result {
	t.Helper()
	r, err := g.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

const short = 150 * time.Millisecond

func TestModesCountWhatIsServed(t *testing.T) {
	tests := []struct {
		spec  Spec
		extra int64 // requests of the warm-up
	}{
		{Spec{Mode: Closed, Conns: 3, Duration: short}, 3 * warmUps},
		{Spec{Mode: Paced, Conns: 3, Rate: 200, Duration: short}, 3 * warmUps},
		{Spec{Mode: HTTP2, Conns: 2, Streams: 3, Duration: short}, 0},
		{Spec{Mode: Idle, Conns: 20}, 0},
		{Spec{Mode: Download, Conns: 2, Bytes: 3e6}, 0},
		{Spec{Mode: Upload, Conns: 2, Bytes: 3e6}, 0},
	}
	for _, tt := range tests {
		t.Run(string(tt.spec.Mode), func(t *testing.T) {
			var served atomic.Int64
			g := open(t, newPeer(t, func(w http.ResponseWriter, r *http.Request) {
				served.Add(1)
				answer(w, r)
			}), tt.spec)
			before := served.Load()
			r := run(t, g)
			if r.Failed != 0 || r.Ops == 0 {
				t.Fatalf("%d done, %d failed: %q", r.Ops, r.Failed, r.Errors)
			}
			if got := served.Load() - before; got != r.Ops {
				t.Errorf("%d counted, %d served", r.Ops, got)
			}
			if tt.extra > 0 && before != tt.extra {
				t.Errorf("%d requests of warm-up, want %d", before, tt.extra)
			}
			if r.P50 <= 0 || r.P99 < r.P50 || r.Max < r.P99 {
				t.Errorf("p50 %v, p99 %v, max %v", r.P50, r.P99, r.Max)
			}
			if want := tt.spec.Bytes; r.Bytes != want {
				t.Errorf("%d bytes, want %d", r.Bytes, want)
			}
		})
	}
}

func TestPacedKeepsItsRate(t *testing.T) {
	g := open(t, newPeer(t, answer), Spec{Mode: Paced, Conns: 4, Rate: 300, Duration: time.Second / 2})
	if r := run(t, g); r.Ops != 150 || r.Elapsed < time.Second/2-5*time.Millisecond {
		t.Errorf("%d requests in %v, want 150 in half a second", r.Ops, r.Elapsed)
	}
}

func TestPacedChargesAStallToAllThatItHeldUp(t *testing.T) {
	// One connection, a hundred requests, and the first of them stalls for
	// half the time. Timed from when each was sent, only that one would be
	// slow, and the 99th percentile would not show it.
	const stall = 500 * time.Millisecond
	var n atomic.Int64
	g := open(t, newPeer(t, func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1) == warmUps+1 {
			time.Sleep(stall)
		}
		answer(w, r)
	}), Spec{Mode: Paced, Conns: 1, Rate: 100, Duration: time.Second})
	r := run(t, g)
	if r.Ops != 100 || r.Failed != 0 {
		t.Fatalf("%d done, %d failed: %q", r.Ops, r.Failed, r.Errors)
	}
	if r.P99 < stall-50*time.Millisecond {
		t.Errorf("p99 is %v: the requests that waited are not in it", r.P99)
	}
}

func TestHandshakes(t *testing.T) {
	var served atomic.Int64
	p := newPeer(t, func(http.ResponseWriter, *http.Request) { served.Add(1) })
	r := run(t, open(t, p, Spec{Mode: Handshake, Conns: 2, Duration: short}))
	if r.Ops == 0 || r.Failed != 0 {
		t.Errorf("%d done, %d failed: %q", r.Ops, r.Failed, r.Errors)
	}
	if served.Load() != 0 {
		t.Errorf("%d requests came with the handshakes", served.Load())
	}
}

func TestHandshakeRefusedAfterTheClientWasDoneFails(t *testing.T) {
	p := newPeer(t, answer, func(c *tls.Config) {
		c.VerifyConnection = func(tls.ConnectionState) error { return fmt.Errorf("not you") }
	})
	r := run(t, open(t, p, Spec{Mode: Handshake, Conns: 1, Duration: short}))
	if r.Ops != 0 || r.Failed == 0 {
		t.Errorf("%d done, %d failed", r.Ops, r.Failed)
	}
}

func TestWhatIsNotComparableIsNotMeasured(t *testing.T) {
	tests := []struct {
		rule   string
		change func(*tls.Config)
	}{
		{"a server without TLS 1.3", func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 }},
		{"a server without X25519", func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.CurveP256} }},
		{"a server that knows another client CA", func(c *tls.Config) { c.ClientCAs = x509.NewCertPool() }},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			p := newPeer(t, answer, tt.change)
			s := p.spec
			s.Mode, s.Conns, s.Duration = Closed, 1, short
			if g, err := Open(t.Context(), s); err == nil {
				g.Close()
				t.Error("it was opened")
			}
		})
	}
	states := []struct {
		rule string
		is   tls.ConnectionState
		ok   bool
	}{
		{"the agreed parameters pass", tls.ConnectionState{Version: tls.VersionTLS13, CipherSuite: tls.TLS_AES_128_GCM_SHA256, CurveID: tls.X25519, NegotiatedProtocol: "h2"}, true},
		{"another cipher does not", tls.ConnectionState{Version: tls.VersionTLS13, CipherSuite: tls.TLS_AES_256_GCM_SHA384, CurveID: tls.X25519, NegotiatedProtocol: "h2"}, false},
		{"a resumed session does not", tls.ConnectionState{Version: tls.VersionTLS13, CipherSuite: tls.TLS_AES_128_GCM_SHA256, CurveID: tls.X25519, NegotiatedProtocol: "h2", DidResume: true}, false},
		{"no protocol does not", tls.ConnectionState{Version: tls.VersionTLS13, CipherSuite: tls.TLS_AES_128_GCM_SHA256, CurveID: tls.X25519}, false},
	}
	for _, tt := range states {
		t.Run(tt.rule, func(t *testing.T) {
			if err := comparable13(tt.is, "h2"); (err == nil) != tt.ok {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestFailuresAreCounted(t *testing.T) {
	// Each server starts to misbehave after the warm-up.
	tests := []struct {
		rule string
		spec Spec
		bad  http.HandlerFunc
		fail bool
	}{
		{"a 502 is a failure", Spec{Mode: Closed, Conns: 1}, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusBadGateway) }, true},
		{"a 502 on a stream is a failure", Spec{Mode: HTTP2, Conns: 1, Streams: 2}, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusBadGateway) }, true},
		{"a short body is a failure", Spec{Mode: Closed, Conns: 1}, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "short") }, true},
		{"a short body on a stream is a failure", Spec{Mode: HTTP2, Conns: 1, Streams: 2}, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "short") }, true},
		{"a connection cut without an answer is a failure", Spec{Mode: Closed, Conns: 1}, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, true},
		{"a stream reset is a failure", Spec{Mode: HTTP2, Conns: 1, Streams: 2}, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, true},
		{"the loss of every paced connection is a failure", Spec{Mode: Paced, Conns: 2, Rate: 100}, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, true},
		{"an announced close is none", Spec{Mode: Closed, Conns: 1}, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Connection", "close")
			answer(w, r)
		}, false},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			var bad atomic.Bool
			p := newPeer(t, func(w http.ResponseWriter, r *http.Request) {
				if bad.Load() {
					tt.bad(w, r)
					return
				}
				answer(w, r)
			})
			tt.spec.Duration = short
			g := open(t, p, tt.spec)
			bad.Store(true)
			r := run(t, g)
			if tt.fail && (r.Failed == 0 || r.Ops != 0 || len(r.Errors) == 0) || !tt.fail && (r.Failed != 0 || r.Ops < 2) {
				t.Errorf("%d done, %d failed: %q", r.Ops, r.Failed, r.Errors)
			}
			if tt.spec.Mode == Paced && r.Failed != 15 {
				t.Errorf("%d of 15 requests failed", r.Failed)
			}
		})
	}
}

func TestIdleFindsWhatWasLost(t *testing.T) {
	p := newPeer(t, answer)
	g := open(t, p, Spec{Mode: Idle, Conns: 12})
	if r := run(t, g); r.Conns != 12 || r.Ops != 12 {
		t.Fatalf("%d held, %d answered: %q", r.Conns, r.Ops, r.Errors)
	}
	if r := run(t, g); r.Conns != 12 || r.Ops != 12 || r.Failed != 0 {
		t.Errorf("second run: %d held, %d answered, %d failed: %q", r.Conns, r.Ops, r.Failed, r.Errors)
	}
	p.dropAll()
	if r := run(t, g); r.Conns != 0 || r.Failed != 12 {
		t.Errorf("after the cut: %d held, %d failed", r.Conns, r.Failed)
	}
}

func TestServe(t *testing.T) {
	p := newPeer(t, answer)
	good, other := p.spec, p.spec
	good.Mode, good.Conns = Idle, 3
	other.Mode, other.Conns = "juggle", 3
	tests := []struct {
		rule  string
		spec  Spec
		lines string
		want  []string // parts of the replies, one each
	}{
		{"a run a line, after saying that it is open", good, "\n\n", []string{"{}", `"Ops":3`, `"Ops":3`}},
		{"what cannot be opened is said", other, "\n", []string{"juggle"}},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			in, err := json.Marshal(tt.spec)
			if err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			if err := Serve(t.Context(), strings.NewReader(string(in)+"\n"+tt.lines), &out); err != nil {
				t.Fatal(err)
			}
			got := strings.Split(strings.TrimSpace(out.String()), "\n")
			if len(got) != len(tt.want) {
				t.Fatalf("%d replies, want %d: %q", len(got), len(tt.want), got)
			}
			for i, want := range tt.want {
				if !strings.Contains(got[i], want) {
					t.Errorf("reply %d is %s, want %s in it", i, got[i], want)
				}
			}
		})
	}
	t.Run("nothing asked for is an error", func(t *testing.T) {
		if err := Serve(t.Context(), strings.NewReader(""), io.Discard); err == nil {
			t.Error("no error")
		}
	})
}

func TestRunEndsWithItsContext(t *testing.T) {
	for _, s := range []Spec{
		{Mode: Closed, Conns: 1}, {Mode: Paced, Conns: 1, Rate: 10}, {Mode: HTTP2, Conns: 1, Streams: 1}, {Mode: Handshake, Conns: 1},
	} {
		t.Run(string(s.Mode), func(t *testing.T) {
			s.Duration = time.Hour
			g := open(t, newPeer(t, answer), s)
			ctx, cancel := context.WithTimeout(t.Context(), short)
			defer cancel()
			if _, err := g.Run(ctx); err == nil {
				t.Error("a run that was cut gave no error")
			}
		})
	}
}
