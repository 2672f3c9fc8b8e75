// Package hubtrust tells the true Hub, and what it signs, from what only looks
// like it.
//
// A Hub is known by its root certificate, or by that one's hash, which a token
// carries. Under the root, two identities are the Hub's own, and no leaf
// profile can produce them:
//
//	spiffe://TRUST-DOMAIN/hub             the server that answers
//	spiffe://TRUST-DOMAIN/hub/revocation  the key that signs the revocation log
//
// So neither a service's certificate, though the same CA issued it, nor a host
// name that somebody else got hold of makes a Hub.
package hubtrust

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"cyphers.ai/tlsmcp/pkg/identity"
	"cyphers.ai/tlsmcp/pkg/revlog"
)

// Paths of the Hub's own SPIFFE IDs.
const (
	ServerPath     = "/hub"
	RevocationPath = "/hub/revocation"
)

// RootHash names a root certificate: SHA-256 of its DER.
func RootHash(root *x509.Certificate) [sha256.Size]byte { return sha256.Sum256(root.Raw) }

// ErrOtherRoot is for a Hub that is not the one that a token is from.
var ErrOtherRoot = errors.New("the Hub's root is not the one that the token names: this is another Hub, or somebody in its place")

// FindRoot finds the root with a hash among certificates, which is how one who
// has only a token comes to trust: a Hub sends its root at the end of its
// chain.
func FindRoot(hash [sha256.Size]byte, among []*x509.Certificate) (*x509.Certificate, error) {
	for _, c := range among {
		if RootHash(c) == hash {
			return c, nil
		}
	}
	return nil, ErrOtherRoot
}

// VerifyServer checks that who answers is the Hub under one of the roots. chain
// is what it sent, leaf first.
func VerifyServer(roots, chain []*x509.Certificate, now time.Time) error {
	if len(chain) == 0 {
		return errors.New("the Hub showed no certificate")
	}
	leaf := chain[0]
	if err := verify(roots, chain[1:], leaf, now, x509.ExtKeyUsageServerAuth); err != nil {
		return fmt.Errorf("the Hub's certificate: %w", err)
	}
	if err := is(leaf, ServerPath); err != nil {
		return fmt.Errorf("the server is no Hub: %w", err)
	}
	return nil
}

// VerifyRevocationSigners gives the keys of those signers that are the Hub's
// own under the roots. A signer that has expired, or does not belong there, is
// an error: what it signed could not be told from a forgery.
func VerifyRevocationSigners(roots, issuers, signers []*x509.Certificate, now time.Time) (revlog.Keys, error) {
	if len(signers) == 0 {
		return nil, errors.New("the Hub has no revocation key")
	}
	keys := make(revlog.Keys, len(signers))
	for _, s := range signers {
		err := verify(roots, issuers, s, now, x509.ExtKeyUsageAny)
		if err == nil {
			err = is(s, RevocationPath)
		}
		if err == nil && s.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
			err = errors.New("its key may not sign")
		}
		if err != nil {
			return nil, fmt.Errorf("the Hub's revocation key (serial %s): %w", s.SerialNumber.Text(16), err)
		}
		keys[revlog.KeyID(s.RawSubjectPublicKeyInfo)] = s.PublicKey
	}
	return keys, nil
}

func verify(roots, between []*x509.Certificate, leaf *x509.Certificate, now time.Time, usage x509.ExtKeyUsage) error {
	if len(roots) == 0 {
		return errors.New("no root is known to check it against")
	}
	o := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{usage}}
	for _, c := range roots {
		o.Roots.AddCert(c)
	}
	for _, c := range between {
		o.Intermediates.AddCert(c)
	}
	if _, err := leaf.Verify(o); err != nil {
		return err
	}
	// A CA certificate, or a root itself, verifies too; it is nobody's leaf.
	if leaf.IsCA || slices.ContainsFunc(roots, leaf.Equal) {
		return errors.New("it is a CA certificate")
	}
	return nil
}

// is checks that a certificate has one URI, a SPIFFE ID with the path.
func is(c *x509.Certificate, path string) error {
	if len(c.URIs) != 1 {
		return fmt.Errorf("its certificate has %d URIs; the Hub's has one", len(c.URIs))
	}
	uri := c.URIs[0].String()
	id, err := identity.ParseSPIFFE(uri)
	if err != nil {
		return fmt.Errorf("its URI %q %w", uri, err)
	}
	if id.Path != path {
		return fmt.Errorf("its identity is %q", uri)
	}
	return nil
}
