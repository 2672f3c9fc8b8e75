// Package jointoken is the form of the Hub's tokens: those that let a host
// join once, and those that people and automation show with each call.
//
// A token carries the hash of the Hub's root certificate beside its secret, so
// whoever has a token needs nothing else to know the true Hub from one that
// only answers in its place. It is text in one word, made to be found by
// scanners for leaked secrets:
//
//	tlsmcp_join_ID_SECRET_ROOT
//	tlsmcp_bearer_ID_SECRET_ROOT
//
// each part in lower-case base32 (RFC 4648 section 6) without padding. The Hub
// keeps the ID and a hash of the secret. The secret has 256 random bits, so a
// plain SHA-256 protects it as well as a slow hash would.
package jointoken

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"cyphers.ai/tlsmcp/pkg/text"
)

// Kind is what a token is for.
type Kind string

// The kinds of token.
const (
	Join   Kind = "join"   // makes a host a node of a service, once
	Bearer Kind = "bearer" // says who calls
)

const (
	prefix     = "tlsmcp_"
	idBytes    = 10
	secretSize = 32
	redacted   = "REDACTED"
)

// Secret is the part of a token that nobody else may know. However it is
// printed, it is not shown.
type Secret struct{ bytes [secretSize]byte }

func (Secret) String() string               { return redacted }
func (Secret) GoString() string             { return redacted }
func (Secret) LogValue() slog.Value         { return slog.StringValue(redacted) }
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Token is a token in its parts.
type Token struct {
	Kind   Kind
	ID     string // 16 characters; not secret
	Secret Secret
	Root   [sha256.Size]byte // SHA-256 of the Hub's root certificate in DER
}

// New makes a token.
func New(k Kind, root [sha256.Size]byte) Token {
	var id [idBytes]byte
	t := Token{Kind: k, Root: root}
	// crypto/rand.Read never fails: it ends the program instead.
	_, _ = rand.Read(id[:])
	_, _ = rand.Read(t.Secret.bytes[:])
	t.ID = encode(id[:])
	return t
}

// Reveal writes the whole token, secret included.
func (t Token) Reveal() string {
	return prefix + string(t.Kind) + "_" + t.ID + "_" + encode(t.Secret.bytes[:]) + "_" + encode(t.Root[:])
}

// Parse reads a token; space around it, as a file's line end, is no part of it.
// Its errors do not show what they are about.
func Parse(s string) (Token, error) {
	s = strings.TrimSpace(s)
	if s == "" {
		return Token{}, errors.New("the token is empty")
	}
	parts := strings.Split(s, "_")
	if len(parts) < 2 || parts[0]+"_" != prefix {
		return Token{}, errors.New(`it is not a token of a tlsmcp Hub: those begin with "tlsmcp_join_" or "tlsmcp_bearer_"`)
	}
	t := Token{Kind: Kind(parts[1])}
	if t.Kind != Join && t.Kind != Bearer {
		return Token{}, errors.New("the token is of a kind that this version does not know")
	}
	if len(parts) != 5 {
		return Token{}, fmt.Errorf("the token has %s instead of 5: it may have been cut when it was copied", text.Plural(len(parts), "part"))
	}
	var id [idBytes]byte
	for i, part := range [][]byte{id[:], t.Secret.bytes[:], t.Root[:]} {
		if err := decode(part, parts[2+i]); err != nil {
			return Token{}, fmt.Errorf("the token's %s %w", [...]string{"id", "secret", "root hash"}[i], err)
		}
	}
	t.ID = parts[2]
	return t, nil
}

// Hash is what the Hub keeps of the secret.
func (t Token) Hash() [sha256.Size]byte { return sha256.Sum256(t.Secret.bytes[:]) }

// Matches tells whether the secret is the one whose hash was kept, in constant
// time.
func (t Token) Matches(hash []byte) bool {
	own := t.Hash()
	return subtle.ConstantTimeCompare(own[:], hash) == 1
}

func encoding() *base32.Encoding {
	return base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)
}

func encode(b []byte) string { return encoding().EncodeToString(b) }

// decode fills into from its one spelling. base32 would let trailing bits of
// any value pass, and line ends.
func decode(into []byte, s string) error {
	if want := encoding().EncodedLen(len(into)); len(s) != want {
		return fmt.Errorf("has %s instead of %d: it may have been cut when it was copied", text.Plural(len(s), "character"), want)
	}
	raw, err := encoding().DecodeString(s)
	if err != nil || len(raw) != len(into) || encode(raw) != s {
		return errors.New("has characters that do not belong there")
	}
	copy(into, raw)
	return nil
}
