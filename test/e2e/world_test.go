package e2e

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cyphers.ai/tlsmcp/pkg/pki"
)

// world is what a daemon needs around it: a CA, a server certificate, and a
// directory with their files.
type world struct {
	t       *testing.T
	dir     string
	ca      *pki.CA
	second  *pki.CA // see secondCA
	daemons int
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir()}
	w.ca = must(pki.NewCA(pki.CAOptions{CommonName: "e2e CA"}))(t)
	w.write("ca.pem", w.ca.CertPEM())
	w.writeServer(w.server())
	return w
}

// must is for calls that fail only when the test itself is wrong.
func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// path is a path in the world's directory.
func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

// write puts a file in place by rename, as anybody careful would.
func (w *world) write(name string, data []byte) string {
	w.t.Helper()
	if !filepath.IsAbs(name) {
		name = w.path(name)
	}
	if err := pki.WriteFileAtomic(name, data, 0o600); err != nil {
		w.t.Fatal(err)
	}
	return name
}

// server makes a server certificate.
func (w *world) server() *pki.Leaf {
	w.t.Helper()
	return must(w.ca.Issue(pki.LeafOptions{
		CommonName: "localhost", DNS: []string{"localhost"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)},
		Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}))(w.t)
}

func (w *world) writeServer(l *pki.Leaf) {
	w.t.Helper()
	w.write("tls.crt", l.CertPEM)
	w.write("tls.key", l.KeyPEM)
}

// client makes a certificate for a client of that name.
func (w *world) client(name string) *pki.Leaf { return w.issue(pki.LeafOptions{CommonName: name}) }

func (w *world) issue(o pki.LeafOptions) *pki.Leaf {
	w.t.Helper()
	if len(o.Usages) == 0 && !o.NoUsages {
		o.Usages = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	}
	return must(w.ca.Issue(o))(w.t)
}

// crl makes a revocation list of a CA that is good for an hour.
func (w *world) crl(ca *pki.CA, number int64, revoked ...*big.Int) []byte {
	w.t.Helper()
	now := time.Now()
	return pki.EncodeCRL(must(ca.CRL(number, now.Add(-time.Minute), now.Add(time.Hour), revoked...))(w.t))
}

// tls is the configuration of a client; leaf nil: without a certificate.
func (w *world) tls(leaf *pki.Leaf, alpn ...string) *tls.Config {
	w.t.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(w.ca.Cert)
	c := &tls.Config{RootCAs: pool, ServerName: "localhost", NextProtos: alpn, MinVersion: tls.VersionTLS12}
	if leaf != nil {
		pair := must(leaf.TLS())(w.t)
		// Not Certificates: that would hold back what the server's hint does
		// not name.
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	return c
}

// dial shakes hands, as far as the client can tell: whether it was let in, a
// TLS 1.3 client learns with its first read.
func (w *world) dial(d *daemon, leaf *pki.Leaf, alpn ...string) *tls.Conn {
	w.t.Helper()
	c := must(tls.Dial("tcp", d.addr, w.tls(leaf, alpn...)))(w.t)
	w.t.Cleanup(func() { _ = c.Close() })
	return c
}

// http is an HTTP client; with h2 it speaks HTTP/2 alone.
func (w *world) http(leaf *pki.Leaf, h2 bool) *http.Client {
	w.t.Helper()
	tr := &http.Transport{TLSClientConfig: w.tls(leaf), Protocols: new(http.Protocols), DisableCompression: true}
	tr.Protocols.SetHTTP1(!h2)
	tr.Protocols.SetHTTP2(h2)
	w.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: patience}
}

// fetch gets a path and returns the answer, its body read.
func fetch(c *http.Client, d *daemon, path string) (*http.Response, string, error) {
	resp, err := c.Get("https://" + d.addr + path)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp, string(body), err
}

// mustFetch is fetch for what must be answered with 200.
func mustFetch(t *testing.T, c *http.Client, d *daemon, path string) string {
	t.Helper()
	resp, body, err := fetch(c, d, path)
	if err != nil {
		t.Fatalf("GET %s: %v", path, err)
	}
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s\n%s", path, resp.Status, body)
	}
	return body
}

// ask sends a GET on a raw connection and reads the answer whole. The reader
// may hold more afterwards.
func ask(c net.Conn, r *bufio.Reader, path string) (*http.Response, string, error) {
	_ = c.SetDeadline(time.Now().Add(patience))
	defer c.SetDeadline(time.Time{})
	if _, err := io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		return nil, "", err
	}
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp, string(body), err
}

// files writes a client's certificate and key for tools that want files.
func (w *world) files(name string, leaf *pki.Leaf) (cert, key string) {
	w.t.Helper()
	return w.write(name+".crt", leaf.CertPEM), w.write(name+".key", leaf.KeyPEM)
}

func mkdir(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(path, 0o700); err != nil {
		t.Fatal(err)
	}
}

// secondCA makes another CA, once, and adds it to the CA file.
func (w *world) secondCA(t *testing.T) *pki.CA {
	t.Helper()
	if w.second == nil {
		w.second = must(pki.NewCA(pki.CAOptions{CommonName: "second CA"}))(t)
		w.write("ca.pem", append(w.ca.CertPEM(), w.second.CertPEM()...))
	}
	return w.second
}

// edit changes a daemon's configuration file.
func (w *world) edit(d *daemon, from, to string) {
	w.t.Helper()
	text := string(must(os.ReadFile(d.config))(w.t))
	if !strings.Contains(text, from) {
		w.t.Fatalf("the configuration has no %q:\n%s", from, text)
	}
	w.write(d.config, []byte(strings.Replace(text, from, to, 1)))
}
