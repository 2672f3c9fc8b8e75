package edge

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/pki"
)

// TestReasonsOfTheTLSLibrary holds crypto/tls to the words by which explain
// knows its errors: a release that rephrases one must not turn a reason into
// handshake_failed unnoticed.
func TestReasonsOfTheTLSLibrary(t *testing.T) {
	ca, err := pki.NewCA(pki.CAOptions{})
	if err != nil {
		t.Fatal(err)
	}
	issue := func() tls.Certificate {
		leaf, err := ca.Issue(pki.LeafOptions{CommonName: "x", DNS: []string{"localhost"}})
		if err != nil {
			t.Fatal(err)
		}
		cert, err := leaf.TLS()
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	server, good, other := issue(), issue(), issue()
	for _, tc := range []struct {
		rule   string
		server *tls.Certificate
		client tls.Certificate
		alpn   string
		want   event.Reason
	}{
		{"no certificate", &server, tls.Certificate{}, "http/1.1", event.NoCertificate},
		{"a certificate that is none", &server, tls.Certificate{Certificate: [][]byte{{1, 2, 3}}, PrivateKey: good.PrivateKey}, "http/1.1", event.BadCertificate},
		{"a certificate with another's key", &server, tls.Certificate{Certificate: good.Certificate, PrivateKey: other.PrivateKey}, "http/1.1", event.BadCertificate},
		{"no protocol in common", &server, good, "spdy/1", event.ALPNMismatch},
		{"a server without a certificate", nil, good, "http/1.1", event.ServerCertMissing},
		{"a server whose certificate is yet to come", &tls.Certificate{}, good, "http/1.1", event.ServerCertMissing},
		{"all well", &server, good, "http/1.1", ""},
	} {
		t.Run(tc.rule, func(t *testing.T) {
			admitAll := func([]*x509.Certificate) Verdict { return Verdict{} }
			cfg := NewTLSConfig(Policy{
				GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
					if tc.server != nil && tc.server.Certificate == nil {
						return nil, errors.New("not yet")
					}
					return tc.server, nil
				},
				Mode: config.MTLSRequired, ALPN: []string{"http/1.1"}, Verify: admitAll,
			})
			c := &Conn{server: &Server{opts: Options{TLS: func() *tls.Config { return cfg }, Verify: admitAll, HandshakeTimeout: time.Second}}}
			theirs := tcpPair(t, c)
			go func() {
				client := tls.Client(theirs, &tls.Config{
					InsecureSkipVerify: true, NextProtos: []string{tc.alpn},
					GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &tc.client, nil },
				})
				_ = client.Handshake()
				_, _ = io.Copy(io.Discard, theirs) // until the test closes it
			}()
			var got event.Reason
			var detail string
			if r := c.shakeHands(); r != nil {
				got, detail = r.Reason, r.Detail
			}
			if got != tc.want {
				t.Errorf("%q (%s), want %q", got, detail, tc.want)
			}
		})
	}
}

// tcpPair gives c a socket, and returns the client's end of it.
func tcpPair(t *testing.T, c *Conn) net.Conn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	theirs, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	ours, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = theirs.Close(); _ = ours.Close() })
	_ = ours.SetDeadline(time.Now().Add(5 * time.Second))
	if c.rec, err = newRecordConn(ours.(*net.TCPConn)); err != nil {
		t.Fatal(err)
	}
	c.rec.hello = &helloNote{}
	return theirs
}
