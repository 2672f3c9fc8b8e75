package keyring

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"time"

	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/pki"
)

// source is where the keyring gets certificates by itself.
type source interface {
	// file holds key and chain together, so that one rename replaces both.
	file() string

	// obtain has a certificate issued for a key that is made for it, and gives
	// both in PEM. Replaced is the one that serves so far; nil: none that fits.
	obtain(ctx context.Context, replaced *x509.Certificate) ([]byte, error)

	// fits tells whether a certificate is for whom it should be.
	fits(*x509.Certificate) bool

	// advice is when the issuer wants the certificate renewed; zero: it does
	// not say.
	advice(context.Context, *x509.Certificate) time.Time

	// pace is how long to wait after an attempt.
	pace() pace
}

// pace is how often a source is bothered.
type pace struct {
	shortest, longest time.Duration // after a failure, give or take a half; doubled each time
	rest              time.Duration // after a success
	until             time.Time     // the source itself asked for silence until then
}

// errNotYet is for a certificate that has not been issued yet.
var errNotYet = errors.New("no server certificate has been issued yet")

// source returns what a provider's certificates come from.
func (k *Keyring) source(cfg config.ServerCert) (source, error) {
	switch {
	case cfg.Provider == config.ProviderInternal && k.issuer == nil:
		return nil, errors.New("server certificate: provider internal needs a Hub, and there is none")
	case k.stateDir == "":
		return nil, fmt.Errorf("server certificate: provider %s needs a state directory", cfg.Provider)
	case cfg.Provider == config.ProviderInternal:
		return &hubSource{issuer: k.issuer, serviceID: k.serviceID, domains: cfg.Domains, dir: k.stateDir}, nil
	case cfg.Provider == config.ProviderLetsEncrypt:
		return k.newACME(cfg)
	}
	return nil, fmt.Errorf("server certificate: there is no provider %q", cfg.Provider)
}

// readIssued reads what was issued earlier. What is of no use is not an error:
// another one is issued.
func (k *Keyring) readIssued(src source) (*Snapshot, error) {
	raw, err := os.ReadFile(src.file())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNotYet
	}
	if err != nil {
		return nil, fmt.Errorf("server certificate: %w", err)
	}
	s, err := issuedSnapshot(src, raw, k.now())
	if err != nil {
		k.log.Warn("the server certificate that was kept is of no use, another is needed", event.KeyFile, src.file(), event.KeyError, err)
		return nil, errNotYet
	}
	return s, nil
}

// issuedSnapshot builds a snapshot from key and chain, and refuses one that
// must not serve.
func issuedSnapshot(src source, keyAndChain []byte, now time.Time) (*Snapshot, error) {
	pair, err := tls.X509KeyPair(keyAndChain, keyAndChain)
	if err != nil {
		return nil, err
	}
	if !src.fits(pair.Leaf) {
		return nil, fmt.Errorf("the certificate is for %q with the names %q, not for whom it should be", pair.Leaf.Subject.CommonName, pair.Leaf.DNSNames)
	}
	if err := outsideDates(pair.Leaf, now); err != nil {
		return nil, err
	}
	return &Snapshot{Certificate: &pair, Leaf: pair.Leaf, Fingerprint: pki.Fingerprint(pair.Leaf), Files: []string{src.file()}}, nil
}

// hasNames tells whether a certificate is for all of the names.
func hasNames(c *x509.Certificate, names []string) bool {
	return !slices.ContainsFunc(names, func(n string) bool { return c.VerifyHostname(n) != nil })
}

// keyAndChain joins them for one file.
func keyAndChain(key crypto.Signer, chain []byte) ([]byte, error) {
	keyPEM, err := pki.EncodeKey(key)
	if err != nil {
		return nil, err
	}
	return bytes.Join([][]byte{keyPEM, chain}, nil), nil
}

// keepIssued has a certificate issued, and the next one in time, until ctx is
// done. What fails is tried again after a pause that grows; the certificate
// that is there serves on.
func (k *Keyring) keepIssued(ctx context.Context, cfg config.ServerCert) {
	src, err := k.source(cfg)
	if err != nil { // it was good when the configuration was taken
		k.takeFailure(ctx, cfg, err)
		<-ctx.Done()
		return
	}
	var (
		pause time.Duration // after the next failure
		again time.Time     // no attempt before
	)
	for ctx.Err() == nil {
		p := src.pace()
		wait := max(k.untilRenewal(ctx, cfg, src), time.Until(again), time.Until(p.until))
		if wait <= 0 {
			pause = min(max(pause, p.shortest), p.longest)
			wait = p.rest
			if err := k.issue(ctx, cfg, src); err != nil {
				k.takeFailure(ctx, cfg, err)
				wait, pause = pause/2+rand.N(pause), 2*pause
			} else {
				pause = 0
			}
			again = time.Now().Add(wait)
		}
		select {
		case <-ctx.Done():
		case <-time.After(min(wait, time.Minute)): // a clock that jumps is noticed
		}
	}
}

// takeFailure notes an error, unless the configuration has moved on.
func (k *Keyring) takeFailure(ctx context.Context, cfg config.ServerCert, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if ctx.Err() == nil && reflect.DeepEqual(k.cfg, cfg) {
		k.failed(cfg, err)
	}
}

// untilRenewal is how long the present certificate need not be renewed: until
// its issuer wants it or, when that is unknown, until a third of its life is
// left. The configuration overrides both. A little is taken off so that a fleet
// does not renew at once.
func (k *Keyring) untilRenewal(ctx context.Context, cfg config.ServerCert, src source) time.Duration {
	s := k.Current()
	if s == nil || s.Files[0] != src.file() || !src.fits(s.Leaf) || k.stranger.Load() {
		return 0
	}
	if !cfg.AutoRenew {
		return s.Leaf.NotAfter.Sub(k.now())
	}
	life, before := s.Leaf.NotAfter.Sub(s.Leaf.NotBefore), cfg.RenewBefore
	if before <= 0 || before >= life {
		if at := src.advice(ctx, s.Leaf); !at.IsZero() {
			return at.Sub(k.now())
		}
		before = life / 3
	}
	// The jitter is the certificate's own, so that it does not change from one
	// look to the next.
	sum := sha256.Sum256(s.Leaf.Raw)
	jitter := time.Duration(binary.BigEndian.Uint16(sum[:])) * (before / 10) >> 16
	return s.Leaf.NotAfter.Add(-before - jitter).Sub(k.now())
}

// issue has a certificate issued, keeps it, and takes it into service.
func (k *Keyring) issue(ctx context.Context, cfg config.ServerCert, src source) error {
	var replaced *x509.Certificate
	if s := k.Current(); s != nil && s.Files[0] == src.file() && src.fits(s.Leaf) {
		replaced = s.Leaf
	}
	both, err := src.obtain(ctx, replaced)
	if err != nil {
		return fmt.Errorf("server certificate: %w", err)
	}
	k.stranger.Store(false) // one order for each word of the Hub's
	if pair, err := tls.X509KeyPair(both, both); err == nil && k.issued != nil {
		k.issued(pair.Leaf, replaced)
	}
	next, err := issuedSnapshot(src, both, k.now())
	if err != nil {
		return fmt.Errorf("server certificate that was issued: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(src.file()), 0o700); err != nil {
		return fmt.Errorf("server certificate: %w", err)
	}
	if err := pki.WriteFileAtomic(src.file(), both, 0o600); err != nil {
		return fmt.Errorf("server certificate: %w", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if reflect.DeepEqual(k.cfg, cfg) { // else a reload came in between, and its certificate stays
		k.serve(next, cfg)
	}
	return nil
}
