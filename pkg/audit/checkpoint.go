package audit

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"cyphers.ai/tlsmcp/pkg/pki"
)

// Check is what a checkpoint vouches for: the chain up to the entry before it.
// It can be held elsewhere, and a log be held to it.
type Check struct {
	Log       string `json:"log"`       // id of the log
	Sequence  uint64 `json:"sequence"`  // of the last entry that it covers
	Hash      Hash   `json:"hash"`      // of that entry's line
	Key       string `json:"key"`       // public key, base64
	Signature string `json:"signature"` // base64, Ed25519
}

// statement is what is signed.
func (c *Check) statement(at string) []byte {
	return fmt.Appendf(nil, "tlsmcp-audit-checkpoint/1\n%s\n%d\n%s\n%s\n", c.Log, c.Sequence, c.Hash, at)
}

// verify checks the signature. It does not say whose key it is.
func (c *Check) verify(at string) error {
	// Strict: one key, or signature, has one text.
	key, err := base64.StdEncoding.Strict().DecodeString(c.Key)
	if err != nil || len(key) != ed25519.PublicKeySize {
		return errors.New("its key is no Ed25519 key")
	}
	sig, err := base64.StdEncoding.Strict().DecodeString(c.Signature)
	if err != nil || !ed25519.Verify(key, c.statement(at), sig) {
		return errors.New("its signature does not fit")
	}
	return nil
}

// KeyID is the id of a checkpoint's key: the first 16 hexadecimal digits of its
// SHA-256.
func (c *Check) KeyID() string {
	sum := sha256.Sum256([]byte(c.Key))
	return hex.EncodeToString(sum[:8])
}

// signer signs checkpoints.
type signer struct {
	log string
	key ed25519.PrivateKey
}

func (s *signer) sign(sequence uint64, hash Hash, at time.Time) *Check {
	c := &Check{Log: s.log, Sequence: sequence, Hash: hash, Key: base64.StdEncoding.EncodeToString(s.key.Public().(ed25519.PublicKey))}
	c.Signature = base64.StdEncoding.EncodeToString(ed25519.Sign(s.key, c.statement(at.UTC().Format(timeLayout))))
	return c
}

// The files beside the entries.
const (
	keyFile  = "checkpoint.key"
	logFile  = "log-id"
	lockFile = "lock"
)

// openSigner reads the key and the log's id, or makes them the first time.
func openSigner(dir string) (*signer, error) {
	s := &signer{}
	raw, err := os.ReadFile(filepath.Join(dir, keyFile))
	var key crypto.Signer
	switch {
	case err == nil:
		if key, err = pki.ParseKey(raw); err != nil {
			return nil, fmt.Errorf("read audit key %s: %w", filepath.Join(dir, keyFile), err)
		}
	case errors.Is(err, fs.ErrNotExist):
		if key, err = newKey(filepath.Join(dir, keyFile)); err != nil {
			return nil, fmt.Errorf("make audit key: %w", err)
		}
	default:
		return nil, fmt.Errorf("read audit key: %w", err)
	}
	var ok bool
	if s.key, ok = key.(ed25519.PrivateKey); !ok {
		return nil, fmt.Errorf("read audit key %s: it is no Ed25519 key", filepath.Join(dir, keyFile))
	}
	raw, err = os.ReadFile(filepath.Join(dir, logFile))
	switch {
	case err == nil:
		s.log = string(raw)
	case errors.Is(err, fs.ErrNotExist):
		var id [8]byte
		_, _ = rand.Read(id[:]) // it never fails
		s.log = hex.EncodeToString(id[:])
		if err := pki.WriteFileAtomic(filepath.Join(dir, logFile), []byte(s.log), 0o600); err != nil {
			return nil, fmt.Errorf("name the audit log: %w", err)
		}
	default:
		return nil, fmt.Errorf("read the audit log's name: %w", err)
	}
	return s, nil
}

func newKey(path string) (crypto.Signer, error) {
	key, err := pki.NewKey(pki.Ed25519)
	if err != nil {
		return nil, err
	}
	raw, err := pki.EncodeKey(key)
	if err != nil {
		return nil, err
	}
	return key, pki.WriteFileAtomic(path, raw, 0o600)
}
