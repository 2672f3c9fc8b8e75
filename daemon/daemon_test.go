package daemon

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/pki"
)

// sidecar is a whole daemon in this process, from a configuration file.
type sidecar struct {
	t    *testing.T
	d    *Daemon
	ca   *pki.CA
	dir  string
	logs *lockedBuffer
	now  func(time.Time) // sets the daemon's clock

	protocol string // of the backend
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

const mtlsRules = `allowed_services = ["pay", "web"]`

func startSidecar(t *testing.T) *sidecar { return startSidecarFor(t, "http") }

// startSidecarFor starts one whose backend speaks a protocol.
func startSidecarFor(t *testing.T, protocol string) *sidecar {
	t.Helper()
	s := &sidecar{t: t, dir: t.TempDir(), logs: &lockedBuffer{}, protocol: protocol}
	var err error
	if s.ca, err = pki.NewCA(pki.CAOptions{}); err != nil {
		t.Fatal(err)
	}
	srv, err := s.ca.Issue(pki.LeafOptions{CommonName: "server", DNS: []string{"localhost"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := srv.Write(s.path("server.pem"), s.path("server.key")); err != nil {
		t.Fatal(err)
	}
	s.write("ca.pem", string(s.ca.CertPEM()))
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Header.Get("X-Tlsmcp-Identity"))
	}))
	t.Cleanup(backend.Close)
	s.configure(backend.Listener.Addr().String(), mtlsRules)

	cfg, err := config.Load(s.path("tlsmcp.toml"))
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	clock := time.Now
	s.now = func(at time.Time) {
		mu.Lock()
		defer mu.Unlock()
		clock = func() time.Time { return at }
	}
	level := new(slog.LevelVar)
	s.d, err = New(t.Context(), cfg, Options{Log: NewLog(s.logs, level, false), Level: level, Now: func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return clock()
	}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.d.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return s
}

func (s *sidecar) path(name string) string { return filepath.Join(s.dir, name) }

func (s *sidecar) write(name, text string) {
	s.t.Helper()
	if err := pki.WriteFileAtomic(s.path(name), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *sidecar) configure(backend, rules string) {
	s.write("tlsmcp.toml", fmt.Sprintf(`version = 1
service_id = "test"
[hub]
url = "none"
[listen]
address = "127.0.0.1:0"
drain_timeout = "2s"
[backend]
address = %q
protocol = %q
[mtls]
ca_file = "ca.pem"
%s
[server_cert]
cert_file = "server.pem"
key_file = "server.key"
[admin]
address = "127.0.0.1:0"
[state]
dir = %q
[audit]
dir = %q
[control]
socket = %q
`, backend, s.protocol, rules, s.path("state"), s.path("audit"), s.path("ctl.sock")))
}

// client connects as the named service and keeps the connection.
func (s *sidecar) client(o pki.LeafOptions) *http.Client {
	s.t.Helper()
	leaf, err := s.ca.Issue(o)
	if err != nil {
		s.t.Fatal(err)
	}
	cert, err := leaf.TLS()
	if err != nil {
		s.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(s.ca.Cert)
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: "localhost", Certificates: []tls.Certificate{cert}}}
	s.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 5 * time.Second}
}

func (s *sidecar) get(c *http.Client) (string, error) {
	resp, err := c.Get("https://" + s.d.Addresses()[0].String() + "/")
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

func (s *sidecar) waitLog(words ...string) {
	s.t.Helper()
	for range 3000 {
		for line := range strings.Lines(s.logs.String()) {
			found := true
			for _, w := range words {
				found = found && strings.Contains(line, w)
			}
			if found {
				return
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	s.t.Fatalf("no line with %q in:\n%s", words, s.logs)
}

func (s *sidecar) admin(path string) string {
	s.t.Helper()
	resp, err := http.Get("http://" + s.d.AdminAddr().String() + path)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return string(b)
}

// TestReloadEndsWhatItForbids: a rule that goes takes the live connections
// that it let in along, and no others; a reload that fails changes nothing.
func TestReloadEndsWhatItForbids(t *testing.T) {
	s := startSidecar(t)
	pay, web := s.client(pki.LeafOptions{CommonName: "pay"}), s.client(pki.LeafOptions{CommonName: "web"})
	for name, c := range map[string]*http.Client{"pay": pay, "web": web} {
		if who, err := s.get(c); who != name || err != nil {
			t.Fatalf("%q %v", who, err)
		}
	}
	good, err := os.ReadFile(s.path("tlsmcp.toml"))
	if err != nil {
		t.Fatal(err)
	}
	s.write("tlsmcp.toml", string(good)+"\nnonsense = 1\n")
	if err := s.d.Reload(); err == nil {
		t.Fatal("a file with an unknown key was taken")
	}
	if m := s.admin("/metrics"); !strings.Contains(m, "tlsmcp_config_last_reload_successful 0") {
		t.Error("the metrics do not say that the reload failed")
	}
	if _, err := s.get(pay); err != nil {
		t.Errorf("after a failed reload: %v", err)
	}
	s.write("tlsmcp.toml", strings.Replace(string(good), mtlsRules, `allowed_services = ["web"]`, 1))
	if err := s.d.Reload(); err != nil {
		t.Fatal(err)
	}
	s.waitLog(`"connection closed"`, `"identity":"pay"`, `"reason":"not_allowed"`)
	if _, err := s.get(pay); err == nil {
		t.Error("pay still comes in")
	}
	if _, err := s.get(web); err != nil {
		t.Errorf("web was cut: %v", err)
	}
	if m := s.admin("/metrics"); !strings.Contains(m, `tlsmcp_connections_closed_total{reason="not_allowed"} 1`) {
		t.Error("one connection should have been cut")
	}
}

// TestExpiryEndsConnections: a live connection ends when its certificate does.
func TestExpiryEndsConnections(t *testing.T) {
	s := startSidecar(t)
	soon := time.Now().Add(time.Hour)
	pay, web := s.client(pki.LeafOptions{CommonName: "pay", NotAfter: soon}), s.client(pki.LeafOptions{CommonName: "web"})
	for _, c := range []*http.Client{pay, web} {
		if _, err := s.get(c); err != nil {
			t.Fatal(err)
		}
	}
	s.now(soon.Add(time.Minute))
	s.waitLog(`"connection closed"`, `"identity":"pay"`, `"reason":"expired"`)
	if _, err := s.get(pay); err == nil {
		t.Error("an expired certificate comes in")
	}
	if open, _ := s.d.conns.Len(); open != 1 {
		t.Errorf("%d connections left, want web's", open)
	}
}

// TestSelfCheck: it passes, leaves no trace as a client, and fails when the
// listener does not answer.
func TestSelfCheck(t *testing.T) {
	s := startSidecar(t)
	s.waitLog(`"serving"`) // the last time that Run looks at the listeners
	if err := s.d.selfCheck(t.Context()); err != nil {
		t.Fatal(err)
	}
	if m := s.admin("/metrics"); strings.Contains(m, `refused_total{reason="no_certificate"}`) {
		t.Error("the self-check counts as a refused client")
	}
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer dead.Close()
	real := s.d.listeners[0]
	s.d.listeners = []net.Listener{dead}
	defer func() { s.d.listeners = []net.Listener{real} }()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := s.d.selfCheck(ctx); err == nil {
		t.Error("a listener that does not answer passes")
	}
}

// TestAnOwnConnectionIsKnownUntilItsLastEvent, however late that comes.
func TestAnOwnConnectionIsKnownUntilItsLastEvent(t *testing.T) {
	from := netip.MustParseAddrPort("127.0.0.1:4711")
	for last, over := range map[event.Kind]bool{event.Accepted: false, event.Refused: true, event.Closed: true} {
		var s selfCheck
		s.note(from, true)
		said, done := s.await(from)
		s.tell(event.Connection{Kind: last, Remote: from})
		if e := <-said; e.Kind != last {
			t.Errorf("told %v, want %v", e.Kind, last)
		}
		if done(); s.made(from) == over {
			t.Errorf("after %v: is it still its own? %v", last, s.made(from))
		}
	}
}

func TestReadiness(t *testing.T) {
	s := startSidecar(t)
	page := s.admin("/readyz?verbose")
	for _, want := range []string{"backend", "server certificate", "configuration", "ca_file"} {
		if !strings.Contains(page, want) {
			t.Errorf("%q is not on the page:\n%s", want, page)
		}
	}
	for _, r := range []event.Reason{event.NoCertificate} {
		c := s.client(pki.LeafOptions{CommonName: "pay"})
		c.Transport.(*http.Transport).TLSClientConfig.Certificates = nil
		if _, err := s.get(c); err == nil {
			t.Fatal("came in without a certificate")
		}
		s.waitLog(`"connection refused"`, string(r))
		if m := s.admin("/metrics"); !strings.Contains(m, fmt.Sprintf(`tlsmcp_connections_refused_total{reason=%q} 1`, r)) {
			t.Errorf("%s is not counted", r)
		}
	}
}
