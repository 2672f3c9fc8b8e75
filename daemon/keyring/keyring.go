// Package keyring holds the certificate that clients see, and keeps it fresh.
//
// It comes from two files that somebody else writes, or the keyring gets it by
// itself and renews it, for a key that is made here: from the Hub, or from an ACME
// server to which it proves that its names lead here.
//
// What serves is one immutable [Snapshot] behind an atomic pointer: a handshake
// reads it without a lock, and a swap is one store. A new snapshot is built and
// checked whole before it takes the place of the old one, so that a file that
// is half written, a key of another certificate, or a certificate that is not
// valid at this hour never reaches a client. The old one goes on serving then,
// and the keyring says what is wrong: once in the log, and in [Keyring.Health]
// for as long as it lasts.
//
// Certificate and key are two files, and whoever renews them writes one after
// the other. Between the two writes they do not belong together. That is not a
// special case here: the pair is refused, the old one serves on, and the second
// write brings another look.
//
// At the start there is no old one, so files that cannot be used stop the
// start. Only a certificate outside its dates does not: no client will accept
// it, but the daemon is there to take up the fresh one when it comes.
package keyring

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"cyphers.ai/tlsmcp/daemon/filewatch"
	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/pki"
)

// Options are what a Keyring needs from outside. The zero value discards the
// log and reads the real clock.
type Options struct {
	Log *slog.Logger
	Now func() time.Time

	// Swapped is told of each certificate that comes into service, under a lock:
	// it must be quick. Optional.
	Swapped func(*Snapshot)

	// Issued is told of each certificate that was ordered and came, before it is
	// taken into service, and which one it takes the place of; nil: of none.
	// Optional.
	Issued func(leaf, replaced *x509.Certificate)

	// Issuer is for the provider internal; nil: there is no Hub.
	Issuer    Issuer
	ServiceID string

	// StateDir is where what was issued is kept, in a directory "keyring".
	// Required by the providers that have certificates issued.
	StateDir string
}

// Snapshot is a certificate as it serves. It is never changed; the next one
// takes its place.
type Snapshot struct {
	Certificate *tls.Certificate
	Leaf        *x509.Certificate
	Fingerprint string    // of the leaf: lower-case hex SHA-256 of its DER
	Files       []string  // what it was read from: certificate, key
	LoadedAt    time.Time // when it began to serve

	keyWarning string // the key file is open to others; empty when it is not
}

// Health is how the keyring is.
type Health struct {
	Err     error     // why the files are not what serves, or why what serves is no good; nil when all is well
	Since   time.Time // when Err began; without one, when the present certificate began to serve
	Warning string    // worth mending, and serving all the same
	Swaps   uint64    // certificates taken into service, the first included
	Fails   uint64    // times that the files could not be taken
}

// Keyring serves one certificate.
type Keyring struct {
	log     *slog.Logger
	now     func() time.Time
	current atomic.Pointer[Snapshot]
	moved   chan struct{} // cap 1: the files to watch are others now

	issuer    Issuer
	serviceID string
	stateDir  string
	started   time.Time
	swapped   func(*Snapshot)
	issued    func(leaf, replaced *x509.Certificate)
	acmePace  pace
	stranger  atomic.Bool // what serves is not of the Hub's CA: another is ordered

	challenges challenges
	httpAddr   atomic.Value // a net.Addr: where HTTP-01 is answered

	mu      sync.Mutex // guards what follows, and makes loads one at a time
	cfg     config.ServerCert
	err     error // of the last load
	since   time.Time
	warned  string // the key warning that was logged
	alarmed alarmStage
	swaps   uint64
	fails   uint64
}

// New loads the certificate. It fails when files that are configured cannot be
// used. A certificate that is yet to be issued is not waited for: [Keyring.Run]
// gets it.
func New(cfg config.ServerCert, o Options) (*Keyring, error) {
	k := &Keyring{log: o.Log, swapped: o.Swapped, issued: o.Issued, now: o.Now, moved: make(chan struct{}, 1), issuer: o.Issuer, serviceID: o.ServiceID, stateDir: o.StateDir, acmePace: acmePace()}
	if k.log == nil {
		k.log = slog.New(slog.DiscardHandler)
	}
	if k.now == nil {
		k.now = time.Now
	}
	k.started = k.now()
	if err := k.Reload(cfg); err != nil {
		return nil, err
	}
	return k, nil
}

// Current is the certificate that serves; nil while the first one is yet to be
// issued.
func (k *Keyring) Current() *Snapshot { return k.current.Load() }

// HTTPAddr is where HTTP-01 challenges are answered; nil: nowhere.
func (k *Keyring) HTTPAddr() net.Addr {
	a, _ := k.httpAddr.Load().(net.Addr)
	return a
}

// ErrNone is what a handshake fails with while there is no certificate yet.
var ErrNone = errors.New("there is no server certificate yet")

// Follow orders another certificate when the one that the Hub issued is from none
// of its roots: the sidecar has come to another Hub, or to one that was made anew,
// whose clients know no other CA. Until it comes the old one serves.
func (k *Keyring) Follow(roots []*x509.Certificate) {
	s := k.Current()
	k.mu.Lock()
	internal := k.cfg.Provider == config.ProviderInternal
	k.mu.Unlock()
	if s == nil || !internal || len(roots) == 0 || k.isFrom(s, roots) {
		return
	}
	k.log.Warn("the server certificate is of another CA than the Hub's, another is ordered", event.KeyFile, s.Files[0])
	k.stranger.Store(true)
	k.wake()
}

// isFrom reports whether a certificate's chain ends at one of the roots.
func (k *Keyring) isFrom(s *Snapshot, roots []*x509.Certificate) bool {
	o := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: k.now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
	for _, r := range roots {
		o.Roots.AddCert(r)
	}
	for _, der := range s.Certificate.Certificate[1:] {
		if c, err := x509.ParseCertificate(der); err == nil {
			o.Intermediates.AddCert(c)
		}
	}
	_, err := s.Leaf.Verify(o)
	return err == nil
}

// wake has the watching begin anew.
func (k *Keyring) wake() {
	select {
	case k.moved <- struct{}{}:
	default:
	}
}

// GetCertificate is for tls.Config. It never waits, and fails only while there
// is no certificate yet.
func (k *Keyring) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if s := k.Current(); s != nil {
		return s.Certificate, nil
	}
	return nil, ErrNone
}

// Run watches the files and takes up what changes, or has the certificate issued
// and renewed, until ctx is done. It returns nil.
func (k *Keyring) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		k.watch(ctx)
	}
	return nil
}

// watch follows the present files until ctx is done or a Reload named others.
func (k *Keyring) watch(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		defer cancel()
		select {
		case <-k.moved:
		case <-ctx.Done():
		}
	})
	k.mu.Lock()
	cfg := k.cfg
	k.mu.Unlock()
	wg.Go(func() { k.keepAlarming(ctx) })
	if cfg.Provider == config.ProviderLetsEncrypt && cfg.ACMEHTTPAddress != "" {
		wg.Go(func() { k.serveChallenges(ctx, cfg.ACMEHTTPAddress) })
	}
	if issues(cfg.Provider) {
		k.keepIssued(ctx, cfg)
	} else {
		filewatch.Watch(ctx, k.log, []string{cfg.CertFile, cfg.KeyFile}, k.refresh)
	}
	cancel()
	wg.Wait()
}

// issues tells whether the keyring gets a provider's certificates by itself.
func issues(p config.Provider) bool {
	return p == config.ProviderInternal || p == config.ProviderLetsEncrypt
}

// refresh looks at the present files again. What is wrong with them is in the
// log and in Health; there is nobody to return it to.
func (k *Keyring) refresh() {
	k.mu.Lock()
	defer k.mu.Unlock()
	_ = k.load(k.cfg)
}

// Reload takes up another configuration. On an error the certificate, and where
// it comes from, stay as they were. While another certificate is being issued the
// old one serves on.
func (k *Keyring) Reload(cfg config.ServerCert) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.load(cfg); err != nil {
		return err
	}
	if !reflect.DeepEqual(cfg, k.cfg) {
		k.wake()
	}
	k.cfg = cfg
	return nil
}

// load reads the files and swaps when they hold something new that may serve.
// The caller holds mu.
func (k *Keyring) load(cfg config.ServerCert) error {
	next, err := k.read(cfg)
	if errors.Is(err, errNotYet) {
		return nil // Run has it issued; until then what is there serves on
	}
	if err == nil {
		err = k.mayReplace(next)
	}
	if err != nil {
		k.failed(cfg, err)
		return err
	}
	k.serve(next, cfg)
	return nil
}

// serve takes a snapshot into service. The caller holds mu.
func (k *Keyring) serve(next *Snapshot, cfg config.ServerCert) {
	file := next.Files[0]
	if k.err != nil {
		k.log.Info("the server certificate is well again", event.KeyFile, file)
		k.err, k.since = nil, time.Time{}
	}
	if next.keyWarning != k.warned && next.keyWarning != "" {
		k.log.Warn(next.keyWarning, event.KeyFile, cfg.KeyFile, event.KeyHint, "chmod 0600")
	}
	k.warned = next.keyWarning
	old := k.Current()
	if old != nil && same(old, next) {
		if old.keyWarning != next.keyWarning || !slices.Equal(old.Files, next.Files) {
			next.LoadedAt = old.LoadedAt // the certificate is the same one
			k.current.Store(next)
		}
		return
	}
	next.LoadedAt = k.now()
	k.current.Store(next)
	k.swaps++
	k.log.Info("server certificate in service", event.KeyFile, file, event.KeyFinger, next.Fingerprint,
		event.KeyNotAfter, next.Leaf.NotAfter)
	if k.swapped != nil {
		k.swapped(next)
	}
	if err := outsideDates(next.Leaf, k.now()); err != nil {
		k.log.Error("no client will accept the server certificate", event.KeyFile, file, event.KeyError, err)
	}
}

// failed notes an error. A fault that lasts is seen by every look at the files
// and logged by the first.
func (k *Keyring) failed(cfg config.ServerCert, err error) {
	k.fails++
	if k.err != nil && k.err.Error() == err.Error() {
		return
	}
	if k.err == nil {
		k.since = k.now()
	}
	k.err = err
	switch {
	case k.Current() != nil:
		k.log.Error("server certificate not replaced, the old one serves on", event.KeyFile, k.Current().Files[0], event.KeyError, err)
	case issues(cfg.Provider):
		k.log.Error("there is no server certificate, nobody can connect", event.KeyError, err)
	}
}

// Health tells how the keyring is now. It asks the clock: a certificate that
// was good when it was loaded expires without anything happening.
func (k *Keyring) Health() Health {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.Current()
	if s == nil {
		return Health{Err: cmp.Or(k.err, errNotYet), Since: cmp.Or(k.since, k.started), Swaps: k.swaps, Fails: k.fails}
	}
	h := Health{Err: k.err, Since: k.since, Warning: s.keyWarning, Swaps: k.swaps, Fails: k.fails}
	if err := outsideDates(s.Leaf, k.now()); err != nil {
		if h.Err == nil {
			h.Since = s.LoadedAt
			if s.Leaf.NotAfter.After(s.LoadedAt) && k.now().After(s.Leaf.NotAfter) {
				h.Since = s.Leaf.NotAfter
			}
		}
		h.Err = errors.Join(fmt.Errorf("the certificate that serves: %w", err), h.Err)
	}
	if h.Err == nil {
		h.Since = s.LoadedAt
		h.alarm(alarmOf(k.cfg, s, k.now()))
	}
	return h
}

// alarm adds what is to be said of a certificate that ends soon.
func (h *Health) alarm(a alarm) {
	switch {
	case a.text == "":
	case a.level >= slog.LevelError:
		h.Err, h.Since = errors.New(a.text), a.since
	case h.Warning == "":
		h.Warning = a.text
	default:
		h.Warning += "; " + a.text
	}
}

// read builds a snapshot from the files of a configuration.
func (k *Keyring) read(cfg config.ServerCert) (*Snapshot, error) {
	if cfg.Provider != config.ProviderFiles && cfg.Provider != config.ProviderCommercial {
		src, err := k.source(cfg)
		if err != nil {
			return nil, err
		}
		return k.readIssued(src)
	}
	pair, err := pki.LoadKeyPair(cfg.CertFile, cfg.KeyFile)
	if err != nil {
		// Both may have been replaced between the two reads, by one rename of their
		// directory.
		pair, err = pki.LoadKeyPair(cfg.CertFile, cfg.KeyFile)
	}
	if err != nil {
		return nil, fmt.Errorf("server certificate: %w", err)
	}
	usages := pair.Leaf.ExtKeyUsage
	if len(usages) > 0 && !slices.Contains(usages, x509.ExtKeyUsageServerAuth) && !slices.Contains(usages, x509.ExtKeyUsageAny) {
		return nil, fmt.Errorf("server certificate: %s: its extended key usage has no serverAuth, so no client would accept it", cfg.CertFile)
	}
	info, err := os.Stat(cfg.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("server certificate: %w", err)
	}
	s := &Snapshot{
		Certificate: &pair,
		Leaf:        pair.Leaf,
		Fingerprint: pki.Fingerprint(pair.Leaf),
		Files:       []string{cfg.CertFile, cfg.KeyFile},
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		s.keyWarning = fmt.Sprintf("private key file has mode %#o: more than its owner can use it", mode)
	}
	return s, nil
}

// mayReplace refuses to swap a certificate that is valid now for one that is
// not. When neither is, the newer file is the one that somebody meant.
func (k *Keyring) mayReplace(next *Snapshot) error {
	old, now := k.Current(), k.now()
	if old == nil || outsideDates(old.Leaf, now) != nil {
		return nil
	}
	if err := outsideDates(next.Leaf, now); err != nil {
		return fmt.Errorf("server certificate: %s: %w", next.Files[0], err)
	}
	return nil
}

// outsideDates says how a certificate is not valid at a time. Its text does not
// hold the present time, so that the same fault has the same text.
func outsideDates(c *x509.Certificate, now time.Time) error {
	switch {
	case now.Before(c.NotBefore):
		return fmt.Errorf("the certificate is not valid before %s", c.NotBefore.UTC().Format(time.RFC3339))
	case now.After(c.NotAfter):
		return fmt.Errorf("the certificate expired at %s", c.NotAfter.UTC().Format(time.RFC3339))
	}
	return nil
}

// same tells whether two snapshots show a client the same chain. The key need
// not be compared: both belong to the same leaf.
func same(a, b *Snapshot) bool {
	return slices.EqualFunc(a.Certificate.Certificate, b.Certificate.Certificate, bytes.Equal)
}
