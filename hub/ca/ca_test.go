package ca_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"cyphers.ai/tlsmcp/hub/ca"
	"cyphers.ai/tlsmcp/pkg/pki"
)

func issuer(t *testing.T, o pki.CAOptions) ca.Issuer {
	t.Helper()
	c, err := pki.NewCA(o)
	if err != nil {
		t.Fatal(err)
	}
	return ca.Issuer{Cert: c.Cert, Key: c.Key}
}

func key(t *testing.T) crypto.Signer {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func leaf(t *testing.T, typ ca.Type) ca.Leaf {
	now := time.Now().Truncate(time.Second)
	return ca.Leaf{Type: typ, TrustDomain: "prod.example", ServiceID: "pay", NodeID: "n1",
		NotBefore: now, NotAfter: now.Add(time.Hour), PublicKey: key(t).Public(), CRLURL: "https://hub.example/crl/x"}
}

func TestEachTypeHasItsProfile(t *testing.T) {
	i := issuer(t, pki.CAOptions{})
	tests := map[ca.Type]struct {
		spiffe, cn string
		usage      x509.ExtKeyUsage
	}{
		ca.Server: {"spiffe://prod.example/service/pay", "pay", x509.ExtKeyUsageServerAuth},
		ca.Client: {"spiffe://prod.example/service/pay", "pay", x509.ExtKeyUsageClientAuth},
		ca.Agent:  {"spiffe://prod.example/agent/pay", "pay", x509.ExtKeyUsageClientAuth},
		ca.Node:   {"spiffe://prod.example/node/pay/n1", "node/pay", x509.ExtKeyUsageClientAuth},
	}
	serials := map[string]bool{}
	for typ, want := range tests {
		l := leaf(t, typ)
		if typ == ca.Server {
			l.DNSNames, l.IPs = []string{"pay.example"}, []net.IP{net.IPv4(127, 0, 0, 1)}
		}
		c, err := i.Sign(l)
		if err != nil {
			t.Fatal(err)
		}
		if c.URIs[0].String() != want.spiffe || len(c.URIs) != 1 || c.Subject.CommonName != want.cn ||
			!slices.Equal(c.ExtKeyUsage, []x509.ExtKeyUsage{want.usage}) || c.KeyUsage != x509.KeyUsageDigitalSignature {
			t.Errorf("%s: %v %s %v %v", typ, c.URIs, c.Subject, c.ExtKeyUsage, c.KeyUsage)
		}
		if c.IsCA || !c.BasicConstraintsValid || c.CRLDistributionPoints[0] != l.CRLURL || c.SerialNumber.BitLen() != 128 {
			t.Errorf("%s: CA %v, CRL %v, serial of %d bits", typ, c.IsCA, c.CRLDistributionPoints, c.SerialNumber.BitLen())
		}
		if sum := sha256.Sum256(c.RawSubjectPublicKeyInfo); !slices.Equal(c.SubjectKeyId, sum[:]) {
			t.Errorf("%s: key id %x", typ, c.SubjectKeyId)
		}
		if !slices.Equal(c.DNSNames, l.DNSNames) || !c.NotAfter.Equal(l.NotAfter) {
			t.Errorf("%s: names %v until %s", typ, c.DNSNames, c.NotAfter)
		}
		if err := c.CheckSignatureFrom(i.Cert); err != nil {
			t.Errorf("%s: %v", typ, err)
		}
		serials[c.SerialNumber.String()] = true
	}
	if len(serials) != len(tests) {
		t.Error("a serial number came twice")
	}
}

func TestNoLeafOutlivesItsIssuer(t *testing.T) {
	now := time.Now()
	i := issuer(t, pki.CAOptions{NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Minute)})
	c, err := i.Sign(leaf(t, ca.Client))
	if err != nil || !c.NotAfter.Equal(i.Cert.NotAfter) {
		t.Errorf("%v %v", c, err)
	}
	over := issuer(t, pki.CAOptions{NotBefore: now.Add(-time.Hour), NotAfter: now.Add(-time.Minute)})
	if _, err := over.Sign(leaf(t, ca.Client)); err == nil || !strings.Contains(err.Error(), "the issuing CA ends") {
		t.Errorf("an issuer that is over: %v", err)
	}
}

func TestALeafThatMakesNoSenseIsRefused(t *testing.T) {
	i := issuer(t, pki.CAOptions{})
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	for says, change := range map[string]func(*ca.Leaf){
		"type":           func(l *ca.Leaf) { l.Type = "hub" },
		"0 characters":   func(l *ca.Leaf) { l.ServiceID = "" },
		"60 characters":  func(l *ca.Leaf) { l.ServiceID = strings.Repeat("a", 60) },
		"'/'":            func(l *ca.Leaf) { l.ServiceID = "a/b" },
		"begin and end":  func(l *ca.Leaf) { l.ServiceID = ".." },
		"trust domain":   func(l *ca.Leaf) { l.TrustDomain = "" },
		"node id":        func(l *ca.Leaf) { l.Type, l.NodeID = ca.Node, "n1-" },
		"names no hosts": func(l *ca.Leaf) { l.DNSNames = []string{"pay.example"} },
		"1024":           func(l *ca.Leaf) { l.PublicKey = weak.Public() },
	} {
		l := leaf(t, ca.Agent)
		change(&l)
		if c, err := i.Sign(l); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v %v", says, c, err)
		}
	}
	if _, err := (ca.Issuer{Cert: i.Cert}).Sign(leaf(t, ca.Agent)); err == nil {
		t.Error("a CA without its key signed")
	}
}

func csr(t *testing.T, k crypto.Signer) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "x"}}, k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

func TestOnlyASoundRequestIsRead(t *testing.T) {
	k := key(t)
	good := csr(t, k)
	if got, err := ca.ParseCSR(append([]byte("\n"), good...)); err != nil || !k.Public().(*ecdsa.PublicKey).Equal(got.PublicKey) {
		t.Fatalf("%v", err)
	}
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(good)
	forged := slices.Clone(block.Bytes)
	forged[len(forged)-1] ^= 1
	encode := func(typ string, der []byte) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der})
	}
	for name, tt := range map[string]struct {
		text []byte
		says string
	}{
		"nothing":                {[]byte(" \n"), "empty"},
		"too much":               {slices.Concat(good, make([]byte, ca.MaxCSR)), "at most"},
		"no PEM":                 {block.Bytes, "not PEM"},
		"a certificate":          {encode("CERTIFICATE", block.Bytes), `"CERTIFICATE"`},
		"a private key":          {encode("PRIVATE KEY", block.Bytes), "PRIVATE KEY"},
		"two of them":            {slices.Concat(good, good), "one request"},
		"half of it":             {encode("CERTIFICATE REQUEST", block.Bytes[:40]), "asn1"},
		"another key's":          {encode("CERTIFICATE REQUEST", forged), "own key"},
		"a key that is too weak": {csr(t, weak), "1024"},
	} {
		if _, err := ca.ParseCSR(tt.text); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v; want %q", name, err, tt.says)
		}
	}
}

// FuzzParseCSR: whatever is read is signed by its own key.
func FuzzParseCSR(f *testing.F) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, k)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
	f.Fuzz(func(t *testing.T, text []byte) {
		if got, err := ca.ParseCSR(text); err == nil && got.CheckSignature() != nil {
			t.Error("a request without a good signature was taken")
		}
	})
}
