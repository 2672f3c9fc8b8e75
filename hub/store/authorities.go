package store

import (
	"context"
	"fmt"
	"time"
)

// Authority is a CA's certificate, or the revocation log's signer, with its key.
type Authority struct {
	ID          string
	Kind        string // root | issuing | revocation
	KeyID       string // revlog.KeyID of its public key
	Certificate []byte // DER
	Key         []byte // PKCS#8 in PEM; nil when it is not here
	State       string // active | retired
	CreatedAt   time.Time
	NotAfter    time.Time
}

const authorityColumns = "id, kind, key_id, certificate, private_key, state, created_at, not_after"

func scanAuthority(row scanner) (Authority, error) {
	var a Authority
	var created, after int64
	err := row.Scan(&a.ID, &a.Kind, &a.KeyID, &a.Certificate, &a.Key, &a.State, &created, &after)
	a.CreatedAt, a.NotAfter = moment(created), moment(after)
	return a, err
}

// Authorities are all of them, the newest first.
func (s *Store) Authorities(ctx context.Context) ([]Authority, error) {
	return all(ctx, s.read(), scanAuthority, "SELECT "+authorityColumns+" FROM authorities ORDER BY created_at DESC, id DESC")
}

// CreateAuthoritiesOnce adds what first makes, when there is no authority yet.
// Of two replicas that start together, one does.
func (s *Store) CreateAuthoritiesOnce(ctx context.Context, first func() ([]Authority, error)) error {
	return s.write(ctx, func(t *tx) error {
		if _, err := t.head(ctx, "UPDATE"); err != nil { // in turn
			return err
		}
		var n int
		if err := t.row(ctx, "SELECT COUNT(*) FROM authorities").Scan(&n); err != nil || n > 0 {
			return err
		}
		made, err := first()
		if err != nil {
			return err
		}
		return t.addAuthorities(ctx, made)
	})
}

// AddAuthorities adds authorities and retires others, in one step.
func (s *Store) AddAuthorities(ctx context.Context, added []Authority, retire ...string) error {
	return s.write(ctx, func(t *tx) error {
		for _, id := range retire {
			n, err := t.changed(ctx, "UPDATE authorities SET state = 'retired' WHERE id = ? AND state = 'active'", id)
			if err == nil && n == 0 {
				err = fmt.Errorf("retire authority %s: %w", id, ErrConflict)
			}
			if err != nil {
				return err
			}
		}
		return t.addAuthorities(ctx, added)
	})
}

func (t *tx) addAuthorities(ctx context.Context, added []Authority) error {
	for _, a := range added {
		err := t.exec(ctx, "INSERT INTO authorities ("+authorityColumns+") VALUES ("+marks(8)+")",
			a.ID, a.Kind, a.KeyID, a.Certificate, a.Key, a.State, micros(a.CreatedAt), micros(a.NotAfter))
		if err != nil {
			return fmt.Errorf("add authority %s: %w", a.ID, err)
		}
	}
	t.topics = append(t.topics, Authorities)
	return nil
}

// DropAuthorityKey forgets a key.
func (s *Store) DropAuthorityKey(ctx context.Context, id string) error {
	return s.write(ctx, func(t *tx) error {
		n, err := t.changed(ctx, "UPDATE authorities SET private_key = NULL WHERE id = ?", id)
		if err == nil && n == 0 {
			err = ErrNotFound
		}
		t.topics = append(t.topics, Authorities)
		return err
	})
}

// CRL is a certificate revocation list as it is served.
type CRL struct {
	IssuerKeyID            string
	Number                 int64
	DER                    []byte
	ThisUpdate, NextUpdate time.Time
	Sequence               uint64 // the log's head that it covers
}

// NextCRLNumber gives an issuer's next CRL number, each once.
func (s *Store) NextCRLNumber(ctx context.Context, authorityID string) (int64, error) {
	var n int64
	err := s.write(ctx, func(t *tx) error {
		return found(t.row(ctx, "UPDATE authorities SET crl_number = crl_number + 1 WHERE id = ? RETURNING crl_number", authorityID).Scan(&n))
	})
	return n, err
}

// SaveCRL keeps a CRL, unless one with a higher number is kept.
func (s *Store) SaveCRL(ctx context.Context, c CRL) error {
	return s.write(ctx, func(t *tx) error {
		return t.exec(ctx, `INSERT INTO crls (issuer_key_id, number, der, this_update, next_update, sequence) VALUES (`+marks(6)+`)
			ON CONFLICT (issuer_key_id) DO UPDATE SET number = excluded.number, der = excluded.der,
			this_update = excluded.this_update, next_update = excluded.next_update, sequence = excluded.sequence
			WHERE crls.number < excluded.number`,
			c.IssuerKeyID, c.Number, c.DER, micros(c.ThisUpdate), micros(c.NextUpdate), int64(c.Sequence))
	})
}

// CRL is the newest one of an issuer.
func (s *Store) CRL(ctx context.Context, issuerKeyID string) (CRL, error) {
	c := CRL{IssuerKeyID: issuerKeyID}
	var this, next, seq int64
	err := s.read().row(ctx, "SELECT number, der, this_update, next_update, sequence FROM crls WHERE issuer_key_id = ?", issuerKeyID).
		Scan(&c.Number, &c.DER, &this, &next, &seq)
	c.ThisUpdate, c.NextUpdate, c.Sequence = moment(this), moment(next), uint64(seq)
	return c, found(err)
}
