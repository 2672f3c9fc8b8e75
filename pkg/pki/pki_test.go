package pki

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func newCAT(t testing.TB, o CAOptions) *CA {
	t.Helper()
	ca, err := NewCA(o)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func issueT(t testing.TB, ca *CA, o LeafOptions) *Leaf {
	t.Helper()
	l, err := ca.Issue(o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func tempFile(t testing.TB, name string, data []byte) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(p, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func TestBundles(t *testing.T) {
	a, b := newCAT(t, CAOptions{CommonName: "a"}), newCAT(t, CAOptions{CommonName: "b"})
	leaf := issueT(t, a, LeafOptions{CommonName: "x"})
	damaged := bytes.Replace(a.CertPEM(), []byte("MII"), []byte("M*I"), 1)
	cases := []struct {
		rule string
		data []byte
		n    int
		err  string
	}{
		{"one certificate is read", a.CertPEM(), 1, ""},
		{"several are read in order", join(a.CertPEM(), b.CertPEM()), 2, ""},
		{"text before a certificate is a comment", join([]byte("# a\nCN = a\n"), a.CertPEM(), []byte("Subject: b\n"), b.CertPEM()), 2, ""},
		{"comments and blank lines may end it", join(a.CertPEM(), []byte("\n# the end\n\n")), 1, ""},
		{"an empty file is refused", nil, 0, "the file is empty"},
		{"blank lines alone are refused", []byte("\n \n"), 0, "the file is empty"},
		{"text alone is refused", []byte("hello\n"), 0, "no PEM block"},
		{"text after the last one is refused", join(a.CertPEM(), []byte("garbage\n")), 0, "text after PEM block 1"},
		{"a key in it is refused", join(a.CertPEM(), leaf.KeyPEM), 0, `PEM block 2 is a "PRIVATE KEY"`},
		{"a damaged block first is refused", join(damaged, b.CertPEM()), 0, "PEM block 1 is damaged"},
		{"a damaged block last is refused", join(b.CertPEM(), damaged), 0, "PEM block 2 is damaged"},
		{"a file cut short is refused", join(b.CertPEM(), a.CertPEM()[:200]), 0, "PEM block 2 is damaged"},
		{"a block that is no certificate is refused", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte{1, 2}}), 0, "certificate 1"},
	}
	for _, c := range cases {
		t.Run(c.rule, func(t *testing.T) {
			path := tempFile(t, "ca.pem", c.data)
			certs, err := LoadBundle(path)
			if c.err == "" {
				if err != nil || len(certs) != c.n {
					t.Fatalf("%d certificates, %v; want %d", len(certs), err, c.n)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.err) || !strings.Contains(err.Error(), path) {
				t.Fatalf("error %v; want one with %q and the path", err, c.err)
			}
			if certs != nil {
				t.Fatal("certificates beside an error")
			}
		})
	}
	if _, err := LoadBundle(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	if _, err := LoadBundle(t.TempDir()); err == nil {
		t.Error("a directory was read as a bundle")
	}
}

func TestKeyPairs(t *testing.T) {
	root := newCAT(t, CAOptions{CommonName: "root"})
	mid, err := root.NewIntermediate(CAOptions{CommonName: "mid"})
	if err != nil {
		t.Fatal(err)
	}
	leaf := issueT(t, mid, LeafOptions{CommonName: "x"})
	other := issueT(t, mid, LeafOptions{CommonName: "x"})
	impostor, err := newCAT(t, CAOptions{CommonName: "root"}).NewIntermediate(CAOptions{CommonName: "mid"})
	if err != nil {
		t.Fatal(err)
	}
	one := EncodeCertificates(leaf.Cert)
	sec1, _ := x509.MarshalECPrivateKey(leaf.Key.(*ecdsa.PrivateKey))
	ec := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1})
	rsaLeaf := issueT(t, mid, LeafOptions{CommonName: "r", KeyType: RSA2048})
	pkcs1 := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(rsaLeaf.Key.(*rsa.PrivateKey))})
	edLeaf := issueT(t, mid, LeafOptions{CommonName: "e", KeyType: Ed25519})
	weakKey, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	weak := issueT(t, mid, LeafOptions{CommonName: "w", Key: weakKey})
	cases := []struct {
		rule      string
		cert, key []byte
		n         int
		err       string
	}{
		{"leaf and intermediate with PKCS#8", leaf.CertPEM, leaf.KeyPEM, 2, ""},
		{"a leaf alone with SEC1", one, ec, 1, ""},
		{"EC PARAMETERS before the key are passed over", one, join([]byte("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"), ec), 1, ""},
		{"RSA with PKCS#1", rsaLeaf.CertPEM, pkcs1, 2, ""},
		{"Ed25519", edLeaf.CertPEM, edLeaf.KeyPEM, 2, ""},
		{"the chain may go up to the root", join(leaf.CertPEM, root.CertPEM()), leaf.KeyPEM, 3, ""},
		{"an expired certificate is not our question", issueExpired(t, mid, leaf), leaf.KeyPEM, 2, ""},
		{"another certificate's key is refused", leaf.CertPEM, other.KeyPEM, 0, "k.pem does not belong to the certificate in"},
		{"another kind of key is refused", leaf.CertPEM, pkcs1, 0, "does not belong"},
		{"the CA first is refused", join(mid.CertPEM(), one), leaf.KeyPEM, 0, "the leaf must come first"},
		{"an unrelated certificate in the chain is refused", join(one, root.CertPEM()), leaf.KeyPEM, 0, "was issued by"},
		{"an issuer of the same name with another key is refused", join(one, impostor.CertPEM()), leaf.KeyPEM, 0, "is not signed by"},
		{"a short RSA key is refused", weak.CertPEM, weak.KeyPEM, 0, "1024 bits"},
		{"an encrypted key draws a hint", leaf.CertPEM, []byte("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"), 0, "openssl pkey"},
		{"two keys are refused", leaf.CertPEM, join(leaf.KeyPEM, other.KeyPEM), 0, "more than one private key"},
		{"a certificate for a key is refused", leaf.CertPEM, leaf.CertPEM, 0, `is a "CERTIFICATE"`},
		{"an empty key file is refused", leaf.CertPEM, nil, 0, "the file is empty"},
		{"parameters alone are refused", leaf.CertPEM, []byte("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"), 0, "no private key"},
		{"a key that does not parse is refused", leaf.CertPEM, []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), 0, "k.pem"},
	}
	for _, c := range cases {
		t.Run(c.rule, func(t *testing.T) {
			certFile, keyFile := tempFile(t, "c.pem", c.cert), tempFile(t, "k.pem", c.key)
			pair, err := LoadKeyPair(certFile, keyFile)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("error %v; want %q", err, c.err)
				}
				return
			}
			if err != nil || len(pair.Certificate) != c.n || pair.Leaf == nil {
				t.Fatalf("%d certificates, leaf %v, %v", len(pair.Certificate), pair.Leaf, err)
			}
		})
	}
	if _, err := LoadKeyPair(tempFile(t, "c.pem", one), "/nowhere/k.pem"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing key file: %v", err)
	}
}

func issueExpired(t testing.TB, ca *CA, l *Leaf) []byte {
	past := time.Now().Add(-48 * time.Hour)
	return issueT(t, ca, LeafOptions{CommonName: "old", Key: l.Key, NotBefore: past, NotAfter: past.Add(time.Hour)}).CertPEM
}

func TestWriteFileAtomic(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	for _, text := range []string{"one", "two"} {
		if err := WriteFileAtomic(path, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
		got, _ := os.ReadFile(path)
		info, _ := os.Stat(path)
		if string(got) != text || info.Mode().Perm() != 0o640 {
			t.Errorf("%q with mode %v", got, info.Mode())
		}
	}
	// The target is a directory that is not empty: the rename cannot work.
	bad := filepath.Join(dir, "d")
	if err := os.MkdirAll(filepath.Join(bad, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := WriteFileAtomic(bad, []byte("x"), 0o600); err == nil || !strings.Contains(err.Error(), bad) {
		t.Errorf("writing over a directory: %v", err)
	}
	left, _ := os.ReadDir(dir)
	if len(left) != 2 {
		t.Errorf("temporary files are left: %v", left)
	}
	if err := WriteFileAtomic(filepath.Join(dir, "none", "f"), nil, 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("into a directory that is missing: %v", err)
	}
}

func TestWhatTheCAMakesWorksInTLS(t *testing.T) {
	for _, kt := range []KeyType{ECDSAP256, Ed25519, RSA2048} {
		root := newCAT(t, CAOptions{KeyType: kt, Organization: "o"})
		mid, err := root.NewIntermediate(CAOptions{CommonName: "mid", KeyType: kt, CRLURLs: []string{"http://crl.example/"}})
		if err != nil {
			t.Fatal(err)
		}
		leaf := issueT(t, mid, LeafOptions{CommonName: "svc", DNS: []string{"svc.example"}, URIs: []string{"spiffe://a/b"}, OUs: []string{"ou"}, KeyType: kt})
		pool, inter := x509.NewCertPool(), x509.NewCertPool()
		pool.AddCert(root.Cert)
		inter.AddCert(mid.Cert)
		chains, err := leaf.Cert.Verify(x509.VerifyOptions{Roots: pool, Intermediates: inter, DNSName: "svc.example",
			KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
		if err != nil || len(chains[0]) != 3 {
			t.Errorf("key type %d: %v", kt, err)
		}
		pair, err := leaf.TLS()
		if err != nil || len(pair.Certificate) != 2 {
			t.Errorf("key type %d: %d certificates, %v", kt, len(pair.Certificate), err)
		}
		dir := t.TempDir()
		cf, kf := filepath.Join(dir, "c"), filepath.Join(dir, "k")
		if err := leaf.Write(cf, kf); err != nil {
			t.Fatal(err)
		}
		var loaded tls.Certificate
		if loaded, err = LoadKeyPair(cf, kf); err != nil || !loaded.Leaf.Equal(leaf.Cert) {
			t.Errorf("key type %d: what was written does not load: %v", kt, err)
		}
		if info, _ := os.Stat(kf); info.Mode().Perm() != 0o600 {
			t.Errorf("the key's mode is %v", info.Mode())
		}
	}
}

func TestBadCertificatesCanBeMade(t *testing.T) {
	ca := newCAT(t, CAOptions{})
	past := time.Now().Add(-time.Hour).Truncate(time.Second)
	l := issueT(t, ca, LeafOptions{Serial: big.NewInt(7), NotBefore: past, NotAfter: past.Add(time.Minute), NoUsages: true, IsCA: true,
		KeyUsage: x509.KeyUsageKeyAgreement})
	c := l.Cert
	if c.SerialNumber.Int64() != 7 || !c.NotAfter.Equal(past.Add(time.Minute)) || c.ExtKeyUsage != nil || !c.IsCA || c.KeyUsage != x509.KeyUsageKeyAgreement {
		t.Errorf("%+v", c)
	}
	if _, err := ca.Issue(LeafOptions{URIs: []string{"%zz"}}); err == nil {
		t.Error("a URI that does not parse was issued")
	}
	if _, err := NewKey(99); err == nil {
		t.Error("an unknown key type made a key")
	}
}

func TestSerialsAreRandomPositiveAndFit(t *testing.T) {
	seen := map[string]bool{}
	for range 200 {
		n, err := NewSerial()
		if err != nil || n.Sign() <= 0 || n.BitLen() != 128 || seen[n.String()] {
			t.Fatalf("serial %v, %v", n, err)
		}
		seen[n.String()] = true
	}
}

func TestCRLs(t *testing.T) {
	ca := newCAT(t, CAOptions{})
	now := time.Now().Truncate(time.Second)
	der, err := ca.CRL(3, now, now.Add(time.Hour), big.NewInt(1), big.NewInt(2))
	if err != nil {
		t.Fatal(err)
	}
	blocks, err := Blocks(EncodeCRL(der), "X509 CRL")
	if err != nil {
		t.Fatal(err)
	}
	rl, err := x509.ParseRevocationList(blocks[0].Bytes)
	if err != nil || rl.CheckSignatureFrom(ca.Cert) != nil || rl.Number.Int64() != 3 || len(rl.RevokedCertificateEntries) != 2 {
		t.Errorf("%+v, %v", rl, err)
	}
	if _, err := ca.CRL(1, now, now.Add(-time.Hour)); err == nil {
		t.Error("a list that ends before it begins was signed")
	}
}

func FuzzBlocks(f *testing.F) {
	ca := newCAT(f, CAOptions{})
	f.Add(ca.CertPEM())
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	f.Add([]byte("x\n-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n#"))
	f.Fuzz(func(t *testing.T, data []byte) {
		blocks, err := Blocks(data, "CERTIFICATE")
		if (err == nil) != (len(blocks) > 0) {
			t.Fatalf("%d blocks with error %v", len(blocks), err)
		}
		// Nothing may be passed over in silence.
		if err == nil && begins(data) != len(blocks) {
			t.Fatalf("%d blocks of %d", len(blocks), begins(data))
		}
	})
}

func FuzzParseKey(f *testing.F) {
	l := issueT(f, newCAT(f, CAOptions{}), LeafOptions{})
	f.Add(l.KeyPEM)
	f.Fuzz(func(t *testing.T, data []byte) {
		if key, err := ParseKey(data); (err == nil) != (key != nil) {
			t.Fatalf("key %v with error %v", key, err)
		}
	})
}

func TestFilesOfAPair(t *testing.T) {
	base := t.TempDir()
	dir := filepath.Join(base, "made", "on", "the", "way")
	f := FilesIn(dir, "web")
	if got := f.Taken(); got != "" {
		t.Errorf("nothing is there, and %s is taken", got)
	}
	undo, err := f.Prepare()
	if err != nil {
		t.Fatal(err)
	}
	undo()
	if _, err := os.Stat(base); err != nil {
		t.Errorf("more is gone than was made: %v", err)
	}
	if _, err := os.Stat(filepath.Join(base, "made")); err == nil {
		t.Error("what was made for nothing stays")
	}
	if undo, err = f.Prepare(); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("preparing leaves %v (%v)", left, err)
	}
	if err := f.Write([]byte("key"), "chain", "root"); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]fs.FileMode{"web.key": 0o600, "web.crt": 0o644, "ca.crt": 0o644} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	undo()
	if got := f.Taken(); got != f.Cert {
		t.Errorf("taken is %q", got)
	}
	if _, err := FilesIn(filepath.Join(dir, "web.key"), "web").Prepare(); err == nil {
		t.Error("a file was taken for a directory")
	}
}
