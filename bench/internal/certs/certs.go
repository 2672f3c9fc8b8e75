// Package certs makes the certificates of a benchmark run: one authority, one
// client pair, and as many server pairs as the run swaps in. All keys are
// ECDSA P-256 and every chain is one leaf under one root, so that each proxy
// does the same public-key work for a handshake: one signature made, two
// verified.
package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// ServerName is the DNS name in every server certificate.
const ServerName = "bench.test"

const lifetime = 24 * time.Hour

// Authority signs the pairs of one run. Its key stays in memory.
type Authority struct {
	CAFile string // PEM of the root, for servers and clients alike

	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// Pair names the files of one certificate and its key.
type Pair struct {
	CertFile string
	KeyFile  string
	Combined string // certificate and key in one file, as haproxy reads them
}

// PairIn names the pair called name in dir. It writes nothing.
func PairIn(dir, name string) Pair {
	base := filepath.Join(dir, name)
	return Pair{CertFile: base + ".crt", KeyFile: base + ".key", Combined: base + ".pem"}
}

// New makes an authority and writes its root to dir/ca.crt.
func New(dir string) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make CA key: %w", err)
	}
	tmpl, err := template("tlsmcp bench CA")
	if err != nil {
		return nil, err
	}
	tmpl.IsCA = true
	tmpl.BasicConstraintsValid = true
	tmpl.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("sign CA: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parse CA: %w", err)
	}
	a := &Authority{CAFile: filepath.Join(dir, "ca.crt"), cert: cert, key: key}
	if err := replace(a.CAFile, pemBlock("CERTIFICATE", der)); err != nil {
		return nil, err
	}
	return a, nil
}

// Server writes a new server pair over p and returns its serial number. Each
// file is replaced by a rename, so a reader sees the old one or the new one,
// never half of either.
func (a *Authority) Server(p Pair) (*big.Int, error) {
	tmpl, err := template(ServerName)
	if err != nil {
		return nil, err
	}
	tmpl.DNSNames = []string{ServerName}
	tmpl.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	return tmpl.SerialNumber, a.issue(tmpl, p)
}

// Client writes a client pair to p.
func (a *Authority) Client(p Pair) error {
	tmpl, err := template("bench-client")
	if err != nil {
		return err
	}
	tmpl.DNSNames = []string{"bench-client"}
	tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return a.issue(tmpl, p)
}

func (a *Authority) issue(tmpl *x509.Certificate, p Pair) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make key: %w", err)
	}
	tmpl.KeyUsage = x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &key.PublicKey, a.key)
	if err != nil {
		return fmt.Errorf("sign %s: %w", tmpl.Subject.CommonName, err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode key: %w", err)
	}
	certPEM, keyPEM := pemBlock("CERTIFICATE", der), pemBlock("PRIVATE KEY", keyDER)
	if err := replace(p.KeyFile, keyPEM); err != nil {
		return err
	}
	if err := replace(p.CertFile, certPEM); err != nil {
		return err
	}
	return replace(p.Combined, append(certPEM, keyPEM...))
}

func template(name string) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("make serial: %w", err)
	}
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.Add(lifetime),
	}, nil
}

func pemBlock(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func replace(path string, data []byte) error {
	tmp := path + ".new"
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("replace %s: %w", path, err)
	}
	return nil
}
