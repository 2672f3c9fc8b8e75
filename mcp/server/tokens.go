package server

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"sync"
	"time"
)

// tokens are what confirms a revocation when nobody can be asked, and what ties
// an answer to its question when somebody is. One is good once, for a short time,
// for the caller that got it, and for exactly what it was given for.
type tokens struct {
	now  func() time.Time
	rand io.Reader

	mu     sync.Mutex // guards what follows
	issued map[[sha256.Size]byte]grant
}

// grant is what a token is good for. The token itself is kept as its hash.
type grant struct {
	caller, purpose string
	until           time.Time
	used            bool // kept until it is over, to say so
}

const (
	tokenLife = 2 * time.Minute
	askLife   = 10 * time.Minute // that a person has to answer
	tokenMost = 256              // that are kept at the same time
)

func newTokens(now func() time.Time, random io.Reader) *tokens {
	return &tokens{now: now, rand: random, issued: map[[sha256.Size]byte]grant{}}
}

// issue gives a caller a token for a purpose, good for so long.
func (t *tokens) issue(caller, purpose string, life time.Duration) (token string, until time.Time, err error) {
	raw := make([]byte, 24)
	if _, err := io.ReadFull(t.rand, raw); err != nil {
		return "", time.Time{}, fmt.Errorf("make a token: %w", err)
	}
	token, until = base64.RawURLEncoding.EncodeToString(raw), t.now().Add(life)
	t.mu.Lock()
	defer t.mu.Unlock()
	for hash, g := range t.issued {
		if t.now().After(g.until.Add(tokenLife)) { // a late one is told so for a while
			delete(t.issued, hash)
		}
	}
	if len(t.issued) >= tokenMost {
		return "", time.Time{}, refused("too_many_tokens", "wait two minutes", "too many revocations were previewed and not done")
	}
	t.issued[sha256.Sum256([]byte(token))] = grant{caller: caller, purpose: purpose, until: until}
	return token, until, nil
}

const previewAgain = "call tlsmcp_revoke_preview for exactly what is to be revoked, and use the token that it gives, once and at once"

// redeem takes a token. A wrong use does not spend it for its owner, so that
// nobody who guesses or repeats can get in the owner's way.
func (t *tokens) redeem(caller, purpose, token string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	hash := sha256.Sum256([]byte(token))
	g, ok := t.issued[hash]
	switch {
	case !ok || g.caller != caller: // another's token is as good as none
		return refused("token_unknown", previewAgain, "this confirm_token was not given to this caller")
	case g.used:
		return refused("token_used", previewAgain, "this confirm_token was used already")
	case t.now().After(g.until):
		return refused("token_late", previewAgain, "this confirm_token is over: it was good until %s", g.until.UTC().Format(time.RFC3339))
	case g.purpose != purpose:
		return refused("token_other", previewAgain, "this confirm_token was given for another revocation")
	}
	g.used = true
	t.issued[hash] = g
	return nil
}
