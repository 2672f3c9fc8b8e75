package e2e

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cyphers.ai/tlsmcp/test/acmetest"
)

// byACME is the configuration of a sidecar whose certificate is the ACME
// server's to give.
func byACME(s *acmetest.Server, port int, domains ...string) set {
	return set{"listen.address": fmt.Sprintf("127.0.0.1:%d", port), "server_cert.provider": "letsencrypt",
		"server_cert.cert_file": nil, "server_cert.key_file": nil, "server_cert.domains": domains, "server_cert.acme_email": "ops@tlsmcp.test",
		"server_cert.acme_directory": s.Directory, "server_cert.acme_ca_file": s.CAFile}
}

// shown is the certificate that a sidecar shows for a name, or none.
func (w *world) shown(d *daemon, name string) *tls.ConnectionState {
	w.t.Helper()
	cfg := w.tls(w.client("alice"))
	cfg.ServerName, cfg.InsecureSkipVerify = name, true // who it is is looked at by the test
	c, err := tls.Dial("tcp", d.addr, cfg)
	if err != nil {
		return nil
	}
	defer c.Close()
	st := c.ConnectionState()
	return &st
}

func awaitName(t *testing.T, w *world, d *daemon, name string) *tls.ConnectionState {
	t.Helper()
	if _, ok := d.wait(1, func(e entry) bool {
		return e.str("msg") == "server certificate in service" || strings.Contains(e.str("error"), "server certificate")
	}, patience); !ok {
		t.Fatalf("nothing comes of it:\n%s", d.text())
	}
	st := w.shown(d, name)
	if st == nil || st.PeerCertificates[0].VerifyHostname(name) != nil {
		t.Fatalf("no certificate for %s:\n%s", name, d.text())
	}
	return st
}

func TestACMEByALPNUnderMandatoryClientCertificates(t *testing.T) {
	w := newWorld(t)
	port := acmetest.FreePort(t)
	s := acmetest.Start(t, port, 1)
	b := newBackend(t)
	d := w.start(with(set{"backend.address": b.addr}, byACME(s, port, "pay.tlsmcp.test", "api.tlsmcp.test")))
	st := awaitName(t, w, d, "pay.tlsmcp.test")
	leaf := st.PeerCertificates[0]
	if leaf.VerifyHostname("api.tlsmcp.test") != nil || len(st.PeerCertificates) < 2 {
		t.Errorf("it is for %v, with %d certificates", leaf.DNSNames, len(st.PeerCertificates))
	}
	d.expect(t, kv{"reason": "acme_challenge"})
	if n := b.requests.Load(); n != 0 {
		t.Errorf("the validation reached the backend: %d requests", n)
	}

	// Nobody gets in by asking like an ACME server.
	for rule, cfg := range map[string]*tls.Config{
		"with no order pending":             {ServerName: "pay.tlsmcp.test", NextProtos: []string{"acme-tls/1"}},
		"for another name":                  {ServerName: "other.tlsmcp.test", NextProtos: []string{"acme-tls/1"}},
		"with another protocol beside it":   {ServerName: "pay.tlsmcp.test", NextProtos: []string{"acme-tls/1", "http/1.1"}},
		"with another protocol in front":    {ServerName: "pay.tlsmcp.test", NextProtos: []string{"h2", "acme-tls/1"}},
		"without a name":                    {NextProtos: []string{"acme-tls/1"}},
		"with no certificate, as HTTP does": {ServerName: "pay.tlsmcp.test", NextProtos: []string{"http/1.1"}},
	} {
		t.Run(rule, func(t *testing.T) {
			cfg.InsecureSkipVerify = true
			c, err := tls.Dial("tcp", d.addr, cfg)
			if err == nil {
				_ = c.SetDeadline(time.Now().Add(patience))
				_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: pay.tlsmcp.test\r\n\r\n")
				var data []byte
				data, err = io.ReadAll(c)
				_ = c.Close()
				if len(data) > 0 {
					t.Fatalf("it was answered: %q", data)
				}
			}
			if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("it was not refused: %v", err)
			}
		})
	}
	if n := b.requests.Load(); n != 0 {
		t.Errorf("%d requests reached the backend", n)
	}
	w.mustServe(t, d, "pay.tlsmcp.test")

	// A restart serves what is on disk, and asks for nothing. So does one while
	// the authority is away.
	s.Down()
	d.stop()
	again := w.start(with(set{"backend.address": b.addr, "state.dir": filepath.Join(strings.TrimSuffix(d.config, ".toml"), "state")},
		byACME(s, port, "pay.tlsmcp.test", "api.tlsmcp.test")))
	if st := w.shown(again, "pay.tlsmcp.test"); st == nil || st.PeerCertificates[0].SerialNumber.Cmp(leaf.SerialNumber) != 0 {
		t.Errorf("after a restart it shows another certificate:\n%s", again.text())
	}
	w.mustServe(t, again, "pay.tlsmcp.test")
}

func TestACMEByHTTPAndForOtherNamesAfterAReload(t *testing.T) {
	w := newWorld(t)
	port, httpPort := acmetest.FreePort(t), acmetest.FreePort(t)
	s := acmetest.Start(t, 1, httpPort) // nothing answers TLS-ALPN-01 there
	over := with(set{"backend.address": newBackend(t).addr}, byACME(s, port, "pay.tlsmcp.test"))
	over["server_cert.acme_http_address"] = fmt.Sprintf("127.0.0.1:%d", httpPort)
	d := w.start(over)
	first := awaitName(t, w, d, "pay.tlsmcp.test").PeerCertificates[0]

	out, _, code := tool(t, "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", fmt.Sprintf("http://127.0.0.1:%d/.well-known/acme-challenge/x", httpPort))
	if code != 0 || out != "404" {
		t.Errorf("a challenge that is not pending is answered %s", out)
	}

	w.edit(d, `domains = ["pay.tlsmcp.test"]`, `domains = ["pay.tlsmcp.test", "new.tlsmcp.test"]`)
	d.reload(true)
	if !eventually(patience, func() bool {
		time.Sleep(50 * time.Millisecond)
		st := w.shown(d, "new.tlsmcp.test")
		return st != nil && st.PeerCertificates[0].VerifyHostname("new.tlsmcp.test") == nil
	}) {
		t.Fatalf("no certificate for the new name:\n%s", d.text())
	}
	if second := w.shown(d, "pay.tlsmcp.test").PeerCertificates[0]; second.SerialNumber.Cmp(first.SerialNumber) == 0 {
		t.Error("it is the old certificate")
	}
	if n := strings.Count(s.Log(), "There are now 1 accounts"); n != 1 || strings.Contains(s.Log(), "There are now 2 accounts") {
		t.Error("the account was not kept")
	}
}

// mustServe makes a request with a client's certificate.
func (w *world) mustServe(t *testing.T, d *daemon, name string) {
	t.Helper()
	c, err := tls.Dial("tcp", d.addr, func() *tls.Config {
		cfg := w.tls(w.client("alice"), "http/1.1")
		cfg.ServerName, cfg.InsecureSkipVerify = name, true
		return cfg
	}())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "GET /hello HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", name)
	answer, err := readAll(c)
	if err != nil || !strings.HasPrefix(answer, "HTTP/1.1 200") {
		t.Errorf("%v: %q", err, answer)
	}
}
