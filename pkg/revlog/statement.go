package revlog

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// Statement is what the Hub signs about a piece of the log.
type Statement struct {
	LogID     string
	From      uint64 // position before the piece
	FromHash  Hash
	To        uint64 // position after it
	Hash      Hash
	Snapshot  bool
	StateHash Hash // of a snapshot's entries; zero otherwise
	SignedAt  time.Time
	KeyID     string // see [KeyID]; not signed: another key's id fails the signature
	Signature []byte
}

// Delta is a piece of the log. Deltas are not changed after they are made.
type Delta struct {
	Statement
	Entries []Entry
}

// Text is what the signature is over: one line a field, times in RFC 3339 UTC.
func (s *Statement) Text() []byte {
	kind := "delta"
	if s.Snapshot {
		kind = "snapshot"
	}
	return fmt.Appendf(nil, "tlsmcp revocation statement v1\n%s\n%s\n%d\n%s\n%d\n%s\n%s\n%s\n",
		s.LogID, kind, s.From, s.FromHash, s.To, s.Hash, s.StateHash, s.SignedAt.UTC().Format(time.RFC3339Nano))
}

// Sign fills in key id and signature. The key is Ed25519 or ECDSA.
func (s *Statement) Sign(key crypto.Signer) error {
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return fmt.Errorf("sign revocation statement: %w", err)
	}
	s.KeyID = KeyID(spki)
	text := s.Text()
	switch key.Public().(type) {
	case ed25519.PublicKey:
		s.Signature, err = key.Sign(rand.Reader, text, crypto.Hash(0))
	case *ecdsa.PublicKey:
		digest := sha256.Sum256(text)
		s.Signature, err = key.Sign(rand.Reader, digest[:], crypto.SHA256)
	default:
		err = fmt.Errorf("a key of type %T cannot sign it", key.Public())
	}
	if err != nil {
		return fmt.Errorf("sign revocation statement: %w", err)
	}
	return nil
}

// Keys are the Hub's revocation keys by [KeyID].
type Keys map[string]crypto.PublicKey

// ErrSignature is for a statement that no known revocation key signed.
var ErrSignature = errors.New("it is not signed by the Hub's revocation key")

// Verify checks the signature.
func (s *Statement) Verify(keys Keys) error {
	ok := false
	switch key := keys[s.KeyID].(type) {
	case ed25519.PublicKey:
		ok = ed25519.Verify(key, s.Text(), s.Signature)
	case *ecdsa.PublicKey:
		digest := sha256.Sum256(s.Text())
		ok = ecdsa.VerifyASN1(key, digest[:], s.Signature)
	case nil:
		return fmt.Errorf("%w: key %q is not known", ErrSignature, s.KeyID)
	}
	if !ok {
		return ErrSignature
	}
	return nil
}

// NewDelta makes a delta, unsigned: entries follow the position from, whose
// hash is fromHash.
func NewDelta(logID string, from uint64, fromHash Hash, entries []Entry, now time.Time) Delta {
	d := Delta{Entries: entries, Statement: Statement{
		LogID: logID, From: from, FromHash: fromHash, To: from, Hash: fromHash, SignedAt: now.UTC().Truncate(time.Microsecond)}}
	for i := range entries {
		d.To, d.Hash = entries[i].Sequence, d.Hash.Next(&entries[i])
	}
	return d
}

// NewSnapshot makes a snapshot, unsigned: entries are what is in force at the
// position to, whose hash is hash.
func NewSnapshot(logID string, to uint64, hash Hash, entries []Entry, now time.Time) Delta {
	return Delta{Entries: entries, Statement: Statement{
		LogID: logID, FromHash: Genesis(logID), To: to, Hash: hash, Snapshot: true,
		StateHash: stateHash(entries), SignedAt: now.UTC().Truncate(time.Microsecond)}}
}

func stateHash(entries []Entry) Hash {
	var b bytes.Buffer
	for i := range entries {
		b.Write(entries[i].appendText(nil))
	}
	return sha256.Sum256(b.Bytes())
}
