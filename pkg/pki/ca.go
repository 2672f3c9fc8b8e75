package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"time"
)

// KeyType is the kind of a key that is made.
type KeyType int

// The kinds of key. The zero value is the default.
const (
	ECDSAP256 KeyType = iota
	Ed25519
	RSA2048
	ECDSAP384
)

// CAOptions describes a CA to make. The zero value makes a root that is good
// for ten years from five minutes ago.
type CAOptions struct {
	CommonName   string // default "tlsmcp test CA"
	Organization string
	KeyType      KeyType
	Key          crypto.Signer // an existing key, instead of a new one
	Serial       *big.Int      // default: 128 random bits
	NotBefore    time.Time     // default: five minutes ago
	NotAfter     time.Time     // default: ten years after NotBefore
	KeyUsage     x509.KeyUsage // default: certSign and cRLSign
	MaxPathLen   int           // CAs allowed under it; 0: no limit is written
	CRLURLs      []string      // where a certificate of this CA says its CRL is
}

// CA is a certificate authority that lives in memory.
type CA struct {
	Cert   *x509.Certificate
	Key    crypto.Signer
	Parent *CA // nil for a root
}

// LeafOptions describes a certificate to issue. The zero value makes one that
// is good for 24 hours from five minutes ago, for clients and servers both.
type LeafOptions struct {
	CommonName string
	DNS        []string
	IPs        []net.IP
	URIs       []string // "spiffe://prod.example/ns/pay/service/payment-api"
	OUs        []string
	KeyType    KeyType
	Key        crypto.Signer      // an existing key, instead of a new one
	Serial     *big.Int           // default: 128 random bits
	NotBefore  time.Time          // default: five minutes ago
	NotAfter   time.Time          // default: 24 hours after NotBefore
	Usages     []x509.ExtKeyUsage // default: clientAuth and serverAuth
	NoUsages   bool               // leave the extended key usage out
	KeyUsage   x509.KeyUsage      // default: digitalSignature
	IsCA       bool               // a leaf that claims to be a CA
	CRLURLs    []string
	OCSPURLs   []string
	Extra      []pkix.Extension // added as they are; one with the SAN's OID replaces the names above
}

// Leaf is an issued certificate with its key.
type Leaf struct {
	Cert    *x509.Certificate
	Key     crypto.Signer
	CertPEM []byte // the leaf, then its intermediates, without the root
	KeyPEM  []byte // PKCS#8
}

// NewCA makes a root CA.
func NewCA(o CAOptions) (*CA, error) { return newCA(o, nil) }

// NewIntermediate makes a CA whose certificate is issued by ca.
func (ca *CA) NewIntermediate(o CAOptions) (*CA, error) { return newCA(o, ca) }

func newCA(o CAOptions, parent *CA) (*CA, error) {
	key, err := keyOr(o.Key, o.KeyType)
	if err != nil {
		return nil, err
	}
	if o.CommonName == "" {
		o.CommonName = "tlsmcp test CA"
	}
	tmpl := &x509.Certificate{
		SerialNumber:          o.Serial,
		Subject:               pkix.Name{CommonName: o.CommonName},
		NotBefore:             o.NotBefore,
		NotAfter:              o.NotAfter,
		KeyUsage:              o.KeyUsage,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLen:            o.MaxPathLen,
		CRLDistributionPoints: o.CRLURLs,
	}
	if o.Organization != "" {
		tmpl.Subject.Organization = []string{o.Organization}
	}
	if tmpl.KeyUsage == 0 {
		tmpl.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	}
	ca := &CA{Key: key, Parent: parent}
	signer := &CA{Cert: tmpl, Key: key}
	if parent != nil {
		signer = parent
	}
	if ca.Cert, err = signer.sign(tmpl, key.Public(), 10*365*24*time.Hour); err != nil {
		return nil, fmt.Errorf("make CA %q: %w", o.CommonName, err)
	}
	return ca, nil
}

// Issue makes a certificate and its key.
func (ca *CA) Issue(o LeafOptions) (*Leaf, error) {
	key, err := keyOr(o.Key, o.KeyType)
	if err != nil {
		return nil, err
	}
	tmpl := &x509.Certificate{
		SerialNumber:          o.Serial,
		Subject:               pkix.Name{CommonName: o.CommonName, OrganizationalUnit: o.OUs},
		DNSNames:              o.DNS,
		IPAddresses:           o.IPs,
		NotBefore:             o.NotBefore,
		NotAfter:              o.NotAfter,
		KeyUsage:              o.KeyUsage,
		ExtKeyUsage:           o.Usages,
		BasicConstraintsValid: true,
		IsCA:                  o.IsCA,
		CRLDistributionPoints: o.CRLURLs,
		OCSPServer:            o.OCSPURLs,
		ExtraExtensions:       o.Extra,
	}
	for _, u := range o.URIs {
		parsed, err := url.Parse(u)
		if err != nil {
			return nil, fmt.Errorf("issue %q: URI: %w", o.CommonName, err)
		}
		tmpl.URIs = append(tmpl.URIs, parsed)
	}
	if tmpl.KeyUsage == 0 {
		tmpl.KeyUsage = x509.KeyUsageDigitalSignature
	}
	if len(tmpl.ExtKeyUsage) == 0 && !o.NoUsages {
		tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
	}
	cert, err := ca.sign(tmpl, key.Public(), 24*time.Hour)
	if err != nil {
		return nil, fmt.Errorf("issue %q: %w", o.CommonName, err)
	}
	keyPEM, err := EncodeKey(key)
	if err != nil {
		return nil, fmt.Errorf("issue %q: %w", o.CommonName, err)
	}
	certPEM := EncodeCertificates(cert)
	for up := ca; up.Parent != nil; up = up.Parent {
		certPEM = append(certPEM, EncodeCertificates(up.Cert)...)
	}
	return &Leaf{Cert: cert, Key: key, CertPEM: certPEM, KeyPEM: keyPEM}, nil
}

// sign fills in serial and dates and signs. The template's times win, so that a
// test can ask for an expired certificate.
func (ca *CA) sign(tmpl *x509.Certificate, pub crypto.PublicKey, life time.Duration) (*x509.Certificate, error) {
	if tmpl.SerialNumber == nil {
		n, err := NewSerial()
		if err != nil {
			return nil, err
		}
		tmpl.SerialNumber = n
	}
	if tmpl.NotBefore.IsZero() {
		// Hosts' clocks differ by a little; a certificate should work at once.
		tmpl.NotBefore = time.Now().Add(-5 * time.Minute)
	}
	if tmpl.NotAfter.IsZero() {
		tmpl.NotAfter = tmpl.NotBefore.Add(life)
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, ca.Cert, pub, ca.Key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// CRL makes a revocation list in DER that names the given serial numbers.
// [EncodeCRL] turns it into PEM.
func (ca *CA) CRL(number int64, thisUpdate, nextUpdate time.Time, revoked ...*big.Int) ([]byte, error) {
	tmpl := &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: thisUpdate, NextUpdate: nextUpdate}
	for _, serial := range revoked {
		tmpl.RevokedCertificateEntries = append(tmpl.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: serial, RevocationTime: thisUpdate})
	}
	return ca.SignCRL(tmpl)
}

// SignCRL makes a revocation list in DER from a template, for reasons, dates
// and extensions that [CA.CRL] has no parameter for.
func (ca *CA) SignCRL(tmpl *x509.RevocationList) ([]byte, error) {
	der, err := x509.CreateRevocationList(rand.Reader, tmpl, ca.Cert, ca.Key)
	if err != nil {
		return nil, fmt.Errorf("sign revocation list: %w", err)
	}
	return der, nil
}

// CertPEM is the CA's certificate, as a ca_file wants it.
func (ca *CA) CertPEM() []byte { return EncodeCertificates(ca.Cert) }

// TLS is the leaf as crypto/tls wants it, with its intermediates.
func (l *Leaf) TLS() (tls.Certificate, error) { return tls.X509KeyPair(l.CertPEM, l.KeyPEM) }

// Write puts chain and key in two files, the key with mode 0600.
func (l *Leaf) Write(certFile, keyFile string) error {
	return errors.Join(WriteFileAtomic(keyFile, l.KeyPEM, 0o600), WriteFileAtomic(certFile, l.CertPEM, 0o644))
}

// KeyAlgorithm is a certificate's kind of key for people: "ECDSA P-256".
func KeyAlgorithm(c *x509.Certificate) string {
	switch k := c.PublicKey.(type) {
	case *ecdsa.PublicKey:
		return "ECDSA " + k.Params().Name
	case ed25519.PublicKey:
		return "Ed25519"
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d", k.N.BitLen())
	}
	return c.PublicKeyAlgorithm.String()
}

// Fingerprint is the lower-case hex SHA-256 of a certificate's DER, which is
// what a pin names.
func Fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

// NewSerial makes a serial number of 128 bits, all but the highest random: RFC
// 5280 section 4.1.2.2 wants it positive and at most 20 octets.
func NewSerial() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 128))
	if err != nil {
		return nil, err
	}
	return n.SetBit(n, 127, 1), nil
}

func keyOr(key crypto.Signer, t KeyType) (crypto.Signer, error) {
	if key != nil {
		return key, nil
	}
	return NewKey(t)
}

// NewKey makes a private key.
func NewKey(t KeyType) (crypto.Signer, error) {
	switch t {
	case ECDSAP256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case ECDSAP384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case Ed25519:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	case RSA2048:
		return rsa.GenerateKey(rand.Reader, 2048)
	}
	return nil, fmt.Errorf("key type %d is not known", t)
}

// EncodeCertificates writes certificates in PEM, in the order given.
func EncodeCertificates(certs ...*x509.Certificate) []byte {
	var out []byte
	for _, c := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return out
}

// EncodeKey writes a private key in PEM, as PKCS#8.
func EncodeKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// EncodeCRL writes a revocation list in PEM.
func EncodeCRL(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
}
