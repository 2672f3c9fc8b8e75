package service

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"cyphers.ai/tlsmcp/hub/ca"
	"cyphers.ai/tlsmcp/hub/store"
	"cyphers.ai/tlsmcp/ipc/hub"
	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/pkg/pki"
	"cyphers.ai/tlsmcp/pkg/revlog"
)

const (
	metaCanary = "canary"
	// canaryLife is how long a canary is within its dates: for as long it can be
	// told from one that has only expired.
	canaryLife = 7 * 24 * time.Hour
	// canaryLook is how often the store is asked for the present one.
	canaryLook = 5 * time.Second
)

// canaries hold the certificate that was revoked to see whether sidecars refuse
// it. There is one for the whole fleet, and a new one every so often for as long
// as somebody asks: each is an entry of the revocation log.
type canaries struct {
	mu      sync.Mutex // guards what follows; one is made at a time
	present *keptCanary
	asked   time.Time // when the store was
}

// keptCanary is a canary as the store keeps it. Its key is worth nothing.
type keptCanary struct {
	ID        string    `json:"id"`
	Chain     string    `json:"chain"`
	Key       string    `json:"key"`
	RevokedAt time.Time `json:"revoked_at"`
	Sequence  uint64    `json:"sequence"`
}

// canary is the present one.
func (s *Service) canary(ctx context.Context) (*hubv1.Canary, error) {
	s.canaries.mu.Lock()
	defer s.canaries.mu.Unlock()
	c := s.canaries.present
	if now := s.now(); c == nil || now.Sub(s.canaries.asked) >= canaryLook {
		var err error
		if c, err = s.keptCanary(ctx); err != nil {
			return nil, err
		}
		if c == nil || now.Sub(c.RevokedAt) >= s.o.CanaryEvery {
			if c, err = s.newCanary(ctx); err != nil {
				return nil, fmt.Errorf("make a canary: %w", err)
			}
		}
		s.canaries.present, s.canaries.asked = c, now
	}
	return &hubv1.Canary{Id: c.ID, Chain: c.Chain, Key: c.Key, RevokedAt: hub.Stamp(c.RevokedAt), Sequence: c.Sequence}, nil
}

// keptCanary is the store's; nil when there is none.
func (s *Service) keptCanary(ctx context.Context) (*keptCanary, error) {
	text, err := s.store.Meta(ctx, metaCanary)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	c := new(keptCanary)
	if err == nil {
		err = json.Unmarshal([]byte(text), c)
	}
	return c, err
}

// newCanary issues a certificate and revokes it.
func (s *Service) newCanary(ctx context.Context) (*keptCanary, error) {
	key, err := pki.NewKey(pki.ECDSAP256)
	if err != nil {
		return nil, err
	}
	keyPEM, err := pki.EncodeKey(key)
	if err != nil {
		return nil, err
	}
	var name [8]byte
	_, _ = rand.Read(name[:]) // it never fails
	leaf := ca.Leaf{Type: ca.Canary, ServiceID: hex.EncodeToString(name[:]), PublicKey: key.Public()}
	row, err := s.sign(ctx, leaf, canaryLife, Actor{Name: store.ByCanary}, "")
	if err != nil {
		return nil, err
	}
	row.Names = nil // nobody revokes it by name
	if err := s.store.AddCertificate(ctx, row); err != nil {
		return nil, err
	}
	_, done, err := s.store.Revoke(ctx, row.ID, revlog.CessationOfOperation, store.ByCanary)
	if err != nil {
		return nil, err
	}
	c := &keptCanary{ID: row.ID, Chain: row.Chain, Key: string(keyPEM), RevokedAt: done.Entry.RevokedAt, Sequence: done.Entry.Sequence}
	raw, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	return c, s.store.SetMeta(ctx, metaCanary, string(raw))
}
