package ca

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"slices"
	"time"

	"cyphers.ai/tlsmcp/pkg/hubtrust"
	"cyphers.ai/tlsmcp/pkg/identity"
	"cyphers.ai/tlsmcp/pkg/pki"
	"cyphers.ai/tlsmcp/pkg/revlog"
)

// Lifetimes of the authorities. What an issuing CA signs ends with it, so a new
// one is due when the longest leaf would not fit any more.
const (
	RootLife   = 10 * 365 * 24 * time.Hour
	IssuerLife = 365 * 24 * time.Hour
	// skew is how far into the past a certificate begins, for hosts whose
	// clocks are behind.
	skew = 5 * time.Minute
)

// ParseKeyType reads the name of a kind of key.
func ParseKeyType(name string) (pki.KeyType, error) {
	switch name {
	case "ecdsa-p256":
		return pki.ECDSAP256, nil
	case "ecdsa-p384":
		return pki.ECDSAP384, nil
	case "ed25519":
		return pki.Ed25519, nil
	}
	return 0, fmt.Errorf("key type %q is not known: it is ecdsa-p256, ecdsa-p384 or ed25519", name)
}

// CheckTrustDomain says what is wrong with a trust domain.
func CheckTrustDomain(name string) error {
	id, err := identity.ParseSPIFFE("spiffe://" + name)
	if err == nil && id.Path != "" {
		err = errors.New("has a path")
	}
	if err != nil {
		return fmt.Errorf("trust domain %q: as a SPIFFE ID it %w", name, err)
	}
	return nil
}

// NewRoot makes a root that may have issuing CAs and nothing else under it.
func NewRoot(trustDomain string, key crypto.Signer, now time.Time) (Issuer, error) {
	if err := CheckTrustDomain(trustDomain); err != nil {
		return Issuer{}, fmt.Errorf("make root CA: %w", err)
	}
	tmpl := authority("root CA", trustDomain, now, RootLife)
	tmpl.MaxPathLen = 1
	cert, err := certify(tmpl, tmpl, key.Public(), key)
	if err != nil {
		return Issuer{}, fmt.Errorf("make root CA: %w", err)
	}
	return Issuer{cert, key}, nil
}

// NewIssuer makes an issuing CA under a root, one that may have only leaves
// under it. crlURL is where the root's CRL is.
func NewIssuer(root Issuer, trustDomain string, key crypto.Signer, now time.Time, crlURL string) (Issuer, error) {
	if root.Key == nil {
		return Issuer{}, errors.New("make issuing CA: the root's key is not here")
	}
	tmpl := authority("issuing CA", trustDomain, now, IssuerLife)
	tmpl.MaxPathLenZero = true
	if crlURL != "" {
		tmpl.CRLDistributionPoints = []string{crlURL}
	}
	cert, err := certify(tmpl, root.Cert, key.Public(), root.Key)
	if err != nil {
		return Issuer{}, fmt.Errorf("make issuing CA: %w", err)
	}
	return Issuer{cert, key}, nil
}

// authority is what every CA's certificate has. Its name tells it from the ones
// before it.
func authority(kind, trustDomain string, now time.Time, life time.Duration) *x509.Certificate {
	var tag [4]byte
	_, _ = rand.Read(tag[:]) // it never fails
	return &x509.Certificate{
		Subject:               pkix.Name{Organization: []string{trustDomain}, CommonName: fmt.Sprintf("tlsmcp %s %x", kind, tag)},
		NotBefore:             now.Add(-skew).Truncate(time.Second),
		NotAfter:              now.Add(life).Truncate(time.Second),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
}

// certify signs a certificate with a serial number and a key id of ours, never
// beyond its issuer's end.
func certify(tmpl, issuer *x509.Certificate, pub crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	spki, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, err
	}
	id := sha256.Sum256(spki)
	tmpl.SubjectKeyId = id[:] // RFC 7093 section 2, method 4
	if tmpl.SerialNumber, err = pki.NewSerial(); err != nil {
		return nil, err
	}
	if tmpl.NotAfter.After(issuer.NotAfter) {
		tmpl.NotAfter = issuer.NotAfter
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, issuer, pub, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// KeyID is the issuer's key id, which revocations name it by.
func (i Issuer) KeyID() string { return revlog.KeyID(i.Cert.RawSubjectPublicKeyInfo) }

// RevocationSigner certifies a key that signs the revocation log. It lives as
// long as its issuer.
func (i Issuer) RevocationSigner(trustDomain string, pub crypto.PublicKey, now time.Time) (*x509.Certificate, error) {
	return i.own(&x509.Certificate{
		Subject:  pkix.Name{CommonName: "tlsmcp-hub revocation log"},
		NotAfter: i.Cert.NotAfter,
	}, hubtrust.RevocationPath, trustDomain, pub, now)
}

// HubServer certifies the key that the Hub's server answers with. Hosts are for
// clients that look at names, as browsers do; a sidecar looks at the identity.
func (i Issuer) HubServer(trustDomain string, pub crypto.PublicKey, hosts []string, now, until time.Time) (*x509.Certificate, error) {
	tmpl := &x509.Certificate{
		Subject:     pkix.Name{CommonName: "tlsmcp-hub"},
		NotAfter:    until.Truncate(time.Second),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else {
			tmpl.DNSNames = append(tmpl.DNSNames, h)
		}
	}
	return i.own(tmpl, hubtrust.ServerPath, trustDomain, pub, now)
}

// own certifies what is the Hub's own.
func (i Issuer) own(tmpl *x509.Certificate, path, trustDomain string, pub crypto.PublicKey, now time.Time) (*x509.Certificate, error) {
	if i.Key == nil {
		return nil, errors.New("certify the Hub's own key: the CA's key is not here")
	}
	tmpl.NotBefore = now.Add(-skew).Truncate(time.Second)
	tmpl.KeyUsage = x509.KeyUsageDigitalSignature
	tmpl.BasicConstraintsValid = true
	tmpl.URIs = []*url.URL{{Scheme: "spiffe", Host: trustDomain, Path: path}}
	cert, err := certify(tmpl, i.Cert, pub, i.Key)
	if err != nil {
		return nil, fmt.Errorf("certify the Hub's own key: %w", err)
	}
	return cert, nil
}

// Import takes an issuing CA that was made elsewhere: its certificate first in
// chain, then what is between it and its root, the root last.
func Import(chain []*x509.Certificate, key crypto.Signer, now time.Time) (Issuer, error) {
	if err := checkImport(chain, key, now); err != nil {
		return Issuer{}, fmt.Errorf("import issuing CA: %w", err)
	}
	return Issuer{chain[0], key}, nil
}

func checkImport(chain []*x509.Certificate, key crypto.Signer, now time.Time) error {
	if len(chain) < 2 {
		return errors.New("the file needs the issuing CA's certificate and, after it, those above it up to the root")
	}
	issuer, root := chain[0], chain[len(chain)-1]
	switch {
	case !issuer.BasicConstraintsValid || !issuer.IsCA:
		return fmt.Errorf("the first certificate, %q, is not a CA", issuer.Subject)
	case issuer.KeyUsage&x509.KeyUsageCertSign == 0 || issuer.KeyUsage&x509.KeyUsageCRLSign == 0:
		return fmt.Errorf("the key usage of %q must have keyCertSign and cRLSign", issuer.Subject)
	case now.After(issuer.NotAfter):
		return fmt.Errorf("%q expired at %s", issuer.Subject, issuer.NotAfter.UTC().Format(time.RFC3339))
	case len(issuer.SubjectKeyId) == 0:
		return fmt.Errorf("%q has no subject key identifier", issuer.Subject)
	}
	pub, ok := issuer.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !pub.Equal(key.Public()) {
		return fmt.Errorf("the key is not that of %q", issuer.Subject)
	}
	if err := pki.CheckKeyStrength(issuer.PublicKey); err != nil {
		return err
	}
	if err := root.CheckSignatureFrom(root); err != nil {
		return fmt.Errorf("the last certificate, %q, is not a root: %w", root.Subject, err)
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(root)
	for _, c := range chain[1 : len(chain)-1] {
		between.AddCert(c)
	}
	_, err := issuer.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	return err
}

// Revoked is an entry of a CRL.
type Revoked struct {
	Serial string // lower-case hex
	At     time.Time
	Reason revlog.Reason
}

// CRL signs a revocation list (RFC 5280 section 5) in DER.
func (i Issuer) CRL(number int64, this, next time.Time, revoked []Revoked) ([]byte, error) {
	if i.Key == nil {
		return nil, errors.New("sign CRL: the CA's key is not here")
	}
	tmpl := &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: this, NextUpdate: next,
		RevokedCertificateEntries: make([]x509.RevocationListEntry, 0, len(revoked))}
	for _, r := range revoked {
		serial, ok := new(big.Int).SetString(r.Serial, 16)
		if !ok {
			return nil, fmt.Errorf("sign CRL: %q is not a serial number", r.Serial)
		}
		// The code 0 is left out, as section 5.3.1 wants it.
		tmpl.RevokedCertificateEntries = append(tmpl.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: serial, RevocationTime: r.At, ReasonCode: r.Reason.Code()})
	}
	der, err := x509.CreateRevocationList(rand.Reader, tmpl, i.Cert, i.Key)
	if err != nil {
		return nil, fmt.Errorf("sign CRL: %w", err)
	}
	return der, nil
}

// Hosts drops what is there twice.
func Hosts(lists ...[]string) []string {
	var out []string
	for _, h := range slices.Concat(lists...) {
		if h != "" && !slices.Contains(out, h) {
			out = append(out, h)
		}
	}
	return out
}
