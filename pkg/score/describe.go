package score

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"slices"
	"strings"

	"cyphers.ai/tlsmcp/pkg/text"
)

// DescribeCertificate reads the fact Certificate from a leaf. A certificate
// counts as public when it says so itself: it names a certificate policy that
// the CA/B Forum reserves for publicly trusted ones, or carries the timestamps
// of certificate transparency logs (RFC 6962), which private CAs do not get.
func DescribeCertificate(c *x509.Certificate) Certificate {
	sum := sha256.Sum256(c.Raw)
	d := Certificate{
		Subject: printable(c.Subject.String()), Issuer: printable(c.Issuer.String()),
		Fingerprint: hex.EncodeToString(sum[:]),
		NotBefore:   c.NotBefore.UTC(), NotAfter: c.NotAfter.UTC(),
		Public: isPublic(c), Signature: c.SignatureAlgorithm.String(), URISANs: len(c.URIs),
		Wildcard:   slices.ContainsFunc(c.DNSNames, func(n string) bool { return strings.Contains(n, "*") }),
		ServerAuth: slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth),
		AnyUsage:   slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageAny) || len(c.ExtKeyUsage)+len(c.UnknownExtKeyUsage) == 0,
	}
	d.Key, d.KeyBits = keyName(c)
	return d
}

func keyName(c *x509.Certificate) (name string, bits int) {
	switch k := c.PublicKey.(type) {
	case *ecdsa.PublicKey:
		return k.Curve.Params().Name, 0
	case ed25519.PublicKey:
		return "Ed25519", 0
	case *rsa.PublicKey:
		return "RSA", k.N.BitLen()
	}
	return c.PublicKeyAlgorithm.String(), 0 // "DSA", or the number of what this Go does not read
}

func isPublic(c *x509.Certificate) bool {
	const sctList = "1.3.6.1.4.1.11129.2.4.2"
	for _, e := range c.Extensions {
		if e.Id.String() == sctList {
			return true
		}
	}
	return slices.ContainsFunc(c.Policies, func(p x509.OID) bool {
		s := p.String()
		return s == "2.23.140.1.1" || strings.HasPrefix(s, "2.23.140.1.2.")
	})
}

// printable makes a text that facts may hold from whatever somebody wrote into
// a certificate.
func printable(s string) string { return text.Cut(text.Clean(s), maxText) }
