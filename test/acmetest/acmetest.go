// Package acmetest starts a real ACME server, pebble, for tests. Every name leads
// to 127.0.0.1 for it, and it validates on the ports that the test says.
package acmetest

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"cyphers.ai/tlsmcp/pkg/pki"
	"cyphers.ai/tlsmcp/test/freeport"
)

// Server is a pebble.
type Server struct {
	Directory string // its URL
	CAFile    string // to trust its HTTPS with
	ports     [2]int // where it looks for TLS-ALPN-01 and HTTP-01
	manage    string
	client    *http.Client
	t         testing.TB
	dir       string
	address   string
	config    string
	cmd       *exec.Cmd
	log       *lockedBuffer
}

// Start starts a pebble that validates names on these ports of 127.0.0.1.
func Start(t testing.TB, tlsPort, httpPort int) *Server {
	t.Helper()
	s := &Server{t: t, dir: t.TempDir(), ports: [2]int{tlsPort, httpPort}}
	ca, err := pki.NewCA(pki.CAOptions{CommonName: "ACME server's HTTPS"})
	s.must(err)
	leaf, err := ca.Issue(pki.LeafOptions{CommonName: "localhost", IPs: []net.IP{net.IPv4(127, 0, 0, 1)}, Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	s.must(err)
	s.CAFile = s.write("ca.pem", ca.CertPEM())
	roots := x509.NewCertPool()
	roots.AddCert(ca.Cert)
	s.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	s.address, s.manage = free(t), free(t)
	s.Directory = "https://" + s.address + "/dir"
	config, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": s.address, "managementListenAddress": s.manage,
		"certificate": s.write("tls.crt", leaf.CertPEM), "privateKey": s.write("tls.key", leaf.KeyPEM),
		"httpPort": httpPort, "tlsPort": tlsPort, "retryAfter": map[string]int{"authz": 1, "order": 1}, "keyAlgorithm": "ecdsa",
		"profiles": map[string]any{"default": map[string]any{"description": "for tests", "validityPeriod": 7776000}},
	}})
	s.must(err)
	s.config = s.write("pebble.json", config)
	s.Up()
	t.Cleanup(s.Down)
	return s
}

// Up starts it, after Down anew: what it issued it has forgotten.
func (s *Server) Up() {
	s.t.Helper()
	s.log = &lockedBuffer{}
	s.cmd = exec.Command("go", "tool", "-modfile="+filepath.Join(root(s.t), "tools", "go.mod"), "-n", "pebble")
	s.cmd.Dir = root(s.t)
	path, err := s.cmd.Output() // builds it, and says where it is
	s.must(err)
	s.cmd = exec.Command(strings.TrimSpace(string(path)), "-config", s.config, "-dnsserver", s.dns(), "-strict")
	s.cmd.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=0", "PEBBLE_AUTHZREUSE=0")
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	s.must(s.cmd.Start())
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		resp, err := s.client.Get(s.Directory)
		if err == nil {
			resp.Body.Close()
			return
		}
		if time.Now().After(deadline) {
			s.Down()
			s.t.Fatalf("the ACME server does not answer: %v\n%s", err, s.log)
		}
	}
}

// Down kills it.
func (s *Server) Down() {
	if s.cmd == nil || s.cmd.ProcessState != nil {
		return
	}
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
	if s.t.Failed() {
		s.t.Logf("log of the ACME server:\n%s", s.log)
	}
}

// Log is what it has printed.
func (s *Server) Log() string { return s.log.String() }

// RenewNow has it want a certificate renewed at once (RFC 9773).
func (s *Server) RenewNow(leaf []byte) {
	s.t.Helper()
	now := time.Now().UTC()
	ari, err := json.Marshal(map[string]any{"suggestedWindow": map[string]any{"start": now.Add(-2 * time.Hour), "end": now.Add(-time.Hour)}})
	s.must(err)
	body, err := json.Marshal(map[string]string{"certificate": string(leaf), "ariResponse": string(ari)})
	s.must(err)
	resp, err := s.client.Post("https://"+s.manage+"/set-renewal-info/", "application/json", bytes.NewReader(body))
	s.must(err)
	defer resp.Body.Close()
	if text, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK {
		s.t.Fatalf("set-renewal-info: %s: %s", resp.Status, text)
	}
}

// Roots are the CAs that it issues under.
func (s *Server) Roots() []byte {
	s.t.Helper()
	resp, err := s.client.Get("https://" + s.manage + "/roots/0")
	s.must(err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	s.must(err)
	return text
}

func (s *Server) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *Server) write(name string, data []byte) string {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	s.must(os.WriteFile(path, data, 0o600))
	return path
}

// dns answers every question for an address with 127.0.0.1. It speaks TCP, as
// pebble does (RFC 1035 section 4.2.2).
func (s *Server) dns() string {
	s.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	s.must(err)
	s.t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go answer(c)
		}
	}()
	return l.Addr().String()
}

func answer(c net.Conn) {
	defer c.Close()
	for {
		var size [2]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		question := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(c, question); err != nil {
			return
		}
		reply, err := loopback(question)
		if err != nil {
			return
		}
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...)); err != nil {
			return
		}
	}
}

func loopback(question []byte) ([]byte, error) {
	var p dnsmessage.Parser
	head, err := p.Start(question)
	if err != nil {
		return nil, err
	}
	q, err := p.Question()
	if err != nil {
		return nil, err
	}
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: head.ID, Response: true, RecursionAvailable: true}, Questions: []dnsmessage.Question{q}}
	if q.Type == dnsmessage.TypeA {
		m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 1}, Body: &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}}}}
	}
	return m.Pack()
}

// free is an address that nobody listens on.
func free(t testing.TB) string {
	t.Helper()
	address, err := freeport.Address()
	if err != nil {
		t.Fatal(err)
	}
	return address
}

// FreePort is a port that nobody listens on.
func FreePort(t testing.TB) int {
	t.Helper()
	_, port, err := net.SplitHostPort(free(t))
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// root is the module's directory.
func root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			t.Fatal(fmt.Errorf("there is no go.mod above the test"))
		}
	}
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
