package keyring

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/pki"
)

// Issuer is where certificates of the provider internal come from: the Hub.
type Issuer interface {
	Issue(context.Context, *hubv1.IssueCertificateRequest) (*hubv1.Certificate, error)
}

// errNotYet is for a certificate that has not been issued yet.
var errNotYet = errors.New("the Hub has not issued a server certificate yet")

// internalFile holds key and chain together, so that one rename replaces both.
func (k *Keyring) internalFile() string {
	return filepath.Join(k.stateDir, "keyring", "server.pem")
}

// readInternal reads what the Hub issued earlier.
func (k *Keyring) readInternal(cfg config.ServerCert) (*Snapshot, error) {
	raw, err := os.ReadFile(k.internalFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNotYet
	}
	if err != nil {
		return nil, fmt.Errorf("server certificate: %w", err)
	}
	s, err := k.internalSnapshot(raw)
	if err != nil {
		return nil, fmt.Errorf("server certificate: %s: %w", k.internalFile(), err)
	}
	if s.Leaf.Subject.CommonName != k.serviceID || !k.namesAreThere(s, cfg) {
		return nil, errNotYet // it was for another service, or for other names
	}
	return s, nil
}

func (k *Keyring) internalSnapshot(raw []byte) (*Snapshot, error) {
	pair, err := tls.X509KeyPair(raw, raw)
	if err != nil {
		return nil, err
	}
	return &Snapshot{Certificate: &pair, Leaf: pair.Leaf, Fingerprint: pki.Fingerprint(pair.Leaf), Files: []string{k.internalFile()}}, nil
}

func (k *Keyring) namesAreThere(s *Snapshot, cfg config.ServerCert) bool {
	return !slices.ContainsFunc(cfg.Domains, func(d string) bool { return !slices.Contains(s.Leaf.DNSNames, d) })
}

// keepIssued has the Hub issue a certificate, and the next one in time, until
// ctx is done. What fails is tried again, after a pause that grows to five
// minutes; the certificate that is there serves on.
func (k *Keyring) keepIssued(ctx context.Context, cfg config.ServerCert) {
	const shortest, longest = time.Second, 5 * time.Minute
	pause := shortest
	for {
		wait := k.untilRenewal(cfg)
		if wait <= 0 {
			err := k.issue(ctx, cfg)
			if ctx.Err() != nil {
				return
			}
			if err == nil {
				pause = shortest
				continue
			}
			k.mu.Lock()
			k.failed(cfg, err)
			k.mu.Unlock()
			wait, pause = pause/2+rand.N(pause), min(2*pause, longest)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(min(wait, time.Minute)): // a clock that jumps is noticed
		}
	}
}

// untilRenewal is how long the present certificate need not be renewed: until a
// third of its life is left, or renew_before, less a little so that a fleet
// does not renew at once.
func (k *Keyring) untilRenewal(cfg config.ServerCert) time.Duration {
	s := k.current.Load()
	if s == nil || !slices.Contains(s.Files, k.internalFile()) || !k.namesAreThere(s, cfg) {
		return 0
	}
	life := s.Leaf.NotAfter.Sub(s.Leaf.NotBefore)
	before := cfg.RenewBefore
	if before <= 0 || before >= life {
		before = life / 3
	}
	if !cfg.AutoRenew {
		before = 0
	}
	// The jitter is the certificate's own, so that it does not change from one
	// look to the next.
	jitter := time.Duration(s.Leaf.SerialNumber.Bits()[0]%1000) * (before / 10) / 1000
	return s.Leaf.NotAfter.Add(-before - jitter).Sub(k.now())
}

// issue has the Hub issue a certificate for a key that is made here, and takes
// it into service.
func (k *Keyring) issue(ctx context.Context, cfg config.ServerCert) error {
	key, csr, err := pki.NewRequest(k.serviceID, cfg.Domains...)
	if err != nil {
		return err
	}
	issued, err := k.issuer.Issue(ctx, &hubv1.IssueCertificateRequest{Type: "server", ServiceId: k.serviceID, Csr: string(csr)})
	if err != nil {
		return fmt.Errorf("server certificate from the Hub: %w", err)
	}
	keyPEM, err := pki.EncodeKey(key)
	if err != nil {
		return err
	}
	both := bytes.Join([][]byte{keyPEM, []byte(issued.GetChain())}, nil)
	next, err := k.internalSnapshot(both)
	if err == nil {
		err = outsideDates(next.Leaf, k.now())
	}
	if err != nil {
		return fmt.Errorf("server certificate from the Hub: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(k.internalFile()), 0o700); err != nil {
		return err
	}
	if err := pki.WriteFileAtomic(k.internalFile(), both, 0o600); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.serve(next, cfg)
	return nil
}

// alarmDays are before how many days a certificate that nobody renews by itself
// is warned of.
func alarmDays() []int { return []int{30, 14, 7, 3, 1} }

// alarm warns once for each of [alarmDays] of a certificate that somebody has
// to renew by hand: provider commercial.
func (k *Keyring) alarm(s *Snapshot) {
	left := s.Leaf.NotAfter.Sub(k.now())
	stage := 0
	for _, days := range alarmDays() {
		if left <= time.Duration(days)*24*time.Hour {
			stage = days
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if stage == 0 || k.alarmed == (alarmStage{s.Fingerprint, stage}) {
		return
	}
	k.alarmed = alarmStage{s.Fingerprint, stage}
	say := k.log.Warn
	if stage <= 7 {
		say = k.log.Error
	}
	say("the server certificate ends soon; it has to be renewed by hand", event.KeyNotAfter, s.Leaf.NotAfter,
		event.KeyDetail, fmt.Sprintf("in %d days", int(left/(24*time.Hour))), event.KeyHint, "put the new chain and key in cert_file and key_file")
}

type alarmStage struct {
	fingerprint string
	days        int
}
