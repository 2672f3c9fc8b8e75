// Package scantruth holds tlsmcp scan to the truth: servers that are configured
// in known ways, of five makes, and for each the exact set of findings that a scan
// must come to, no more and no less.
//
// The makes are openssl s_server, GnuTLS, NSS, nginx and Go. What none of
// today's packages speaks any more (SSL 2.0 and 3.0, EXPORT, compression, a
// server without secure renegotiation) is played by a responder of the test's
// own, in fake_test.go: it says a ServerHello and what follows, byte by byte, and
// can go no further, which is as far as a scan goes.
package scantruth

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cyphers.ai/tlsmcp/pkg/pki"
	"cyphers.ai/tlsmcp/pkg/scan"
)

// host is the name of all servers.
const host = "server.test"

// crl is an address that nobody asks: naming one is what is tested.
const crl = "http://crl.test/ca.crl"

// lab is what the servers of one test run share.
type lab struct {
	root, mid, other *pki.CA
	rsaRoot          *pki.CA       // for openssl to sign with
	rsaKey           crypto.Signer // one for all: making them takes long
}

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{}
	since := time.Now().Add(-90 * 24 * time.Hour) // older than the oldest certificate
	var err error
	if l.root, err = pki.NewCA(pki.CAOptions{CommonName: "truth root", NotBefore: since}); err != nil {
		t.Fatal(err)
	}
	if l.mid, err = l.root.NewIntermediate(pki.CAOptions{CommonName: "truth issuing", NotBefore: since, CRLURLs: []string{crl}}); err != nil {
		t.Fatal(err)
	}
	if l.other, err = pki.NewCA(pki.CAOptions{CommonName: "another root"}); err != nil {
		t.Fatal(err)
	}
	if l.rsaRoot, err = pki.NewCA(pki.CAOptions{CommonName: "truth RSA root", KeyType: pki.RSA2048}); err != nil {
		t.Fatal(err)
	}
	if l.rsaKey, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		t.Fatal(err)
	}
	return l
}

// good is a certificate without fault: for a month, with a CRL.
func good() pki.LeafOptions {
	return pki.LeafOptions{
		CommonName: host, DNS: []string{host}, CRLURLs: []string{crl},
		NotAfter: time.Now().Add(30 * 24 * time.Hour), Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
}

// issue makes a certificate of the issuing CA, with changes.
func (l *lab) issue(t *testing.T, change func(*pki.LeafOptions)) *pki.Leaf {
	t.Helper()
	o := good()
	if change != nil {
		change(&o)
	}
	leaf, err := l.mid.Issue(o)
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

// rsa is a good certificate with an RSA key, which old suites need.
func (l *lab) rsa(t *testing.T) *pki.Leaf {
	t.Helper()
	return l.issue(t, func(o *pki.LeafOptions) {
		o.Key, o.KeyUsage = l.rsaKey, x509.KeyUsageDigitalSignature|x509.KeyUsageKeyEncipherment
	})
}

// leafFiles are the files of a certificate with its chain, of its key, and of the
// chain alone.
type leafFiles struct{ cert, key, above string }

// files writes a certificate and its key.
func files(t *testing.T, leaf *pki.Leaf) *leafFiles {
	t.Helper()
	dir := t.TempDir()
	f := &leafFiles{filepath.Join(dir, "chain.pem"), filepath.Join(dir, "key.pem"), filepath.Join(dir, "above.pem")}
	if err := leaf.Write(f.cert, f.key); err != nil {
		t.Fatal(err)
	}
	above := bytes.TrimPrefix(leaf.CertPEM, pki.EncodeCertificates(leaf.Cert))
	if err := os.WriteFile(f.above, above, 0o600); err != nil {
		t.Fatal(err)
	}
	return f
}

func (l *lab) rsaFiles(t *testing.T) *leafFiles { return files(t, l.rsa(t)) }
func goodFiles(t *testing.T, l *lab) *leafFiles { return files(t, l.issue(t, nil)) }
func rsaFiles(t *testing.T, l *lab) *leafFiles  { return l.rsaFiles(t) }

// write puts data into a file of its own.
func write(t *testing.T, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// options are how all servers are scanned, unless a case says more.
func (l *lab) options() scan.Options {
	return scan.Options{CAs: []*x509.Certificate{l.root.Cert}, Timeout: 20 * time.Second, Limit: 3 * time.Minute}
}

// holdAll holds the truths, several at the same time.
func holdAll(t *testing.T, truths []truth) {
	l := newLab(t)
	for _, tt := range truths {
		t.Run(tt.rule, func(t *testing.T) {
			t.Parallel()
			tt.hold(t, l)
		})
	}
}

// truth is one server and what is true of it.
type truth struct {
	rule    string
	start   func(*testing.T, *lab) string // gives the address
	options func(*testing.T, *lab, *scan.Options)
	target  func(*scan.Target)
	want    []string // ids of the findings
	check   func(*testing.T, *scan.Report)
}

// hold scans the server and compares.
func (tt truth) hold(t *testing.T, l *lab) {
	address := tt.start(t, l)
	o := l.options()
	if tt.options != nil {
		tt.options(t, l, &o)
	}
	target := scan.Target{Host: host, Address: address, Port: 8443}
	if tt.target != nil {
		tt.target(&target)
	}
	r, err := scan.Scan(t.Context(), target, o)
	if err != nil {
		t.Fatal(err)
	}
	if r.State != scan.Complete {
		t.Errorf("the scan is %s: %+v", r.State, r.Problems)
	}
	var have []string
	for _, c := range r.Findings() {
		have = append(have, c.ID)
	}
	slices.Sort(have)
	want := slices.Sorted(slices.Values(tt.want))
	if !slices.Equal(have, want) {
		t.Errorf("findings\n  have %q\n  want %q", have, want)
		for _, c := range r.Checks {
			if slices.Contains(have, c.ID) != slices.Contains(want, c.ID) {
				t.Logf("%s: %s %s %q", c.ID, c.Status, c.Detail, c.Evidence)
			}
		}
	}
	if err := r.Facts.Validate(); err != nil {
		t.Errorf("facts: %v", err)
	}
	if tt.check != nil {
		tt.check(t, r)
	}
}

// goServer starts a server of this Go that answers in HTTP.
func goServer(leaf func(*testing.T, *lab) *pki.Leaf, change func(*lab, *tls.Config)) func(*testing.T, *lab) string {
	return func(t *testing.T, l *lab) string {
		pair, err := leaf(t, l).TLS()
		if err != nil {
			t.Fatal(err)
		}
		config := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13}
		if change != nil {
			change(l, config)
		}
		return serve(t, func(c net.Conn) {
			conn := tls.Server(c, config)
			defer conn.Close()
			if conn.HandshakeContext(t.Context()) != nil {
				return
			}
			buf := make([]byte, 4096)
			if n, err := conn.Read(buf); err == nil && n > 0 {
				io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
			}
		})
	}
}

// serve accepts connections until the test ends, and waits for the last.
func serve(t *testing.T, handle func(net.Conn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	ctx, stop := context.WithCancel(context.Background())
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				defer context.AfterFunc(ctx, func() { c.Close() })()
				handle(c)
			})
		}
	})
	t.Cleanup(func() {
		stop()
		ln.Close()
		wg.Wait()
	})
	return ln.Addr().String()
}

func goodLeaf(t *testing.T, l *lab) *pki.Leaf { return l.issue(t, nil) }
func rsaLeaf(t *testing.T, l *lab) *pki.Leaf  { return l.rsa(t) }

// detail is what a check says, for cases that look closer.
func detail(r *scan.Report, id string) string {
	for _, c := range r.Checks {
		if c.ID == id {
			return string(c.Status) + " " + c.Detail + strings.Join(c.Evidence, " ")
		}
	}
	return ""
}
