package service

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"cyphers.ai/tlsmcp/hub/ca"
	"cyphers.ai/tlsmcp/hub/store"
	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/ipc/problem"
	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/hubtrust"
	"cyphers.ai/tlsmcp/pkg/pki"
	"cyphers.ai/tlsmcp/pkg/revlog"
	"cyphers.ai/tlsmcp/pkg/text"
)

// Kinds and states of authorities, as the store keeps them.
const (
	kindRoot       = "root"
	kindBetween    = "intermediate" // of an imported CA: between its root and the issuing CA
	kindIssuing    = "issuing"
	kindRevocation = "revocation"
	active         = "active"
	retired        = "retired"
)

const metaTrustDomain = "trust_domain"

// authorities are the CAs as they are now. It is immutable.
type authorities struct {
	trustDomain string
	root        ca.Issuer // Key is nil when it is offline
	rootID      string
	between     []*x509.Certificate
	issuers     []issuer      // the active one first
	signer      crypto.Signer // of the revocation log
	signerID    string
	signers     []*x509.Certificate // the active one first
}

type issuer struct {
	ca.Issuer
	id string
}

// chain is what a certificate of the issuing CA is sent with, without the root.
func (a *authorities) chain(i *issuer) []*x509.Certificate {
	return append([]*x509.Certificate{i.Cert}, a.between...)
}

// rootHash is what tokens carry.
func (a *authorities) rootHash() [32]byte { return hubtrust.RootHash(a.root.Cert) }

// firstAuthorities makes root, issuing CA and revocation key of a new Hub.
func (s *Service) firstAuthorities(ctx context.Context) error {
	if err := ca.CheckTrustDomain(s.o.TrustDomain); err != nil {
		return err
	}
	if _, err := s.store.SetMetaOnce(ctx, metaTrustDomain, s.o.TrustDomain); err != nil {
		return err
	}
	return s.store.CreateAuthoritiesOnce(ctx, func() ([]store.Authority, error) {
		rootKey, err := pki.NewKey(s.o.KeyType)
		if err != nil {
			return nil, err
		}
		root, err := ca.NewRoot(s.o.TrustDomain, rootKey, s.now())
		if err != nil {
			return nil, err
		}
		rootRow, err := s.row(kindRoot, root.Cert, rootKey)
		if err != nil {
			return nil, err
		}
		rest, err := s.newIssuing(root, s.o.TrustDomain)
		return append([]store.Authority{rootRow}, rest...), err
	})
}

// newIssuing makes an issuing CA under a root, and a revocation key under it.
func (s *Service) newIssuing(root ca.Issuer, trustDomain string) ([]store.Authority, error) {
	key, err := pki.NewKey(s.o.KeyType)
	if err != nil {
		return nil, err
	}
	issuing, err := ca.NewIssuer(root, trustDomain, key, s.now(), s.crlURL(root.KeyID()))
	if err != nil {
		return nil, err
	}
	return s.issuingRows(issuing, trustDomain)
}

func (s *Service) issuingRows(issuing ca.Issuer, trustDomain string) ([]store.Authority, error) {
	_, logKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	signer, err := issuing.RevocationSigner(trustDomain, logKey.Public(), s.now())
	if err != nil {
		return nil, err
	}
	a, err1 := s.row(kindIssuing, issuing.Cert, issuing.Key)
	b, err2 := s.row(kindRevocation, signer, logKey)
	return []store.Authority{a, b}, errors.Join(err1, err2)
}

func (s *Service) row(kind string, cert *x509.Certificate, key crypto.Signer) (store.Authority, error) {
	a := store.Authority{ID: store.NewID(), Kind: kind, KeyID: revlog.KeyID(cert.RawSubjectPublicKeyInfo), Certificate: cert.Raw,
		State: active, CreatedAt: s.now(), NotAfter: cert.NotAfter}
	if key == nil {
		return a, nil
	}
	var err error
	a.Key, err = pki.EncodeKey(key)
	return a, err
}

// loadAuthorities reads them from the store.
func (s *Service) loadAuthorities(ctx context.Context) error {
	rows, err := s.store.Authorities(ctx)
	if err != nil {
		return err
	}
	a := &authorities{}
	if a.trustDomain, err = s.store.Meta(ctx, metaTrustDomain); err != nil {
		return err
	}
	for _, row := range rows {
		if err := s.take(a, row); err != nil {
			return fmt.Errorf("load authority %s (%s): %w", row.ID, row.Kind, err)
		}
	}
	if a.root.Cert == nil || len(a.issuers) == 0 || a.signer == nil {
		return errors.New("the store lacks a root, an issuing CA or a revocation key: it is not a Hub's, or is damaged; restore a backup")
	}
	a.dropForeignSigners(s.now())
	s.authorities.Store(a)
	return nil
}

// dropForeignSigners leaves out the signers of before whose root is another one
// now: who trusts the present root could not verify them.
func (a *authorities) dropForeignSigners(now time.Time) {
	var issuers []*x509.Certificate
	for _, i := range a.issuers {
		issuers = append(issuers, i.Cert)
	}
	issuers = append(issuers, a.between...)
	a.signers = slices.DeleteFunc(a.signers, func(c *x509.Certificate) bool {
		_, err := hubtrust.VerifyRevocationSigners([]*x509.Certificate{a.root.Cert}, issuers, []*x509.Certificate{c}, now)
		return err != nil
	})
}

func (s *Service) take(a *authorities, row store.Authority) error {
	cert, err := x509.ParseCertificate(row.Certificate)
	if err != nil {
		return err
	}
	expired := s.now().After(cert.NotAfter)
	var key crypto.Signer
	if !expired {
		if key, err = s.open(row); err != nil {
			return err
		}
	}
	switch row.Kind {
	case kindRoot:
		if row.State == active {
			a.root, a.rootID = ca.Issuer{Cert: cert, Key: key}, row.ID
		}
	case kindBetween:
		if row.State == active {
			a.between = append(a.between, cert)
		}
	case kindIssuing:
		i := issuer{ca.Issuer{Cert: cert, Key: key}, row.ID}
		if row.State == active {
			a.issuers = slices.Insert(a.issuers, 0, i)
		} else if !expired {
			a.issuers = append(a.issuers, i)
		}
	case kindRevocation:
		if row.State == active {
			a.signer, a.signerID = key, row.ID
			a.signers = slices.Insert(a.signers, 0, cert)
		} else if !expired {
			a.signers = append(a.signers, cert)
		}
	}
	return nil
}

// open gives an authority's key; nil when it is not here.
func (s *Service) open(row store.Authority) (crypto.Signer, error) {
	if s.o.Signer != nil {
		return s.o.Signer(row)
	}
	if len(row.Key) == 0 {
		return nil, nil
	}
	return pki.ParseKey(row.Key)
}

func (s *Service) followAuthorities(ctx context.Context) {
	s.follow(ctx, store.Authorities, 5*time.Second, s.loadAuthorities)
}

// rotateWhenDue makes the next issuing CA when the present one could not sign
// the longest usual leaf much longer. It cannot while the root is offline; the
// log says so then, each time.
func (s *Service) rotateWhenDue(ctx context.Context) error {
	a := s.authorities.Load()
	present := a.issuers[0].Cert
	if present.NotAfter.Sub(s.now()) > present.NotAfter.Sub(present.NotBefore)/3 {
		return nil
	}
	if a.root.Key == nil {
		s.log.Error("the issuing CA ends soon and the root's key is offline", event.KeyNotAfter, a.issuers[0].Cert.NotAfter,
			event.KeyHint, "tlsmcp hub ca rotate --root-key FILE")
		return s.alert(ctx, "", "issuing_ca_ends", "the issuing CA ends at "+a.issuers[0].Cert.NotAfter.UTC().Format(time.RFC3339)+" and the root's key is offline",
			map[string]string{"not_after": a.issuers[0].Cert.NotAfter.UTC().Format(time.RFC3339)})
	}
	return s.rotate(WithActor(ctx, Actor{Name: "hub", Role: Admin}), a, a.root)
}

func (s *Service) rotate(ctx context.Context, a *authorities, root ca.Issuer) error {
	made, err := s.newIssuing(root, a.trustDomain)
	if err != nil {
		return err
	}
	if err := s.store.AddAuthorities(ctx, made, a.issuers[0].id, a.signerID); err != nil {
		return err
	}
	s.note(ctx, "issuer_rotated", store.Event{Detail: "issuing CA " + made[0].KeyID})
	return s.loadAuthorities(ctx)
}

// RotateIssuer makes a new issuing CA.
func (s *Service) RotateIssuer(ctx context.Context, r *hubv1.RotateIssuerRequest) (*hubv1.Trust, error) {
	if _, err := authorize(ctx, administrate, ""); err != nil {
		return nil, err
	}
	a := s.authorities.Load()
	root := a.root
	if r.GetRootKey() != "" {
		key, err := pki.ParseKey([]byte(r.GetRootKey()))
		if err != nil {
			return nil, problem.New(problem.Invalid, "bad_key", "", "root key: %s", err)
		}
		pub, ok := root.Cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
		if !ok || !pub.Equal(key.Public()) {
			return nil, problem.New(problem.Invalid, "wrong_key", "", "the key is not that of the root %q", root.Cert.Subject)
		}
		root.Key = key
	}
	if root.Key == nil {
		return nil, problem.New(problem.Conflict, "root_offline", "give the root's key with the request: tlsmcp hub ca rotate --root-key FILE",
			"the root's key is offline")
	}
	if err := s.rotate(ctx, a, root); err != nil {
		return nil, storeError(err, "issuing CA to replace")
	}
	return s.trust(), nil
}

// GetTrust gives what is needed to trust this Hub.
func (s *Service) GetTrust(context.Context, *hubv1.GetTrustRequest) (*hubv1.Trust, error) {
	return s.trust(), nil
}

func (s *Service) trust() *hubv1.Trust {
	a := s.authorities.Load()
	t := &hubv1.Trust{TrustDomain: a.trustDomain, Roots: string(pki.EncodeCertificates(a.root.Cert)),
		RevocationSigners: string(pki.EncodeCertificates(a.signers...)), RootKeyState: "online"}
	if a.root.Key == nil {
		t.RootKeyState = "offline"
	}
	var issuers []*x509.Certificate
	for _, i := range a.issuers {
		issuers = append(issuers, i.Cert)
		if url := s.crlURL(i.KeyID()); url != "" {
			t.CrlUrls = append(t.CrlUrls, url)
		}
	}
	t.Issuers = string(pki.EncodeCertificates(append(issuers, a.between...)...))
	return t
}

// Root is the root's certificate.
func (s *Service) Root() *x509.Certificate { return s.authorities.Load().root.Cert }

// TrustDomain is the Hub's trust domain.
func (s *Service) TrustDomain() string { return s.authorities.Load().trustDomain }

// ExportRootKey gives the root's key in PEM.
func (s *Service) ExportRootKey(ctx context.Context) ([]byte, error) {
	rows, err := s.store.Authorities(ctx)
	if err != nil {
		return nil, err
	}
	for _, row := range rows {
		if row.Kind == kindRoot && row.State == active && len(row.Key) > 0 {
			return row.Key, nil
		}
	}
	return nil, errors.New("the root's key is not here: it was taken offline, or is held elsewhere")
}

// TakeRootOffline forgets the root's key, after signing the root's CRL for as
// long as the root lasts.
func (s *Service) TakeRootOffline(ctx context.Context) error {
	a := s.authorities.Load()
	if a.root.Key == nil {
		return errors.New("the root's key is offline already")
	}
	if _, err := s.signCRL(ctx, issuer{a.root, a.rootID}, a.root.Cert.NotAfter); err != nil {
		return err
	}
	if err := s.store.DropAuthorityKey(ctx, a.rootID); err != nil {
		return err
	}
	s.note(ctx, "root_offline", store.Event{})
	return s.loadAuthorities(ctx)
}

// ImportIssuer makes a CA that came from elsewhere the issuing one: chain is
// its certificate and those above it, the root last. While sidecars have joined,
// it must be of the present root: that is by what they know the Hub.
func (s *Service) ImportIssuer(ctx context.Context, chain []*x509.Certificate, key crypto.Signer) error {
	issuing, err := ca.Import(chain, key, s.now())
	if err != nil {
		return err
	}
	a := s.authorities.Load()
	made, err := s.issuingRows(issuing, a.trustDomain)
	if err != nil {
		return err
	}
	retire := []string{a.issuers[0].id, a.signerID}
	if root := chain[len(chain)-1]; !root.Equal(a.root.Cert) {
		nodes, err := s.store.Nodes(ctx, "", "")
		if err != nil {
			return err
		}
		if len(nodes) > 0 {
			return problem.New(problem.Conflict, "nodes_joined", "import before hosts join, or remove them and let them join again",
				"%s joined under the present root and would not know a Hub under another", text.Plural(len(nodes), "sidecar"))
		}
		row, err := s.row(kindRoot, root, nil)
		if err != nil {
			return err
		}
		made, retire = append(made, row), append(retire, a.rootID)
	}
	for _, c := range chain[1 : len(chain)-1] {
		row, err := s.row(kindBetween, c, nil)
		if err != nil {
			return err
		}
		made = append(made, row)
	}
	if err := s.store.AddAuthorities(ctx, made, retire...); err != nil {
		return err
	}
	s.note(ctx, "issuer_imported", store.Event{Detail: "issuing CA " + made[0].KeyID})
	return s.loadAuthorities(ctx)
}

// ServerCertificate makes a certificate for the Hub's own listener: a key that
// never leaves memory, good until a time.
func (s *Service) ServerCertificate(hosts []string, until time.Time) (*tls.Certificate, error) {
	key, err := pki.NewKey(pki.ECDSAP256)
	if err != nil {
		return nil, err
	}
	a := s.authorities.Load()
	leaf, err := a.issuers[0].HubServer(a.trustDomain, key.Public(), hosts, s.now(), until)
	if err != nil {
		return nil, err
	}
	cert := &tls.Certificate{PrivateKey: key, Leaf: leaf, Certificate: [][]byte{leaf.Raw}}
	// The root goes along, so that who knows only its hash finds it.
	for _, c := range append(a.chain(&a.issuers[0]), a.root.Cert) {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	return cert, nil
}

// ClientCAs are the CAs that nodes' certificates are under.
func (s *Service) ClientCAs() *x509.CertPool {
	a := s.authorities.Load()
	pool := x509.NewCertPool()
	pool.AddCert(a.root.Cert)
	for _, i := range a.issuers {
		pool.AddCert(i.Cert)
	}
	return pool
}

// crlLife is how long a CRL is good. It is signed anew with every revocation,
// and when half of this has passed.
const crlLife = 24 * time.Hour

type crlCache struct {
	mu sync.Mutex // one signing at a time
}

func (s *Service) crlURL(keyID string) string {
	if s.o.PublicURL == "" {
		return ""
	}
	return s.o.PublicURL + "/crl/" + keyID
}

// CRL is the revocation list of an issuer, by its key id; of the active issuing
// CA for "".
func (s *Service) CRL(ctx context.Context, keyID string) ([]byte, error) {
	a := s.authorities.Load()
	if keyID == "" {
		keyID = a.issuers[0].KeyID()
	}
	s.crls.mu.Lock()
	defer s.crls.mu.Unlock()
	kept, err := s.store.CRL(ctx, keyID)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	head, err := s.store.Head(ctx)
	if err != nil {
		return nil, err
	}
	if kept.DER != nil && kept.Sequence == head.Sequence && s.now().Before(kept.ThisUpdate.Add(crlLife/2)) {
		return kept.DER, nil
	}
	for _, i := range append([]issuer{{a.root, a.rootID}}, a.issuers...) {
		if i.KeyID() == keyID && i.Key != nil {
			return s.signCRL(ctx, i, s.now().Add(crlLife))
		}
	}
	if kept.DER != nil { // signed ahead, before the key went
		return kept.DER, nil
	}
	return nil, problem.New(problem.NotFound, "no_such_issuer", "", "this Hub has no CRL of an issuer with the key id %q", keyID)
}

func (s *Service) signCRL(ctx context.Context, i issuer, next time.Time) ([]byte, error) {
	now := s.now().UTC().Truncate(time.Second)
	head, certs, err := s.store.RevokedCertificates(ctx, i.KeyID(), now)
	if err != nil {
		return nil, err
	}
	revoked := make([]ca.Revoked, len(certs))
	for n, c := range certs {
		revoked[n] = ca.Revoked{Serial: c.Serial, At: c.RevokedAt, Reason: c.Reason}
	}
	number, err := s.store.NextCRLNumber(ctx, i.id)
	if err != nil {
		return nil, err
	}
	der, err := i.Issuer.CRL(number, now, next, revoked)
	if err != nil {
		return nil, err
	}
	return der, s.store.SaveCRL(ctx, store.CRL{IssuerKeyID: i.KeyID(), Number: number, DER: der, ThisUpdate: now, NextUpdate: next, Sequence: head.Sequence})
}
