package store

import (
	"context"
	"fmt"
	"time"
)

// Token is a join or bearer token as the Hub keeps it.
type Token struct {
	ID         string
	Kind       string // join | bearer
	Role       string // bearer: viewer | operator | admin
	Service    string // join: the service id; bearer: a glob, empty for every service
	Note       string
	SecretHash []byte
	CreatedAt  time.Time
	CreatedBy  string
	ExpiresAt  time.Time
	UsedAt     time.Time // join
	UsedBy     string
	RevokedAt  time.Time
}

// Status is active, used, expired or revoked.
func (t *Token) Status(now time.Time) string {
	switch {
	case !t.RevokedAt.IsZero():
		return "revoked"
	case !t.UsedAt.IsZero():
		return "used"
	case !now.Before(t.ExpiresAt):
		return "expired"
	}
	return "active"
}

const tokenColumns = "id, kind, role, service, note, secret_hash, created_at, created_by, expires_at, used_at, used_by, revoked_at"

func scanToken(row scanner) (Token, error) {
	var t Token
	var created, expires, used, revoked int64
	err := row.Scan(&t.ID, &t.Kind, &t.Role, &t.Service, &t.Note, &t.SecretHash, &created, &t.CreatedBy, &expires, &used, &t.UsedBy, &revoked)
	t.CreatedAt, t.ExpiresAt, t.UsedAt, t.RevokedAt = moment(created), moment(expires), moment(used), moment(revoked)
	return t, err
}

// AddToken keeps a new token.
func (s *Store) AddToken(ctx context.Context, k Token) error {
	return s.write(ctx, func(t *tx) error {
		return t.exec(ctx, "INSERT INTO tokens ("+tokenColumns+") VALUES ("+marks(9)+", 0, '', 0)",
			k.ID, k.Kind, k.Role, k.Service, k.Note, k.SecretHash, micros(k.CreatedAt), k.CreatedBy, micros(k.ExpiresAt))
	})
}

// Token is one token.
func (s *Store) Token(ctx context.Context, id string) (Token, error) {
	t, err := scanToken(s.read().row(ctx, "SELECT "+tokenColumns+" FROM tokens WHERE id = ?", id))
	return t, found(err)
}

// Tokens are all tokens, the newest first.
func (s *Store) Tokens(ctx context.Context) ([]Token, error) {
	return all(ctx, s.read(), scanToken, "SELECT "+tokenColumns+" FROM tokens ORDER BY created_at DESC, id DESC")
}

// RevokeToken ends a token. One that has ended already stays as it is.
func (s *Store) RevokeToken(ctx context.Context, id string) error {
	return s.write(ctx, func(t *tx) error {
		n, err := t.changed(ctx, "UPDATE tokens SET revoked_at = CASE WHEN revoked_at = 0 THEN ? ELSE revoked_at END WHERE id = ?", micros(s.now()), id)
		if err == nil && n == 0 {
			err = ErrNotFound
		}
		return err
	})
}

// useToken uses a join token, which nobody can do twice.
func (t *tx) useToken(ctx context.Context, id, by string, now time.Time) error {
	n, err := t.changed(ctx, "UPDATE tokens SET used_at = ?, used_by = ? WHERE id = ? AND kind = 'join' AND used_at = 0 AND revoked_at = 0 AND expires_at > ?",
		micros(now), by, id, micros(now))
	if err != nil || n == 1 {
		return err
	}
	k, err := scanToken(t.row(ctx, "SELECT "+tokenColumns+" FROM tokens WHERE id = ?", id))
	if err != nil {
		return found(err)
	}
	switch k.Status(now) {
	case "used":
		return ErrUsed
	case "expired":
		return ErrExpired
	}
	return ErrNotFound
}

// PruneTokens forgets tokens that ended before a time.
func (s *Store) PruneTokens(ctx context.Context, before time.Time) (int, error) {
	var n int
	err := s.write(ctx, func(t *tx) (err error) {
		n, err = t.changed(ctx, "DELETE FROM tokens WHERE expires_at < ?", micros(before))
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("prune tokens: %w", err)
	}
	return n, nil
}
