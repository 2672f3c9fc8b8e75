// Package ca is the Hub's certificate authority as a set of rules over values:
// what a certificate signing request may be, and what a leaf of each type looks
// like. It has no database and no clock; keys and certificates come in and go
// out. The signer is any crypto.Signer, so that one in a PKCS#11 token or a key
// management service can stand in.
//
// Names never come from the request. A leaf's names are the Hub's own words:
// the service id as common name, and a SPIFFE ID that says what the certificate
// is for. Each type has a path of its own, and none of them can produce the
// paths that stand for the Hub itself (package hubtrust).
package ca

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"

	"cyphers.ai/tlsmcp/pkg/identity"
	"cyphers.ai/tlsmcp/pkg/pki"
)

// Issuer is a CA's certificate with its key.
type Issuer struct {
	Cert *x509.Certificate
	Key  crypto.Signer
}

// Type is what a leaf is for.
type Type string

// The types of leaf.
const (
	Server Type = "server" // a service, towards its clients
	Client Type = "client" // a service, towards other services
	Agent  Type = "agent"  // an AI agent
	Node   Type = "node"   // a sidecar, towards the Hub
	Canary Type = "canary" // nobody: it is revoked as soon as it is made
)

// Limits are the lifetimes of a type where no policy says otherwise.
func (t Type) Limits() (usual, longest time.Duration, err error) {
	const day = 24 * time.Hour
	switch t {
	case Server:
		return 7 * day, 90 * day, nil
	case Client, Agent:
		return day, 30 * day, nil
	case Node, Canary:
		return 7 * day, 30 * day, nil
	}
	return 0, 0, fmt.Errorf("certificate type %q is not known: it is server, client, agent, node or canary", t)
}

// maxID is the longest service id: a common name has at most 64 characters
// (RFC 5280 appendix A.1), and a node's is "node/" and the id.
const maxID = 59

// CheckID says what is wrong with a service id. It becomes a common name and an
// element of a SPIFFE ID's path.
func CheckID(id string) error {
	if id == "" || len(id) > maxID {
		return fmt.Errorf("service id %q has %d characters; it needs 1 to %d", id, len(id), maxID)
	}
	for i := range len(id) {
		c := id[i]
		inner := c == '.' || c == '-' || c == '_'
		if !inner && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return fmt.Errorf("service id %q has %q in it: letters, digits, dot, dash and underscore may be", id, c)
		}
		if inner && (i == 0 || i == len(id)-1) {
			return fmt.Errorf("service id %q must begin and end with a letter or a digit", id)
		}
	}
	return nil
}

// Leaf describes a certificate to issue. Its names have been allowed by whoever
// asks.
type Leaf struct {
	Type        Type
	TrustDomain string
	ServiceID   string
	NodeID      string // Node
	DNSNames    []string
	IPs         []net.IP
	NotBefore   time.Time
	NotAfter    time.Time // cut to the issuer's
	PublicKey   crypto.PublicKey
	CRLURL      string // where the issuer's CRL is; empty: none is written
}

// SPIFFE is the leaf's SPIFFE ID.
func (l *Leaf) SPIFFE() string {
	base := "spiffe://" + l.TrustDomain
	switch l.Type {
	case Agent:
		return base + "/agent/" + l.ServiceID
	case Node:
		return base + "/node/" + l.ServiceID + "/" + l.NodeID
	case Canary:
		return base + "/canary/" + l.ServiceID
	}
	return base + "/service/" + l.ServiceID
}

// CommonName is the leaf's common name. A node's, and a canary's, is never a
// service id, so that no rule for a service lets it in.
func (l *Leaf) CommonName() string {
	if l.Type == Node || l.Type == Canary {
		return string(l.Type) + "/" + l.ServiceID
	}
	return l.ServiceID
}

func (l *Leaf) check() error {
	if _, _, err := l.Type.Limits(); err != nil {
		return err
	}
	if err := CheckID(l.ServiceID); err != nil {
		return err
	}
	if _, err := identity.ParseSPIFFE(l.SPIFFE()); err != nil {
		return fmt.Errorf("SPIFFE ID %q %w", l.SPIFFE(), err)
	}
	if l.Type == Node {
		if err := CheckID(l.NodeID); err != nil {
			return fmt.Errorf("node id: %w", err)
		}
	}
	if l.Type != Server && len(l.DNSNames)+len(l.IPs) > 0 {
		return fmt.Errorf("a certificate of type %s names no hosts", l.Type)
	}
	return pki.CheckKeyStrength(l.PublicKey)
}

// Sign issues a leaf. It is never good for longer than its issuer.
func (i Issuer) Sign(l Leaf) (*x509.Certificate, error) {
	cert, err := i.sign(&l)
	if err != nil {
		return nil, fmt.Errorf("issue %s certificate for %q: %w", l.Type, l.ServiceID, err)
	}
	return cert, nil
}

func (i Issuer) sign(l *Leaf) (*x509.Certificate, error) {
	if i.Key == nil {
		return nil, errors.New("the CA's key is not here")
	}
	if err := l.check(); err != nil {
		return nil, err
	}
	notAfter := l.NotAfter
	if notAfter.After(i.Cert.NotAfter) {
		notAfter = i.Cert.NotAfter
	}
	if !l.NotBefore.Before(notAfter) {
		return nil, fmt.Errorf("it would be over before it begins: the issuing CA ends %s", i.Cert.NotAfter.UTC().Format(time.RFC3339))
	}
	serial, err := pki.NewSerial()
	if err != nil {
		return nil, err
	}
	spki, err := x509.MarshalPKIXPublicKey(l.PublicKey)
	if err != nil {
		return nil, err
	}
	keyID := sha256.Sum256(spki)
	id, err := url.Parse(l.SPIFFE())
	if err != nil {
		return nil, err
	}
	usage := x509.ExtKeyUsageClientAuth
	if l.Type == Server {
		usage = x509.ExtKeyUsageServerAuth
	}
	tmpl := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: l.CommonName()},
		NotBefore:             l.NotBefore,
		NotAfter:              notAfter,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{usage},
		BasicConstraintsValid: true,
		SubjectKeyId:          keyID[:], // RFC 7093 section 2, method 4
		DNSNames:              l.DNSNames,
		IPAddresses:           l.IPs,
		URIs:                  []*url.URL{id},
	}
	if l.CRLURL != "" {
		tmpl.CRLDistributionPoints = []string{l.CRLURL}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, i.Cert, l.PublicKey, i.Key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}
