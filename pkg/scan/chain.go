package scan

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"cyphers.ai/tlsmcp/pkg/scan/certlint"
	"cyphers.ai/tlsmcp/pkg/score"
)

// chainSeen is one certificate chain of the server, and what there is to say
// about it. A server may have several, one for each kind of key.
type chainSeen struct {
	sent []*x509.Certificate // leaf first
	leaf *x509.Certificate
	fact score.Certificate

	unreadable error    // the chain cannot be parsed; all else is empty
	dates      string   // why the leaf is not within its dates
	above      []string // what of the chain over it is not
	name       string   // why the name does not fit
	order      string   // what is out of order
	incomplete string   // what the server should have sent
	untrusted  string   // why no client trusts it
	unjudged   string   // why trust cannot be judged
	weakKeys   []string
	weakHashes []string

	lint    certlint.Findings
	lintErr error
}

// curveNumbers are the TLS numbers of curves that certificates have.
var curveNumbers = map[string]uint16{"P-224": 21, "P-256": 23, "P-384": 24, "P-521": 25}

// leaves are the server's certificates that can be read.
func (p *probe) leaves() (certs []*x509.Certificate) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.seen.chains {
		if leaf, err := x509.ParseCertificate(c[0]); err == nil {
			certs = append(certs, leaf)
		}
	}
	return certs
}

// hasPublic reports whether one of them is of a public CA.
func (p *probe) hasPublic() bool {
	return slices.ContainsFunc(p.leaves(), func(c *x509.Certificate) bool { return score.DescribeCertificate(c).Public })
}

// leafCurves are the curves of the server's certificates.
func (p *probe) leafCurves() (ids []uint16) {
	for _, leaf := range p.leaves() {
		if key, ok := leaf.PublicKey.(*ecdsa.PublicKey); ok {
			if id := curveNumbers[key.Curve.Params().Name]; id != 0 && !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
	}
	return ids
}

// readChains judges the chains that were sent.
func (p *probe) readChains(now time.Time) (chains []*chainSeen) {
	for _, der := range p.seen.chains {
		if len(der) == 1 && p.seen.sentWithMore(der[0]) {
			continue // by SSL 2.0, which knows no chains
		}
		c := &chainSeen{}
		chains = append(chains, c)
		for i, d := range der {
			cert, err := x509.ParseCertificate(d)
			if err != nil {
				c.unreadable = fmt.Errorf("certificate %d of the chain: %w", i+1, err)
				break
			}
			c.sent = append(c.sent, cert)
		}
		if len(c.sent) == 0 {
			continue
		}
		c.unreadable = nil // the leaf is there
		c.leaf, c.fact = c.sent[0], score.DescribeCertificate(c.sent[0])
		c.weigh()
		c.date(now)
		c.order = orderFault(c.sent)
		if err := c.leaf.VerifyHostname(p.target.name()); err != nil {
			c.name = plainError(err)
		}
		c.trust(now, p.o.CAs)
		c.lint, c.lintErr = certlint.Lint(c.leaf.Raw, c.fact.Public)
	}
	// The order in which handshakes ended says nothing.
	slices.SortFunc(chains, func(a, b *chainSeen) int { return strings.Compare(a.fact.Fingerprint, b.fact.Fingerprint) })
	return chains
}

// signed are the certificates whose signature matters: all but a root that was
// sent along, which is trusted or not whatever it says.
func (c *chainSeen) signed() []*x509.Certificate {
	return slices.DeleteFunc(slices.Clone(c.sent), func(cert *x509.Certificate) bool { return cert != c.leaf && selfSigned(cert) })
}

func (c *chainSeen) weigh() {
	for _, cert := range c.signed() {
		switch key := cert.PublicKey.(type) {
		case *rsa.PublicKey:
			if key.N.BitLen() < 2048 {
				c.weakKeys = append(c.weakKeys, fmt.Sprintf("%s has an RSA key of %d bits", called(cert), key.N.BitLen()))
			}
		case *ecdsa.PublicKey:
			if key.Curve.Params().BitSize < 224 {
				c.weakKeys = append(c.weakKeys, fmt.Sprintf("%s has a key on %s", called(cert), key.Curve.Params().Name))
			}
		}
		if cert.PublicKeyAlgorithm == x509.DSA {
			c.weakKeys = append(c.weakKeys, called(cert)+" has a DSA key")
		}
		if weakHash(cert.SignatureAlgorithm) {
			c.weakHashes = append(c.weakHashes, fmt.Sprintf("%s is signed with %s", called(cert), cert.SignatureAlgorithm))
		}
	}
}

func weakHash(a x509.SignatureAlgorithm) bool {
	switch a {
	case x509.MD2WithRSA, x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.ECDSAWithSHA1:
		return true
	}
	return false
}

func (c *chainSeen) date(now time.Time) {
	c.dates = outOfDate(c.leaf, now)
	for _, cert := range c.signed()[1:] {
		if fault := outOfDate(cert, now); fault != "" {
			c.above = append(c.above, fault)
		}
	}
}

func outOfDate(cert *x509.Certificate, now time.Time) string {
	switch {
	case now.Before(cert.NotBefore):
		return fmt.Sprintf("%s is not valid before %s", called(cert), cert.NotBefore.UTC().Format(time.RFC3339))
	case now.After(cert.NotAfter):
		return fmt.Sprintf("%s expired at %s", called(cert), cert.NotAfter.UTC().Format(time.RFC3339))
	}
	return ""
}

// orderFault says where a chain is not one: each certificate must have signed the
// one before it (RFC 5246, section 7.4.2).
func orderFault(sent []*x509.Certificate) string {
	for i, cert := range sent[1:] {
		before := sent[i]
		switch {
		case selfSigned(before):
			return fmt.Sprintf("%s follows %s, which is signed by itself", called(cert), called(before))
		case !bytes.Equal(before.RawIssuer, cert.RawSubject):
			return fmt.Sprintf("%s comes after %s, which it did not sign", called(cert), called(before))
		}
	}
	return ""
}

// trust tells whether a client would believe the chain, its dates apart.
func (c *chainSeen) trust(now time.Time, cas []*x509.Certificate) {
	roots, known := pools(cas)
	above := x509.NewCertPool()
	for _, cert := range c.sent[1:] {
		above.AddCert(cert)
	}
	options := x509.VerifyOptions{Roots: roots, Intermediates: above, CurrentTime: within(c.sent, now)}
	_, err := c.leaf.Verify(options)
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	invalid, _ := errors.AsType[x509.CertificateInvalidError](err)
	switch {
	case err == nil:
	case invalid.Reason == x509.Expired && (c.dates != "" || len(c.above) > 0):
		c.unjudged = "there was no time at which all certificates of the chain were valid"
	case !unknown:
		c.untrusted = plainError(err)
	case selfSigned(c.leaf): // and no CA here: how it is signed makes no difference
		c.untrusted = called(c.leaf) + " is signed by itself, not by a CA that is known here"
	case len(c.weakHashes) > 0 || slices.ContainsFunc(c.signed(), tooShort):
		c.unjudged = "clients do not even check so weak a signature"
	default:
		c.explain(options, known, cas != nil)
	}
}

// tooShort is an RSA key that Go checks no signature with.
func tooShort(cert *x509.Certificate) bool {
	key, ok := cert.PublicKey.(*rsa.PublicKey)
	return ok && key.N.BitLen() < 1024
}

// explain tells a chain that ends too early from a CA that is not trusted. From
// outside the two look alike: the last certificate names an issuer that is not
// there. It is too early when we have that issuer ourselves, or when the
// certificate says where clients can get it: roots need no such address.
func (c *chainSeen) explain(options x509.VerifyOptions, known []*x509.Certificate, own bool) {
	last := c.last()
	issuer := last.Issuer.String()
	for _, cert := range known {
		options.Intermediates.AddCert(cert)
	}
	if _, err := c.leaf.Verify(options); err == nil {
		c.incomplete = fmt.Sprintf("%s is signed by %q, which the server does not send", called(last), issuer)
		return
	}
	switch {
	case selfSigned(last):
		c.untrusted = fmt.Sprintf("the chain ends at %q, which is no CA that is known here", last.Subject)
	case len(last.IssuingCertificateURL) > 0:
		c.incomplete = fmt.Sprintf("%s is signed by %q, which the server does not send; it is said to be at %s", called(last), issuer, last.IssuingCertificateURL[0])
	case own:
		c.untrusted = fmt.Sprintf("%s is signed by %q, which is neither sent nor in the CA file", called(last), issuer)
	default:
		c.untrusted = fmt.Sprintf("%s is signed by %q, which is neither sent nor a CA of this system", called(last), issuer)
	}
}

// last follows the chain from the leaf as far as it goes.
func (c *chainSeen) last() *x509.Certificate {
	at := c.leaf
	for range c.sent {
		i := slices.IndexFunc(c.sent, func(cert *x509.Certificate) bool { return cert != at && bytes.Equal(at.RawIssuer, cert.RawSubject) })
		if selfSigned(at) || i < 0 {
			break
		}
		at = c.sent[i]
	}
	return at
}

// pools sorts CA certificates into roots and others. Without any root, all are
// anchors. No certificates at all are the roots of the system.
func pools(cas []*x509.Certificate) (roots *x509.CertPool, others []*x509.Certificate) {
	if cas == nil {
		return nil, nil
	}
	roots = x509.NewCertPool()
	anyRoot := slices.ContainsFunc(cas, selfSigned)
	for _, cert := range cas {
		if anyRoot && !selfSigned(cert) {
			others = append(others, cert)
			continue
		}
		roots.AddCert(cert)
	}
	return roots, others
}

// within is a time at which all the certificates are valid, now if that is one.
func within(certs []*x509.Certificate, now time.Time) time.Time {
	for _, cert := range certs {
		if now.Before(cert.NotBefore) {
			now = cert.NotBefore
		}
	}
	for _, cert := range certs {
		if now.After(cert.NotAfter) {
			now = cert.NotAfter
		}
	}
	return now
}

func selfSigned(c *x509.Certificate) bool { return bytes.Equal(c.RawIssuer, c.RawSubject) }

// called is how a certificate is named in evidence.
func called(c *x509.Certificate) string {
	switch {
	case c.Subject.CommonName != "":
		return fmt.Sprintf("%q", c.Subject.CommonName)
	case len(c.DNSNames) > 0:
		return fmt.Sprintf("%q", c.DNSNames[0])
	case len(c.URIs) > 0:
		return fmt.Sprintf("%q", c.URIs[0])
	}
	return fmt.Sprintf("the certificate with serial number %x", c.SerialNumber)
}

// plainError is an error of crypto/x509 without the name of the package.
func plainError(err error) string { return strings.TrimPrefix(err.Error(), "x509: ") }
