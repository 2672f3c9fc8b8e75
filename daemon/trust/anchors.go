package trust

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/identity"
	"cyphers.ai/tlsmcp/pkg/pki"
	"cyphers.ai/tlsmcp/pkg/revlog"
	"cyphers.ai/tlsmcp/pkg/revoke"
	"cyphers.ai/tlsmcp/pkg/text"
)

const (
	// maxPresented is the longest list of certificates that is read: a leaf
	// and five intermediates.
	maxPresented = 6
	// maxChains bounds how many verified chains of one client are looked at.
	// Cross-signed CAs make two or three.
	maxChains = 8
)

// caSet is a set of CAs and what was verified under it. A new set of CAs is a
// new caSet, so nothing that was verified under another one survives.
type caSet struct {
	certs  []*x509.Certificate
	pool   *x509.CertPool
	digest string // of the certificates, in any order
	above  map[[sha256.Size]byte][]revoke.Link
	cache  *chainCache
}

// loadCAs reads a CA file. Every certificate in it must be able to be a CA: one
// that is not would become a trust anchor by itself.
func loadCAs(path string) (*caSet, error) {
	certs, err := pki.LoadBundle(path)
	if err != nil {
		return nil, err
	}
	for i, c := range certs {
		err := pki.CheckKeyStrength(c.PublicKey)
		switch {
		case !c.BasicConstraintsValid || !c.IsCA:
			err = errors.New("it is not a CA certificate")
		case c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0:
			err = errors.New("its key usage does not allow to sign certificates")
		}
		if err != nil {
			return nil, fmt.Errorf("CA file %s: certificate %d (%s): %w", path, i+1, nameOf(c), err)
		}
	}
	return newCASet(certs), nil
}

// newCASet makes a set. With no certificates nobody can be verified under it.
func newCASet(certs []*x509.Certificate) *caSet {
	s := &caSet{pool: x509.NewCertPool(), above: make(map[[sha256.Size]byte][]revoke.Link), cache: newChainCache()}
	var prints [][]byte
	for _, c := range certs {
		if slices.ContainsFunc(s.certs, c.Equal) {
			continue
		}
		s.certs = append(s.certs, c)
		s.pool.AddCert(c)
		print := sha256.Sum256(c.Raw)
		prints = append(prints, print[:])
	}
	slices.SortFunc(prints, bytes.Compare)
	sum := sha256.Sum256(bytes.Join(prints, nil))
	s.digest = hex.EncodeToString(sum[:])
	for _, c := range s.certs {
		s.above[sha256.Sum256(c.Raw)] = s.climb(c)
	}
	return s
}

// climb finds who issued an anchor among the other anchors, and so on up. A
// chain ends at the first anchor that it meets, and an intermediate in the CA
// file would escape its own root's CRL otherwise.
func (s *caSet) climb(anchor *x509.Certificate) []revoke.Link {
	var links []revoke.Link
	seen := []*x509.Certificate{anchor}
	for at := 0; at < len(seen); at++ {
		c := seen[at]
		if bytes.Equal(c.RawIssuer, c.RawSubject) {
			continue
		}
		for _, up := range s.certs {
			if !bytes.Equal(c.RawIssuer, up.RawSubject) || c.CheckSignatureFrom(up) != nil {
				continue
			}
			links = append(links, revoke.NewLink(c, up))
			if !slices.ContainsFunc(seen, up.Equal) {
				seen = append(seen, up)
			}
		}
	}
	return links
}

// verify builds and checks the chains from what a client presented.
func (s *caSet) verify(presented []*x509.Certificate, now time.Time) ([]*chain, *Refusal) {
	leaf := presented[0]
	others := x509.NewCertPool()
	for _, c := range presented[1:] {
		others.AddCert(c)
	}
	found, err := leaf.Verify(x509.VerifyOptions{
		Roots:         s.pool,
		Intermediates: others,
		CurrentTime:   now,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return nil, explain(presented, err, now)
	}
	if r := checkLeaf(leaf); r != nil {
		return nil, r
	}
	var chains []*chain
	var last error
	for _, certs := range found[:min(len(found), maxChains)] {
		if last = checkStrength(certs); last != nil {
			continue
		}
		var p *identity.Peer
		if p, last = identity.FromChain(certs, s.digest); last != nil {
			continue
		}
		chains = append(chains, s.chainOf(p))
	}
	if len(chains) == 0 {
		return nil, bad(leaf, "cannot be accepted: %v", last)
	}
	return chains, nil
}

// checkLeaf asks of the leaf what crypto/x509 lets pass.
func checkLeaf(leaf *x509.Certificate) *Refusal {
	detail := ""
	switch {
	case leaf.IsCA:
		detail = "is a CA certificate; a CA does not call services"
	case !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageClientAuth):
		// RFC 5280 lets a certificate without the extension do anything. Here
		// a certificate for clients has to say so.
		detail = "does not name clientAuth in its extended key usage"
	case leaf.KeyUsage != 0 && leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		// RFC 8446 section 4.4.2.3.
		detail = "may not sign: its key usage lacks digitalSignature"
	}
	if detail == "" {
		return nil
	}
	return &Refusal{Reason: event.WrongUsage, Detail: fmt.Sprintf("certificate of %q %s", nameOf(leaf), detail)}
}

func checkStrength(certs []*x509.Certificate) error {
	for _, c := range certs {
		if err := pki.CheckKeyStrength(c.PublicKey); err != nil {
			return fmt.Errorf("certificate %q: %w", nameOf(c), err)
		}
	}
	return nil
}

// chainOf prepares a peer's chain for being judged.
func (s *caSet) chainOf(p *identity.Peer) *chain {
	ch := &chain{peer: p, own: len(p.Chain) - 1}
	for i, c := range p.Chain[:ch.own] {
		ch.links = append(ch.links, revoke.NewLink(c, p.Chain[i+1]))
	}
	anchor := p.Chain[ch.own]
	ch.links = append(ch.links, s.above[sha256.Sum256(anchor.Raw)]...)
	for i := range ch.links {
		l := &ch.links[i]
		ch.hub = append(ch.hub, hubLink{revlog.KeyID(l.Issuer.RawSubjectPublicKeyInfo), l.Cert.SerialNumber.Text(16)})
	}
	ch.names = revlog.NamesOf(p)
	return ch
}

// explain turns what crypto/x509 says into a reason and a sentence.
func explain(presented []*x509.Certificate, err error, now time.Time) *Refusal {
	leaf := presented[0]
	var invalid x509.CertificateInvalidError
	var critical x509.UnhandledCriticalExtension
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &invalid):
		return explainInvalid(leaf, invalid, now)
	case errors.As(err, &critical):
		return bad(leaf, "or one above it has a critical extension that is not known here")
	case errors.As(err, &unknown):
		// The error hides a signature that is too weak to be looked at.
		for _, c := range presented {
			if weakSignature(c.SignatureAlgorithm) && !bytes.Equal(c.RawIssuer, c.RawSubject) {
				return bad(leaf, "cannot be verified: %q is signed with %s, which is broken", nameOf(c), c.SignatureAlgorithm)
			}
		}
		return &Refusal{Reason: event.UnknownCA,
			Detail: fmt.Sprintf("certificate of %q was issued by %q, and does not lead to a CA that is trusted here", nameOf(leaf), leaf.Issuer)}
	}
	return bad(leaf, "cannot be verified: %v", err)
}

func explainInvalid(leaf *x509.Certificate, e x509.CertificateInvalidError, now time.Time) *Refusal {
	switch e.Reason {
	case x509.Expired:
		if r := outOfDate(e.Cert, leaf, now); r != nil {
			return r
		}
	case x509.IncompatibleUsage:
		return &Refusal{Reason: event.WrongUsage,
			Detail: fmt.Sprintf("certificate of %q, or a CA above it, is not for clients: clientAuth is not in its extended key usage", nameOf(leaf))}
	case x509.NotAuthorizedToSign:
		return bad(leaf, "was issued by %q, which is not a CA", nameOf(e.Cert))
	case x509.TooManyIntermediates:
		return bad(leaf, "has more CAs above it than %q allows", nameOf(e.Cert))
	case x509.CANotAuthorizedForThisName:
		return bad(leaf, "has a name that a CA above it may not give: %v", e)
	}
	return bad(leaf, "cannot be verified: %v", e)
}

// outOfDate says how a certificate is outside its dates; nil when it is not.
func outOfDate(c, leaf *x509.Certificate, now time.Time) *Refusal {
	who := fmt.Sprintf("certificate of %q", nameOf(leaf))
	if !c.Equal(leaf) {
		who = fmt.Sprintf("CA certificate %q above %q", nameOf(c), nameOf(leaf))
	}
	switch {
	case now.After(c.NotAfter):
		return &Refusal{Reason: event.Expired, Detail: fmt.Sprintf("%s expired %s", who, ago(now, c.NotAfter))}
	case now.Before(c.NotBefore):
		return &Refusal{Reason: event.NotYetValid, Detail: fmt.Sprintf("%s is not valid until %s", who, stampOf(c.NotBefore))}
	}
	return nil
}

func bad(leaf *x509.Certificate, format string, args ...any) *Refusal {
	return &Refusal{Reason: event.BadCertificate, Detail: fmt.Sprintf("certificate of %q ", nameOf(leaf)) + fmt.Sprintf(format, args...)}
}

func weakSignature(a x509.SignatureAlgorithm) bool {
	switch a {
	case x509.MD2WithRSA, x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.ECDSAWithSHA1:
		return true
	}
	return false
}

// nameOf is a name to show for a certificate that may not be verified; it is
// always quoted where it goes into a sentence.
func nameOf(c *x509.Certificate) string {
	switch {
	case len(c.URIs) > 0 && c.URIs[0].Scheme == "spiffe":
		return c.URIs[0].String()
	case c.Subject.CommonName != "":
		return c.Subject.CommonName
	case len(c.DNSNames) > 0:
		return c.DNSNames[0]
	}
	return c.Subject.String()
}

// ago tells a time in the past as a person would, with the exact one behind.
func ago(now, then time.Time) string {
	d := now.Sub(then)
	if d < 0 {
		return "as of " + stampOf(then)
	}
	return text.Span(d) + " ago (" + stampOf(then) + ")"
}

func stampOf(t time.Time) string { return t.UTC().Format(time.RFC3339) }
