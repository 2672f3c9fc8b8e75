package e2e

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"cyphers.ai/tlsmcp/pkg/pki"
)

// refusal is a client that must be turned away, and why.
type refusal struct {
	name   string
	reason string
	// knock returns where it came from, or nothing when it was turned away
	// before it could tell.
	knock func(t *testing.T, w *world, d *daemon) (remote string)
}

// house is a daemon that refuses for one set of reasons.
type house struct {
	name     string
	over     func(t *testing.T, w *world) set
	refusals []refusal
}

// shows is a client that shows a certificate and sends a request.
func shows(make func(t *testing.T, w *world) *pki.Leaf) func(*testing.T, *world, *daemon) string {
	return func(t *testing.T, w *world, d *daemon) string {
		t.Helper()
		c := w.dial(d, make(t, w), "http/1.1")
		request(t, c)
		return c.LocalAddr().String()
	}
}

// request sends a request that must not be answered but with a TLS alert: a
// connection that is reset instead leaves the client without a reason.
func request(t *testing.T, c net.Conn) {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(patience))
	_, _ = io.WriteString(c, "GET /seen HTTP/1.1\r\nHost: localhost\r\n\r\n")
	got, err := readAll(c)
	if got != "" {
		t.Errorf("a refused client was answered: %q", got)
	}
	if err == nil || !strings.Contains(err.Error(), "remote error: tls:") {
		t.Errorf("the client did not get an alert: %v", err)
	}
}

// says is a client that sends bytes that are not TLS.
func says(text string) func(*testing.T, *world, *daemon) string {
	return func(t *testing.T, _ *world, d *daemon) string {
		t.Helper()
		c := must(net.Dial("tcp", d.addr))(t)
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(patience))
		_, _ = io.WriteString(c, text)
		if got, err := readAll(c); strings.HasPrefix(got, "HTTP/") {
			t.Errorf("it was answered: %q", got)
		} else if ne, ok := err.(net.Error); ok && ne.Timeout() {
			t.Error("the connection was not closed")
		}
		return c.LocalAddr().String()
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	for _, h := range []house{certificateHouse(), slowHouse(), pinHouse(), staleHouse(), proxyHouse(), rateHouse()} {
		t.Run(h.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			b := newTCPBackend(t, echo) // counts anything that reaches it
			// Nobody who hurries is too slow, on a busy machine either.
			over := set{"backend.address": b.addr, "listen.handshake_timeout": "30s", "logging.level": "debug"}
			if h.over != nil {
				over = with(over, h.over(t, w))
			}
			d := w.start(over)
			counts := map[string]int{}
			for _, r := range h.refusals {
				counts[r.reason]++
				t.Run(r.name+": "+r.reason, func(t *testing.T) {
					remote := r.knock(t, w, d)
					want := kv{"msg": "connection refused", "remote": remote}
					if remote == "" {
						want = kv{"msg": "connection refused", "reason": r.reason}
					}
					e := d.expect(t, want)
					if e.str("reason") != r.reason {
						t.Errorf("the reason is %q: %s", e.str("reason"), e.str("detail"))
					}
					if e.str("detail") == "" {
						t.Error("the event has no sentence")
					}
				})
			}
			for reason, n := range counts {
				series := fmt.Sprintf("tlsmcp_connections_refused_total{reason=%q}", reason)
				if got := d.metric(series); got != float64(n) {
					t.Errorf("%s is %v, want %d", series, got, n)
				}
			}
			if n := b.conns.Load(); n != 0 {
				t.Errorf("the backend saw %d connections", n)
			}
		})
	}
}

// certificateHouse refuses what is wrong with a certificate or with TLS.
func certificateHouse() house {
	revoked, below := big.NewInt(4711), big.NewInt(4712)
	var intermediate *pki.CA
	leaf := func(o pki.LeafOptions) func(*testing.T, *world, *daemon) string {
		return shows(func(_ *testing.T, w *world) *pki.Leaf { return w.issue(o) })
	}
	two := []string{"spiffe://prod.example/service/a", "spiffe://prod.example/service/b"}
	return house{
		name: "certificates",
		over: func(t *testing.T, w *world) set {
			intermediate = must(w.ca.NewIntermediate(pki.CAOptions{CommonName: "revoked intermediate", Serial: below}))(t)
			w.write("ca.crl", w.crl(w.ca, 1, revoked, below))
			return set{"mtls.crl_files": []string{w.path("ca.crl")}}
		},
		refusals: []refusal{
			{"no certificate", "no_certificate", shows(func(*testing.T, *world) *pki.Leaf { return nil })},
			{"a CA that nobody trusts", "unknown_ca", shows(func(t *testing.T, _ *world) *pki.Leaf {
				ca := must(pki.NewCA(pki.CAOptions{CommonName: "e2e CA"}))(t) // the same name, another key
				return must(ca.Issue(pki.LeafOptions{CommonName: "alice"}))(t)
			})},
			{"a self-signed certificate", "unknown_ca", shows(func(t *testing.T, _ *world) *pki.Leaf {
				ca := must(pki.NewCA(pki.CAOptions{CommonName: "alice"}))(t)
				return &pki.Leaf{Cert: ca.Cert, Key: ca.Key, CertPEM: ca.CertPEM(), KeyPEM: must(pki.EncodeKey(ca.Key))(t)}
			})},
			{"a certificate of yesterday", "expired", leaf(pki.LeafOptions{CommonName: "alice",
				NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(-24 * time.Hour)})},
			{"a certificate of tomorrow", "not_yet_valid", leaf(pki.LeafOptions{CommonName: "alice", NotBefore: time.Now().Add(24 * time.Hour)})},
			{"a revoked certificate", "revoked", leaf(pki.LeafOptions{CommonName: "alice", Serial: revoked})},
			{"a certificate under a revoked intermediate", "revoked", shows(func(t *testing.T, _ *world) *pki.Leaf {
				return must(intermediate.Issue(pki.LeafOptions{CommonName: "alice"}))(t)
			})},
			{"somebody else", "not_allowed", leaf(pki.LeafOptions{CommonName: "mallory"})},
			{"a name that begins like an allowed one", "not_allowed", leaf(pki.LeafOptions{CommonName: "alice2"})},
			{"a server's certificate", "wrong_usage", leaf(pki.LeafOptions{CommonName: "alice", Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})},
			{"a certificate without a usage", "wrong_usage", leaf(pki.LeafOptions{CommonName: "alice", NoUsages: true})},
			{"two SPIFFE IDs", "bad_certificate", leaf(pki.LeafOptions{CommonName: "alice", URIs: two})},
			{"a short RSA key", "bad_certificate", shows(func(t *testing.T, w *world) *pki.Leaf {
				return w.issue(pki.LeafOptions{CommonName: "alice", Key: must(rsa.GenerateKey(rand.Reader, 1024))(t)})
			})},
			{"TLS 1.2", "tls_version", oldTLS},
			{"an unknown protocol inside", "alpn_mismatch", otherALPN},
			{"a client that does not trust the server", "handshake_failed", distrusts},
			{"plain HTTP", "not_tls", says("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")},
			{"a PROXY header from nobody in particular", "not_tls", says("PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n")},
			{"a client that leaves at once", "no_hello", leaves},
		},
	}
}

// slowHouse does not wait for long.
func slowHouse() house {
	return house{
		name: "slow clients",
		over: func(*testing.T, *world) set { return set{"listen.handshake_timeout": "1s"} },
		refusals: []refusal{
			{"a client that says nothing", "timeout", says("")},
			{"a client that stops in the middle of its hello", "timeout", says("\x16\x03\x01\x02\x00\x01\x00")},
		},
	}
}

func oldTLS(t *testing.T, w *world, d *daemon) string {
	raw := must(net.Dial("tcp", d.addr))(t)
	defer raw.Close()
	cfg := w.tls(w.client("alice"))
	cfg.MaxVersion = tls.VersionTLS12
	if err := tls.Client(raw, cfg).Handshake(); err == nil {
		t.Error("TLS 1.2 was taken")
	}
	return raw.LocalAddr().String()
}

func otherALPN(t *testing.T, w *world, d *daemon) string {
	raw := must(net.Dial("tcp", d.addr))(t)
	defer raw.Close()
	if err := tls.Client(raw, w.tls(w.client("alice"), "imap")).Handshake(); err == nil {
		t.Error("the handshake went through")
	}
	return raw.LocalAddr().String()
}

func distrusts(t *testing.T, w *world, d *daemon) string {
	raw := must(net.Dial("tcp", d.addr))(t)
	defer raw.Close()
	cfg := w.tls(w.client("alice"))
	cfg.RootCAs = x509.NewCertPool()
	if err := tls.Client(raw, cfg).Handshake(); err == nil {
		t.Error("the client trusts a server that it cannot know")
	}
	return raw.LocalAddr().String()
}

func leaves(t *testing.T, _ *world, d *daemon) string {
	c := must(net.Dial("tcp", d.addr))(t)
	defer c.Close()
	return c.LocalAddr().String()
}

// pinHouse lets in pinned certificates alone.
func pinHouse() house {
	return house{
		name: "pins",
		over: func(t *testing.T, w *world) set {
			return set{"mtls.pins": []string{"sha256:" + pki.Fingerprint(w.client("alice").Cert)}}
		},
		refusals: []refusal{{"another certificate of an allowed name", "pin_mismatch",
			shows(func(_ *testing.T, w *world) *pki.Leaf { return w.client("alice") })}},
	}
}

// staleHouse is strict, and its list is past its time.
func staleHouse() house {
	return house{
		name: "stale revocation data",
		over: func(t *testing.T, w *world) set {
			now := time.Now()
			der := must(w.ca.CRL(1, now.Add(-2*time.Hour), now.Add(-time.Hour)))(t)
			w.write("ca.crl", pki.EncodeCRL(der))
			return set{"mtls.crl_files": []string{w.path("ca.crl")}, "mtls.revocation_mode": "strict"}
		},
		refusals: []refusal{{"a good certificate under an old list", "stale_revocation",
			shows(func(_ *testing.T, w *world) *pki.Leaf { return w.client("alice") })}},
	}
}

// proxyHouse stands behind a load balancer.
func proxyHouse() house {
	v2 := "\r\n\r\n\x00\r\nQUIT\n"
	return house{
		name: "behind a load balancer",
		over: func(*testing.T, *world) set {
			return set{"listen.proxy_protocol_from": []string{"127.0.0.0/8"}, "listen.handshake_timeout": "1s"}
		},
		refusals: []refusal{
			{"TLS without a PROXY header", "proxy_header", shakesHandsAlone},
			{"plain HTTP", "proxy_header", says("GET / HTTP/1.1\r\nHost: a\r\n\r\n")},
			{"a version 1 header with a bad address", "proxy_header", says("PROXY TCP4 10.0.0.300 10.0.0.2 1 2\r\n")},
			{"a version 1 header without an end", "proxy_header", says("PROXY TCP4 " + strings.Repeat("1", 120))},
			{"a version 2 header of version 3", "proxy_header", says(v2 + "\x31\x11\x00\x0c" + strings.Repeat("\x01", 12))},
			{"a version 2 header that is too short", "proxy_header", says(v2 + "\x21\x11\x00\x04" + strings.Repeat("\x01", 4))},
			{"nothing", "proxy_header", says("")},
		},
	}
}

func shakesHandsAlone(t *testing.T, w *world, d *daemon) string {
	raw := must(net.Dial("tcp", d.addr))(t)
	defer raw.Close()
	if err := tls.Client(raw, w.tls(w.client("alice"))).Handshake(); err == nil {
		t.Error("the handshake went through")
	}
	return raw.LocalAddr().String()
}

// rateHouse takes two handshakes a second.
func rateHouse() house {
	return house{
		name: "rate",
		over: func(*testing.T, *world) set {
			return set{"listen.handshakes_per_ip": 2, "listen.handshake_timeout": "1s"}
		},
		refusals: []refusal{{"the third handshake of a second", "rate_limited", func(t *testing.T, _ *world, d *daemon) string {
			// Three come at once and say nothing: whoever is let in has a second,
			// and whoever is not is told at once. The clock's second may turn over
			// between them, so they come again then.
			for range 20 {
				var three [3]net.Conn
				for i := range three {
					three[i] = must(net.Dial("tcp", d.addr))(t)
					defer three[i].Close()
				}
				d.expectAll(t, three[:])
				if len(d.all(kv{"msg": "connection refused", "reason": "rate_limited"}.match)) > 0 {
					return ""
				}
			}
			t.Fatal("sixty handshakes were taken, three at a time")
			return ""
		}}},
	}
}

// expectAll waits until the daemon has told what became of all of these.
func (d *daemon) expectAll(t *testing.T, all []net.Conn) {
	t.Helper()
	for _, c := range all {
		d.expect(t, kv{"msg": "connection refused", "remote": c.LocalAddr().String()})
	}
}

func TestConnectionLimit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := newTCPBackend(t, echo)
	d := w.start(set{"backend.address": b.addr, "backend.protocol": "tcp", "listen.max_connections": 3})
	leaf := w.client("alice")
	var open []*tls.Conn
	for range 3 {
		c := w.dial(d, leaf)
		if err := pingEcho(c); err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
	}
	if _, err := tls.Dial("tcp", d.addr, w.tls(leaf)); err == nil {
		t.Error("a fourth connection was taken")
	}
	d.expect(t, kv{"msg": "connection refused", "reason": "too_many_connections"})
	if n := b.conns.Load(); n != 3 {
		t.Errorf("the backend saw %d connections, want 3", n)
	}
	if got := d.metric(`tlsmcp_connections_refused_total{reason="too_many_connections"}`); got != 1 {
		t.Errorf("the metric says %v", got)
	}
	for _, c := range open {
		if err := pingEcho(c); err != nil {
			t.Errorf("a connection that was open: %v", err)
		}
	}
	_ = open[0].Close()
	d.expect(t, kv{"msg": "connection closed"})
	if err := pingEcho(w.dial(d, leaf)); err != nil {
		t.Errorf("after one has left there is room for one: %v", err)
	}
}

// pingEcho sends a word through an echo and waits for it.
func pingEcho(c net.Conn) error {
	_ = c.SetDeadline(time.Now().Add(patience))
	defer c.SetDeadline(time.Time{})
	if _, err := io.WriteString(c, "ping"); err != nil {
		return err
	}
	var got [4]byte
	if _, err := io.ReadFull(c, got[:]); err != nil {
		return err
	}
	if string(got[:]) != "ping" {
		return fmt.Errorf("the echo is %q", got[:])
	}
	return nil
}
