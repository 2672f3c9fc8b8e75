package service

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"time"

	"cyphers.ai/tlsmcp/hub/store"
	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/pkg/pki"
	"cyphers.ai/tlsmcp/pkg/scan/certlint"
	"cyphers.ai/tlsmcp/pkg/score"
)

const metaInventory = "inventory_exported_at"

// hubFacts are what the Hub knows of a service that its sidecar does not: how
// the CA is kept, the keys of what was issued, and what people did. measured is
// what the sidecar says of itself.
func (s *Service) hubFacts(ctx context.Context, service string, measured *score.Facts) (score.Facts, error) {
	at := s.now().UTC()
	f := score.Facts{SchemaVersion: score.FactsSchema, Service: service}
	a := s.authorities.Load()
	protection := score.CA{RootOffline: a.root.Key == nil}
	if !protection.RootOffline {
		protection.Detail = "in the Hub's store"
	}
	f.CA = taken(at, protection, "whether the root's key is in the Hub's reach")
	tested, err1 := s.timeOf(ctx, metaAlertTested)
	exported, err2 := s.timeOf(ctx, metaInventory)
	f.AlertTest = taken(at, score.AlertTest{DeliveredAt: tested}, "the last test that a webhook took")
	f.Inventory = taken(at, score.Inventory{ExportedAt: exported}, "the last export")
	err3 := s.issuedFacts(ctx, service, measured, &f)
	return f, errors.Join(err1, err2, err3)
}

func taken[T any](at time.Time, v T, how string) *score.Fact[T] {
	return &score.Fact[T]{Value: v, MeasuredAt: at, Source: score.SourceHub, How: how}
}

// issuedFacts are about the certificate that serves, when the Hub issued it.
func (s *Service) issuedFacts(ctx context.Context, service string, measured, f *score.Facts) error {
	if measured.Certificate == nil {
		return nil
	}
	c, err := s.store.CertificateByFingerprint(ctx, service, measured.Certificate.Value.Fingerprint)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	known, ok := s.known.get(c.Fingerprint)
	if !ok {
		if known, err = s.lookAt(ctx, &c); err != nil {
			return err
		}
		s.known.put(c.Fingerprint, known)
	}
	at := s.now().UTC()
	f.KeyRotation = taken(at, known.rotation, "the keys of the certificates that the Hub issued to the service")
	f.Lint = taken(at, known.lint, "the certificate as it was issued")
	return nil
}

// knownOf is what never changes of a certificate that was issued.
type knownOf struct {
	rotation score.KeyRotation
	lint     score.Lint
}

func (s *Service) lookAt(ctx context.Context, c *store.Certificate) (knownOf, error) {
	var k knownOf
	certs, err := pki.ParseBundle([]byte(firstPEM(c.Chain)))
	if err != nil {
		return k, err
	}
	found, err := certlint.Lint(certs[0].Raw, score.DescribeCertificate(certs[0]).Public)
	if err != nil {
		return k, err
	}
	k.lint = score.Lint{Linter: certlint.Linter, Errors: found.Errors, Warnings: found.Warnings}
	k.rotation, err = s.keyOf(ctx, c, certs[0].RawSubjectPublicKeyInfo)
	return k, err
}

// keysLookedAt is how many of a service's certificates are compared, the newest
// first.
const keysLookedAt = 100

// keyOf tells since when the key of a certificate is in use, by what was issued
// before it.
func (s *Service) keyOf(ctx context.Context, c *store.Certificate, own []byte) (score.KeyRotation, error) {
	k := score.KeyRotation{Since: c.IssuedAt}
	rows, _, err := s.store.Certificates(ctx, store.CertificateFilter{ServiceID: c.ServiceID, Now: s.now(), PageSize: keysLookedAt})
	if err != nil {
		return k, err
	}
	for i := range rows {
		other := &rows[i]
		if other.ID == c.ID || other.IssuedAt.After(c.IssuedAt) {
			continue
		}
		if key, err := publicKey(other); err == nil && bytes.Equal(key, own) {
			k.Reused, k.Since = true, other.IssuedAt
		}
	}
	return k, nil
}

func publicKey(c *store.Certificate) ([]byte, error) {
	certs, err := pki.ParseBundle([]byte(firstPEM(c.Chain)))
	if err != nil {
		return nil, err
	}
	return certs[0].RawSubjectPublicKeyInfo, nil
}

// perCertificate remembers what never changes of a certificate, by fingerprint.
type perCertificate[T any] struct {
	mu sync.Mutex // guards by
	by map[string]T
}

const perCertificateMost = 20_000

func (p *perCertificate[T]) get(fingerprint string) (T, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	v, ok := p.by[fingerprint]
	return v, ok
}

func (p *perCertificate[T]) put(fingerprint string, v T) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.by == nil || len(p.by) >= perCertificateMost {
		p.by = map[string]T{} // what is needed is found out again
	}
	p.by[fingerprint] = v
}

// RecordInventory notes that the inventory was exported.
func (s *Service) RecordInventory(ctx context.Context, r *hubv1.RecordInventoryRequest) (*hubv1.RecordInventoryResponse, error) {
	if _, err := authorize(ctx, recordInventory, ""); err != nil {
		return nil, err
	}
	s.note(ctx, "inventory_exported", store.Event{Detail: clip(r.GetFormat())})
	return &hubv1.RecordInventoryResponse{}, s.store.SetMeta(ctx, metaInventory, s.now().UTC().Format(time.RFC3339))
}
