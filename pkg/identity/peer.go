// Package identity says who a verified certificate belongs to, and whether
// that one is allowed in.
//
// A [Peer] is made from a chain that has been verified already, and from
// nothing else: what else the client sent along is not looked at. Its names
// come from fields with a structure, the subject alternative names and the
// common name, never from a distinguished name taken as a string.
//
// One name is the identity, the one that logs show and backends are told: the
// SPIFFE ID if there is one, else the common name. That name travels in HTTP
// headers and log lines, so a certificate whose names hold control characters,
// or leading or trailing space that a header would lose, or a common name that
// poses as a SPIFFE ID, is refused whole. So is one that names two identities.
//
// [Rules] say who may come in. Every rule is exact, or a glob over the elements
// of a URI's path; without a rule nobody may.
package identity

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// maxName bounds a common name, in bytes. RFC 5280 says 64 characters; CAs
// differ.
const maxName = 1024

// Peer is who a verified certificate belongs to. It is immutable: nobody
// changes it or what its slices hold after it was handed out.
type Peer struct {
	// ID is the SPIFFE ID if there is one, else the common name, else the
	// first DNS name, else "sha256:" and the fingerprint. It is valid UTF-8
	// without control characters, safe in a header and never empty.
	ID         string
	SPIFFE     string // empty when there is none
	CommonName string
	DNS        []string // DNS SANs as they are written
	URIs       []string // URI SANs as they are written, the SPIFFE ID among them
	OUs        []string

	Serial      string // lower-case hex
	Fingerprint string // lower-case hex SHA-256 of the leaf's DER
	Issuer      string // the issuer's distinguished name, to read, never to match on

	NotBefore time.Time // the latest over the chain
	NotAfter  time.Time // the earliest over the chain

	Chain []*x509.Certificate // verified: leaf first, trust anchor last

	// Anchors names the set of CAs that the chain was verified under. It is
	// opaque, set by whoever verified, and compared for equality only.
	Anchors string

	service string              // last path element of the SPIFFE ID
	prints  [][sha256.Size]byte // of every certificate in Chain
}

// Leaf is the client's own certificate.
func (p *Peer) Leaf() *x509.Certificate { return p.Chain[0] }

// Service is the last element of the SPIFFE ID's path; empty without one.
func (p *Peer) Service() string { return p.service }

// FromChain reads a verified chain, leaf first. anchors goes into
// [Peer.Anchors]. The error says what makes the certificate one that nobody
// can be told by.
func FromChain(chain []*x509.Certificate, anchors string) (*Peer, error) {
	if len(chain) == 0 {
		return nil, errors.New("the chain is empty")
	}
	leaf := chain[0]
	p := &Peer{
		DNS:       leaf.DNSNames,
		OUs:       leaf.Subject.OrganizationalUnit,
		Serial:    leaf.SerialNumber.Text(16),
		Issuer:    leaf.Issuer.String(),
		NotBefore: leaf.NotBefore,
		NotAfter:  leaf.NotAfter,
		Chain:     chain,
		Anchors:   anchors,
	}
	for _, c := range chain {
		p.prints = append(p.prints, sha256.Sum256(c.Raw))
		if c.NotBefore.After(p.NotBefore) {
			p.NotBefore = c.NotBefore
		}
		if c.NotAfter.Before(p.NotAfter) {
			p.NotAfter = c.NotAfter
		}
	}
	p.Fingerprint = hex.EncodeToString(p.prints[0][:])
	if err := p.readNames(leaf); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *Peer) readNames(leaf *x509.Certificate) (err error) {
	if p.CommonName, err = commonName(leaf); err != nil {
		return err
	}
	if p.URIs, err = uriNames(leaf); err != nil {
		return err
	}
	for what, names := range map[string][]string{"DNS name": p.DNS, "URI": p.URIs, "organizational unit": p.OUs} {
		for _, n := range names {
			if err := checkText(n); err != nil {
				return fmt.Errorf("its %s %q %w", what, n, err)
			}
		}
	}
	for _, u := range p.URIs {
		if !isSPIFFE(u) {
			continue
		}
		if p.SPIFFE != "" {
			return fmt.Errorf("it has more than one SPIFFE ID: %q and %q", p.SPIFFE, u)
		}
		id, err := ParseSPIFFE(u)
		if err != nil {
			return fmt.Errorf("its SPIFFE ID %q %w", u, err)
		}
		p.SPIFFE, p.service = u, id.Service()
	}
	switch {
	case p.SPIFFE != "":
		p.ID = p.SPIFFE
	case p.CommonName != "":
		p.ID = p.CommonName
	case len(p.DNS) > 0 && p.DNS[0] != "":
		p.ID = p.DNS[0]
	default:
		p.ID = "sha256:" + p.Fingerprint
	}
	return nil
}

// commonName reads the one common name. With two of them, programs differ in
// which they take, so two is none that can be trusted.
func commonName(leaf *x509.Certificate) (string, error) {
	n := 0
	for _, a := range leaf.Subject.Names {
		if a.Type.Equal(asn1.ObjectIdentifier{2, 5, 4, 3}) {
			n++
		}
	}
	cn := leaf.Subject.CommonName
	switch {
	case n > 1:
		return "", errors.New("it has more than one common name")
	case cn == "":
		return "", nil
	case len(cn) > maxName:
		return "", fmt.Errorf("its common name is over %d bytes", maxName)
	case isSPIFFE(cn) || strings.HasPrefix(cn, "sha256:"):
		// As ID it could not be told from the real thing.
		return "", fmt.Errorf("its common name %q poses as another kind of identity", cn)
	}
	if err := checkText(cn); err != nil {
		return "", fmt.Errorf("its common name %q %w", cn, err)
	}
	return cn, nil
}

// checkText refuses what must not reach a header or a log: text that is not
// UTF-8, control characters, line separators and marks that reverse the order
// of writing, and space at the ends, which a header's reader takes off.
func checkText(s string) error {
	if !utf8.ValidString(s) {
		return errors.New("is not valid UTF-8")
	}
	for _, r := range s {
		if unicode.IsControl(r) || unicode.In(r, unicode.Zl, unicode.Zp, unicode.Bidi_Control) {
			return fmt.Errorf("holds the control character %U", r)
		}
	}
	if strings.TrimSpace(s) != s {
		return errors.New("begins or ends with space")
	}
	return nil
}

// uriNames reads the URI SANs as they are written. x509.Certificate.URIs has
// been through url.Parse, which writes some of them differently.
func uriNames(leaf *x509.Certificate) ([]string, error) {
	var uris []string
	for _, ext := range leaf.Extensions {
		if !ext.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 17}) {
			continue
		}
		der := cryptobyte.String(ext.Value)
		var names cryptobyte.String
		if !der.ReadASN1(&names, cbasn1.SEQUENCE) || !der.Empty() {
			return nil, errors.New("its subject alternative name is malformed")
		}
		for !names.Empty() {
			var name cryptobyte.String
			var tag cbasn1.Tag
			if !names.ReadAnyASN1(&name, &tag) {
				return nil, errors.New("its subject alternative name is malformed")
			}
			if tag == cbasn1.Tag(6).ContextSpecific() {
				uris = append(uris, string(name))
			}
		}
	}
	return uris, nil
}
