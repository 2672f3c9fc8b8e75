package keyring

import (
	"cmp"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"

	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/pki"
	"cyphers.ai/tlsmcp/pkg/version"
)

// acmeSource gets certificates from an ACME server (RFC 8555).
//
// What is kept is kept apart for each directory, so that to go from an
// authority's staging server to its real one neither shows clients the wrong
// certificate nor mixes up accounts.
type acmeSource struct {
	cfg     config.ServerCert
	log     *slog.Logger
	now     func() time.Time
	dir     string
	client  *acmez.Client
	limits  *rateLimits
	slowest pace

	// The loop that renews is alone with these.
	failed bool             // the last attempt did
	ari    acme.RenewalInfo // of the certificate with the identifier that it holds
	ariAt  time.Time        // when to ask for it again
}

const (
	// acmePatience is for one whole order, validation included.
	acmePatience = 10 * time.Minute

	// ariPause is how often the server is asked when it wants a certificate
	// renewed, if it does not say itself (RFC 9773 section 4.3.2); ariLeast and
	// ariMost are what it may say.
	ariPause, ariLeast, ariMost = 6 * time.Hour, time.Minute, 24 * time.Hour
)

// acmePace keeps to five failures an hour, which is what the largest public
// authority allows, and does not let an authority that wants every certificate
// renewed at once have us go round.
func acmePace() pace {
	return pace{shortest: 2 * time.Minute, longest: time.Hour, rest: time.Hour}
}

func (k *Keyring) newACME(cfg config.ServerCert) (*acmeSource, error) {
	tlsConfig := &tls.Config{MinVersion: tls.VersionTLS12}
	if cfg.ACMECAFile != "" {
		trust, err := pki.LoadBundle(cfg.ACMECAFile)
		if err != nil {
			return nil, fmt.Errorf("server certificate: acme_ca_file: %w", err)
		}
		tlsConfig.RootCAs = x509.NewCertPool()
		for _, c := range trust {
			tlsConfig.RootCAs.AddCert(c)
		}
	}
	u, err := url.Parse(cfg.ACMEDirectory)
	if err != nil {
		return nil, fmt.Errorf("server certificate: acme_directory: %w", err)
	}
	sum := sha256.Sum256([]byte(cfg.ACMEDirectory))
	limits := &rateLimits{next: &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: tlsConfig, ForceAttemptHTTP2: true,
		TLSHandshakeTimeout: 10 * time.Second, IdleConnTimeout: time.Minute}}
	solvers := map[string]acmez.Solver{acme.ChallengeTypeTLSALPN01: alpnSolver{&k.challenges}}
	if cfg.ACMEHTTPAddress != "" {
		solvers[acme.ChallengeTypeHTTP01] = httpSolver{&k.challenges}
	}
	return &acmeSource{
		cfg: cfg, log: k.log, now: k.now, limits: limits, slowest: k.acmePace,
		dir: filepath.Join(k.stateDir, "keyring", "acme", u.Hostname()+"-"+hex.EncodeToString(sum[:8])),
		client: &acmez.Client{
			Client: &acme.Client{
				Directory:  cfg.ACMEDirectory,
				HTTPClient: &http.Client{Transport: limits, Timeout: 30 * time.Second},
				UserAgent:  "tlsmcp/" + version.Get().Version,
			},
			ChallengeSolvers: solvers,
		},
	}, nil
}

func (a *acmeSource) file() string { return filepath.Join(a.dir, "server.pem") }

func (a *acmeSource) fits(c *x509.Certificate) bool { return hasNames(c, a.cfg.Domains) }

func (a *acmeSource) pace() pace {
	p := a.slowest
	p.until = a.limits.until()
	return p
}

func (a *acmeSource) obtain(ctx context.Context, replaced *x509.Certificate) (both []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, acmePatience)
	defer cancel()
	defer a.limits.next.CloseIdleConnections() // the next use is weeks away
	defer func() { a.failed = err != nil }()

	account, err := a.account(ctx)
	if err != nil {
		return nil, fmt.Errorf("ACME account: %w", err)
	}
	key, err := pki.NewKey(pki.ECDSAP256)
	if err != nil {
		return nil, err
	}
	csr, err := acmez.NewCSR(key, a.cfg.Domains)
	if err != nil {
		return nil, err
	}
	order, err := acmez.OrderParametersFromCSR(account, csr)
	if err != nil {
		return nil, err
	}
	// To name the certificate that is replaced is a courtesy that some servers
	// reward with a pass by their rate limits (RFC 9773 section 5). An order
	// that failed is tried without it.
	if replaced != nil && !a.failed && a.knows(replaced) {
		order.Replaces = replaced
	}
	chains, err := a.client.ObtainCertificate(ctx, order)
	if err != nil {
		return nil, fmt.Errorf("by ACME: %w", err)
	}
	if len(chains) == 0 {
		return nil, errors.New("by ACME: the server gave no certificate")
	}
	return keyAndChain(key, chains[0].ChainPEM)
}

// account signs up, which with a key that the server knows gives the account
// that there is (RFC 8555 section 7.3). An address has a key of its own: a
// change of acme_email is a new account.
func (a *acmeSource) account(ctx context.Context) (acme.Account, error) {
	sum := sha256.Sum256([]byte(a.cfg.ACMEEmail))
	key, err := accountKey(filepath.Join(a.dir, "account-"+hex.EncodeToString(sum[:8])+".pem"))
	if err != nil {
		return acme.Account{}, err
	}
	// Whoever configures the provider agrees to its terms: the documentation of
	// server_cert.provider says so.
	account := acme.Account{TermsOfServiceAgreed: true, PrivateKey: key}
	if a.cfg.ACMEEmail != "" {
		account.Contact = []string{"mailto:" + a.cfg.ACMEEmail}
	}
	return a.client.NewAccount(ctx, account)
}

// accountKey reads the key, or makes it the first time.
func accountKey(path string) (crypto.Signer, error) {
	raw, err := os.ReadFile(path)
	if err == nil {
		return pki.ParseKey(raw)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	key, err := pki.NewKey(pki.ECDSAP256)
	if err != nil {
		return nil, err
	}
	if raw, err = pki.EncodeKey(key); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	return key, pki.WriteFileAtomic(path, raw, 0o600)
}

// knows tells whether the server said when it wants c renewed.
func (a *acmeSource) knows(c *x509.Certificate) bool {
	id, err := acme.ARIUniqueIdentifier(c)
	return err == nil && a.ari.HasWindow() && a.ari.UniqueIdentifier == id
}

// advice is a moment in the window that the server suggests (RFC 9773). It is
// asked again now and then, since it moves the window up when it has to revoke.
// The moment stays the same for as long as the window does.
func (a *acmeSource) advice(ctx context.Context, c *x509.Certificate) time.Time {
	known := a.knows(c)
	if !known {
		a.ari = acme.RenewalInfo{}
	}
	if now := a.now(); known && !now.Before(a.ariAt) || !known && (a.ariAt.IsZero() || !now.Before(a.ariAt)) {
		a.ask(ctx, c, now)
	}
	return a.ari.SelectedTime
}

func (a *acmeSource) ask(ctx context.Context, c *x509.Certificate, now time.Time) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	defer a.limits.next.CloseIdleConnections()
	a.ariAt = now.Add(ariPause)
	info, err := a.client.GetRenewalInfo(ctx, c)
	switch {
	case errors.Is(err, acme.ErrUnsupported):
		return
	case err != nil:
		a.log.Warn("the ACME server does not say when to renew", event.KeyURL, a.cfg.ACMEDirectory, event.KeyError, err)
		return // what it said before holds
	}
	if info.RetryAfter != nil {
		a.ariAt = now.Add(min(max(time.Until(*info.RetryAfter), ariLeast), ariMost))
	}
	if info.UniqueIdentifier == a.ari.UniqueIdentifier && info.SameWindow(a.ari) {
		return
	}
	a.ari = info
	a.log.Info("the ACME server says when to renew", event.KeyDetail, info.SelectedTime.UTC().Format(time.RFC3339),
		event.KeyURL, cmp.Or(info.ExplanationURL, a.cfg.ACMEDirectory))
}

// rateLimits notes when a server asks for silence: Retry-After beside a status
// that says that it would not do what it was asked (RFC 8555 section 6.6).
type rateLimits struct {
	next *http.Transport

	mu  sync.Mutex // guards end
	end time.Time
}

// longestSilence bounds what a server may ask for.
const longestSilence = 24 * time.Hour

// RoundTrip implements http.RoundTripper.
func (r *rateLimits) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := r.next.RoundTrip(req)
	if err != nil || !slices.Contains([]int{http.StatusTooManyRequests, http.StatusServiceUnavailable, http.StatusForbidden}, resp.StatusCode) {
		return resp, err
	}
	if wait := retryAfter(resp.Header.Get("Retry-After"), time.Now()); wait > 0 {
		r.mu.Lock()
		r.end = time.Now().Add(min(wait, longestSilence))
		r.mu.Unlock()
	}
	return resp, nil
}

// until is when the silence is over.
func (r *rateLimits) until() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.end
}

// retryAfter reads seconds or a date (RFC 9110 section 10.2.3); 0: neither, or
// past.
func retryAfter(v string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(v, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(v); err == nil {
		return max(at.Sub(now), 0)
	}
	return 0
}
