package certs

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"testing"
)

func TestPairs(t *testing.T) {
	dir := t.TempDir()
	a, err := New(dir)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	ca, err := os.ReadFile(a.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	if !roots.AppendCertsFromPEM(ca) {
		t.Fatal("the CA file holds no certificate")
	}
	load := func(t *testing.T, p Pair) *x509.Certificate {
		t.Helper()
		c, err := tls.LoadX509KeyPair(p.CertFile, p.KeyFile)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tls.LoadX509KeyPair(p.Combined, p.Combined); err != nil {
			t.Fatalf("combined file: %v", err)
		}
		return c.Leaf
	}
	server, client := PairIn(dir, "server"), PairIn(dir, "client")
	serial, err := a.Server(server)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Client(client); err != nil {
		t.Fatal(err)
	}

	t.Run("a server pair verifies under the root for its name", func(t *testing.T) {
		opts := x509.VerifyOptions{Roots: roots, DNSName: ServerName}
		if _, err := load(t, server).Verify(opts); err != nil {
			t.Error(err)
		}
	})
	t.Run("a client pair verifies for client use and not for server use", func(t *testing.T) {
		leaf := load(t, client)
		opts := x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
		if _, err := leaf.Verify(opts); err != nil {
			t.Error(err)
		}
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots}); err == nil {
			t.Error("the client certificate passed as a server's")
		}
	})
	t.Run("a second server pair replaces the first under a new serial", func(t *testing.T) {
		next, err := a.Server(server)
		if err != nil {
			t.Fatal(err)
		}
		if next.Cmp(serial) == 0 {
			t.Error("the serial did not change")
		}
		if got := load(t, server).SerialNumber; got.Cmp(next) != 0 {
			t.Errorf("the file holds serial %v, want %v", got, next)
		}
	})
}
