package e2e

import (
	"crypto/tls"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"

	"cyphers.ai/tlsmcp/pkg/pki"
)

// tool runs a program and returns its output and exit code.
func tool(t *testing.T, name string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	var out, errOut strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), errOut.String(), cmd.ProcessState.ExitCode()
}

func TestCurl(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := newBackend(t)
	d := w.start(set{"backend.address": b.addr, "backend.identity_headers": []string{"client-cert", "xfcc", "x-tlsmcp"}})
	cert, key := w.files("alice", w.client("alice"))
	curl := func(args ...string) (string, string, int) {
		return tool(t, "curl", append([]string{"-sS", "--max-time", "10", "--cacert", w.path("ca.pem"), "-w", "\n%{http_code} %{http_version}"}, args...)...)
	}
	url := "https://" + d.addr + "/seen"

	for _, c := range []struct{ name, flag, want, alpn string }{
		{"HTTP/1.1 with a certificate is let in", "--http1.1", "200 1.1", "http/1.1"},
		{"HTTP/2 with a certificate is let in", "--http2", "200 2", "h2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, errOut, code := curl(c.flag, "--cert", cert, "--key", key, "-d", "a body", url)
			body, status, _ := strings.Cut(out, "\n")
			if code != 0 || strings.TrimSpace(status) != c.want {
				t.Fatalf("curl: exit %d, %q, want %q\n%s", code, out, c.want, errOut)
			}
			s := parseSeen(t, body)
			if s.Method != "POST" || s.Body != "a body" || s.Header.Get("X-Tlsmcp-Identity") != "alice" ||
				s.Header.Get("X-Forwarded-For") != "127.0.0.1" || s.Header.Get("Client-Cert") == "" {
				t.Errorf("the backend saw %+v", s)
			}
			d.expect(t, kv{"msg": "connection accepted", "identity": "alice", "alpn": c.alpn, "rule": `allowed_services "alice"`, "tls_version": "TLS 1.3"})
			d.expect(t, kv{"msg": "connection closed", "alpn": c.alpn, "reason": "client_closed", "requests": 1})
		})
	}
	before := b.requests.Load()
	for i, flag := range []string{"--http1.1", "--http2"} {
		t.Run(flag+" without a certificate is refused", func(t *testing.T) {
			out, errOut, code := curl(flag, url)
			if code == 0 || !strings.Contains(out, "000") {
				t.Errorf("curl: exit %d, %q", code, out)
			}
			if !strings.Contains(errOut, "certificate required") {
				t.Errorf("curl does not say that a certificate is required: %s", errOut)
			}
			d.expectN(t, i+1, kv{"msg": "connection refused", "reason": "no_certificate"})
		})
	}
	if n := b.requests.Load(); n != before {
		t.Errorf("the backend saw %d requests of refused clients", n-before)
	}
}

func TestOpenSSL(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := newBackend(t)
	d := w.start(set{"backend.address": b.addr})
	cert, key := w.files("alice", w.client("alice"))
	connect := func(args ...string) (string, int) {
		args = append([]string{"s_client", "-connect", d.addr, "-CAfile", w.path("ca.pem"), "-cert", cert, "-key", key, "-verify_return_error"}, args...)
		cmd := exec.CommandContext(t.Context(), "openssl", args...)
		cmd.Stdin = strings.NewReader("") // ends the session once the handshake is done
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		return string(out), cmd.ProcessState.ExitCode()
	}
	t.Run("TLS 1.2 is refused", func(t *testing.T) {
		out, code := connect("-tls1_2")
		if code == 0 || !strings.Contains(out, "protocol version") {
			t.Errorf("exit %d:\n%s", code, out)
		}
		e := d.expect(t, kv{"msg": "connection refused", "reason": "tls_version"})
		if e.str("tls_version") != "TLS 1.2" || !strings.Contains(e.str("detail"), "TLS 1.2") {
			t.Errorf("the event does not say what was offered: %v", e)
		}
	})
	t.Run("TLS 1.3 is let in, without a session ticket", func(t *testing.T) {
		out, code := connect("-tls1_3", "-groups", "X25519", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256")
		if code != 0 || !strings.Contains(out, "TLSv1.3") {
			t.Errorf("exit %d:\n%s", code, out)
		}
		if strings.Contains(out, "New Session Ticket") {
			t.Error("the daemon sent a session ticket")
		}
		d.expect(t, kv{"msg": "connection accepted", "tls_group": "x25519", "tls_cipher": "TLS_CHACHA20_POLY1305_SHA256"})
	})
	t.Run("a post-quantum group is taken when it is offered", func(t *testing.T) {
		c := w.dial(d, w.client("alice"))
		if id := c.ConnectionState().CurveID; id != tls.X25519MLKEM768 {
			t.Errorf("the group is %v", id)
		}
		_ = c.Close()
		d.expect(t, kv{"msg": "connection accepted", "tls_group": "X25519MLKEM768"})
	})
}

func TestOptionalMode(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := newBackend(t)
	d := w.start(set{"backend.address": b.addr, "mtls.mode": "optional",
		"backend.identity_headers": []string{"client-cert", "client-cert-chain", "xfcc", "x-tlsmcp"}})
	identity := []string{"Client-Cert", "Client-Cert-Chain", "X-Forwarded-Client-Cert", "X-Tlsmcp-Identity", "X-Tlsmcp-Serial", "X-Tlsmcp-Fingerprint"}

	for _, h2 := range []bool{false, true} {
		s := parseSeen(t, mustFetch(t, w.http(nil, h2), d, "/seen"))
		for _, h := range identity {
			if v, there := s.Header[h]; there {
				t.Errorf("h2 %t: an anonymous client got %s: %q", h2, h, v)
			}
		}
		s = parseSeen(t, mustFetch(t, w.http(w.client("alice"), h2), d, "/seen"))
		if got := s.Header.Get("X-Tlsmcp-Identity"); got != "alice" {
			t.Errorf("h2 %t: alice is %q", h2, got)
		}
	}
	other := must(pki.NewCA(pki.CAOptions{CommonName: "another CA"}))(t)
	reached := b.requests.Load()
	for _, c := range []struct {
		name, reason string
		leaf         *pki.Leaf
	}{
		{"a certificate of another CA", "unknown_ca", must(other.Issue(pki.LeafOptions{CommonName: "alice"}))(t)},
		{"a certificate that nobody allows", "not_allowed", w.client("mallory")},
	} {
		t.Run(c.name+" is not taken for anonymous", func(t *testing.T) {
			if _, _, err := fetch(w.http(c.leaf, false), d, "/seen"); err == nil {
				t.Error("it was let in")
			}
			d.expect(t, kv{"msg": "connection refused", "reason": c.reason})
		})
	}
	if b.requests.Load() != reached {
		t.Error("a refused client reached the backend")
	}
}

func TestDisabledMode(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := newBackend(t)
	d := w.start(set{"backend.address": b.addr, "mtls.mode": "disabled"})
	for _, leaf := range []*pki.Leaf{nil, w.client("mallory")} {
		c := w.http(leaf, false)
		s := parseSeen(t, mustFetch(t, c, d, "/seen"))
		if v, there := s.Header["X-Tlsmcp-Identity"]; there {
			t.Errorf("nobody was asked, and the backend is told %q", v)
		}
	}
	d.expect(t, kv{"level": "WARN", "key": "mtls.mode"})
}

// TestIdentityCannotBeForged is about the whole: whatever a client sends, by
// either protocol, what reaches the backend is what the certificate says.
func TestIdentityCannotBeForged(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := newBackend(t)
	d := w.start(set{"backend.address": b.addr, "backend.identity_headers": []string{"x-tlsmcp"}})
	cert, key := w.files("bob", w.client("bob"))
	for _, flag := range []string{"--http1.1", "--http2"} {
		out, errOut, code := tool(t, "curl", "-sS", "--max-time", "10", flag, "--cacert", w.path("ca.pem"), "--cert", cert, "--key", key,
			"-H", "X-Tlsmcp-Identity: alice", "-H", "x_tlsmcp_identity: alice", "-H", "X-TLSMCP-Extra: alice",
			"-H", "Client-Cert: alice", "-H", "X-Forwarded-Client-Cert: alice", "-H", "X-Forwarded-For: 10.9.8.7",
			"-H", "Connection: X-Tlsmcp-Identity", "https://"+d.addr+"/seen")
		if code != 0 {
			t.Fatalf("%s: curl: exit %d: %s", flag, code, errOut)
		}
		if strings.Contains(out, "alice") || strings.Contains(out, "10.9.8.7") {
			t.Errorf("%s: what the client said of itself got through: %s", flag, out)
		}
		if got := parseSeen(t, out).Header.Values("X-Tlsmcp-Identity"); len(got) != 1 || got[0] != "bob" {
			t.Errorf("%s: the identity is %q", flag, got)
		}
	}
}

// readAll reads until the end or an error.
func readAll(c io.Reader) (string, error) {
	b, err := io.ReadAll(c)
	return string(b), err
}
